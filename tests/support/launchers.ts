// mpirun, where it is installed: of Open MPI, of MPICH, or neither.
import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { findLauncher } from '../../ts/bench/launcher.js';

export interface Launcher {
  readonly name: string;
  readonly command: string;
  readonly options: readonly string[];
}

export const launchers: readonly Launcher[] = Object.entries({
  'Open MPI': 'mpirun.openmpi',
  MPICH: 'mpirun.mpich',
}).flatMap(([name, command]) => {
  try {
    return [{ name, ...findLauncher(command) }];
  } catch {
    return [];
  }
});

export interface EndedJob {
  readonly code: number | string;
  readonly text: string;
  /** Processes of the job that have not ended. */
  readonly alive: readonly number[];
}

/**
 * Runs a script of tests/fixtures/distributed in so many processes, which say their ids.
 * @param patience seconds until the launcher is killed.
 */
export async function launch(
  { command, options }: Launcher,
  ranks: number,
  script: string,
  scriptArgs: readonly string[],
  patience = 100,
): Promise<EndedJob> {
  const file = fileURLToPath(new URL(`../fixtures/distributed/${script}`, import.meta.url));
  const all = [...options, '-np', String(ranks), process.execPath, file, ...scriptArgs];
  const child = spawn(command, all, {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, NO_COLOR: '1' },
  });
  let text = '';
  for (const stream of [child.stdout, child.stderr])
    stream.on('data', (data: Buffer) => {
      text += data.toString();
    });
  const guard = setTimeout(() => child.kill('SIGKILL'), 1000 * patience);
  const code = await new Promise<number | string>((resolve) => {
    child.on('close', (status, signal) => {
      resolve(signal ?? status ?? NaN);
    });
  });
  clearTimeout(guard);
  const pids = [...text.matchAll(/PID (\d+)/g)].map(([, pid]) => Number(pid));
  // A launcher may be gone before the ranks that it has ended.
  const limit = performance.now() + 10_000;
  while (pids.some(isAlive) && performance.now() < limit) await delay(50);
  return { code, text, alive: pids.filter(isAlive) };
}

/** Whether it runs, or may do so again. One that has ended waits as a zombie until it is reaped. */
function isAlive(pid: number): boolean {
  try {
    return !readFileSync(`/proc/${pid}/stat`, 'utf8').includes(') Z ');
  } catch {
    return false;
  }
}
