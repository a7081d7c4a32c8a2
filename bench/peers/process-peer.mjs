import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { createInterface } from 'node:readline';

/**
 * A peer that is a program. It gets the batch as files, does the work once and prints a line of JSON with what it computed; then,
 * for each line "go", it does the work again and prints the milliseconds. So it takes its turns in the same rounds as everything
 * else, and waits without a sound in between.
 *
 * @param {object} description of a Peer (ts/bench/peers.ts), less `load`
 * @param {(directory: string, batch, threads: number) => { command: string, args: string[], env?: object } | undefined} prepare
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
      for (const name of ['logits', 'labels', 'reference']) writeFileSync(path.join(directory, name), batch[name]);
      const child = spawn(started.command, started.args, {
        env: { ...process.env, OMP_NUM_THREADS: String(threads), ...started.env },
        stdio: ['pipe', 'pipe', 'inherit'],
      });
      const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
      const next = async () => {
        const { value, done } = await lines.next();
        if (done) throw new Error(`${description.name}: the process ended`);
        return value;
      };
      try {
        const { version, loss, gradientSum, extraMiB } = JSON.parse(await next());
        return {
          version,
          extraMiB,
          result: () => ({ loss, gradientSum }),
          run: async () => {
            child.stdin.write('go\n');
            return Number(await next());
          },
          close: () => new Promise((resolve) => child.on('close', resolve).stdin.end()),
        };
      } finally {
        rmSync(directory, { recursive: true });
      }
    },
  };
}
