/**
 * Why the addon was not found or not loaded, and what to do about it, in the words of the runtime
 * or of the system: nothing here may claim what it has not seen.
 */
import path from 'node:path';
import { environment, glibcVersion, platform } from './system.js';

export const remedy = 'Build one with: npx diralign build   (needs CMake and a C++20 compiler)';

export interface SystemError {
  readonly name?: unknown;
  readonly code?: unknown;
  readonly message?: unknown;
  readonly resource?: unknown;
}

export function firstLine(error: unknown): string {
  return String((error as SystemError).message).split('\n')[0] ?? '';
}

/**
 * What keeps a file from being read, and what to do about it; undefined where it is nobody's
 * prohibition.
 */
export function whyForbidden(error: unknown): string | undefined {
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
export function whyNotLoaded(error: unknown): string {
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
    return (
      `It needs glibc ${needed} and this system has ` +
      `${glibcVersion() ?? 'another one'}. ${remedy}`
    );
  // Only musl's loader says it like this; of the addon for musl it says what that lacks.
  const isOfMusl = message.includes('.musl.node');
  if (
    /Error (?:loading shared library (?:ld-linux|lib\w+\.so\.\d)|relocating)/.test(message) &&
    !isOfMusl
  ) {
    return (
      'It was built for glibc and this system has musl (Alpine): ' +
      `install diralign anew on this machine. ${remedy}`
    );
  }
  // The C library of musl, which glibc's loader does not find or takes for its linker's script.
  if (/\blibc\.so: (?:invalid ELF header|cannot open)/.test(message)) {
    return (
      'It was built for musl (Alpine) and this system has glibc: ' +
      `install diralign anew on this machine. ${remedy}`
    );
  }
  const newerMacos = /built for (macOS [\d.]+) which is newer than running OS/.exec(message)?.[1];
  if (newerMacos !== undefined)
    return `It was built for ${newerMacos}, and this system is older. ${remedy}`;
  if (/code signature|not valid for use in process|library load disallowed/i.test(message)) {
    return (
      `${message}. macOS does not trust the file: install diralign anew with a package ` +
      'manager, or allow it with: xattr -d com.apple.quarantine FILE.node'
    );
  }
  if (/invalid ELF header|wrong ELF class|file too short|mach-o|not a valid Win32/i.test(message)) {
    return (
      `${message}. It is damaged, or made for another system than ${platform()}: ` +
      `install diralign anew on this machine. ${remedy}`
    );
  }
  if (/failed to map segment.*not permitted/s.test(message)) {
    return (
      `${message}. The system runs no code from there (is it mounted noexec?): ` +
      'install diralign on another file system.'
    );
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
