#!/usr/bin/env node
// What npm runs before it packs: makes the files of the package out of those in the current folder,
// which is the repository or a copy of what is packed.
//   --restore  what it runs after: the folder as it was
import fs from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { tsImport } from 'tsx/esm/api';

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..');
const manifest = 'package.json';
const readme = 'README.md';
const prebuilt = 'dist/native/prebuilt.js';
const prebuilds = 'prebuilds';
const vendor = 'vendor';
const kept = 'build/before-packing';

/** What `diralign build` compiles with on a user's machine, and the terms that it comes under. */
const headers = {
  'node-addon-api': ['napi.h', 'napi-inl.h', 'napi-inl.deprecated.h', 'LICENSE.md'],
  'node-api-headers': ['include', 'LICENSE'],
};

/** Links that work in the repository become addresses that work on the package's page. */
async function withLinks(markdown) {
  const { withAbsoluteLinks } = await tsImport('../docs/.vitepress/repository.ts', import.meta.url);
  return withAbsoluteLinks(markdown);
}

/** Yarn 1 warns of workspaces in what it installs. */
function withoutWorkspaces(json) {
  return `${JSON.stringify({ ...JSON.parse(json), workspaces: undefined }, undefined, 2)}\n`;
}

/**
 * The switch without the addons that are not packed: a bundler looks for each that it names.
 *
 * @throws Error where it lacks one that is packed
 */
function pruned(code) {
  const branch = /^ *case '([^']+)':\s+return new URL\('\.\.\/\.\.\/prebuilds\/\1', [^\n]*\n/gm;
  const named = [...code.matchAll(branch)].map(([, name]) => name);
  const packed = fs.existsSync(prebuilds) ? fs.readdirSync(prebuilds, { recursive: true }) : [];
  for (const name of packed.map((file) => file.replaceAll(path.sep, '/')))
    if (name.endsWith('.node') && !named.includes(name))
      throw new Error(`prebuilds/${name} is packed, and not in ts/native/prebuilt.ts`);
  return code.replace(branch, (text, name) =>
    fs.existsSync(path.join(prebuilds, name)) ? text : '',
  );
}

const changes = [
  [manifest, withoutWorkspaces],
  [readme, withLinks],
  [prebuilt, pruned],
];
const keptAs = (file) => path.join(kept, path.basename(file));

fs.rmSync(vendor, { recursive: true, force: true });
if (process.argv[2] === '--restore') {
  for (const [file] of changes) fs.renameSync(keptAs(file), file);
} else {
  const texts = changes.map(([file]) => fs.readFileSync(file, 'utf8'));
  // Nothing is written where one of them is refused.
  const changed = await Promise.all(changes.map(([, change], i) => change(texts[i])));
  fs.mkdirSync(kept, { recursive: true });
  changes.forEach(([file], i) => {
    fs.writeFileSync(keptAs(file), texts[i]);
    fs.writeFileSync(file, changed[i]);
  });
  for (const [name, entries] of Object.entries(headers))
    for (const entry of entries)
      fs.cpSync(path.join(root, 'node_modules', name, entry), path.join(vendor, name, entry), {
        recursive: true,
      });
}
