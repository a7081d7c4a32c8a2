// What a shared library needs and exports, of any platform: ELF as readelf says it, PE and Mach-O
// read here, because Debian's binutils know neither of all machines.
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';

/**
 * @returns platform and arch in Node's words; libraries, the names of those that it loads; exports;
 *   glibc, pairs of a symbol and the version that it needs; macos, the oldest that it is for
 */
export function readImage(file) {
  const bytes = fs.readFileSync(file);
  const none = { glibc: [], macos: undefined };
  switch (bytes.readUInt32BE(0)) {
    case 0x7f454c46:
      return { ...none, ...readElf(file) };
    case 0xcffaedfe:
      return { ...none, ...readMachO(bytes) };
    default:
      if (bytes.toString('latin1', 0, 2) === 'MZ') return { ...none, ...readPe(bytes) };
      throw new Error(`${file}: neither ELF nor PE nor Mach-O of 64 bits`);
  }
}

function readElf(file) {
  const readelf = (...args) => execFileSync('readelf', ['-W', ...args, file], { encoding: 'utf8' });
  const names = { 'Advanced Micro Devices X86-64': 'x64', AArch64: 'arm64' };
  const machine = /Machine:\s+(.+)/.exec(readelf('-h'))?.[1];
  const symbols = readelf('--dyn-syms').matchAll(
    /^\s*\d+: [0-9a-f]+\s+\S+ \w+\s+(\w+)\s+\w+\s+(\w+) (\w+)(?:@+(\w+?)_([\d.]+))?/gm,
  );
  const all = [...symbols].map(([, , section, name, library, version]) => ({
    isNeeded: section === 'UND',
    name,
    library,
    version,
  }));
  return {
    platform: 'linux',
    arch: names[machine] ?? machine,
    libraries: [...readelf('-d').matchAll(/\(NEEDED\).*\[(.+)\]/g)].map(([, name]) => name),
    exports: all.filter(({ isNeeded }) => !isNeeded).map(({ name }) => name),
    glibc: all
      .filter(({ isNeeded, library }) => isNeeded && library === 'GLIBC')
      .map(({ name, version }) => [name, version]),
  };
}

function textAt(bytes, offset) {
  return bytes.toString('latin1', offset, bytes.indexOf(0, offset));
}

/** https://learn.microsoft.com/windows/win32/debug/pe-format */
function readPe(bytes) {
  const header = bytes.readUInt32LE(0x3c) + 4;
  const [machine, sections, optionalSize] = [0, 2, 16].map((at) => bytes.readUInt16LE(header + at));
  const optional = header + 20;
  if (bytes.readUInt16LE(optional) !== 0x20b) throw new Error('PE, but not of 64 bits');
  /** Where in the file an address is. */
  const at = (address) => {
    for (let i = 0; i < sections; i++) {
      const section = optional + optionalSize + 40 * i;
      const [size, start, , offset] = [8, 12, 16, 20].map((o) => bytes.readUInt32LE(section + o));
      if (address >= start && address < start + size) return address - start + offset;
    }
    throw new Error(`no section has address ${address}`);
  };
  const directory = (index) => bytes.readUInt32LE(optional + 112 + 8 * index);
  /** Of a table of descriptors that ends with zeros: the names that they have at `field`. */
  const libraries = (index, size, field) => {
    const names = [];
    if (directory(index) === 0) return names;
    for (let entry = at(directory(index)); bytes.readUInt32LE(entry + field) !== 0; entry += size)
      names.push(textAt(bytes, at(bytes.readUInt32LE(entry + field))));
    return names;
  };
  const exports = [];
  if (directory(0) !== 0) {
    const table = at(directory(0));
    const list = at(bytes.readUInt32LE(table + 32));
    for (let i = 0; i < bytes.readUInt32LE(table + 24); i++)
      exports.push(textAt(bytes, at(bytes.readUInt32LE(list + 4 * i))));
  }
  return {
    platform: 'win32',
    arch: { 0x8664: 'x64', 0xaa64: 'arm64' }[machine] ?? String(machine),
    libraries: [...libraries(1, 20, 12), ...libraries(13, 32, 4)], // at once, and when first used
    exports,
  };
}

/** <mach-o/loader.h> */
function readMachO(bytes) {
  const loads = { 0xc: 'dylib', 0x80000018: 'dylib', 0x8000001f: 'dylib', 0x80000023: 'dylib' };
  const image = { platform: 'darwin', libraries: [], exports: [] };
  const machine = bytes.readUInt32LE(4);
  image.arch = { 0x1000007: 'x64', 0x100000c: 'arm64' }[machine] ?? String(machine);
  let command = 32;
  for (let i = 0; i < bytes.readUInt32LE(16); i++) {
    const kind = bytes.readUInt32LE(command);
    const word = (n) => bytes.readUInt32LE(command + 4 * n);
    if (loads[kind] === 'dylib') image.libraries.push(textAt(bytes, command + word(2)));
    const version = kind === 0x32 ? word(3) : kind === 0x24 ? word(2) : undefined;
    if (version !== undefined) image.macos = `${version >>> 16}.${(version >>> 8) & 0xff}`;
    if (kind === 0x2) {
      // The symbol table: defined and external, without the underscore of C names.
      for (let s = 0; s < word(3); s++) {
        const symbol = word(2) + 16 * s;
        const type = bytes[symbol + 4];
        if ((type & 0x0f) === 0x0f && (type & 0xe0) === 0 && (type & 0x10) === 0)
          image.exports.push(textAt(bytes, word(4) + bytes.readUInt32LE(symbol) + 1));
      }
    }
    if (kind === 0x1d) image.isSigned = true;
    command += word(1);
  }
  return image;
}
