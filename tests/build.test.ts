// The script that builds the addon, with a stand-in for CMake: what it removes and writes, and where. tests/package.test.ts builds
// with the real one.
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeEach, describe, expect, test } from 'vitest';

const root = fileURLToPath(new URL('..', import.meta.url));
const temporary = fs.realpathSync(fs.mkdtempSync(path.join(os.tmpdir(), 'diralign-build-')));
fs.chmodSync(temporary, 0o755);
afterAll(() => {
  fs.rmSync(temporary, { recursive: true, force: true });
});

/** A package without cmake-js, the stand-in first on the PATH, and a folder from which commands are typed. */
let home: string;
let packageFolder: string;
let here: string;
beforeEach(() => {
  home = fs.mkdtempSync(path.join(temporary, 'test-'));
  fs.chmodSync(home, 0o755);
  packageFolder = path.join(home, 'node_modules/diralign');
  here = path.join(home, 'here');
  for (const folder of [path.join(packageFolder, 'scripts'), here, path.join(home, 'bin')])
    fs.mkdirSync(folder, { recursive: true });
  for (const name of ['build-native.mjs', 'build-directory.mjs']) {
    fs.copyFileSync(path.join(root, 'scripts', name), path.join(packageFolder, 'scripts', name));
  }
  fs.writeFileSync(path.join(packageFolder, 'package.json'), '{ "name": "diralign", "type": "module" }');
  fs.copyFileSync(path.join(root, 'tests/fixtures/cmake.mjs'), path.join(home, 'bin/cmake'));
  fs.symlinkSync(process.execPath, path.join(home, 'bin/node'));
});

interface Ended {
  readonly status: number | null;
  readonly output: string;
}

function build(args: readonly string[], { cwd = here, uid }: { cwd?: string; uid?: number } = {}): Ended {
  const { status, stdout, stderr } = spawnSync(
    process.execPath,
    [path.join(packageFolder, 'scripts/build-native.mjs'), ...args],
    {
      cwd,
      encoding: 'utf8',
      env: { ...process.env, PATH: `${path.join(home, 'bin')}${path.delimiter}${process.env.PATH ?? ''}` },
      ...(uid !== undefined && { uid }),
    },
  );
  return { status, output: `${stdout}${stderr}` };
}

/** One line of explanation, and nothing was changed. */
function refused(args: readonly string[], options?: Parameters<typeof build>[1]): string {
  const before = listed(home);
  const { status, output } = build(args, options);
  expect({ status, lines: output.trim().split('\n').length, output }).toEqual({ status: 1, lines: 1, output });
  expect(output).toMatch(/^diralign: /);
  expect(listed(home)).toEqual(before);
  return output;
}

function built(args: readonly string[], options?: Parameters<typeof build>[1]): string {
  const { status, output } = build(args, options);
  expect({ status, output }).toEqual({ status: 0, output });
  return output;
}

const listed = (folder: string): string[] => fs.readdirSync(folder, { recursive: true, encoding: 'utf8' }).sort();

/** A folder of the user's. */
function precious(name: string): string {
  const folder = path.join(home, name);
  fs.mkdirSync(path.join(folder, 'photos'), { recursive: true });
  fs.writeFileSync(path.join(folder, 'photos/one'), 'x');
  return folder;
}

const anyone = process.getuid?.() === 0 ? 65534 : undefined;

describe('--build-dir', () => {
  test('is below the current folder, with the addon; without it all is in the package', () => {
    const output = built(['--build-dir', 'out/of']);
    expect(output).toContain('built out/of/diralign.node without CUDA');
    expect(fs.existsSync(path.join(here, 'out/of/diralign.node'))).toBe(true);
    expect(fs.existsSync(path.join(packageFolder, 'build'))).toBe(false);
    built([]);
    expect(fs.existsSync(path.join(packageFolder, 'build/Release/diralign.node'))).toBe(true);
    expect(listed(here)).not.toContain('build');
  });

  test.each([[[]], [['--clean']]])('a folder that holds other things is left alone, with %j', (clean) => {
    const folder = precious('precious');
    expect(refused(['--build-dir', folder, ...clean])).toContain('is not empty');
    fs.symlinkSync(folder, path.join(home, 'link'));
    expect(refused(['--build-dir', path.join(home, 'link'), ...clean])).toContain('is not empty');
    expect(refused(['--build-dir', path.join(home, 'link/photos'), ...clean])).toContain('is not empty');
    // Other people's, of CMake.
    fs.writeFileSync(path.join(folder, 'CMakeCache.txt'), `CMAKE_HOME_DIRECTORY:INTERNAL=${folder}\n`);
    expect(refused(['--build-dir', folder, ...clean])).toContain('is not empty');
  });

  test.each(['.', './', '..', '/', '../node_modules', '../node_modules/diralign', '../link'])(
    '%s has the current folder or the package in it, and is refused',
    (directory) => {
      fs.symlinkSync(home, path.join(home, 'link'));
      for (const clean of [[], ['--clean']]) {
        expect(refused(['--build-dir', directory, ...clean])).toMatch(/has \S+ in it; name a new directory/);
      }
    },
  );

  test('what is no directory is refused', () => {
    fs.writeFileSync(path.join(here, 'file'), 'x');
    fs.symlinkSync('loop', path.join(here, 'loop'));
    expect(refused(['--build-dir', 'file', '--clean'])).toContain('is no directory');
    expect(refused(['--build-dir', 'file/below'])).toContain('ENOTDIR');
    expect(refused(['--build-dir', 'loop'])).toContain('ELOOP');
    expect(refused(['--build-dir', '/dev/null'])).toContain('is no directory');
    expect(refused(['--build-dir='])).toContain("'' names no directory");
    expect(refused(['--build-dir', 'x'.repeat(300)])).toContain('ENAMETOOLONG');
  });

  test('a link to an empty directory stays a link', () => {
    fs.mkdirSync(path.join(home, 'empty'));
    fs.symlinkSync(path.join(home, 'empty'), path.join(here, 'link'));
    for (const clean of [[], ['--clean']]) built(['--build-dir', 'link', ...clean]);
    expect(fs.lstatSync(path.join(here, 'link')).isSymbolicLink()).toBe(true);
    expect(fs.existsSync(path.join(home, 'empty/diralign.node'))).toBe(true);
  });
});

describe('--clean', () => {
  test('removes what builds have left in a directory of theirs', () => {
    built(['--build-dir', 'out']);
    fs.writeFileSync(path.join(here, 'out/stale.o'), 'x');
    built(['--build-dir', 'out']);
    expect(listed(here)).toContain('out/stale.o');
    built(['--build-dir', 'out', '--clean']);
    expect(listed(here)).toEqual(['out', 'out/.diralign-build', 'out/CMakeCache.txt', 'out/diralign.node']);
  });

  test('of the time before directories were marked, only the one in the package is known to be a build', () => {
    const own = path.join(packageFolder, 'build/cmake');
    const other = path.join(here, 'old');
    for (const folder of [own, other]) {
      fs.mkdirSync(folder, { recursive: true });
      fs.writeFileSync(path.join(folder, 'CMakeCache.txt'), `CMAKE_HOME_DIRECTORY:INTERNAL=${packageFolder}\n`);
      fs.writeFileSync(path.join(folder, 'stale.o'), 'x');
    }
    expect(refused(['--build-dir', 'old', '--clean'])).toContain('--clean does not remove it');
    built(['--build-dir', 'old']);
    expect(listed(other)).toContain('stale.o');
    built(['--clean']);
    expect(listed(own)).not.toContain('stale.o');
  });

  test('an addon that works stays until there is another', () => {
    built([]);
    fs.writeFileSync(path.join(home, 'bin/cmake'), '#!/bin/sh\n[ "$1" = --version ] && exit 0\necho broken; exit 1\n');
    const { status, output } = build(['--clean']);
    expect({ status, output }).toEqual({ status: 1, output: expect.stringContaining('broken') as string });
    expect(fs.readFileSync(path.join(packageFolder, 'build/Release/diralign.node'), 'utf8')).toBe('addon');
  });

  test.runIf(anyone !== undefined)('what cannot be removed or written is said in one line', () => {
    built(['--build-dir', 'out']);
    const uid = anyone as number;
    expect(refused(['--build-dir', 'out', '--clean'], { uid })).toContain('EACCES');
    expect(refused(['--build-dir', 'new'], { uid })).toContain('EACCES');
    expect(refused([], { uid })).toMatch(/EACCES.*--build-dir DIR, and set DIRALIGN_ADDON/);
  });
});

describe('--log', () => {
  test('is emptied when the build begins, and not before', () => {
    fs.writeFileSync(path.join(here, 'log'), 'before');
    refused(['--log', 'log', '--build-dir', '.']);
    refused(['--log', 'log', '--config', 'Fast']);
    expect(fs.readFileSync(path.join(here, 'log'), 'utf8')).toBe('before');
    built(['--log', 'log']);
    expect(fs.readFileSync(path.join(here, 'log'), 'utf8')).not.toContain('before');
  });

  test('a folder is refused, a device stays one', () => {
    expect(build(['--log', '.']).output).toMatch(/^diralign: EISDIR[^\n]*\n$/);
    built(['--log', '/dev/null']);
    expect(fs.statSync('/dev/null').isCharacterDevice()).toBe(true);
  });
});

test('--config is one that the loader looks at', () => {
  expect(refused(['--config', 'RelWithDebInfo'])).toContain('is not one of Release, Debug');
  expect(refused(['--config', '../../..', '--clean'])).toContain('is not one of');
});
