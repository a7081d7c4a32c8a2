/**
 * Finds and loads the addon. Where that fails, the error says what is so and what to do about it,
 * in the words of the runtime or of the system: nothing here may claim what it has not seen.
 */
import { readdirSync, readFileSync } from 'node:fs';
// Not `{ createRequire }`: webpack puts a function of its own in place of that, which finds nothing
// here.
import Module from 'node:module';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { typeError, type DirAlignError } from '../errors.js';
import type { Native } from './interface.js';

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

const remedy = 'Build one with: npx diralign build   (needs CMake and a C++20 compiler)';

function loadError(message: string, cause?: unknown): DirAlignError {
  return typeError('ERR_DIRALIGN_LOAD', message, cause === undefined ? undefined : { cause });
}

/**
 * A variable of the environment; undefined where it is not set, or empty, or Deno does not let it
 * be read.
 */
export function environment(name: string): string | undefined {
  try {
    const value = process.env[name];
    return value === '' ? undefined : value;
  } catch {
    return undefined;
  }
}

// ----------------------------------------------------------------------------------------------
// Finding

function findAddon(): string {
  const root = packageRoot();
  const resolve = finder(root);
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

function platform(): string {
  return `${process.platform}-${process.arch}${isMusl() ? ' with musl' : ''}`;
}

/** What in the environment decides where node-gyp-build looks, and for what. */
function steered(): string {
  const names = [
    'DIRALIGN_PREBUILD',
    'PREBUILDS_ONLY',
    'npm_config_platform',
    'npm_config_arch',
    'LIBC',
    'ARM_VERSION',
  ];
  const set = names.flatMap((name) => {
    const value = environment(name);
    return value === undefined ? [] : [`${name}=${value}`];
  });
  return set.length === 0 ? '' : ` where the environment has it looked for (${set.join(', ')})`;
}

// ----------------------------------------------------------------------------------------------
// Explaining

interface SystemError {
  readonly name?: unknown;
  readonly code?: unknown;
  readonly message?: unknown;
  readonly resource?: unknown;
}

function firstLine(error: unknown): string {
  return String((error as SystemError).message).split('\n')[0] ?? '';
}

/**
 * What keeps a file from being read, and what to do about it; undefined where it is nobody's
 * prohibition.
 */
function whyForbidden(error: unknown): string | undefined {
  const { name, code, resource } = error as SystemError;
  if (code === 'ERR_ACCESS_DENIED') {
    const file = typeof resource === 'string' && resource !== '' ? resource : undefined;
    return (
      `Node's permission model forbids ${file === undefined ? 'it' : `reading ${file}`}: ` +
      `start node with --allow-fs-read=${file === undefined ? '*' : readableFolder(file)}`
    );
  }
  // Their messages name the flag.
  if (name === 'NotCapable' || name === 'PermissionDenied')
    return `Deno's permissions forbid it: ${firstLine(error)}.`;
  if (code === 'EACCES' || code === 'EPERM')
    return `${firstLine(error)}: the user of this process may not read it.`;
  return undefined;
}

/** The outermost node_modules around a file, or else its folder: one flag for all that is read. */
function readableFolder(file: string): string {
  const inModules = /^(.*?[\\/]node_modules)(?:[\\/]|$)/.exec(file)?.[1];
  return path.join(inModules ?? path.dirname(file), '*');
}

/**
 * Why dlopen failed, in its words where nothing is known about them; they stay in `cause` in any
 * case.
 */
function whyNotLoaded(error: unknown): string {
  const { code, name } = error as SystemError;
  const message = String((error as SystemError).message);
  if (code === 'ERR_DLOPEN_DISABLED') return whyDisabled();
  if (name === 'NotCapable' && message.includes('ffi')) {
    return 'Deno was started without --allow-ffi, which addons need: add it.';
  }
  if (code === 'MODULE_NOT_FOUND') return 'There is no such file.';
  const forbidden = whyForbidden(error);
  if (forbidden !== undefined) return forbidden;
  const needed = /version [`']GLIBC_([\d.]+)' not found/.exec(message)?.[1];
  if (needed !== undefined)
    return `It needs glibc ${needed} and this system has ${glibcVersion() ?? 'another one'}. ${remedy}`;
  // Only musl's loader says it like this.
  if (/Error (?:loading shared library (?:ld-linux|lib\w+\.so\.\d)|relocating)/.test(message)) {
    return `It was built for glibc and this system has musl (Alpine). ${remedy}, or use an image with glibc.`;
  }
  if (/invalid ELF header|wrong ELF class|file too short|mach-o|not a valid Win32/i.test(message)) {
    return `${message}. It is damaged, or made for another system than ${platform()}: install diralign anew on this machine. ${remedy}`;
  }
  if (/failed to map segment.*not permitted/s.test(message)) {
    return `${message}. The system runs no code from there (is it mounted noexec?): install diralign on another file system.`;
  }
  return `${message}. ${remedy}`;
}

/** Node gives one error for both of its switches. */
function whyDisabled(): string {
  const flags = [...process.execArgv, ...(environment('NODE_OPTIONS') ?? '').split(/\s+/)];
  const permission = process.permission as object | undefined;
  const reasons = [
    ...(permission !== undefined && !flags.includes('--allow-addons')
      ? ["Node's permission model (--permission) allows no addons: start node with --allow-addons."]
      : []),
    ...(flags.includes('--no-addons')
      ? ['Node was started with --no-addons; diralign needs its addon.']
      : []),
  ];
  return (
    reasons.join(' ') ||
    'This process may not load addons (--no-addons, or --permission without --allow-addons).'
  );
}

interface Report {
  readonly header?: { readonly glibcVersionRuntime?: string };
  readonly sharedObjects?: readonly string[];
}

/** Nothing where the runtime has no reports, or keeps them to itself. */
function report(): Report {
  try {
    return process.report.getReport();
  } catch {
    return {};
  }
}

function glibcVersion(): string | undefined {
  return report().header?.glibcVersionRuntime;
}

function isMusl(): boolean {
  if (process.platform !== 'linux') return false;
  const { header, sharedObjects } = report();
  return (
    header?.glibcVersionRuntime === undefined &&
    (sharedObjects ?? []).some((file) => /ld-musl-|libc\.musl-/.test(file))
  );
}
