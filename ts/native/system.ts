/** What this system is, as far as the runtime says it. */
import { readFileSync } from 'node:fs';

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

export function platform(): string {
  return `${process.platform}-${process.arch}${isMusl() ? ' with musl' : ''}`;
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

export function glibcVersion(): string | undefined {
  return report().header?.glibcVersionRuntime;
}

function mappedFiles(): readonly string[] {
  try {
    return readFileSync('/proc/self/maps', 'utf8').split('\n');
  } catch {
    return [];
  }
}

/** Alpine's C library, and Debian's. */
const muslFile = /ld-musl-|libc\.musl-|-linux-musl\/libc\.so/;

export function isMusl(): boolean {
  if (process.platform !== 'linux') return false;
  const { header, sharedObjects } = report();
  if (header?.glibcVersionRuntime !== undefined) return false;
  // Bun's reports name no libraries. Deno, which would ask whether the file may be read, has no
  // build for musl.
  const files = process.versions.bun === undefined ? (sharedObjects ?? []) : mappedFiles();
  return files.some((file) => muslFile.test(file));
}

/** Of Linux: `glibc 2.36`, `musl`; undefined where it is not known, and elsewhere. */
export function libc(): string | undefined {
  const version = glibcVersion();
  if (version !== undefined) return `glibc ${version}`;
  return isMusl() ? 'musl' : undefined;
}
