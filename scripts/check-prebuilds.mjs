#!/usr/bin/env node
// Fails when an addon needs more of the system than we promise: a newer glibc or macOS, or a
// library that neither the system nor Node brings, such as libstdc++ or anything of CUDA, whose
// driver is looked for at run time. Fails, too, when it is for another platform than its folder
// says, and when those without CUDA are together larger than the package may be.
// Usage: check-prebuilds.mjs [FILE.node ...] (default: every prebuild)
import fs from 'node:fs';
import path from 'node:path';
import { readImage } from './images.mjs';
import { budget, floors, platforms, root } from './platforms.mjs';

const newer = (a, b) => a.localeCompare(b, 'en', { numeric: true }) > 0;

/** What the system has, or what is loaded with Node. */
const present = {
  linux: {
    glibc: /^(lib(c|m|pthread|dl|rt)\.so\.\d|libgcc_s\.so\.1|ld-linux.*)$/,
    musl: /^libc\.so$/,
  },
  // The C library of Windows 10 and later, and of those before that have its update.
  win32: /^(kernel32|advapi32|api-ms-win-crt-\w+-l1-1-0)\.dll$/i,
  darwin: /^\/usr\/lib\/libSystem\.B\.dylib$/,
};

/** What is wrong with the needs of an addon, and a line that says what they are. */
function check(file, { platform, arch, libc }) {
  const image = readImage(file);
  const wrong = [];
  if (image.platform !== platform || image.arch !== arch)
    wrong.push(`is for ${image.platform} on ${image.arch}`);
  const allowed = platform === 'linux' ? present.linux[libc] : present[platform];
  for (const library of image.libraries)
    if (!allowed.test(library))
      wrong.push(`${library} is not part of the system: link it statically`);
  for (const [symbol, version] of image.glibc)
    if (libc !== 'glibc' || newer(version, floors.glibc))
      wrong.push(`${symbol} needs glibc ${version}: give its older version in cmake/old_glibc.def`);
  if (platform === 'darwin' && newer(image.macos, floors.macos))
    wrong.push(`needs macOS ${image.macos}`);
  if (!image.exports.includes('napi_register_module_v1'))
    wrong.push('exports no napi_register_module_v1');
  const glibc = image.glibc.map(([, version]) => version);
  const needs = [
    ...(libc === 'glibc' ? [`glibc ${glibc.reduce((a, b) => (newer(b, a) ? b : a), '0')}`] : []),
    ...(platform === 'darwin' ? [`macOS ${image.macos}`] : []),
    ...image.libraries,
  ];
  return { wrong, needs: needs.join(', ') };
}

const isBuilt = ({ file }) => fs.existsSync(path.join(root, file));
const asked = process.argv.slice(2);
const built =
  asked.length > 0
    ? asked.map((file) => ({ ...platformOf(file), file: path.relative(root, file) }))
    : platforms.filter(isBuilt);
if (built.length === 0) throw new Error('no prebuild to check');

/** As its path says. */
function platformOf(file) {
  const found = platforms.find((one) =>
    path.resolve(file).endsWith(path.normalize(`/${one.file}`)),
  );
  if (!found) throw new TypeError(`${file} is called like none of the prebuilds`);
  return found;
}

let total = 0;
for (const one of built) {
  const { wrong, needs } = check(path.join(root, one.file), one);
  const bytes = fs.statSync(path.join(root, one.file)).size;
  if (one.id !== 'linux-x64') total += bytes;
  console.log(`${one.file}: ${(bytes / 1e6).toFixed(2)} MB; needs ${needs}`);
  for (const line of wrong) console.error(`  ${line}`);
  if (wrong.length > 0) process.exitCode = 1;
}
if (total > budget.addons) {
  console.error(
    `${(total / 1e6).toFixed(1)} MB together; at most ${budget.addons / 1e6} are wanted`,
  );
  process.exitCode = 1;
}
