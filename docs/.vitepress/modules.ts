import fs from 'node:fs';

/** A module that package.json exports. */
export interface Module {
  /** By which it is imported: `diralign/data`. */
  readonly name: string;
  /** From the root of the repository. */
  readonly source: string;
}

export function modules(): Module[] {
  const { name, exports } = JSON.parse(
    fs.readFileSync(new URL('../../package.json', import.meta.url), 'utf8'),
  ) as {
    readonly name: string;
    readonly exports: Readonly<Record<string, string | { readonly types: string }>>;
  };
  return Object.entries(exports).flatMap(([key, entry]) =>
    typeof entry === 'string'
      ? []
      : [
          {
            name: name + key.slice(1),
            source: entry.types.replace(/^\.\/dist\/(.*)\.d\.ts$/, 'ts/$1.ts'),
          },
        ],
  );
}
