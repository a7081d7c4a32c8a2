/**
 * A Parquet file in the working directory, and stand-ins for packages that are not installed here:
 * what they give has the shape that theirs has.
 */
import fs from 'node:fs';

const fixtures = new URL('../../fixtures/data/', import.meta.url);
fs.copyFileSync(new URL('preferences.parquet', fixtures), 'pairs.parquet');
fs.copyFileSync(new URL('ultrafeedback-like.jsonl', fixtures), 'pairs.jsonl');

type Row = Record<string, unknown>;
const rows = fs
  .readFileSync('pairs.jsonl', 'utf8')
  .trim()
  .split('\n')
  .map((line) => ({ ...(JSON.parse(line) as Row), votes: 3n }));

interface Connection {
  stream(sql: string): Promise<{ yieldRowObjectJs(): AsyncIterable<Row[]> }>;
}
/** A connection of `@duckdb/node-api`: rows come in arrays. */
export const connection: Connection = {
  stream: () =>
    Promise.resolve({
      async *yieldRowObjectJs(): AsyncGenerator<Row[]> {
        yield await Promise.resolve(rows.slice(0, 2));
        yield rows.slice(2);
      },
    }),
};

interface Polars {
  readParquet(path: string): { toRecords(): Row[] };
}
/** `nodejs-polars`. */
export const pl: Polars = { readParquet: () => ({ toRecords: () => rows }) };

interface FileOfHub {
  readonly repo: { readonly type: 'dataset'; readonly name: string };
  readonly path: string;
}
/** Of `@huggingface/hub`. */
export const downloadFile: (file: FileOfHub) => Promise<Blob | null> = () =>
  Promise.resolve(new Blob([fs.readFileSync('pairs.jsonl')]));
