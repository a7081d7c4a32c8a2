#!/usr/bin/env node
// Fails when a kernel compiled for a newer processor could be called on an older one. Inline
// functions and templates that several object files define are merged by the linker, which keeps
// any one of them: if it keeps the AVX-512 copy of, say, std::vector::push_back, the addon dies of
// SIGILL where there is no AVX-512. So those files may define none. Usage: check-isa.mjs (after a
// Release build; the sanitizers' builds inline less and prove nothing)
import { execFileSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..');
const objects = readdirSync(path.join(root, 'build/cmake'), { recursive: true })
  .filter((file) => /kernels_avx\w+\.cc\.o$/.test(file))
  .map((file) => path.join(root, 'build/cmake', file));

if (objects.length === 0 && process.arch === 'x64')
  throw new Error('no AVX kernels in build/cmake: run `npm run build:native` first');
for (const object of objects) {
  const symbols = execFileSync('nm', ['--demangle', '--defined-only', object], {
    encoding: 'utf8',
  });
  const merged = symbols.split('\n').filter((line) => /^[0-9a-f]+ W /.test(line));
  console.log(
    `${path.basename(object)}: ${String(merged.length)} functions that the linker may share`,
  );
  for (const line of merged)
    console.error(`  ${line.slice(19)}: make it static, or keep it out of this file`);
  if (merged.length > 0) process.exitCode = 1;
}
