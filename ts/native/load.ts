/**
 * Finds and loads the addon. Where that fails, the error says what is so and what to do about it.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
// Not `{ createRequire }`: webpack puts a function of its own in place of that, which finds nothing
// here.
import Module from 'node:module';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { typeError, type DirAlignError } from '../errors.js';
import type { Native } from './interface.js';
import { environment, isMusl, platform } from './system.js';
import {
  firstLine,
  remedy,
  whyForbidden,
  whyNotLoaded,
  type SystemError,
} from './why-not-loaded.js';

/** @throws DirAlignError with code ERR_DIRALIGN_LOAD */
export function loadAddon(revision: string): { readonly addon: Native; readonly file: string } {
  const chosen = environment('DIRALIGN_ADDON');
  const file = chosen === undefined ? findAddon() : path.resolve(chosen);
  const named = chosen === undefined ? file : `${file}, which DIRALIGN_ADDON names,`;
  let addon: Native;
  try {
    addon = Module.createRequire(file)(file) as Native;
  } catch (cause) {
    throw loadError(`${named} could not be loaded. ${whyNotLoaded(cause)}`, cause);
  }
  if (addon.revision !== revision)
    throw loadError(`${named} was built from other sources than this package. ${remedy}`);
  return { addon, file };
}

function loadError(message: string, cause?: unknown): DirAlignError {
  return typeError('ERR_DIRALIGN_LOAD', message, cause === undefined ? undefined : { cause });
}

function findAddon(): string {
  const beside = prebuilt();
  let root: string;
  let resolve: (directory: string) => string;
  try {
    root = packageRoot();
    resolve = finder(root);
  } catch (error) {
    // A bundler, or a tool that copies what a program needs, left the package behind but for this.
    if (beside !== undefined) return beside;
    throw error;
  }
  try {
    return resolve(root);
  } catch (cause) {
    // It takes a folder that it may not read for one that is not there.
    const base = environment('DIRALIGN_PREBUILD') ?? root;
    for (const folder of ['build/Release', 'build/Debug', 'prebuilds'])
      checkReadable(path.join(base, folder));
    throw loadError(`There is no prebuilt binary for ${platform()}${steered()}. ${remedy}`, cause);
  }
}

/**
 * The prebuilt addon of this system, if it is where the package or a bundler has it. The path is
 * written out, since tools that trace or copy files (@vercel/nft, Next.js, webpack) look for
 * `new URL(..., import.meta.url)` in the source, and for nothing that is computed.
 */
function prebuilt(): string | undefined {
  if (steering().length > 0) return undefined;
  try {
    const file = fileURLToPath(prebuiltUrl() ?? '');
    return existsSync(file) ? file : undefined;
  } catch {
    // No system with a prebuilt addon, or no URL of this module.
    return undefined;
  }
}

function prebuiltUrl(): URL | undefined {
  switch (platform()) {
    case 'linux-x64':
      return new URL('../../prebuilds/linux-x64/diralign.glibc.node', import.meta.url);
    default:
      return undefined;
  }
}

/** The folder above dist/, if this code still is where the package has it. */
function packageRoot(): string {
  const url = ownUrl();
  if (url?.startsWith('file:')) {
    const root = path.resolve(path.dirname(fileURLToPath(url)), '../..');
    if (packageName(path.join(root, 'package.json')) === 'diralign') return root;
  }
  throw loadError(
    `diralign was bundled without its native addon: there is no package of diralign around ${url ?? 'this bundle'}. ` +
      'Mark diralign as external (esbuild: --external:diralign; Rollup and webpack: external(s); Vite: ssr.external; Next.js: ' +
      'serverExternalPackages) and have it in node_modules where the bundle runs, or set DIRALIGN_ADDON to the path of its .node file.',
  );
}

/** Bundlers leave it out of CommonJS, or put an expression in its place that needs a browser. */
function ownUrl(): string | undefined {
  try {
    return import.meta.url;
  } catch {
    return undefined;
  }
}

function packageName(file: string): unknown {
  try {
    return (JSON.parse(readFileSync(file, 'utf8')) as { name?: unknown }).name;
  } catch (cause) {
    const reason = whyForbidden(cause);
    if (reason !== undefined)
      throw loadError(`The package of diralign cannot be read. ${reason}`, cause);
    return undefined;
  }
}

function checkReadable(folder: string): void {
  try {
    readdirSync(folder);
  } catch (cause) {
    const reason = whyForbidden(cause);
    if (reason !== undefined) throw loadError(`The addon cannot be looked for. ${reason}`, cause);
  }
}

/** Of node-gyp-build, as the package that lies there finds it. */
function finder(root: string): (directory: string) => string {
  const require = Module.createRequire(path.join(root, 'package.json'));
  const load = () =>
    (require('node-gyp-build') as { resolve: (directory: string) => string }).resolve;
  try {
    try {
      return load();
    } catch (cause) {
      // As soon as it is loaded it looks for a file that a permission model may forbid, unless LIBC
      // says what that would tell.
      const { resource } = cause as SystemError;
      if (!`${String(resource)} ${firstLine(cause)}`.includes('/etc/alpine-release')) throw cause;
      return withLibc(load);
    }
  } catch (cause) {
    const reason = whyForbidden(cause);
    throw reason === undefined
      ? loadError(
          `node-gyp-build, which diralign depends on, cannot be loaded (${firstLine(cause)}). Install the dependencies: npm install`,
          cause,
        )
      : loadError(`The addon cannot be looked for. ${reason}`, cause);
  }
}

function withLibc<T>(load: () => T): T {
  process.env.LIBC = isMusl() ? 'musl' : 'glibc';
  try {
    return load();
  } finally {
    delete process.env.LIBC;
  }
}

/** What in the environment decides where node-gyp-build looks, and for what. */
function steering(): string[] {
  const names = [
    'DIRALIGN_PREBUILD',
    'PREBUILDS_ONLY',
    'npm_config_platform',
    'npm_config_arch',
    'LIBC',
    'ARM_VERSION',
  ];
  return names.flatMap((name) => {
    const value = environment(name);
    return value === undefined ? [] : [`${name}=${value}`];
  });
}

function steered(): string {
  const set = steering();
  return set.length === 0 ? '' : ` where the environment has it looked for (${set.join(', ')})`;
}
