// The script that builds the addon, with a stand-in for CMake: what it removes and writes, and
// where. tests/package/package.test.ts builds with the real one.
import { spawn, spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeEach, describe, expect, test, vi } from 'vitest';

const root = fileURLToPath(new URL('../..', import.meta.url));
const temporary = fs.realpathSync(fs.mkdtempSync(path.join(os.tmpdir(), 'diralign-build-')));
fs.chmodSync(temporary, 0o755);
afterAll(() => {
  fs.rmSync(temporary, { recursive: true, force: true });
});

/**
 * A package without cmake-js, the stand-in first on the PATH, and a folder from which commands are
 * typed.
 */
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
  for (const name of [
    'build-native.mjs',
    'build-cuda.mjs',
    'build-directory.mjs',
    'build-progress.mjs',
  ]) {
    fs.copyFileSync(path.join(root, 'scripts', name), path.join(packageFolder, 'scripts', name));
  }
  fs.writeFileSync(
    path.join(packageFolder, 'package.json'),
    '{ "name": "diralign", "type": "module" }',
  );
  fs.copyFileSync(path.join(root, 'tests/fixtures/cmake.mjs'), path.join(home, 'bin/cmake'));
  fs.symlinkSync(process.execPath, path.join(home, 'bin/node'));
  gpus();
});

/**
 * What nvidia-smi says of compute capabilities; without any it fails, as where there is no driver.
 */
function gpus(...capabilities: string[]): void {
  const lines = capabilities.map((capability) => `echo ${capability}`);
  const script = ['#!/bin/sh', ...lines, capabilities.length === 0 ? 'exit 9' : 'exit 0'].join(
    '\n',
  );
  fs.writeFileSync(path.join(home, 'bin/nvidia-smi'), script, { mode: 0o755 });
}

interface Ended {
  readonly status: number | null;
  readonly output: string;
}

interface Surroundings {
  readonly cwd?: string;
  readonly uid?: number;
  readonly env?: NodeJS.ProcessEnv;
}

function build(args: readonly string[], { cwd = here, uid, env = {} }: Surroundings = {}): Ended {
  const { status, stdout, stderr } = spawnSync(
    process.execPath,
    [path.join(packageFolder, 'scripts/build-native.mjs'), ...args],
    {
      cwd,
      encoding: 'utf8',
      env: {
        ...process.env,
        ...{
          CUDA_VISIBLE_DEVICES: undefined,
          DIRALIGN_CUDA_ARCHITECTURES: undefined,
          npm_lifecycle_event: undefined,
        },
        PATH: `${path.join(home, 'bin')}${path.delimiter}${process.env.PATH ?? ''}`,
        ...env,
      },
      ...(uid !== undefined && { uid }),
    },
  );
  return { status, output: `${stdout}${stderr}` };
}

/** One line of explanation, and nothing was changed. */
function refused(args: readonly string[], options?: Parameters<typeof build>[1]): string {
  const before = listed(home);
  const { status, output } = build(args, options);
  expect({ status, lines: output.trim().split('\n').length, output }).toEqual({
    status: 1,
    lines: 1,
    output,
  });
  expect(output).toMatch(/^diralign: /);
  expect(listed(home)).toEqual(before);
  return output;
}

function built(args: readonly string[], options?: Parameters<typeof build>[1]): string {
  const { status, output } = build(args, options);
  expect({ status, output }).toEqual({ status: 0, output });
  return output;
}

const listed = (folder: string): string[] =>
  fs.readdirSync(folder, { recursive: true, encoding: 'utf8' }).sort();

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

  test.each([[[]], [['--clean']]])(
    'a folder that holds other things is left alone, with %j',
    (clean) => {
      const folder = precious('precious');
      expect(refused(['--build-dir', folder, ...clean])).toContain('is not empty');
      fs.symlinkSync(folder, path.join(home, 'link'));
      expect(refused(['--build-dir', path.join(home, 'link'), ...clean])).toContain('is not empty');
      expect(refused(['--build-dir', path.join(home, 'link/photos'), ...clean])).toContain(
        'is not empty',
      );
      // Other people's, of CMake.
      fs.writeFileSync(
        path.join(folder, 'CMakeCache.txt'),
        `CMAKE_HOME_DIRECTORY:INTERNAL=${folder}\n`,
      );
      expect(refused(['--build-dir', folder, ...clean])).toContain('is not empty');
    },
  );

  test.each(['.', '../', '..', '/', '../node_modules', '../node_modules/diralign', '../link'])(
    '%s has the current folder or the package in it, and is refused',
    (directory) => {
      fs.symlinkSync(home, path.join(home, 'link'));
      for (const clean of [[], ['--clean']]) {
        expect(refused(['--build-dir', directory, ...clean])).toMatch(
          /has \S+ in it; name a new directory/,
        );
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
    expect(listed(here)).toEqual([
      'out',
      'out/.diralign-build',
      'out/CMakeCache.txt',
      'out/diralign.node',
    ]);
  });

  test('of the time before directories were marked, only that in the package is a build', () => {
    const own = path.join(packageFolder, 'build/cmake');
    const other = path.join(here, 'old');
    for (const folder of [own, other]) {
      fs.mkdirSync(folder, { recursive: true });
      fs.writeFileSync(
        path.join(folder, 'CMakeCache.txt'),
        `CMAKE_HOME_DIRECTORY:INTERNAL=${packageFolder}\n`,
      );
      fs.writeFileSync(path.join(folder, 'stale.o'), 'x');
    }
    expect(refused(['--build-dir', 'old', '--clean'])).toContain('--clean does not remove it');
    built(['--build-dir', 'old']);
    expect(listed(other)).toContain('stale.o');
    built(['--clean']);
    expect(fs.existsSync(path.join(own, 'stale.o'))).toBe(false);
  });

  test('an addon that works stays until there is another', () => {
    built([]);
    fs.writeFileSync(
      path.join(home, 'bin/cmake'),
      '#!/bin/sh\n[ "$1" = --version ] && exit 0\necho broken; exit 1\n',
    );
    const { status, output } = build(['--clean']);
    expect({ status, output }).toEqual({
      status: 1,
      output: expect.stringContaining('broken') as string,
    });
    expect(fs.readFileSync(path.join(packageFolder, 'build/Release/diralign.node'), 'utf8')).toBe(
      'addon',
    );
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
  expect(refused(['--config', '../../../..', '--clean'])).toContain('is not one of');
});

describe('--cuda', () => {
  /** What CMake is told about CUDA, and what the user is. */
  function told(
    args: readonly string[],
    env: NodeJS.ProcessEnv = {},
  ): { readonly cmake: string[]; readonly output: string } {
    const log = path.join(home, 'cmake.log');
    fs.rmSync(log, { force: true });
    const output = built(args, { env: { CMAKE_LOG: log, ...env } });
    const calls = fs
      .readFileSync(log, 'utf8')
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as string[]);
    const configure = calls.find((call) => call.includes('-S')) ?? [];
    return { cmake: configure.filter((arg) => arg.startsWith('-DDIRALIGN_CUDA')), output };
  }
  const off = ['-DDIRALIGN_CUDA=OFF'];
  const of = (backend: string, architectures: string): string[] => [
    `-DDIRALIGN_CUDA=${backend}`,
    `-DDIRALIGN_CUDA_ARCHITECTURES=${architectures}`,
  ];

  test('without a visible GPU there is none, and one line says how to have it', () => {
    const { cmake, output } = told([]);
    expect(cmake).toEqual(off);
    const line = 'diralign: no GPU is visible, so CUDA is left out; with it: npx diralign build';
    expect(output).toMatch(new RegExp(`^${line} --cuda 90 .*\\n`));
    expect(told([], { npm_lifecycle_event: 'build' }).output).toContain(
      'npm run build -- --cuda 90',
    );
    gpus('9.0');
    for (const hidden of ['', '-1'])
      expect(told([], { CUDA_VISIBLE_DEVICES: hidden }).cmake).toEqual(off);
  });

  test('for the GPUs that are visible, each once', () => {
    gpus('9.0', '8.6', '9.0');
    expect(told([])).toMatchObject({
      cmake: of('AUTO', '90-real;86-real'),
      output: expect.not.stringContaining('--cuda') as string,
    });
    expect(told([], { CUDA_VISIBLE_DEVICES: '0' }).cmake).toEqual(of('AUTO', '90-real;86-real'));
    gpus('7.0', '8.0');
    expect(told([]).cmake).toEqual(of('AUTO', '80-real'));
    gpus('6.1');
    expect(told([])).toMatchObject({
      cmake: off,
      output: expect.stringContaining('compute capability 61') as string,
    });
  });

  test('as asked, whatever is visible', () => {
    gpus('9.0');
    expect(told(['--cuda', 'none'])).toMatchObject({
      cmake: off,
      output: expect.not.stringContaining('left out') as string,
    });
    expect(told(['--cuda', 'all']).cmake).toEqual(of('ON', 'all'));
    expect(told(['--cuda', '80, 8.6,90a']).cmake).toEqual(of('ON', '80-real;86-real;90a-real'));
    expect(told(['--cuda', 'auto']).cmake).toEqual(of('AUTO', '90-real'));
    expect(told(['-D', 'DIRALIGN_CUDA=AUTO']).cmake).toEqual(['-DDIRALIGN_CUDA=AUTO']);
    expect(told([], { DIRALIGN_CUDA_ARCHITECTURES: '75-real;120' }).cmake).toEqual(
      of('AUTO', '75-real;120'),
    );
  });

  test.each(['70', '9', 'hopper', '', '90,', '90;rm'])("'%s' is refused", (list) => {
    expect(refused([`--cuda=${list}`])).toMatch(
      /--cuda: .* is not auto, none, all, or compute capabilities of 75 or later/,
    );
  });
});

describe('what it shows and leaves', () => {
  test('a build leaves the addon that the loader finds, and no other', () => {
    built(['--config', 'Debug']);
    built([]);
    expect(listed(path.join(packageFolder, 'build'))).toEqual([
      'Debug',
      'Release',
      'Release/diralign.node',
    ]);
    built(['--config', 'Debug']);
    expect(listed(path.join(packageFolder, 'build'))).toEqual([
      'Debug',
      'Debug/diralign.node',
      'Release',
    ]);
  });

  test('elsewhere it says how to load it', () => {
    expect(built(['--build-dir', 'out'])).toContain(
      `DIRALIGN_ADDON=${path.join(here, 'out/diralign.node')}`,
    );
  });

  test('of a build that fails, what the compiler says, without the steps that went well', () => {
    const script = `#!/bin/sh
[ "$1" = --version ] && exit 0
[ "$1" = -S ] && { mkdir -p "$4"; echo > "$4/CMakeCache.txt"; exit 0; }
echo '[1/3] Building CXX object src/a.cc.o'; echo 'a.cc:1: error: no'
echo '[ 66%] Building CXX object src/b.cc.o'; exit 2`;
    fs.writeFileSync(path.join(home, 'bin/cmake'), script, { mode: 0o755 });
    const { status, output } = build([]);
    expect(status).toBe(1);
    expect(output).toContain('a.cc:1: error: no');
    expect(output).not.toContain('Building');
    expect(output).toContain('the native build failed; its output is above');
  });

  test('a signal ends the compilers, too', async () => {
    const script = `#!/bin/sh
[ "$1" = --version ] && exit 0
sleep 1000 & echo $! > "${home}/pid"; wait`;
    fs.writeFileSync(path.join(home, 'bin/cmake'), script, { mode: 0o755 });
    const child = spawn(process.execPath, [path.join(packageFolder, 'scripts/build-native.mjs')], {
      cwd: here,
      env: {
        ...process.env,
        PATH: `${path.join(home, 'bin')}${path.delimiter}${process.env.PATH ?? ''}`,
      },
    });
    await vi.waitUntil(
      () =>
        fs.existsSync(path.join(home, 'pid')) &&
        fs.readFileSync(path.join(home, 'pid'), 'utf8') !== '',
      20_000,
    );
    const compiler = Number(fs.readFileSync(path.join(home, 'pid'), 'utf8'));
    child.kill('SIGTERM');
    expect(
      await new Promise((resolve) =>
        child.on('close', (_, signal) => {
          resolve(signal);
        }),
      ),
    ).toBe('SIGTERM');
    const isGone = (): boolean => {
      try {
        process.kill(compiler, 0);
        return false;
      } catch {
        return true;
      }
    };
    await vi.waitUntil(isGone, 20_000);
  });
});

test('an option given twice is refused, but for those of CMake', () => {
  expect(refused(['--config', 'Debug', '--config', 'Release'])).toContain(
    "'--config' is given twice",
  );
  built(['-D', 'A=1', '-D', 'B=2']);
});
