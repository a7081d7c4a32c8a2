// tests/support in JavaScript: the reference cases and what collects the misses are the tests' own.
// Where TypeScript is installed they are compiled afresh into build/gpu-check; on a machine with
// nothing but Node, what was compiled and carried along is used.
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { root } from '../../bench/gpu/machine.mjs';

const target = path.join(root, 'build/gpu-check');
const modules = ['numbers', 'bounds', 'vectors', 'cases'];

function typescript() {
  try {
    return createRequire(import.meta.url)('typescript');
  } catch {
    return undefined;
  }
}

/** Compiles where it can; returns whether there is something to load. */
export function prepareSupport() {
  const ts = typescript();
  if (!ts) return modules.every((name) => existsSync(path.join(target, `${name}.js`)));
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
    writeFileSync(
      path.join(target, `${name}.js`),
      outputText.replaceAll("'../../ts/", "'../../dist/"),
    );
  }
  writeFileSync(path.join(target, 'package.json'), '{ "type": "module" }\n');
  return true;
}

export async function loadSupport() {
  if (!prepareSupport()) {
    throw new Error(
      'build/gpu-check is missing: run `node scripts/gpu-check.mjs --prepare` where the development tools are, and carry it',
    );
  }
  const load = (name) => import(pathToFileURL(path.join(target, `${name}.js`)).href);
  const [{ Misses }, { decodeHalf }, { loadVectors }, cases] = await Promise.all(
    ['bounds', 'numbers', 'vectors', 'cases'].map(load),
  );
  return {
    Misses,
    decodeHalf,
    cases,
    loadVectors: () => loadVectors(pathToFileURL(path.join(root, 'tests/fixtures/vectors/'))),
  };
}
