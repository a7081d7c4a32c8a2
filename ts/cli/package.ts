import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { readFileSync } from 'node:fs';

/** Where the package lies: two folders above dist/cli. */
export const packageRoot = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../..');
export const exampleFile = path.join(packageRoot, 'examples', 'preference-batch.safetensors');

export function packageVersion(): string {
  return (
    JSON.parse(readFileSync(path.join(packageRoot, 'package.json'), 'utf8')) as { version: string }
  ).version;
}

/** As a user would type it: relative where that is shorter. */
export function shortPath(file: string): string {
  const relative = path.relative(process.cwd(), file);
  return relative.length < file.length ? relative : file;
}
