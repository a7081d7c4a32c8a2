#!/usr/bin/env node
// Fails when a kernel compiled for a newer processor could be called on an older one. Inline
// functions and templates that several object files define are merged by the linker, which keeps
// any one of them: if it keeps the AVX-512 copy of, say, std::vector::push_back, the addon dies of
// SIGILL where there is no AVX-512. So those files may define none.
// Fails, too, when a kernel for Windows, whose stacks are aligned to 16 bytes, takes a wider
// alignment of a vector on the stack for granted, as GCC does (its bug 54412).
// Usage: check-isa.mjs (after a Release build, or of prebuilds; the sanitizers' builds inline less
// and prove nothing)
import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import path from 'node:path';
import { root } from './platforms.mjs';

function kernelsOf(folder, ending) {
  const build = path.join(root, 'build', folder);
  if (!existsSync(build)) return [];
  return readdirSync(build, { recursive: true })
    .filter((file) => /kernels_avx\w+\.cc\.\w+$/.test(file) && file.endsWith(ending))
    .map((file) => path.join(build, file));
}
const said = (command, ...args) =>
  execFileSync(command, args, { encoding: 'utf8', maxBuffer: 2 ** 28 });

// COFF and Mach-O write it otherwise; they are of the compiler of musl's.
const elf = [...kernelsOf('cmake', '.o'), ...kernelsOf('prebuilds/linux-x64-musl', '.o')];
if (elf.length === 0 && process.arch === 'x64')
  throw new Error('no AVX kernels in build/cmake: run `npm run build:native` first');
for (const object of elf) {
  const symbols = said('nm', '--demangle', '--defined-only', object);
  const merged = symbols.split('\n').filter((line) => /^[0-9a-f]+ W /.test(line));
  console.log(
    `${path.relative(root, object)}: ${String(merged.length)} functions that the linker may share`,
  );
  for (const line of merged)
    console.error(`  ${line.slice(19)}: make it static, or keep it out of this file`);
  if (merged.length > 0) process.exitCode = 1;
}

for (const object of kernelsOf('prebuilds/win32-x64', '.obj')) {
  const code = said('objdump', '--disassemble', '--no-show-raw-insn', object);
  const functions = code.split(/^[0-9a-f]+ <(?=.*>:$)/m).slice(1);
  const widest = (text) => {
    const moves = [...text.matchAll(/vmov(?:ap[sd]|dqa\d*)\s.*/g)].map(([line]) => line);
    const onStack = moves.filter((line) => /\(%r(?:sp|bp|bx)\b/.test(line));
    return Math.max(
      16,
      ...onStack.map((line) => (line.includes('%zmm') ? 64 : line.includes('%ymm') ? 32 : 16)),
    );
  };
  const aligned = (text) =>
    Math.max(
      16,
      ...[...text.matchAll(/and\s+\$0x(f+[0-9a-f]+),%rsp/g)].map(([, mask]) =>
        Number(2n ** 64n - BigInt(`0x${mask}`)),
      ),
    );
  const wide = functions.filter((text) => widest(text) > 16);
  const wrong = wide.filter((text) => aligned(text) < widest(text));
  console.log(
    `${path.relative(root, object)}: ${wide.length} functions have wide vectors on the stack, ` +
      `${wrong.length} without aligning it`,
  );
  for (const text of wrong) console.error(`  ${text.split('>')[0]}`);
  if (wrong.length > 0) process.exitCode = 1;
}
