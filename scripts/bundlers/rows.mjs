// The rows of the table in docs/platforms.md#bundlers.
import { prebuiltName } from '../../dist/native/prebuilt.js';
import * as make from './builds.mjs';

const addon = `prebuilds/${prebuiltName()}`;
const external = { external: ['diralign'] };
const copying = {
  entryPoints: [
    { in: 'main.js', out: 'main' },
    { in: `node_modules/diralign/${addon}`, out: addon.replace(/\.node$/, '') },
  ],
  loader: { '.node': 'copy' },
};
const isExternal = [
  "`externals: { diralign: 'commonjs diralign' }`",
  'external',
  { externals: { diralign: 'commonjs diralign' } },
];
const serverExternal = [
  "`serverExternalPackages: ['diralign']`",
  'traced',
  { serverExternalPackages: ['diralign'] },
];

/** A bundler as the page names it: with its version. */
function named(name, is = name.toLowerCase()) {
  const [version] = /^\d+\.\d+/.exec(make.versions[is]);
  return `${name} ${version}`;
}

function webpack(label, name) {
  const [setting, outcome, more] = isExternal;
  return [
    [label, 'none', 'copied', make.webpack(name, 'module'), make.webpack(name, 'commonjs')],
    [label, setting, outcome, make.webpack(name, 'commonjs', more)],
  ];
}

function next(label, outcome, ...flags) {
  const [setting, traced, config] = serverExternal;
  return [
    [label, 'none', outcome, make.next({}, ...flags)],
    [label, setting, traced, make.next(config, ...flags)],
  ];
}

const [rollup, rolldown] = [named('Rollup'), named('Rolldown')];
const bun = named('Bun', '@oven/bun-linux-x64');
const vite = `${named('Vite')}, \`build.ssr\``;
const standalone = `${named('Next.js', 'next')}, \`output: 'standalone'\``;

/**
 * A bundler, a setting, what becomes of the addon, and builds: the ESM and the CommonJS one where
 * there are two.
 */
export const rows = [
  [named('esbuild'), 'none', 'left out', make.esbuild('esm'), make.esbuild('cjs')],
  [named('esbuild'), "`external: ['diralign']`", 'external', make.esbuild('esm', external)],
  [
    named('esbuild'),
    "the addon as an entry point, `loader: { '.node': 'copy' }`",
    'copied',
    make.esbuild('esm', copying),
    make.esbuild('cjs', copying),
  ],
  [rollup, 'none', 'left out', make.rollup('es'), make.rollup('cjs')],
  [rollup, "`external: ['diralign']`", 'external', make.rollup('es', external)],
  [rolldown, 'none', 'left out', make.rolldown('es'), make.rolldown('cjs')],
  [rolldown, "`external: ['diralign']`", 'external', make.rolldown('es', external)],
  [vite, 'none', 'external', make.vite()],
  [vite, '`ssr: { noExternal: true }`', 'left out', make.vite({ ssr: { noExternal: true } })],
  ...webpack(`${named('webpack')}, \`target: 'node'\``, 'webpack'),
  ...webpack(`${named('Rspack', '@rspack/core')}, \`target: 'node'\``, '@rspack/core'),
  [named('@vercel/nft'), 'none', 'traced', make.nft],
  [named('@vercel/ncc'), 'none', 'copied', make.ncc],
  [bun, 'none', 'left out', make.bun()],
  [bun, '`--external diralign`', 'external', make.bun('--external', 'diralign')],
  [bun, '`--compile`', 'left out', make.bunExecutable()],
  ['Node 20, single executable', 'esbuild, CommonJS', 'left out', make.singleExecutable()],
  ...next(standalone, 'copied'),
  ...next(`${standalone}, \`next build --webpack\``, 'left out', '--webpack'),
];
