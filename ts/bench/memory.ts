import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

export interface ExtraMemory {
  readonly mode: string;
  readonly rows: number;
  /** Highest resident memory during the call, over what was there before it. */
  readonly extraMiB: number;
  readonly logitsMiB: number;
}

/** Only built files can be run by node: the same place from the source and from the package. */
const child = fileURLToPath(new URL('../../dist/bench/memory-child.js', import.meta.url));

/**
 * The extra memory of one call in a process of its own, where nothing was computed or freed before;
 * undefined where the system does not tell (only Linux does).
 */
export async function extraMemory(
  mode: string,
  shape: readonly [pairs: number, tokens: number, vocab: number],
  threads: number,
): Promise<ExtraMemory | undefined> {
  if (process.platform !== 'linux') return undefined;
  const { stdout } = await promisify(execFile)(process.execPath, [
    '--expose-gc',
    child,
    JSON.stringify({ mode, shape, threads }),
  ]);
  return JSON.parse(stdout) as ExtraMemory;
}
