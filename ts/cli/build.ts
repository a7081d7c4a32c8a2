import { spawn } from 'node:child_process';
import path from 'node:path';
import { failed, ok, type Command } from './command.js';
import { packageRoot } from './package.js';
import { paint, printJson } from '../text/terminal.js';

interface Ended {
  readonly status: number;
  readonly output: string;
}

/**
 * The script does all of it, the check of its arguments included; the library is not touched, for
 * it may not load yet.
 */
async function runScript(args: readonly string[], captured: boolean): Promise<Ended> {
  const script = path.join(packageRoot, 'scripts', 'build-native.mjs');
  const child = spawn(process.execPath, [script, ...args], {
    stdio: [
      'ignore',
      ...(captured ? (['pipe', 'pipe'] as const) : (['inherit', 'inherit'] as const)),
    ],
  });
  // The script ends its compilers; the terminal's own signal reaches it as well.
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const)
    process.on(signal, () => child.kill(signal));
  let output = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream?.setEncoding('utf8').on('data', (text: string) => {
      output += text;
    });
  }
  const status = await new Promise<number>((resolve, reject) => {
    child.on('error', reject).on('close', (code) => {
      // Ended by a signal: there is no status.
      resolve(code ?? failed);
    });
  });
  return { status, output };
}

async function run(args: string[]): Promise<number> {
  const json = args.includes('--json');
  const { status, output } = await runScript(
    args.filter((arg) => arg !== '--json'),
    json,
  );
  if (json) printJson({ built: status === ok, status, output: output.trim().split('\n') });
  return status;
}

export const buildCommand: Command = {
  name: 'build',
  summary: 'build the addon from source with CMake, where no prebuilt one fits',
  usage: `diralign build: build the addon from source, where no prebuilt one fits

${paint('bold', 'Usage')}
  diralign build [options]

Needs CMake 3.18 or later and a C++20 compiler; says what to install where one is missing. The addon
is left in the package, which finds it there.

${paint('bold', 'Options')}
  --cuda LIST        auto (default): for the GPUs that are visible, without one no CUDA; none; all
                     architectures; or compute capabilities with commas, such as 80,90. Needs nvcc
                     12.8 or later
  --config NAME      Release (default) or Debug
  --build-dir DIR    build there, and leave diralign.node there, which
                     DIRALIGN_ADDON=DIR/diralign.node loads; a new or empty directory, or one that a
                     build has made
  --clean            start from nothing: remove what builds have left in the directory
  --log FILE         write there what CMake and the compilers say
  -D NAME=VALUE      an option of CMake
  --json             the outcome and the output of the build as JSON

${paint('bold', 'Examples')}
  npx diralign build
  npx diralign build --cuda 90
  npx diralign build --clean --config Debug`,
  run,
};
