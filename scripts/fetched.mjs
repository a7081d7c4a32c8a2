// Packages of the registry that scripts need at times and that nobody should have to install:
// fetched once, into build/.
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';

function npm(folder, args) {
  const quiet = ['--no-fund', '--no-audit', '--ignore-scripts', '--loglevel=error'];
  const { status } = spawnSync('npm', [...args, ...quiet], {
    cwd: folder,
    stdio: 'inherit',
    shell: process.platform === 'win32',
  });
  return status === 0;
}

/**
 * The path of `file` in the package `name`, of any platform, which is fetched into `folder` where
 * it is not there: the newest of `version`.
 */
export function fetchBinary(folder, { name, version, file }) {
  const found = path.join(folder, 'node_modules', name, file);
  if (fs.existsSync(found)) return found;
  fs.mkdirSync(folder, { recursive: true });
  fs.writeFileSync(path.join(folder, 'package.json'), '{ "private": true }\n');
  // --force: also what is for another system than this.
  if (!npm(folder, ['install', '--no-save', '--force', `${name}@${version}`]))
    throw new Error(`${name}@${version} could not be fetched`);
  fs.chmodSync(found, 0o755);
  return found;
}

/** The same of a folder with a lock file, which says the versions and their hashes. */
export function fetchLocked(source, folder, file) {
  const lock = fs.readFileSync(path.join(source, 'package-lock.json'));
  const [found, kept] = [path.join(folder, file), path.join(folder, 'package-lock.json')];
  if (fs.existsSync(found) && fs.existsSync(kept) && fs.readFileSync(kept).equals(lock))
    return found;
  fs.mkdirSync(folder, { recursive: true });
  fs.copyFileSync(path.join(source, 'package.json'), path.join(folder, 'package.json'));
  fs.writeFileSync(kept, lock);
  if (!npm(folder, ['ci'])) throw new Error(`what ${source} locks could not be fetched`);
  fs.chmodSync(found, 0o755);
  return found;
}
