// The tarball, installed into an empty project. `npm run test:installers` does the same with pnpm,
// yarn (1 and 4) and bun, which it fetches; with npm nothing comes over the network.
import { spawnSync } from 'node:child_process';
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { nativePath } from '../../ts/native/interface.js';
import { prebuiltName } from '../../ts/native/prebuilt.js';

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../..');
const temporary = mkdtempSync(path.join(tmpdir(), 'diralign-package-'));
const installers = (process.env.DIRALIGN_INSTALLERS ?? 'npm').split(',');
/** What is fetched, and the program in it: both versions of Yarn call theirs yarn. */
const fetched: Readonly<Record<string, readonly [string, string]>> = {
  pnpm: ['pnpm@10', '.bin/pnpm'],
  yarn: ['yarn@1', 'yarn/bin/yarn.js'],
  yarn4: ['@yarnpkg/cli-dist@4', '@yarnpkg/cli-dist/bin/yarn.js'],
  bun: ['bun@1', '.bin/bun'],
};

/** A PATH with node, npm and a shell: no compiler, no CMake, no Python. */
const bare = path.join(temporary, 'bin');
const tools = path.join(temporary, 'tools');

interface Report {
  readonly sameClass: boolean;
  readonly version: string;
  readonly reference: boolean;
  readonly data: boolean;
  readonly safetensors: boolean;
  readonly cuda: string;
  readonly loss?: number;
  readonly error?: {
    readonly code: string;
    readonly message: string;
    readonly isDirAlignError: boolean;
  };
}

function run(cwd: string, command: string, args: readonly string[], PATH = process.env.PATH) {
  const { status, stdout, stderr, error } = spawnSync(command, args, {
    cwd,
    encoding: 'utf8',
    env: { ...process.env, PATH },
  });
  if (error) throw error;
  return { status, stdout, output: `${stdout}${stderr}` };
}

function mustRun(...args: Parameters<typeof run>) {
  const result = run(...args);
  if (result.status !== 0)
    throw new Error(
      `${args[1]} ${args[2].join(' ')} ended with ${String(result.status)}:\n${result.output}`,
    );
  return result;
}

function onPath(command: string): string {
  const directory = (process.env.PATH ?? '')
    .split(path.delimiter)
    .find((d) => existsSync(path.join(d, command)));
  if (directory === undefined) throw new Error(`${command} is not on the PATH`);
  return path.join(directory, command);
}

/** A copy of what is packed, so that the repository's own prebuilds and dist stay as they are. */
function copyPackage(name: string, addons: Readonly<Record<string, string>> = {}): string {
  const stage = path.join(temporary, name);
  mkdirSync(stage);
  const { files } = JSON.parse(readFileSync(path.join(root, 'package.json'), 'utf8')) as {
    readonly files: readonly string[];
  };
  const listed = files
    .map((file) => file.replace(/\/.*/, ''))
    .filter((entry) => !['dist', 'prebuilds', 'vendor'].includes(entry));
  for (const entry of new Set(['package.json', 'README.md', 'LICENSE', ...listed]))
    cpSync(path.join(root, entry), path.join(stage, entry), { recursive: true });
  cpSync(path.join(temporary, 'dist'), path.join(stage, 'dist'), { recursive: true });
  for (const [to, addon] of Object.entries(addons))
    cpSync(addon, path.join(stage, 'prebuilds', to));
  return stage;
}

const prepack = path.join(root, 'scripts/prepack.mjs');

function pack(stage: string): string {
  mustRun(stage, 'node', [prepack]);
  mustRun(stage, 'npm', ['pack', '--ignore-scripts', '--silent']);
  const tarball = readdirSync(stage).find((file) => file.endsWith('.tgz'));
  if (tarball === undefined) throw new Error('npm pack made no tarball');
  return path.join(stage, tarball);
}

/**
 * An empty project with the tarball installed; the install must need neither a compiler nor
 * anyone's leave to run scripts.
 */
function install(installer: string, tarball: string): string {
  const project = mkdtempSync(path.join(temporary, `${installer}-`));
  const dependencies = { diralign: `file:${tarball}` };
  writeFileSync(
    path.join(project, 'package.json'),
    JSON.stringify({ name: 'project', license: 'MIT', type: 'module', dependencies }),
  );
  const program = fetched[installer]?.[1];
  const command = program === undefined ? 'npm' : path.join(tools, 'node_modules', program);
  // The lock file makes it a project of its own.
  if (installer === 'yarn4') {
    writeFileSync(path.join(project, 'yarn.lock'), '');
    writeFileSync(path.join(project, '.yarnrc.yml'), 'nodeLinker: node-modules\n');
  }
  // Yarn would take another tarball of this name and version from its cache.
  const options: Record<string, string[]> = {
    npm: ['--offline'],
    yarn: ['--cache-folder', path.join(project, '.cache')],
    yarn4: ['--no-immutable'],
  };
  const { output } = mustRun(project, command, ['install', ...(options[installer] ?? [])], bare);
  expect(output).not.toMatch(
    /\bwarn|allow-?scripts|ignored build scripts|blocked|node-gyp rebuild/i,
  );
  expect(
    readdirSync(path.join(project, 'node_modules')).filter((name) => !name.startsWith('.')),
  ).toEqual(['diralign']);
  cpSync(path.join(root, 'tests', 'package', 'consumer.mjs'), path.join(project, 'consumer.mjs'));
  return project;
}

function consume(project: string, ...nodeOptions: string[]): Report {
  return JSON.parse(
    mustRun(project, 'node', [...nodeOptions, 'consumer.mjs'], bare).stdout,
  ) as Report;
}

let withAddon: string;
let withoutAddon: string;

beforeAll(() => {
  mkdirSync(bare);
  symlinkSync(process.execPath, path.join(bare, 'node'));
  symlinkSync(realpathSync(onPath('npm')), path.join(bare, 'npm'));
  symlinkSync('/bin/sh', path.join(bare, 'sh'));
  const toFetch = installers.flatMap((installer) => fetched[installer]?.[0] ?? []);
  if (toFetch.length > 0)
    mustRun(temporary, 'npm', ['install', '--prefix', tools, '--no-save', ...toFetch]);
  const dist = path.join(temporary, 'dist');
  mustRun(root, 'node_modules/.bin/tsc', ['-p', 'tsconfig.build.json', '--outDir', dist]);
  mustRun(root, 'node', ['scripts/build-cjs.mjs', dist]);
  withAddon = pack(copyPackage('with-addon', { [prebuiltName()]: nativePath() }));
  withoutAddon = pack(copyPackage('without-addon'));
});

afterAll(() => {
  rmSync(temporary, { recursive: true, force: true });
});

describe.each(installers)('installed by %s', (installer) => {
  test('with a prebuilt addon: import and require give one library that works', () => {
    const report = consume(install(installer, withAddon));
    expect(report).toMatchObject({
      sameClass: true,
      reference: true,
      data: true,
      safetensors: true,
      version: '0.1.0',
    });
    expect(report.error).toBeUndefined();
    expect(report.loss).toBeCloseTo(Math.LN2, 7);
  });

  test('without one: import works, and the first use says how to build', () => {
    const report = consume(install(installer, withoutAddon));
    expect(report).toMatchObject({
      sameClass: true,
      reference: true,
      data: true,
      safetensors: true,
    });
    expect(report.error).toMatchObject({ code: 'ERR_DIRALIGN_LOAD', isDirAlignError: true });
    expect(report.error?.message).toContain('npx diralign build');
  });
});

test('npx diralign build: names the tools that are missing, and builds with CMake alone', () => {
  const project = install('npm', withoutAddon);
  const refused = run(project, 'npm', ['exec', '--offline', '--', 'diralign', 'build'], bare);
  expect(refused.status).toBe(1);
  expect(refused.output).toMatch(/apt-get install -y cmake g\+\+/);

  // Without CUDA: what nvcc makes of these sources is the build's own matter, and that they are all
  // there is a test below.
  // Without optimisation, and several sources at once: it is as much of a build in less time.
  const settings = ['DIRALIGN_CUDA=OFF', 'CMAKE_CXX_FLAGS_DEBUG=-O0', 'CMAKE_UNITY_BUILD=ON'];
  const build = ['exec', '--offline', '--', 'diralign', 'build', '--config', 'Debug'];
  build.push(...settings.flatMap((setting) => ['-D', setting]));
  expect(mustRun(project, 'npm', build).output).toContain('without CUDA');
  const report = consume(project);
  expect(report.loss).toBeCloseTo(Math.LN2, 7);
  expect(report.cuda).toContain('contains no CUDA');
});

test('--no-addons is named as the reason', () => {
  const report = consume(install('npm', withAddon), '--no-addons');
  expect(report.error?.code).toBe('ERR_DIRALIGN_LOAD');
  expect(report.error?.message).toContain('--no-addons');
});

test('CommonJS TypeScript has the types of every entry, and what they say is so', () => {
  const project = install('npm', withAddon);
  const modules = path.join(project, 'node_modules');
  for (const name of ['@types', '@jax-js', '@tensorflow', 'undici-types'])
    symlinkSync(path.join(root, 'node_modules', name), path.join(modules, name), 'dir');
  const { exports } = JSON.parse(
    readFileSync(path.join(modules, 'diralign/package.json'), 'utf8'),
  ) as { readonly exports: object };
  const entries = Object.keys(exports).filter((entry) => !entry.endsWith('.json'));
  expect(entries.length).toBeGreaterThan(5);
  const imports = entries.map(
    (entry, i) => `import entry${i} = require('${path.posix.join('diralign', entry)}');`,
  );
  writeFileSync(
    path.join(project, 'consumer.cts'),
    `${imports.join('\n')}
import { DirAlignError, dirAlignLoss, type LossResult } from 'diralign';
const batch = { logits: new Float32Array(2), shape: [1, 1, 2], labels: Int32Array.of(0) } as const;
const result: LossResult = dirAlignLoss('sft')(batch);
const loss: number = result.loss;
// @ts-expect-error: an unknown method, which is refused before the call is made
const refused = (): unknown => dirAlignLoss('unknown');
async function same(): Promise<boolean> {
  return (await import('diralign')).DirAlignError === DirAlignError && !!refused;
}
void same().then((isSame) => {
  const keys = [${entries.map((_, i) => `entry${i}`).join(', ')}].map((e) => Object.keys(e).length);
  console.log(loss.toFixed(6), isSame, Math.min(...keys) > 0);
});
`,
  );
  const tsc = path.join(root, 'node_modules/@typescript/native/bin/tsc');
  const options = ['--strict', '--target', 'es2022', '--lib', 'esnext,dom', '--types', 'node'];
  const { stdout } = run(project, 'node', [tsc, '--module', 'node16', ...options, 'consumer.cts']);
  // Optional peers have errors of their own.
  expect(
    stdout.split('\n').filter((line) => /^(consumer|node_modules.diralign)/.test(line)),
  ).toEqual([]);
  expect(mustRun(project, 'node', ['consumer.cjs'], bare).stdout).toBe('0.693147 true true\n');
});

test('the tarball holds what it should and nothing else', () => {
  const { stdout } = mustRun(temporary, 'tar', ['-tzf', withAddon]);
  const files = stdout.split('\n').filter(Boolean);
  const sources = ['src', 'cuda', 'cmake'].flatMap((folder) =>
    readdirSync(path.join(root, folder), { recursive: true, encoding: 'utf8' })
      .map((name) => path.posix.join(folder, name))
      .filter((name) => statSync(path.join(root, name)).isFile()),
  );
  expect(sources.length).toBeGreaterThan(100);
  for (const needed of [
    ...sources,
    'dist/index.js',
    'dist/index.d.ts',
    'dist/cli/main.js',
    'CMakeLists.txt',
    ...['include/node_api.h', 'include/js_native_api.h', 'LICENSE'].map(
      (name) => `vendor/node-api-headers/${name}`,
    ),
    ...['napi.h', 'napi-inl.h', 'LICENSE.md'].map((name) => `vendor/node-addon-api/${name}`),
    'scripts/build-native.mjs',
    ...['cuda', 'directory', 'progress'].map((name) => `scripts/build-${name}.mjs`),
    'CHANGELOG.md',
    'LICENSE',
    'NOTICES.md',
  ]) {
    expect(files).toContain(`package/${needed}`);
  }
  expect(
    files.filter((file) => /binding\.gyp|tests?\/|\.map$|node_modules|package-lock/.test(file)),
  ).toEqual([]);
});

test('beside the addons it takes no more than they leave of 12 MB', async () => {
  const { budget } = (await import(
    pathToFileURL(path.join(root, 'scripts/platforms.mjs')).href
  )) as {
    readonly budget: { readonly text: number };
  };
  const { stdout } = mustRun(temporary, 'tar', ['-tvzf', withoutAddon]);
  const sizes = stdout.split('\n').map((line) => Number(/^\S+ \S+ +(\d+) /.exec(line)?.[1] ?? 0));
  const bytes = sizes.reduce((sum, size) => sum + size, 0);
  expect(bytes).toBeGreaterThan(2e6);
  expect(bytes).toBeLessThan(budget.text);
});

describe('before packing', () => {
  const changed = ['dist/native/prebuilt.js', 'package.json', 'README.md'] as const;
  const textsOf = (stage: string): string[] =>
    changed.map((name) => readFileSync(path.join(stage, name), 'utf8'));
  const named = (code: string): string[] =>
    [...code.matchAll(/new URL\('\.\.\/\.\.\/prebuilds\/([^']+)', import\.meta\.url\)/g)].map(
      ([, name]) => name as string,
    );

  test('the switch is left with the addons that are packed, and the folder is restored', () => {
    const all = named(readFileSync(path.join(temporary, 'dist/native/prebuilt.js'), 'utf8'));
    expect(all).toContain('linux-x64/diralign.glibc.node');
    for (const packed of [[], all.slice(0, 1), all]) {
      const stage = copyPackage(
        `switch-${packed.length}`,
        Object.fromEntries(packed.map((name) => [name, prepack])),
      );
      const before = readdirSync(stage).sort();
      const texts = textsOf(stage);
      mustRun(stage, 'node', [prepack]);
      const [code = '', manifest = ''] = textsOf(stage);
      expect(named(code)).toEqual(packed);
      // Yarn 1 warns of them.
      expect(JSON.parse(manifest)).not.toHaveProperty('workspaces');
      expect(readdirSync(stage)).toContain('vendor');
      mustRun(stage, 'node', [prepack, '--restore']);
      expect(textsOf(stage)).toEqual(texts);
      expect(readdirSync(stage).filter((name) => name !== 'build')).toEqual(before);
    }
  });

  test('an addon that bundlers would not find is refused', () => {
    const stage = copyPackage('foreign', { 'plan9-x64/diralign.node': prepack });
    const texts = textsOf(stage);
    const { status, output } = run(stage, 'node', [prepack]);
    expect(status).toBe(1);
    expect(textsOf(stage)).toEqual(texts);
    expect(output).toContain('prebuilds/plan9-x64/diralign.node is packed, and not in');
  });

  test("each case of the switch is its file's name", () => {
    const source = readFileSync(path.join(root, 'ts/native/prebuilt.ts'), 'utf8');
    const cases = [...source.matchAll(/case '([^']+)':/g)].map(([, name]) => name as string);
    expect(cases).toEqual(named(source));
    expect(new Set(cases).size).toBe(cases.length);
  });
});
