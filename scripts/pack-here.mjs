// The tarball with the addon that was built here, whichever prebuilt ones the repository has.
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { nativePath } from '../dist/native/interface.js';
import { prebuiltName } from '../dist/native/prebuilt.js';

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..');

/** Below the package. */
export const prebuilt = path.join('prebuilds', prebuiltName());

function mustRun(cwd, command, args) {
  const { status, stdout } = spawnSync(command, args, {
    cwd,
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'inherit'],
    shell: process.platform === 'win32',
  });
  if (status !== 0) throw new Error(`${command} ${args.join(' ')} ended with ${status}`);
  return stdout;
}

/** Runs npm; what it prints. */
export const npm = (cwd, ...args) => mustRun(cwd, 'npm', [...args, '--loglevel=error']);

/** The prebuilt addons that a complete package has, below `prebuilds`. */
export const platforms = [
  ...fs
    .readFileSync(path.join(root, 'dist/native/prebuilt.js'), 'utf8')
    .matchAll(/case '([^']+)':/g),
].map(([, name]) => name);

/**
 * Makes it in a new folder, and returns its path. `standIns` are what it has in place of other
 * systems' addons.
 */
export function packHere(folder, { standIns = [] } = {}) {
  fs.mkdirSync(folder);
  const [{ files }] = JSON.parse(npm(root, 'pack', '--dry-run', '--json', '--ignore-scripts'));
  for (const { path: file } of files.filter((each) => !each.path.startsWith('prebuilds/')))
    fs.cpSync(path.join(root, file), path.join(folder, file));
  for (const name of standIns) {
    const file = path.join(folder, 'prebuilds', name);
    fs.mkdirSync(path.dirname(file), { recursive: true });
    fs.writeFileSync(file, name);
  }
  fs.cpSync(nativePath(), path.join(folder, prebuilt));
  mustRun(folder, process.execPath, [path.join(root, 'scripts/prepack.mjs')]);
  const [{ filename }] = JSON.parse(npm(folder, 'pack', '--json', '--ignore-scripts'));
  return path.join(folder, filename);
}
