#!/usr/bin/env node
// Fails when an addon needs a glibc newer than the floor we promise, or any other shared library
// that node does not bring: not libstdc++, and nothing of CUDA, whose driver is looked for at run
// time. Usage: check-glibc.mjs [FILE.node ...] (default: every prebuild for Linux)
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
    .flatMap((platform) =>
      readdirSync(path.join(prebuilds, platform)).map((name) =>
        path.join(prebuilds, platform, name),
      ),
    )
    .filter((file) => file.endsWith('.node') && !file.endsWith('.musl.node'));
}

/** [symbol, library, version] of every versioned symbol the file wants from outside. */
function imports(file) {
  const table = execFileSync('objdump', ['-T', file], { encoding: 'utf8' });
  return [...table.matchAll(/\*UND\*.*\((\w+?)_(\d[\d.]*)\)\s+(\S+)$/gm)].map(
    ([, library, version, symbol]) => [symbol, library, version],
  );
}

/** Of glibc, or loaded with node. */
const present = /^(lib(c|m|pthread|dl|rt)\.so\.\d|libgcc_s\.so\.1|ld-linux.*)$/;

function libraries(file) {
  const headers = execFileSync('objdump', ['-p', file], { encoding: 'utf8' });
  return [...headers.matchAll(/^\s*NEEDED\s+(\S+)$/gm)].map(([, library]) => library);
}

let failed = false;
const files = process.argv.length > 2 ? process.argv.slice(2) : linuxPrebuilds();
if (files.length === 0) throw new Error('no prebuild to check');
for (const file of files) {
  const wanted = imports(file);
  const glibc = wanted.filter(([, library]) => library === 'GLIBC');
  const needs = glibc.map(([, , version]) => version).reduce((a, b) => (newer(b, a) ? b : a), '0');
  const tooNew = glibc.filter(([, , version]) => newer(version, floor));
  const shared = libraries(file).filter((library) => !present.test(library));
  console.log(`${path.relative(process.cwd(), file)}: needs glibc ${needs}; the floor is ${floor}`);
  for (const [symbol, , version] of tooNew)
    console.error(`  ${symbol} needs ${version}: give its older version in cmake/old_glibc.def`);
  for (const library of shared) console.error(`  ${library} is not linked statically`);
  failed ||= tooNew.length > 0 || shared.length > 0;
}
process.exitCode = failed ? 1 : 0;
