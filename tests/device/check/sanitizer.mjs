// NVIDIA's compute-sanitizer over a small run of the other sections. It is part of the CUDA
// toolkit, not of the driver.
import { spawn } from 'node:child_process';
import path from 'node:path';
import { root } from '../../../scripts/device/machine.mjs';
import { toolPath } from '../../../scripts/device/tools.mjs';

const found = 86;

/**
 * What a run of the tool says: `'clean'` only where its own summary says that it looked and found
 * nothing. A tool that cannot work on this machine also ends without findings.
 */
export function verdict({ status, output }) {
  const summary =
    /(?:ERROR SUMMARY: (\d+) error|RACECHECK SUMMARY: \d+ hazards? displayed \((\d+) error)/.exec(
      output,
    );
  if (status === found) return 'found errors';
  if (!summary) return 'did not run';
  if (Number(summary[1] ?? summary[2]) > 0) return 'found errors';
  return status === 0 ? 'clean' : 'the checked run failed';
}

const patience = 1_200_000;

/** What a command says and how it ends. */
async function collect(command, args) {
  const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'], timeout: patience });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (data) => (output += data));
  return new Promise((resolve) => {
    child.on('error', (error) => resolve({ status: null, output, error }));
    child.on('close', (status) => resolve({ status, output }));
  });
}

export async function sanitizer({ misses, scale, progress, note }) {
  const program = toolPath('compute-sanitizer');
  if (!program) {
    note('not available: compute-sanitizer is neither on PATH nor in /usr/local/cuda/bin');
    return;
  }
  // Side by side: each is slow by what it does to the processor's part.
  let ended = 0;
  const look = async (tool) => {
    const run = await collect(program, [
      ...[
        '--tool',
        tool,
        '--error-exitcode',
        String(found),
        '--target-processes',
        'all',
        '--report-api-errors',
        'no',
      ],
      ...(tool === 'memcheck' ? ['--leak-check', 'no'] : []),
      ...[
        process.execPath,
        path.join(root, 'tests/device/check.mjs'),
        '--scale',
        'tiny',
        '--no-results',
      ],
      ...['--only', 'vectors,reference,independence'],
    ]);
    const { output } = run;
    const said = verdict({ status: run.status, output });
    if (said === 'did not run') {
      const why = run.error?.message ?? output.trim().split('\n').slice(-3).join(' / ');
      note(`${tool}: not available: ${why}`);
    } else
      misses.require(
        said === 'clean',
        () => `${tool} ${said}:\n${output.trim().split('\n').slice(0, 40).join('\n')}`,
      );
    await progress(++ended / scale.tools.length);
  };
  await Promise.all(scale.tools.map(look));
}
