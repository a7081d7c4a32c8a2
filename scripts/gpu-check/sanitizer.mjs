// NVIDIA's compute-sanitizer over a small run of the other sections. It is part of the CUDA toolkit, not of the driver.
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import path from 'node:path';
import { root } from '../../bench/gpu/machine.mjs';

const found = 86;

export function sanitizerPath() {
  const candidates = [
    ...(process.env.PATH ?? '').split(path.delimiter).map((folder) => path.join(folder, 'compute-sanitizer')),
    ...[process.env.CUDA_HOME, '/usr/local/cuda'].filter(Boolean).map((home) => path.join(home, 'bin/compute-sanitizer')),
  ];
  return candidates.find((file) => existsSync(file));
}

/**
 * What a run of the tool says: `'clean'` only where its own summary says that it looked and found nothing. A tool that cannot work
 * on this machine also ends without findings.
 */
export function verdict({ status, output }) {
  const summary = /(?:ERROR SUMMARY: (\d+) error|RACECHECK SUMMARY: \d+ hazards? displayed \((\d+) error)/.exec(output);
  if (status === found) return 'found errors';
  if (!summary) return 'did not run';
  if (Number(summary[1] ?? summary[2]) > 0) return 'found errors';
  return status === 0 ? 'clean' : 'the checked run failed';
}

export async function sanitizer({ misses, scale, progress, note }) {
  const program = sanitizerPath();
  if (!program) {
    note('not available: compute-sanitizer is neither on PATH nor in /usr/local/cuda/bin');
    return;
  }
  for (const [i, tool] of scale.tools.entries()) {
    const run = spawnSync(
      program,
      [
        ...['--tool', tool, '--error-exitcode', String(found), '--target-processes', 'all', '--report-api-errors', 'no'],
        ...(tool === 'memcheck' ? ['--leak-check', 'no'] : []),
        ...[process.execPath, path.join(root, 'scripts/gpu-check.mjs'), '--scale', 'tiny', '--no-results'],
        ...['--only', 'vectors,reference,independence'],
      ],
      { encoding: 'utf8', maxBuffer: 2 ** 28, timeout: 1_200_000 },
    );
    const output = `${run.stdout ?? ''}${run.stderr ?? ''}`;
    const said = verdict({ status: run.status, output });
    if (said === 'did not run') {
      const why = run.error?.message ?? output.trim().split('\n').slice(-3).join(' / ');
      note(`${tool}: not available: ${why}`);
    } else misses.require(said === 'clean', () => `${tool} ${said}:\n${output.trim().split('\n').slice(0, 40).join('\n')}`);
    await progress((i + 1) / scale.tools.length);
  }
}
