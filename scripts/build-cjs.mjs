#!/usr/bin/env node
// dist/cjs, what `require` gets: for each entry of the package a CommonJS module that hands on the
// ES module, so that both are one library; and the declarations once more, for those beside a
// package.json that says CommonJS are what TypeScript lets CommonJS import under `module: node16`.
// Declarations that no entry leads to describe what nobody can import: they are removed from dist.
// Usage: build-cjs.mjs [FOLDER] (default: dist)
import fs from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..');
const dist = path.resolve(process.argv[2] ?? path.join(root, 'dist'));
const { exports } = JSON.parse(fs.readFileSync(path.join(root, 'package.json'), 'utf8'));
const target = path.join(dist, 'cjs');

const written = new Set();
function write(file, text) {
  written.add(path.normalize(file));
  fs.mkdirSync(path.dirname(path.join(target, file)), { recursive: true });
  fs.writeFileSync(path.join(target, file), text);
}

const imported = /\b(?:from|import|import\() ?['"](\.[^'"]+)\.js['"]/g;

/** A file of declarations, with all that it imports. */
function copyTypes(file) {
  if (written.has(path.normalize(file))) return;
  const text = fs.readFileSync(path.join(dist, file), 'utf8');
  write(file, text);
  for (const [, module] of text.matchAll(imported))
    copyTypes(path.join(path.dirname(file), `${module}.d.ts`));
}

fs.rmSync(target, { recursive: true, force: true });
write('package.json', '{ "type": "commonjs", "sideEffects": false }\n');
for (const { require, types, default: module } of Object.values(exports)) {
  if (require === undefined) continue;
  const from = path.posix.relative(path.posix.dirname(require.default), module);
  write(
    path.posix.relative('./dist/cjs', require.default),
    `module.exports = require('${from}');\n`,
  );
  copyTypes(path.posix.relative('./dist', types));
}
for (const file of fs.readdirSync(dist, { recursive: true }))
  if (file.endsWith('.d.ts') && !file.startsWith('cjs') && !written.has(file))
    fs.rmSync(path.join(dist, file));
