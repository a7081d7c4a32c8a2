// For which GPUs a build is: those that are visible, or what `--cuda` says.
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';

/** Turing; nvcc 13 knows nothing older. */
const oldest = 75;

/**
 * @param {string | undefined} given by --cuda
 * @param {readonly string[]} defines options of CMake that were given, which win
 * @param {string} command with which the user builds
 * @returns options of CMake, and a line for the user where there is something to say
 * @throws Error for a list that means nothing
 */
export function cudaSettings(given, defines, command) {
  if (given === undefined) {
    if (defines.some((define) => /^DIRALIGN_CUDA(_ARCHITECTURES)?[:=]/.test(define)))
      return { defines: [] };
    const chosen = process.env.DIRALIGN_CUDA_ARCHITECTURES;
    return chosen ? settings('AUTO', chosen) : visible(command);
  }
  if (given === 'auto') return visible(command);
  if (given === 'none') return { defines: ['DIRALIGN_CUDA=OFF'] };
  if (given === 'all') return settings('ON', 'all');
  const architectures = given
    .split(',')
    .map((name) => /^(\d+)\.?(\d[a-z]?)$/.exec(name.trim())?.slice(1).join(''));
  if (architectures.some((name) => name === undefined || parseInt(name) < oldest)) {
    throw new Error(
      `--cuda: '${given}' is not auto, none, all, or compute capabilities of ${oldest} or ` +
        'later with commas, such as 80,90',
    );
  }
  return settings('ON', architectures.map((name) => `${name}-real`).join(';'));
}

function settings(backend, architectures, line) {
  return {
    defines: [`DIRALIGN_CUDA=${backend}`, `DIRALIGN_CUDA_ARCHITECTURES=${architectures}`],
    line,
  };
}

function visible(command) {
  const capabilities = [...new Set(askDriver())].map((text) => text.replace('.', ''));
  const usable = capabilities.filter((capability) => Number(capability) >= oldest);
  if (usable.length > 0) return settings('AUTO', usable.map((each) => `${each}-real`).join(';'));
  const why =
    capabilities.length > 0
      ? `the GPU has compute capability ${capabilities[0]} and CUDA 13 needs ${oldest}`
      : existsSync('/dev/nvidia0') && !isHidden()
        ? 'a GPU is there, but nvidia-smi does not say which'
        : 'no GPU is visible';
  return {
    defines: ['DIRALIGN_CUDA=OFF'],
    line:
      `${why}, so CUDA is left out; with it: ` +
      `${command} --cuda 90 (a compute capability, or all)`,
  };
}

function isHidden() {
  return ['', '-1'].includes(process.env.CUDA_VISIBLE_DEVICES?.trim());
}

/** Compute capabilities of the visible GPUs, such as 9.0. */
function askDriver() {
  if (isHidden()) return [];
  for (const program of ['nvidia-smi', '/usr/lib/wsl/lib/nvidia-smi']) {
    const query = ['--query-gpu=compute_cap', '--format=csv,noheader'];
    const { status, stdout } = spawnSync(program, query, { encoding: 'utf8', timeout: 30_000 });
    if (status === 0)
      return stdout
        .split('\n')
        .filter((line) => /^\d+\.\d$/.test(line.trim()))
        .map((line) => line.trim());
  }
  return [];
}
