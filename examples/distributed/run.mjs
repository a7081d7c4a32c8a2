// npm run distributed -- --ranks 4 [--mpirun COMMAND]
// Runs train.mjs in one process and in several, and compares what they have learned.
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const { values } = parseArgs({
  options: { ranks: { type: 'string' }, mpirun: { type: 'string' } },
});
const ranks = Number(values.ranks ?? 2);
if (!Number.isInteger(ranks) || ranks < 1) {
  console.error(`--ranks: ${values.ranks} is not a whole number of at least 1`);
  process.exit(2);
}

/** The first that is there, and its version. */
function findMpirun() {
  for (const command of values.mpirun
    ? [values.mpirun]
    : ['mpirun', 'mpirun.openmpi', 'mpirun.mpich']) {
    const { status, stdout } = spawnSync(command, ['--version'], { encoding: 'utf8' });
    if (status === 0) return { command, isOpenMpi: /open-?(mpi|rte)/i.test(stdout) };
  }
  console.error('No mpirun was found. Debian and Ubuntu have it in openmpi-bin and in mpich.');
  process.exit(1);
}
const { command, isOpenMpi } = findMpirun();

/** The line with the weights of a run of so many ranks. */
function train(count) {
  const options = isOpenMpi
    ? ['--oversubscribe', ...(process.getuid?.() === 0 ? ['--allow-run-as-root'] : [])]
    : [];
  const script = fileURLToPath(new URL('train.mjs', import.meta.url));
  const args = [...options, '-np', String(count), process.execPath, script];
  const { status, stdout, stderr } = spawnSync(command, args, { encoding: 'utf8' });
  process.stdout.write(stdout);
  if (status === 0) return /weights (\w+)/.exec(stdout)?.[1];
  process.stderr.write(stderr);
  process.exit(1);
}

const [one, many] = [1, ranks].map(train);
console.log(one === many ? 'The same bits.' : 'The weights differ.');
process.exitCode = one === many ? 0 : 1;
