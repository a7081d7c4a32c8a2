/** The prebuilt addons of the package, one for each platform. */
import { isMusl } from './system.js';

/** The prebuilt addon of this system, below `prebuilds`. */
export function prebuiltName(): string {
  const libc = process.platform === 'linux' ? `.${isMusl() ? 'musl' : 'glibc'}` : '';
  return `${process.platform}-${process.arch}/diralign${libc}.node`;
}

/**
 * Where a tool has put the prebuilt addon of this system; undefined where there never is one.
 *
 * The paths are written out because tools that trace or copy files (@vercel/nft, Next.js, webpack)
 * look for `new URL(..., import.meta.url)` in the source, and for nothing that is computed. webpack
 * refuses a path that leads nowhere: scripts/prepack.mjs leaves in the package those of the files
 * that are packed.
 */
export function prebuiltUrl(): URL | undefined {
  switch (prebuiltName()) {
    case 'linux-x64/diralign.glibc.node':
      return new URL('../../prebuilds/linux-x64/diralign.glibc.node', import.meta.url);
    case 'linux-x64/diralign.musl.node':
      return new URL('../../prebuilds/linux-x64/diralign.musl.node', import.meta.url);
    case 'linux-arm64/diralign.glibc.node':
      return new URL('../../prebuilds/linux-arm64/diralign.glibc.node', import.meta.url);
    case 'linux-arm64/diralign.musl.node':
      return new URL('../../prebuilds/linux-arm64/diralign.musl.node', import.meta.url);
    case 'win32-x64/diralign.node':
      return new URL('../../prebuilds/win32-x64/diralign.node', import.meta.url);
    case 'win32-arm64/diralign.node':
      return new URL('../../prebuilds/win32-arm64/diralign.node', import.meta.url);
    case 'darwin-arm64/diralign.node':
      return new URL('../../prebuilds/darwin-arm64/diralign.node', import.meta.url);
    case 'darwin-x64/diralign.node':
      return new URL('../../prebuilds/darwin-x64/diralign.node', import.meta.url);
    default:
      return undefined;
  }
}
