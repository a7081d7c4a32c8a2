#!/usr/bin/env node
// Builds the documentation site into docs/.vitepress/dist, from the sources alone: neither the addon nor dist/ is needed.
//   --dev    serves the pages as they are being written, on http://localhost:5173
//   --serve  serves the built site, on http://localhost:4173
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { tsImport } from 'tsx/esm/api';
import { Application } from 'typedoc';
import { build, createServer, serve } from 'vitepress';

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..');
const docs = path.join(root, 'docs');
const site = path.join(docs, '.vitepress/dist');

const usage = 'usage: node scripts/build-docs.mjs [--dev | --serve]';
const [mode, ...rest] = process.argv.slice(2);
if (rest.length > 0 || ![undefined, '--dev', '--serve'].includes(mode)) {
  console.error(usage);
  process.exit(2);
}

const since = performance.now();
const log = (what) => console.log(`docs: ${what} (at ${((performance.now() - since) / 1000).toFixed(1)} s)`);

const source = (name) => tsImport(`../docs/.vitepress/${name}.ts`, import.meta.url);
const { writePages } = await source('pages');
writePages();
log('pages from the sources');

const { modules } = await source('modules');
await writeApi(modules());
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
  log('site in docs/.vitepress/dist, and its links lead somewhere');
  if (mode === '--serve') await serve({ root: docs });
}

/** docs/api/, of the modules that package.json exports. */
async function writeApi(modules) {
  const app = await Application.bootstrapWithPlugins({
    options: path.join(docs, '.vitepress/typedoc.json'),
    entryPoints: modules.map(({ source }) => path.join(root, source)),
  });
  const project = await app.convert();
  if (project === undefined) fail();
  // TypeDoc names a module by its file; readers know it by what they import.
  for (const child of project.children) {
    const name = path.posix.join('diralign', child.name === 'index' ? '' : child.name);
    if (!modules.some((module) => module.name === name)) throw new Error(`${child.name} is no module of package.json`);
    child.name = name;
  }
  app.validate(project);
  if (app.logger.hasErrors() || app.logger.hasWarnings()) fail();
  await app.generateOutputs(project);
  if (app.logger.hasErrors() || app.logger.hasWarnings()) fail();

  function fail() {
    console.error('docs: the API has defects, named above');
    process.exit(1);
  }
}
