#!/usr/bin/env node
// Fails when an addon needs a glibc newer than the floor we promise, or a shared libstdc++ at all.
// Usage: check-glibc.mjs [FILE.node ...]   (default: every prebuild for Linux)
import { execFileSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const floor = '2.28';
const prebuilds = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../prebuilds');

const newer = (a, b) => a.localeCompare(b, 'en', { numeric: true }) > 0;

function linuxPrebuilds() {
  return readdirSync(prebuilds)
    .filter((platform) => platform.startsWith('linux-'))
    .flatMap((platform) => readdirSync(path.join(prebuilds, platform)).map((name) => path.join(prebuilds, platform, name)))
    .filter((file) => file.endsWith('.node') && !file.endsWith('.musl.node'));
}

/** [symbol, library, version] of every versioned symbol the file wants from outside. */
function imports(file) {
  const table = execFileSync('objdump', ['-T', file], { encoding: 'utf8' });
  return [...table.matchAll(/\*UND\*.*\((\w+?)_(\d[\d.]*)\)\s+(\S+)$/gm)].map(([, library, version, symbol]) => [
    symbol,
    library,
    version,
  ]);
}

let failed = false;
const files = process.argv.length > 2 ? process.argv.slice(2) : linuxPrebuilds();
if (files.length === 0) throw new Error('no prebuild to check');
for (const file of files) {
  const wanted = imports(file);
  const glibc = wanted.filter(([, library]) => library === 'GLIBC');
  const needs = glibc.map(([, , version]) => version).reduce((a, b) => (newer(b, a) ? b : a), '0');
  const tooNew = glibc.filter(([, , version]) => newer(version, floor));
  const shared = wanted.filter(([, library]) => library === 'GLIBCXX' || library === 'CXXABI');
  console.log(`${path.relative(process.cwd(), file)}: needs glibc ${needs}; the floor is ${floor}`);
  for (const [symbol, , version] of tooNew)
    console.error(`  ${symbol} needs ${version}: give its older version in cmake/old_glibc.def`);
  if (shared.length > 0) console.error(`  libstdc++ is not linked statically (${shared[0][0]})`);
  failed ||= tooNew.length > 0 || shared.length > 0;
}
process.exitCode = failed ? 1 : 0;
