import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import type { BenchOptions, BenchResult } from './run.js';

/** Only built files can be run by node: the same place from the source and from the package. */
const command = fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url));

/** The same benchmark, without peers, in a process that uses another instruction set. */
export async function benchWith(
  isa: string,
  { shape, threads, rounds, modes, fractions }: BenchOptions,
): Promise<BenchResult> {
  const args = Object.entries({ shape, threads, rounds, modes, fraction: fractions });
  const { stdout } = await promisify(execFile)(
    process.execPath,
    [
      command,
      'bench',
      '--json',
      '--peers',
      'none',
      ...args.flatMap(([name, value]) => [`--${name}`, String(value)]),
    ],
    { env: { ...process.env, DIRALIGN_ISA: isa }, maxBuffer: 1 << 24 },
  );
  return JSON.parse(stdout) as BenchResult;
}
