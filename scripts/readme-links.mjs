#!/usr/bin/env node
// What npm runs before it packs: links of the README that work in the repository become addresses
// that work on the package's page.
//   --restore  what it runs after: the README as it was
import fs from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { tsImport } from 'tsx/esm/api';

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..');
const readme = path.join(root, 'README.md');
const kept = path.join(root, 'build', 'README.before-packing.md');

if (process.argv[2] === '--restore') {
  fs.renameSync(kept, readme);
} else {
  const { withAbsoluteLinks } = await tsImport('../docs/.vitepress/repository.ts', import.meta.url);
  const markdown = fs.readFileSync(readme, 'utf8');
  const packed = withAbsoluteLinks(markdown);
  fs.mkdirSync(path.dirname(kept), { recursive: true });
  fs.writeFileSync(kept, markdown);
  fs.writeFileSync(readme, packed);
}
