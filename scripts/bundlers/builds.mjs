// What the rows of the table in docs/platforms.md#bundlers do: each makes `out` of the application
// in `app`, by a bundler that is installed there.
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { pathToFileURL } from 'node:url';

/** For the program that all but Next.js are given, and a route of its application. */
const loss = `import { dirAlignLoss } from 'diralign';
function use() {
  const batch = { logits: new Float32Array(2), shape: [1, 1, 2], labels: new Int32Array(1) };
  try {
    return dirAlignLoss('sft')(batch).loss.toFixed(6);
  } catch (error) {
    return error.code + ' ' + error.message;
  }
}
`;
export const program = {
  'package.json': '{ "private": true, "type": "module" }\n',
  'next/package.json': '{ "private": true, "type": "module" }\n',
  'main.js': `${loss}console.log(use());\n`,
  'next/app/loss/route.js': `${loss}export const dynamic = 'force-dynamic';
export function GET() {
  return new Response(use());
}
`,
  'next/app/layout.js': `export default function Layout({ children }) {
  return <html><body>{children}</body></html>;
}
`,
};

/** At the versions that the page names. Of Bun the package that has its binary. */
export const versions = {
  '@oven/bun-linux-x64': '1.4.5',
  '@rollup/plugin-node-resolve': '16.0.3',
  '@rspack/core': '2.3.3',
  '@vercel/ncc': '0.45.0',
  '@vercel/nft': '1.11.5',
  esbuild: '0.28.2',
  next: '16.4.6',
  postject: '1.0.0-alpha.6',
  react: '19.3.1',
  'react-dom': '19.3.1',
  rolldown: '1.3.3',
  rollup: '4.68.8',
  vite: '8.4.0',
  webpack: '5.113.0',
};

const input = 'main.js';
const extension = (format) => (['cjs', 'commonjs'].includes(format) ? 'cjs' : 'mjs');

/** A package of the application. */
async function load(app, name) {
  const require = createRequire(path.join(app, 'package.json'));
  const loaded = await import(pathToFileURL(require.resolve(name)));
  return loaded.default ?? loaded;
}

export function esbuild(format, more = {}) {
  return async ({ app, out }) => {
    const { build } = await load(app, 'esbuild');
    const outExtension = { '.js': `.${extension(format)}` };
    const options = { bundle: true, platform: 'node', format, outdir: out, outExtension };
    await build({ absWorkingDir: app, entryPoints: [input], ...options, ...more });
  };
}

export function rollup(format, more = {}) {
  return async ({ app, out }) => {
    const { rollup } = await load(app, 'rollup');
    const resolve = await load(app, '@rollup/plugin-node-resolve');
    const plugins = [resolve({ exportConditions: ['node'] })];
    const bundle = await rollup({ input: path.join(app, input), plugins, ...more });
    await bundle.write({ dir: out, format, entryFileNames: `main.${extension(format)}` });
  };
}

export function rolldown(format, more = {}) {
  return async ({ app, out }) => {
    const { rolldown } = await load(app, 'rolldown');
    const bundle = await rolldown({ cwd: app, input, platform: 'node', ...more });
    await bundle.write({ dir: out, format, entryFileNames: `main.${extension(format)}` });
  };
}

export function vite(more = {}) {
  return async ({ app, out }) => {
    const { build } = await load(app, 'vite');
    const settings = { configFile: false, logLevel: 'warn', root: app, ...more };
    await build({ ...settings, build: { ssr: input, outDir: out } });
  };
}

/** webpack, and Rspack, which takes the same settings. */
export function webpack(name, format, more = {}) {
  return async ({ app, out }) => {
    const loaded = await load(app, name);
    const compiler = loaded.webpack ?? loaded.rspack ?? loaded;
    const module = format === 'module';
    const filename = `main.${extension(format)}`;
    const settings = {
      mode: 'production',
      target: 'node',
      context: app,
      entry: `./${input}`,
      output: { path: out, filename, ...(module && { module, chunkFormat: 'module' }) },
      ...(module && name === 'webpack' && { experiments: { outputModule: true } }),
      ...more,
    };
    const stats = await new Promise((resolve, reject) => {
      compiler(settings, (error, done) => (error ? reject(error) : resolve(done)));
    });
    if (stats.hasErrors() || stats.hasWarnings())
      throw new Error(stats.toString({ all: false, errors: true, warnings: true }));
  };
}

export async function nft({ app, out }) {
  const { nodeFileTrace } = createRequire(path.join(app, 'package.json'))('@vercel/nft');
  const { fileList } = await nodeFileTrace([path.join(app, input)], { base: app });
  for (const file of fileList) fs.cpSync(path.join(app, file), path.join(out, file));
}

export async function ncc({ app, out }) {
  const compile = await load(app, '@vercel/ncc');
  const { code, assets } = await compile(path.join(app, input), { cache: false, quiet: true });
  fs.mkdirSync(out, { recursive: true });
  fs.writeFileSync(path.join(out, 'main.mjs'), code);
  for (const [name, { source }] of Object.entries(assets)) {
    fs.mkdirSync(path.dirname(path.join(out, name)), { recursive: true });
    fs.writeFileSync(path.join(out, name), source);
  }
}

function run(app, command, args) {
  const { status, stdout, stderr } = spawnSync(command, args, {
    cwd: app,
    encoding: 'utf8',
    env: { ...process.env, NEXT_TELEMETRY_DISABLED: '1' },
  });
  if (status !== 0) throw new Error(`${stdout}${stderr}`);
}

function runBun(app, ...args) {
  run(app, path.join(app, 'node_modules/@oven/bun-linux-x64/bin/bun'), ['build', input, ...args]);
}

export function bun(...more) {
  return ({ app, out }) => {
    runBun(app, '--target=node', '--outdir', out, ...more);
  };
}

export function bunExecutable() {
  return ({ app, out }) => {
    runBun(app, '--compile', '--outfile', path.join(out, 'main'));
  };
}

/** Node's own executable with a bundle of esbuild's inside. */
export function singleExecutable() {
  return async ({ app, out }) => {
    await esbuild('cjs')({ app, out });
    const [config, blob] = ['sea.json', 'sea.blob'].map((name) => path.join(app, name));
    const settings = { main: path.join(out, 'main.cjs'), output: blob };
    fs.writeFileSync(config, JSON.stringify({ ...settings, disableExperimentalSEAWarning: true }));
    run(app, process.execPath, ['--experimental-sea-config', config]);
    fs.rmSync(out, { recursive: true });
    fs.mkdirSync(out);
    fs.copyFileSync(process.execPath, path.join(out, 'main'));
    const { inject } = await load(app, 'postject');
    await inject(path.join(out, 'main'), 'NODE_SEA_BLOB', fs.readFileSync(blob), {
      sentinelFuse: 'NODE_SEA_FUSE_fce680ab2cc467b6e072b8b5df1996b2',
    });
  };
}

/** With `output: 'standalone'`, of which `out` is a copy. */
export function next(config, ...flags) {
  return ({ app, out }) => {
    const folder = path.join(app, 'next');
    // The packages are those of the folder above.
    const settings = { output: 'standalone', outputFileTracingRoot: app, ...config };
    if (!flags.includes('--webpack')) settings.turbopack = { root: app };
    fs.writeFileSync(
      path.join(folder, 'next.config.mjs'),
      `export default ${JSON.stringify(settings)};\n`,
    );
    fs.rmSync(path.join(folder, '.next'), { recursive: true, force: true });
    run(folder, process.execPath, [
      path.join(app, 'node_modules/next/dist/bin/next'),
      'build',
      ...flags,
    ]);
    const standalone = path.join(folder, '.next/standalone');
    // Its links, which lead to where they lie, stay what they are.
    fs.cpSync(standalone, out, { recursive: true, verbatimSymlinks: true });
  };
}
