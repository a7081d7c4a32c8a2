// mpirun, where it is installed: of Open MPI, of MPICH, or neither.
import { execFileSync, spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';

export interface Launcher {
  readonly name: string;
  readonly command: string;
  readonly args: readonly string[];
}

const known: readonly Launcher[] = [
  {
    name: 'Open MPI',
    command: 'mpirun.openmpi',
    args: ['--allow-run-as-root', '--oversubscribe', '--bind-to', 'none'],
  },
  { name: 'MPICH', command: 'mpirun.mpich', args: ['-bind-to', 'none'] },
];

export const launchers: readonly Launcher[] = known.filter(({ command }) => {
  try {
    execFileSync(command, ['--version'], { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
});

export interface EndedJob {
  readonly code: number | string;
  readonly text: string;
  readonly seconds: number;
}

/** Runs a script of tests/fixtures/distributed in so many processes; a hang is an error here. */
export async function launch(
  { command, args }: Launcher,
  ranks: number,
  script: string,
  scriptArgs: readonly string[],
): Promise<EndedJob> {
  const file = fileURLToPath(new URL(`../fixtures/distributed/${script}`, import.meta.url));
  const all = [...args, '-np', String(ranks), process.execPath, file, ...scriptArgs];
  const begin = performance.now();
  const child = spawn(command, all, {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, NO_COLOR: '1' },
  });
  let text = '';
  for (const stream of [child.stdout, child.stderr])
    stream.on('data', (data: Buffer) => {
      text += data.toString();
    });
  const guard = setTimeout(() => child.kill('SIGKILL'), 100_000);
  const code = await new Promise<number | string>((resolve) => {
    child.on('close', (status, signal) => {
      resolve(signal ?? status ?? NaN);
    });
  });
  clearTimeout(guard);
  return { code, text, seconds: (performance.now() - begin) / 1000 };
}
