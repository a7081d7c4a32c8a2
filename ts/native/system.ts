/** What this system is, as far as the runtime says it. */

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

export function isMusl(): boolean {
  if (process.platform !== 'linux') return false;
  const { header, sharedObjects } = report();
  return (
    header?.glibcVersionRuntime === undefined &&
    (sharedObjects ?? []).some((file) => /ld-musl-|libc\.musl-/.test(file))
  );
}
