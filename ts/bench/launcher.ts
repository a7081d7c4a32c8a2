/** mpirun, of Open MPI or of MPICH and its kin. */
import { spawnSync } from 'node:child_process';

/** Neither name of it is there, or a run of it failed. */
export class LauncherProblem extends Error {}

const usual = ['mpirun', 'mpirun.openmpi', 'mpirun.mpich'];

/** What starts processes that meet by MPI. */
export interface Launcher {
  readonly command: string;
  readonly options: readonly string[];
}

/**
 * @param given its command; default: the first that is found.
 * @throws LauncherProblem where it is not there
 */
export function findLauncher(given: string | undefined): Launcher {
  for (const command of given === undefined ? usual : [given]) {
    const { status, stdout } = spawnSync(command, ['--version'], { encoding: 'utf8' });
    if (status !== 0) continue;
    const isOpenMpi = /open-?(mpi|rte)/i.test(stdout);
    // Ranks of several threads must not be bound to one core each.
    if (!isOpenMpi) return { command, options: ['-bind-to', 'none'] };
    const asRoot = process.getuid?.() === 0 ? ['--allow-run-as-root'] : [];
    return { command, options: ['--oversubscribe', '--bind-to', 'none', ...asRoot] };
  }
  throw new LauncherProblem(
    given === undefined
      ? 'no mpirun was found; Debian and Ubuntu have it in openmpi-bin and in mpich'
      : `mpirun: '${given}' cannot be started`,
  );
}
