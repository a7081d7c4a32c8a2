// Where the addon cannot be loaded, the error says what is so and what to do: each explanation is
// provoked in a process of its own, and none may be given for anything else.
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { nodeFileTrace } from '@vercel/nft';
import { buildSync, type Format } from 'esbuild';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { nativePath } from '../../ts/native/interface.js';
import { prebuiltName, prebuiltUrl } from '../../ts/native/prebuilt.js';
import { compilePackage, type Compiled } from '../support/compiled.js';

const root = fileURLToPath(new URL('../..', import.meta.url));
const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'diralign-load-'));
const addon = nativePath();
/** Of one token out of two that are as likely. */
const log2 = '0.693147';

interface Platform {
  readonly id: string;
  readonly platform: string;
  readonly arch: string;
  readonly libc?: string;
  readonly file: string;
}
const { platforms } = (await import(
  new URL('../../scripts/platforms.mjs', import.meta.url).href
)) as {
  platforms: readonly Platform[];
};

let compiled: Compiled;
let packageFolder: string;
beforeAll(() => {
  compiled = compilePackage();
  packageFolder = path.dirname(path.dirname(fileURLToPath(compiled.url)));
});
afterAll(() => {
  compiled.remove();
  fs.rmSync(folder, { recursive: true, force: true });
});

function write(name: string, text: string): string {
  const file = path.join(folder, name);
  fs.mkdirSync(path.dirname(file), { recursive: true });
  fs.writeFileSync(file, text);
  return file;
}

/** Prints `imported`, then the loss, or the error's code and message. */
const firstUse = (from: string): string => `import { dirAlignLoss } from ${JSON.stringify(from)};
console.log('imported');
try {
  const [logits, labels] = [new Float32Array(2), new Int32Array(1)];
  console.log(dirAlignLoss('sft')({ logits, shape: [1, 1, 2], labels }).loss);
} catch (error) {
  console.log(error.code ?? error.stack, error.message);
}`;

interface Surroundings {
  readonly node?: readonly string[];
  readonly env?: NodeJS.ProcessEnv;
  /** JavaScript that runs before the package is imported. */
  readonly before?: string;
  readonly url?: string;
  readonly uid?: number | undefined;
}

/** What a process says on first use. */
function use({ node = [], env = {}, before, url = compiled.url, uid }: Surroundings): string {
  const script = write('use.mjs', firstUse(url));
  const preload = before === undefined ? [] : ['--import', write('before.mjs', before)];
  return said([...node, ...preload, script], env, uid);
}

function said(args: readonly string[], env: NodeJS.ProcessEnv = {}, uid?: number): string {
  const inherited = { ...process.env };
  delete inherited.DIRALIGN_PREBUILD; // the loader's own way, whichever this run is about
  const { stdout, stderr } = spawnSync(process.execPath, [...args], {
    cwd: folder,
    encoding: 'utf8',
    env: { ...inherited, ...env },
    ...(uid !== undefined && { uid }),
  });
  expect(
    stderr.split('\n').filter((line) => line !== '' && !/Warning:|--trace-warnings/.test(line)),
  ).toEqual([]);
  const [imported, ...rest] = stdout.trim().split('\n');
  expect(imported).toBe('imported');
  return rest.join('\n');
}

const loadError = (text: string): RegExp => new RegExp(`^ERR_DIRALIGN_LOAD .*${text}`, 's');

const permission = process.allowedNodeEnvironmentFlags.has('--permission')
  ? '--permission'
  : '--experimental-permission';

describe("Node's switches", () => {
  const readAll = '--allow-fs-read=*';

  test('--no-addons', () => {
    expect(use({ node: ['--no-addons'] })).toMatch(loadError('started with --no-addons'));
    expect(use({ env: { NODE_OPTIONS: '--no-addons' } })).toMatch(
      loadError('started with --no-addons'),
    );
  });

  test('the permission model without --allow-addons is not called --no-addons', () => {
    const text = use({ node: [permission, readAll] });
    expect(text).toMatch(loadError('start node with --allow-addons'));
    expect(text).not.toContain('--no-addons');
  });

  test('--no-addons is named where the permission model would allow them', () => {
    const text = use({ node: [permission, readAll, '--allow-addons', '--no-addons'] });
    expect(text).toMatch(loadError('started with --no-addons'));
    expect(text).not.toContain('start node with --allow-addons');
  });

  test('nothing but the package and its dependencies has to be readable', () => {
    const reading = [
      folder,
      packageFolder,
      fs.realpathSync(root),
      path.dirname(fs.realpathSync(addon)),
    ];
    const allowed = reading.map((each) => `--allow-fs-read=${path.join(each, '*')}`);
    expect(use({ node: [permission, ...allowed, '--allow-addons'] })).toContain(log2);
  });

  test.each([
    [
      'package.json',
      ['use.mjs', 'dist/*'],
      /permission model forbids reading \S+package\.json: .*--allow-fs-read=/,
    ],
    [
      'the addon',
      ['use.mjs', 'dist/*', 'package.json'],
      /permission model forbids reading \S+diralign\.node: .*--allow-fs-read=/,
    ],
  ])('without leave to read %s that is said, not that there is no addon', (_, readable, reason) => {
    const allowed = readable.flatMap((name) =>
      [packageFolder, folder].map((each) => `--allow-fs-read=${path.join(each, name)}`),
    );
    const text = use({ node: [permission, ...allowed, '--allow-addons'] });
    expect(text).toMatch(/^ERR_DIRALIGN_LOAD/);
    expect(text).toMatch(reason);
    expect(text).not.toContain('no prebuilt');
  });
});

describe('copied to where the program runs', () => {
  const prebuilt = path.join('prebuilds', prebuiltName());
  const isInSwitch = prebuiltUrl() !== undefined;

  function placePrebuilt(to: string, name = prebuilt): void {
    const file = path.join(folder, to, name);
    fs.mkdirSync(path.dirname(file), { recursive: true });
    fs.copyFileSync(addon, file);
  }

  /** A program beside the package as npm installs it on a system that has a prebuilt addon. */
  function installed(to: string, name = prebuilt): string {
    const at = path.join(folder, to, 'node_modules/diralign');
    fs.cpSync(path.join(packageFolder, 'dist'), path.join(at, 'dist'), { recursive: true });
    fs.copyFileSync(path.join(packageFolder, 'package.json'), path.join(at, 'package.json'));
    placePrebuilt(path.relative(folder, at), name);
    return write(path.join(to, 'main.mjs'), firstUse('diralign'));
  }

  test.runIf(isInSwitch)(
    'what @vercel/nft traces, as Next.js does for its standalone output, is all that is needed',
    async () => {
      const main = installed('traced');
      const base = path.dirname(main);
      const { fileList } = await nodeFileTrace([main], { base, processCwd: base });
      expect([...fileList].filter((file) => file.endsWith('.node'))).toHaveLength(1);
      for (const file of fileList) {
        const to = path.join(folder, 'deployed', file);
        fs.mkdirSync(path.dirname(to), { recursive: true });
        fs.copyFileSync(path.join(base, file), to);
      }
      fs.rmSync(base, { recursive: true });
      const deployed = path.join(folder, 'deployed/main.mjs');
      expect(said([deployed])).toContain(log2);
    },
  );

  describe.each(platforms)('on $id', ({ id, platform, arch, libc, file }) => {
    const report = {
      header: libc === 'glibc' ? { glibcVersionRuntime: '2.28' } : {},
      sharedObjects: [`/lib/${libc === 'musl' ? 'ld-musl' : 'libc'}-x.so.1`],
    };
    const properties = JSON.stringify({ platform, arch });
    const before = `for (const [name, value] of Object.entries(${properties}))
  Object.defineProperty(process, name, { value });
process.report.getReport = () => (${JSON.stringify(report)});`;

    test('the addon where a bundler has copied it is found', () => {
      const outfile = path.join(folder, `copied-${id}/dist/server/main.mjs`);
      buildSync({
        stdin: { contents: firstUse(path.join(root, 'ts/index.ts')), resolveDir: root },
        ...{ bundle: true, platform: 'node', format: 'esm', outfile, logLevel: 'silent' },
      });
      const program = ['--import', write('before.mjs', before), outfile];
      expect(said(program)).toMatch(loadError('diralign was bundled'));
      placePrebuilt(`copied-${id}`, file);
      expect(said(program)).toContain(log2);
    });

    test('the addon in the package is found, which `info` calls prebuilt', () => {
      const main = installed(`installed-${id}`, file);
      const preload = ['--import', write('before.mjs', before)];
      expect(said([...preload, main])).toContain(log2);
      const cli = path.join(path.dirname(main), 'node_modules/diralign/dist/cli/main.js');
      const info = spawnSync(process.execPath, [...preload, cli, 'info', '--json'], {
        encoding: 'utf8',
        env: { ...process.env, DIRALIGN_PREBUILD: '' },
      });
      const system = { platform: `${platform}-${arch}`, addon: { origin: 'prebuilt' } };
      expect(JSON.parse(info.stdout)).toMatchObject(
        platform === 'linux'
          ? { ...system, libc: libc === 'musl' ? 'musl' : 'glibc 2.28' }
          : system,
      );
    });
  });

  describe.each<Format>(['esm', 'cjs'])('beside a bundle, %s', (format) => {
    function bundled(to: string): string {
      const outfile = path.join(folder, to, `main.${format === 'esm' ? 'mjs' : 'cjs'}`);
      buildSync({
        stdin: { contents: firstUse(path.join(root, 'ts/index.ts')), resolveDir: root },
        ...{ bundle: true, platform: 'node', format, outfile, logLevel: 'silent' },
      });
      return outfile;
    }

    test('the folder prebuilds is found where the package is not', () => {
      const file = bundled(`beside-${format}`);
      placePrebuilt(`beside-${format}`);
      expect(said([file])).toContain(log2);
      // A variable that says where to look is obeyed, and named in the error.
      expect(said([file], { DIRALIGN_PREBUILD: '/nowhere' })).toMatch(
        loadError('/nowhere, which DIRALIGN_PREBUILD names, has no addon'),
      );
    });

    test('the error names the places that were looked at, and no other', () => {
      const text = said([bundled(`lone-${format}/dist`)]);
      const [, looked = ''] = /native addon \((.*?)\)\. Copy/.exec(text) ?? [];
      const places = [`lone-${format}/dist`, ...(format === 'esm' && isInSwitch ? ['.'] : [])];
      expect(looked.split(', ').sort()).toEqual(
        places
          .map((place) => `there is no ${path.join(fs.realpathSync(folder), place, prebuilt)}`)
          .sort(),
      );
    });

    test('nothing but its folder has to be readable', () => {
      const file = bundled(`readable-${format}/dist`);
      const readable = `--allow-fs-read=${path.join(fs.realpathSync(path.dirname(file)), '*')}`;
      const node = [permission, readable, '--allow-addons', file];
      expect(said(node)).toMatch(
        format === 'esm' && isInSwitch
          ? loadError('diralign was bundled .* may not be read, there is no ')
          : loadError('diralign was bundled .*\\(there is no '),
      );
      placePrebuilt(`readable-${format}/dist`);
      expect(said(node)).toContain(log2);
    });
  });
});

describe('bundled into one file', () => {
  const entries = [
    'index',
    'data/index',
    'verification/reference',
    'trainers/tfjs/index',
    'trainers/jax-js/index',
    'trainers/transformers/index',
  ];
  const extension = (format: Format): string => (format === 'esm' ? 'mjs' : 'cjs');

  function bundle(
    format: Format,
    contents: string,
    to = `bundled/out.${extension(format)}`,
  ): string {
    const outfile = path.join(folder, to);
    buildSync({
      ...{
        stdin: { contents, resolveDir: root },
        bundle: true,
        platform: 'node',
        format,
        outfile,
        logLevel: 'silent',
      },
      external: ['@tensorflow/tfjs-core', '@jax-js/jax'],
    });
    return outfile;
  }
  const source = (entry: string): string => path.join(root, 'ts', `${entry}.ts`);

  test.each<Format>(['esm', 'cjs', 'iife'])(
    '%s: importing does not throw, and the first use says what to do',
    (format) => {
      const file = bundle(format, firstUse(source('index')));
      const text = said([file]);
      expect(text).toMatch(loadError('diralign was bundled'));
      expect(text).toContain('--external:diralign');
      expect(text).not.toContain('no prebuilt');
      expect(said([file], { DIRALIGN_ADDON: addon })).toContain(log2);
    },
  );

  test.each(entries)('%s can be imported from CommonJS', (entry) => {
    // Types are gone where nothing of a module is used, so everything is.
    const contents =
      `import * as all from ${JSON.stringify(source(entry))}; console.log('imported', ` +
      'Object.keys(all).length > 0);';
    const { stdout, stderr } = spawnSync(
      process.execPath,
      [bundle('cjs', contents, 'bundled/entry.cjs')],
      {
        encoding: 'utf8',
        env: { ...process.env, NODE_PATH: path.join(root, 'node_modules') },
      },
    );
    expect({ stdout, stderr }).toEqual({ stdout: 'imported true\n', stderr: '' });
  });

  test('the addon of the project around the bundle is not taken for ours', () => {
    write('project/package.json', '{ "name": "project" }');
    write('project/build/Release/other.node', 'not an addon');
    const text = said([bundle('esm', firstUse(source('index')), 'project/dist/out.mjs')]);
    expect(text).toMatch(loadError('diralign was bundled'));
    expect(text).not.toContain('other.node');
  });
});

describe('what dlopen and other runtimes say', () => {
  /** The addon fails to load with that. */
  const failing = (properties: object): string => `import Module from 'node:module';
Module._extensions['.node'] = () => {
  throw Object.assign(new Error(), ${JSON.stringify(properties)});
};`;
  const dlopen = (message: string): string => failing({ code: 'ERR_DLOPEN_FAILED', message });

  test.each([
    [
      "/lib/libc.so.6: version `GLIBC_2.38' not found (required by x.node)",
      'needs glibc 2\\.38 and this system has \\d',
      'npx',
    ],
    [
      'Error loading shared library ld-linux-x86-64.so.2: No such file',
      'built for glibc and this system has musl',
      'npx',
    ],
    [
      'Error relocating /x/diralign.node: __cxa_x: symbol not found',
      'built for glibc and this system has musl',
      'anew',
    ],
    [
      'Error relocating /x/prebuilds/linux-x64/diralign.musl.node: newer: symbol not found',
      'diralign\\.musl\\.node: newer: symbol not found\\. Build one with',
      'npx',
    ],
    [
      '/usr/lib/x86_64-linux-gnu/libc.so: invalid ELF header',
      'built for musl \\(Alpine\\) and this system has glibc',
      'anew',
    ],
    [
      'libc.so: cannot open shared object file: No such file or directory',
      'built for musl \\(Alpine\\) and this system has glibc',
      'anew',
    ],
    [
      "dlopen(/x.node, 0x0001): tried: '/x.node' (built for macOS 15.0 which is " +
        'newer than running OS)',
      'built for macOS 15\\.0, and this system is older',
      'npx diralign build',
    ],
    [
      "dlopen(/x.node, 0x0001): tried: '/x.node' (code signature in <1> '/x.node' not valid " +
        'for use in process: library load disallowed by system policy)',
      'macOS does not trust the file',
      'xattr -d com\\.apple\\.quarantine',
    ],
    [
      "dlopen(/x.node): tried: '/x.node' (mach-o file, but is an incompatible architecture " +
        "(have 'arm64', need 'x86_64'))",
      'made for another system than linux-',
      'anew',
    ],
    [
      '\\\\?\\C:\\x\\diralign.node is not a valid Win32 application.',
      'made for another system',
      'anew',
    ],
    [
      '/x/diralign.node: invalid ELF header',
      'invalid ELF header\\. It is damaged, or made for another system',
      'anew',
    ],
    [
      '/x.node: failed to map segment from shared object: Operation not permitted',
      'mounted noexec',
      'another file system',
    ],
    [
      'libasan.so.8: cannot open shared object file: No such file or directory',
      'libasan\\.so\\.8',
      'npx diralign build',
    ],
  ])('%s', (message, explained, remedy) => {
    const text = use({ before: dlopen(message) });
    expect(text).toMatch(loadError(explained));
    expect(text).toMatch(new RegExp(remedy));
    if (!explained.includes('musl')) expect(text).not.toContain('musl');
    if (!explained.includes('glibc')) expect(text).not.toContain('glibc');
  });

  test('Deno without --allow-ffi, where reports are forbidden, too', () => {
    const denied = {
      name: 'NotCapable',
      message: 'Requires ffi access to "/x.node", run again with the --allow-ffi flag',
    };
    const reports =
      "process.report.getReport = () => { throw Object.assign(new Error('Requires sys " +
      "access'), { name: 'NotCapable' }); };";
    expect(use({ before: `${failing(denied)}\n${reports}` })).toMatch(
      loadError('Deno was started without --allow-ffi.*add it'),
    );
  });

  test("Deno's other permissions, in its words", () => {
    // Not of modules, which Node reads by the same functions.
    const denied = (
      name: 'readFileSync' | 'statSync',
    ): string => `import fs from 'node:fs'; import { syncBuiltinESMExports } from 'node:module';
const allowed = fs.${name};
fs.${name} = (file, ...options) => {
  if (/js$/.test(file)) return allowed(file, ...options);
  const said = 'Requires read access to "' + file + '", run again with the --allow-read flag';
  throw Object.assign(new Error(said), { name: 'NotCapable' });
};
syncBuiltinESMExports();`;
    for (const [name, file] of [
      ['readFileSync', 'package'],
      ['statSync', 'diralign'],
    ] as const) {
      expect(use({ before: denied(name) })).toMatch(
        loadError(
          `Requires read access to ".*${file}\\.\\w+", run again with the --allow-read flag`,
        ),
      );
    }
  });

  test('a file that is none, is not there, or is the addon of others', () => {
    const chosen = (file: string): string => use({ env: { DIRALIGN_ADDON: file } });
    expect(chosen(addon)).toContain(log2);
    expect(chosen(path.relative(folder, addon))).toContain(log2);
    expect(chosen(path.join(folder, 'none.node'))).toMatch(
      loadError('none\\.node, which DIRALIGN_ADDON names.*no such file'),
    );
    expect(chosen(write('text.node', 'text'.repeat(100)))).toMatch(
      loadError('invalid ELF header\\. It is damaged'),
    );
    expect(chosen(write('empty.node', ''))).toMatch(loadError('file too short\\. It is damaged'));
    expect(
      use({
        before:
          "import Module from 'node:module'; Module._extensions['.node'] = (m) => " +
          '{ m.exports = {}; };',
      }),
    ).toMatch(loadError('was built from other sources'));
  });
});

describe('where there is none', () => {
  /** A copy of the package without its addon. */
  function without(name: string): string {
    const to = path.join(folder, name);
    fs.cpSync(path.join(packageFolder, 'dist'), path.join(to, 'dist'), { recursive: true });
    fs.copyFileSync(path.join(packageFolder, 'package.json'), path.join(to, 'package.json'));
    return to;
  }
  const urlOf = (directory: string): string => new URL(`file://${directory}/dist/index.js`).href;

  test('no prebuilt binary, with what made it look elsewhere', () => {
    expect(use({ url: urlOf(without('none')) })).toMatch(
      loadError(`no prebuilt binary for ${process.platform}-${process.arch}\\. Build one`),
    );
    expect(use({ url: compiled.url, env: { DIRALIGN_PREBUILD: '/nowhere' } })).toMatch(
      loadError('/nowhere, which DIRALIGN_PREBUILD names, has no addon'),
    );
  });

  test('what was built here goes before what came with the package', () => {
    const to = without('both');
    for (const file of [path.join('prebuilds', prebuiltName()), 'build/Release/diralign.node'])
      write(path.join('both', file), 'no addon');
    expect(use({ url: urlOf(to) })).toMatch(loadError('build/Release/diralign\\.node could not'));
    fs.rmSync(path.join(to, 'build'), { recursive: true });
    expect(use({ url: urlOf(to) })).toMatch(loadError(`${prebuiltName()} could not be loaded`));
  });

  test.runIf(process.platform === 'linux')(
    'a folder that may not be read is not taken for an empty one',
    () => {
      const to = without('closed');
      fs.mkdirSync(path.join(to, 'build/Release'), { recursive: true, mode: 0o755 });
      fs.chmodSync(path.join(to, 'build/Release'), 0);
      fs.chmodSync(folder, 0o755);
      const nobody = process.getuid?.() === 0 ? 65534 : undefined;
      expect(use({ url: urlOf(to), uid: nobody })).toMatch(
        loadError('cannot be looked for\\. EACCES.*build/Release'),
      );
      fs.chmodSync(path.join(to, 'build/Release'), 0o755);
    },
  );
});
