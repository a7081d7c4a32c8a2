import { createRequire } from 'node:module';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { typeError, type DirAlignError } from './errors.js';

export interface Native {
  readonly version: string;
}

const require = createRequire(import.meta.url);
const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..');
let loaded: { readonly addon: Native; readonly file: string } | undefined;

/** The addon, loaded on first use: importing the package never throws and costs nothing. */
export function native(): Native {
  return (loaded ??= load()).addon;
}

/** The file that {@link native} loaded. */
export function nativePath(): string {
  return (loaded ??= load()).file;
}

function load(): { addon: Native; file: string } {
  let file: string;
  try {
    file = (require('node-gyp-build') as { resolve(directory: string): string }).resolve(root);
  } catch (cause) {
    throw loadError(
      `There is no prebuilt binary for ${process.platform}-${process.arch}${isMusl() ? ' with musl' : ''}. ${remedy}`,
      cause,
    );
  }
  try {
    return { addon: require(file) as Native, file };
  } catch (cause) {
    throw loadError(`${file} could not be loaded. ${hint(cause)}`, cause);
  }
}

const remedy = 'Build one with: npx diralign build   (needs CMake and a C++17 compiler)';

function loadError(message: string, cause: unknown): DirAlignError {
  return typeError('ERR_DIRALIGN_LOAD', message, { cause });
}

/** What to do about a failed dlopen; the loader's own words stay in `cause`. */
function hint(cause: unknown): string {
  const { code, message } = cause as NodeJS.ErrnoException;
  if (code === 'ERR_DLOPEN_DISABLED') return 'Node was started with --no-addons; diralign needs its addon.';
  const needed = /version `GLIBC_([\d.]+)' not found/.exec(message)?.[1];
  if (needed) return `It needs glibc ${needed} and this system has ${glibcVersion() ?? 'none'}. ${remedy}`;
  if (isMusl()) return `It was built for glibc and this system has musl (Alpine). ${remedy}, or use an image with glibc.`;
  return `${message}. ${remedy}`;
}

function glibcVersion(): string | undefined {
  const report = process.report.getReport() as unknown as { header: { glibcVersionRuntime?: string } };
  return report.header.glibcVersionRuntime;
}

function isMusl(): boolean {
  return process.platform === 'linux' && glibcVersion() === undefined;
}
