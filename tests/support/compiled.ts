// The package as JavaScript, for child processes and workers: compiled from ts/ as it is now, into
// a folder of its own beside links to the addon and to node_modules, so that a stale dist/ is never
// what is tested.
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';

const root = fileURLToPath(new URL('../..', import.meta.url));

export interface Compiled {
  /** URL of the package's entry. */
  readonly url: string;
  readonly remove: () => void;
}

/** Compiles ts/ into dist/, or as the options say. */
export function compile(...options: readonly string[]): void {
  const { status, stdout } = spawnSync(
    process.execPath,
    [
      path.join(root, 'node_modules/@typescript/native/bin/tsc'),
      '-p',
      'tsconfig.build.json',
      ...options,
    ],
    { cwd: root, encoding: 'utf8' },
  );
  if (status !== 0) throw new Error(stdout);
}

/** The JavaScript alone, unchecked. */
export function compileInto(folder: string): void {
  compile('--outDir', folder, '--declaration', 'false', '--noCheck');
}

export function compilePackage(): Compiled {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'diralign-compiled-'));
  compileInto(path.join(folder, 'dist'));
  for (const name of ['build', 'prebuilds', 'node_modules']) {
    if (fs.existsSync(path.join(root, name)))
      fs.symlinkSync(path.join(root, name), path.join(folder, name), 'dir');
  }
  fs.copyFileSync(path.join(root, 'package.json'), path.join(folder, 'package.json'));
  return {
    url: pathToFileURL(path.join(folder, 'dist', 'index.js')).href,
    remove: () => {
      fs.rmSync(folder, { recursive: true, force: true });
    },
  };
}

/** A script of tests/fixtures/lifecycle. */
export function script(name: string): string {
  return path.join(root, 'tests/fixtures/lifecycle', name);
}
