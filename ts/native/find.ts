/** Finds the addon: in the package, or where a bundler has left it. */
import { readFileSync, statSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { typeError, type DirAlignError } from '../errors.js';
import { prebuiltName, prebuiltUrl } from './prebuilt.js';
import { environment, platform } from './system.js';
import { remedy, whyForbidden } from './why-not-loaded.js';

export function loadError(message: string, cause?: unknown): DirAlignError {
  return typeError('ERR_DIRALIGN_LOAD', message, cause === undefined ? undefined : { cause });
}

/** @throws DirAlignError with code ERR_DIRALIGN_LOAD */
export function findAddon(): string {
  const chosen = environment('DIRALIGN_PREBUILD');
  if (chosen !== undefined) {
    const root = path.resolve(chosen);
    return (
      inPackage(root) ??
      fail(`${root}, which DIRALIGN_PREBUILD names, has no addon for ${platform()}. ${remedy}`)
    );
  }
  let root: string | undefined;
  try {
    root = packageRoot();
  } catch (forbidden) {
    // Of a bundle it is on the machine that bundled, where a permission model may forbid to look.
    const found = bundlePlaces().find((file) => look(file) === 'there');
    if (found !== undefined) return found;
    throw forbidden;
  }
  if (root === undefined) return inBundle();
  return inPackage(root) ?? fail(`There is no prebuilt binary for ${platform()}. ${remedy}`);
}

function fail(message: string): never {
  throw loadError(message);
}

/** What was built on this machine goes before what came with the package. */
function inPackage(root: string): string | undefined {
  return [
    path.join(root, 'build/Release/diralign.node'),
    path.join(root, 'build/Debug/diralign.node'),
    path.join(root, 'prebuilds', prebuiltName()),
  ].find(isFile);
}

/** @throws DirAlignError with code ERR_DIRALIGN_LOAD */
function inBundle(): string {
  const looked: string[] = [];
  for (const file of bundlePlaces()) {
    const seen = look(file);
    if (seen === 'there') return file;
    looked.push(seen === 'forbidden' ? `${file} may not be read` : `there is no ${file}`);
  }
  throw loadError(
    'diralign was bundled without its native ' +
      `addon${looked.length === 0 ? '' : ` (${looked.join(', ')})`}. ` +
      "Copy the folder prebuilds of diralign's package to beside the bundle, " +
      'or the executable that has it inside; or mark diralign as external (esbuild: ' +
      '--external:diralign; ' +
      'Rollup and webpack: external(s); Vite: ssr.external; Next.js: ' +
      'serverExternalPackages) and have it in node_modules where the ' +
      'bundle runs; or set DIRALIGN_ADDON to the path of its .node file.',
  );
}

/** Where a bundler that copies the addon has left it, and in `prebuilds` beside the bundle. */
function bundlePlaces(): string[] {
  const name = path.join('prebuilds', prebuiltName());
  return [...copied(), ...bundleFolders().map((folder) => path.join(folder, name))];
}

function copied(): string[] {
  try {
    const url = prebuiltUrl();
    return url === undefined ? [] : [fileURLToPath(url)];
  } catch {
    // No URL of this module, or one that is none of a file.
    return [];
  }
}

/** Where an executable of Bun's has what is inside it. */
const insideExecutable = /[\\/](?:\$bunfs|~BUN)[\\/]/;

/** webpack has a folder of the build machine in the module's URL, and Bun in `__dirname`. */
function bundleFolders(): string[] {
  const file = ownFile();
  const folders = [
    ...(file === undefined ? [] : [path.dirname(file)]),
    ...(typeof __dirname === 'string' ? [__dirname] : []),
  ];
  return [...new Set(folders)]
    .filter((folder) => !isOfPackage(folder))
    .map((folder) =>
      insideExecutable.test(path.join(folder, path.sep)) ? path.dirname(process.execPath) : folder,
    );
}

/** Whether a folder is called like the one that this module has in the package. */
const isOfPackage = (folder: string): boolean => path.basename(folder) === 'native';

/** The folder above dist/, if this code still is where the package has it. */
function packageRoot(): string | undefined {
  const file = ownFile();
  // Around a bundle, package.json is none of our business, and may be forbidden.
  if (file === undefined || !isOfPackage(path.dirname(file))) return undefined;
  const root = path.resolve(path.dirname(file), '../..');
  return packageName(path.join(root, 'package.json')) === 'diralign' ? root : undefined;
}

/** Bundlers leave the URL out of CommonJS, or put what is no URL of a file in its place. */
function ownFile(): string | undefined {
  try {
    return fileURLToPath(import.meta.url);
  } catch {
    return undefined;
  }
}

function packageName(file: string): unknown {
  try {
    return (JSON.parse(readFileSync(file, 'utf8')) as { name?: unknown }).name;
  } catch (cause) {
    throwForbidden('The package of diralign cannot be read', cause);
    return undefined;
  }
}

function look(file: string): 'there' | 'absent' | 'forbidden' {
  try {
    return isFile(file) ? 'there' : 'absent';
  } catch {
    return 'forbidden';
  }
}

/** @throws DirAlignError where that may not be known */
function isFile(file: string): boolean {
  try {
    return statSync(file).isFile();
  } catch (cause) {
    throwForbidden('The addon cannot be looked for', cause);
    return false;
  }
}

function throwForbidden(what: string, cause: unknown): void {
  const reason = whyForbidden(cause);
  if (reason !== undefined) throw loadError(`${what}. ${reason}`, cause);
}
