// The platforms that there is a prebuilt addon for, and what its file is called: the one list for
// what builds, checks and runs them. The loader writes the same paths out (ts/native/load.ts).
import path from 'node:path';
import { fileURLToPath } from 'node:url';

export const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..');

/** The oldest systems that the addons must load on: those that Node 20 needs, or older ones. */
export const floors = { glibc: '2.28', macos: '11.0' };

/**
 * At most so many bytes, so that the package is less than 12 MB unpacked beside CUDA: `addons`, the
 * seven without CUDA (that of Linux x64 would be 1.3 MB without); `text`, all that is no addon.
 */
export const budget = { addons: 6.8e6, text: 3.2e6 };

const linux = (arch, libc, zig) => ({ platform: 'linux', arch, libc, zig });
const described = [
  linux('x64', 'glibc', `x86_64-linux-gnu.${floors.glibc}`),
  linux('arm64', 'glibc', `aarch64-linux-gnu.${floors.glibc}`),
  linux('x64', 'musl', 'x86_64-linux-musl'),
  linux('arm64', 'musl', 'aarch64-linux-musl'),
  { platform: 'win32', arch: 'x64', zig: 'x86_64-windows-gnu' },
  { platform: 'win32', arch: 'arm64', zig: 'aarch64-windows-gnu' },
  { platform: 'darwin', arch: 'arm64', zig: `aarch64-macos.${floors.macos}` },
  { platform: 'darwin', arch: 'x64', zig: `x86_64-macos.${floors.macos}` },
];

/** `zig` is what scripts/zig's compiler calls it. `file` is relative to the package. */
export const platforms = described.map((one) => {
  const { platform, arch, libc } = one;
  return {
    ...one,
    id: `${platform}-${arch}${libc === 'musl' ? '-musl' : ''}`,
    file: `prebuilds/${platform}-${arch}/diralign${libc === undefined ? '' : `.${libc}`}.node`,
  };
});

const { glibcVersionRuntime } = process.report.getReport().header;
/** What runs this script; undefined where there is no such platform. */
export const here = platforms.find(
  ({ platform, arch, libc }) =>
    platform === process.platform &&
    arch === process.arch &&
    (libc === undefined || libc === (glibcVersionRuntime === undefined ? 'musl' : 'glibc')),
);

/** Those of a list such as `win32-x64,linux-arm64`. */
export function platformsOf(list) {
  return list.split(',').map((id) => {
    const found = platforms.find((one) => one.id === id);
    if (!found)
      throw new TypeError(
        `there is no platform '${id}'; expected ${platforms.map((one) => one.id).join(', ')}`,
      );
    return found;
  });
}
