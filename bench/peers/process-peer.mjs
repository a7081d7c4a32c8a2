import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { createInterface } from 'node:readline';

/** Libraries choose their instructions themselves, unless told; DIRALIGN_ISA=avx2 holds for all. */
const instructions =
  process.env.DIRALIGN_ISA === 'avx2'
    ? { ATEN_CPU_CAPABILITY: 'avx2', DNNL_MAX_CPU_ISA: 'AVX2', OPENBLAS_CORETYPE: 'Haswell' }
    : {};

/**
 * A program that does the work once and prints a line of JSON with what it computed; then, for each
 * line "go", it does the work again and prints the milliseconds.
 *
 * @param {{ command: string, args: string[], env?: object }} what to start
 * @returns what it computed, with `run` and `close`
 */
export async function startProcess(name, { command, args, env }, threads) {
  const child = spawn(command, args, {
    env: { ...instructions, ...process.env, OMP_NUM_THREADS: String(threads), ...env },
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const next = async () => {
    const { value, done } = await lines.next();
    if (done) throw new Error(`${name}: the process ended`);
    return value;
  };
  const computed = JSON.parse(await next());
  return {
    ...computed,
    run: async () => {
      child.stdin.write('go\n');
      return Number(await next());
    },
    close: () => new Promise((resolve) => child.on('close', resolve).stdin.end()),
  };
}

/**
 * A peer that is a program. It gets the batch as files and takes its turns in the same rounds as
 * everything else; in between it waits without a sound.
 *
 * @param {object} description of a Peer (ts/bench/peers.ts), less `load`
 * @param {(directory: string, batch, threads: number) => { command: string, args: string[], env?:
 *   object } | undefined} prepare
 *   what to start, or undefined where it is not installed
 */
export function processPeer(description, prepare) {
  return {
    slow: false,
    work: 'loss and gradient',
    ...description,
    async load(batch, threads) {
      const directory = mkdtempSync(path.join(os.tmpdir(), 'diralign-bench-'));
      const started = prepare(directory, batch, threads);
      if (!started) {
        rmSync(directory, { recursive: true });
        return undefined;
      }
      try {
        for (const name of ['logits', 'labels', 'reference'])
          writeFileSync(path.join(directory, name), batch[name]);
        const { version, loss, gradientSum, extraMiB, run, close } = await startProcess(
          description.name,
          started,
          threads,
        );
        return { version, extraMiB, result: () => ({ loss, gradientSum }), run, close };
      } finally {
        rmSync(directory, { recursive: true });
      }
    },
  };
}
