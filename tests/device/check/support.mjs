// tests/support in JavaScript: batches, reference cases and what collects the misses are the tests'
// own. Where TypeScript is installed they are compiled afresh into build/device; on a machine with
// nothing but Node, what was compiled and carried along is used.
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { root } from '../../../scripts/device/machine.mjs';

const target = path.join(root, 'build/device');
const modules = [
  ...[
    'numbers',
    'bounds',
    'batches',
    'device',
    'calls',
    'vectors',
    'cases',
    'vector-ways',
    'ranks',
  ],
];
const file = (name) => path.join(target, `${name}.js`);

function typescript() {
  try {
    return createRequire(import.meta.url)('typescript');
  } catch {
    return undefined;
  }
}

/** Other processes may be reading what is there: only what has changed is written. */
function write(name, text) {
  if (!existsSync(name) || readFileSync(name, 'utf8') !== text) writeFileSync(name, text);
}

const ts = typescript();
if (ts) {
  mkdirSync(target, { recursive: true });
  const compilerOptions = {
    module: ts.ModuleKind.ES2022,
    target: ts.ScriptTarget.ES2022,
    verbatimModuleSyntax: true,
  };
  for (const name of modules) {
    const source = readFileSync(path.join(root, 'tests/support', `${name}.ts`), 'utf8');
    const { outputText } = ts.transpileModule(source, { compilerOptions, fileName: `${name}.ts` });
    // As far from the package as they were from its sources.
    write(file(name), outputText.replaceAll("'../../ts/", "'../../dist/"));
  }
  write(path.join(target, 'package.json'), '{ "type": "module" }\n');
} else if (!modules.every((name) => existsSync(file(name)))) {
  console.error(
    'build/device is missing: run `npm run gpu:check -- --prepare` where the development ' +
      'tools are, and carry it',
  );
  process.exit(2);
}

const load = (name) => import(pathToFileURL(file(name)).href);
export const { Misses } = await load('bounds');
export const { decodeHalf, generator, normal, sameBits } = await load('numbers');
export const { dtypes, inDtype, randomBatch, randomRow } = await load('batches');
export const { Copy } = await load('device');
export const { call, callLater, onDevice, onHost } = await load('calls');
export const { makeBatch, packed, sameResult } = await load('cases');
export const { checkCase, checkFinite, checkLogps, inHalf } = await load('vector-ways');
export const { boundaries, onDevice: onRankDevice, overVocab, within } = await load('ranks');
const { loadVectors: loadFrom } = await load('vectors');
export const loadVectors = () =>
  loadFrom(pathToFileURL(path.join(root, 'tests/fixtures/vectors/')));

/** Whether two results are the same to the bit; what differs goes to `misses`. */
export function requireSame(misses, what, actual, expected) {
  sameResult(misses, what, actual, expected);
  const { gradLogits } = expected;
  if (gradLogits)
    misses.require(
      actual.gradLogits !== undefined && sameBits(actual.gradLogits, gradLogits),
      () => `${what}: the gradient differs in its bits`,
    );
}
