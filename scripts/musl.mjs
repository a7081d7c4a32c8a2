// Bun for musl on a system with glibc: musl's loader runs it, and the libstdc++ that it needs is
// put together from the one of this system's g++, which no distribution but Alpine has for musl.
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';

/** What that library wants of glibc alone. */
const shims = `char __libc_single_threaded = 0;
int _dl_find_object(void *pc, void *result) { return -1; }  // so that it asks dl_iterate_phdr
unsigned arc4random(void) { return 4; }
`;

/**
 * The folder with libstdc++.so.6 for `program`: of the parts that it uses, as its symbol table
 * says.
 */
export function libstdcxxFor(program, { zig, env, target, compiler, folder }) {
  const library = path.join(folder, 'libstdc++.so.6');
  if (fs.existsSync(library)) return folder;
  fs.mkdirSync(folder, { recursive: true });
  const source = path.join(folder, 'shims.c');
  fs.writeFileSync(source, shims);
  const symbols = execFileSync('readelf', ['-W', '--dyn-syms', program], {
    encoding: 'utf8',
    maxBuffer: 2 ** 28,
  });
  const used = [...symbols.matchAll(/ (_Z\w+|__cxa_\w+|__once_\w+|__dynamic_cast)$/gm)];
  const archive = (name) =>
    execFileSync(compiler, [`-print-file-name=${name}`], { encoding: 'utf8' }).trim();
  const wanted = used.map(([, name]) => `-Wl,-u,${name}`);
  execFileSync(
    zig,
    [
      'cc',
      `--target=${target}`,
      '-shared',
      '-Wl,-soname,libstdc++.so.6',
      ...['-o', library],
      ...wanted,
      source,
      archive('libstdc++.a'),
      archive('libgcc_eh.a'),
    ],
    { env },
  );
  return folder;
}
