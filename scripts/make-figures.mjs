#!/usr/bin/env node
// Writes docs/figures/*.svg and their list in docs/methods.md, from the built package (`npm run
// build` first). Run it after a change of a method or of ts/plot/; `--check` fails if something is
// out of date.
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { gallery, galleryMarkdown } from '../dist/plot/gallery.js';

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..');
const check = process.argv.includes('--check');
const folder = path.join(root, 'docs/figures');
mkdirSync(folder, { recursive: true });

const figures = gallery();
const methods = path.join(root, 'docs/methods.md');
const page = readFileSync(methods, 'utf8');
const [start, end] = ['<!-- figures -->', '<!-- /figures -->'];
if (!page.includes(start) || !page.includes(end))
  throw new Error(`docs/methods.md has no ${start} ... ${end}`);
const around = [page.slice(0, page.indexOf(start) + start.length), page.slice(page.indexOf(end))];

const outputs = new Map([
  ...figures.map(({ name, svg }) => [path.join(folder, `${name}.svg`), svg]),
  [methods, around.join(`\n\n${galleryMarkdown(figures)}\n\n`)],
]);
const files = readdirSync(folder).map((name) => path.join(folder, name));
const stale = files.filter((file) => !outputs.has(file));
for (const file of check ? [] : stale) rmSync(file);
const present = new Set([methods, ...files]);
for (const [file, content] of outputs) {
  if (present.has(file) && readFileSync(file, 'utf8') === content) continue;
  stale.push(file);
  if (!check) writeFileSync(file, content);
}
if (check)
  for (const file of stale)
    console.error(`${path.relative(root, file)} is out of date: run npm run figures`);
process.exitCode = check && stale.length > 0 ? 1 : 0;
