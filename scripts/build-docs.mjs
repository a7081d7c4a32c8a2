#!/usr/bin/env node
// Builds the documentation site into docs/.vitepress/dist, from the sources alone: neither the
// addon nor dist/ is needed.
//   --check  has the types of examples on one page alone, which takes half of the time: that they
//            compile is for tests/package/docs.test.ts
//   --dev    serves the pages as they are being written, on http://localhost:5173
//   --serve  serves the built site, on http://localhost:4173
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { tsImport } from 'tsx/esm/api';
import { build, createServer, serve } from 'vitepress';

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..');
const docs = path.join(root, 'docs');
const site = path.join(docs, '.vitepress/dist');

const usage = 'usage: node scripts/build-docs.mjs [--check | --dev | --serve]';
const [mode, ...rest] = process.argv.slice(2);
if (rest.length > 0 || ![undefined, '--check', '--dev', '--serve'].includes(mode)) {
  console.error(usage);
  process.exit(2);
}

const withTypes = 'first-loss';
if (mode === '--check') process.env.DIRALIGN_DOCS_TYPES = `${withTypes}.md`;

const since = performance.now();
const log = (what) =>
  console.log(`docs: ${what} (at ${((performance.now() - since) / 1000).toFixed(1)} s)`);

const source = (name) => tsImport(`../docs/.vitepress/${name}.ts`, import.meta.url);
const { writePages } = await source('pages');
writePages();
log('pages from the sources');

const { writeApi } = await source('api');
await writeApi().catch((error) => {
  console.error(`docs: ${error.message}`);
  process.exit(1);
});
log('API');

if (mode === '--dev') {
  const server = await createServer(docs);
  await server.listen();
  server.printUrls();
} else {
  await build(docs);
  const { brokenLinks } = await source('links');
  const broken = brokenLinks(site);
  for (const line of broken) console.error(line);
  if (broken.length > 0) process.exit(1);
  if (!readFileSync(path.join(site, `${withTypes}.html`), 'utf8').includes('twoslash-hover')) {
    console.error(`docs: ${withTypes}.md shows no types`);
    process.exit(1);
  }
  log('site in docs/.vitepress/dist, and its links lead somewhere');
  if (mode === '--serve') await serve({ root: docs });
}
