// The package as JavaScript, for child processes and workers: compiled from ts/ as it is now, into
// a folder of its own beside links to the addon and to node_modules, so that a stale dist/ is never
// what is tested.
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import ts from 'typescript';

const root = fileURLToPath(new URL('../..', import.meta.url));

export interface Compiled {
  /** URL of the package's entry. */
  readonly url: string;
  readonly remove: () => void;
}

export function compilePackage(): Compiled {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'diralign-compiled-'));
  const compilerOptions = {
    module: ts.ModuleKind.ES2022,
    target: ts.ScriptTarget.ES2022,
    verbatimModuleSyntax: true,
  };
  const sources = fs.readdirSync(path.join(root, 'ts'), { recursive: true, encoding: 'utf8' });
  for (const name of sources.filter((file) => file.endsWith('.ts'))) {
    const source = fs.readFileSync(path.join(root, 'ts', name), 'utf8');
    const { outputText } = ts.transpileModule(source, { compilerOptions, fileName: name });
    const target = path.join(folder, 'dist', name.replace(/\.ts$/, '.js'));
    fs.mkdirSync(path.dirname(target), { recursive: true });
    fs.writeFileSync(target, outputText);
  }
  for (const name of ['build', 'prebuilds', 'node_modules']) {
    if (fs.existsSync(path.join(root, name)))
      fs.symlinkSync(path.join(root, name), path.join(folder, name), 'dir');
  }
  fs.copyFileSync(path.join(root, 'package.json'), path.join(folder, 'package.json'));
  return {
    url: pathToFileURL(path.join(folder, 'dist', 'index.js')).href,
    remove: () => {
      fs.rmSync(folder, { recursive: true, force: true });
    },
  };
}

/** A script of tests/fixtures/lifecycle. */
export function script(name: string): string {
  return path.join(root, 'tests/fixtures/lifecycle', name);
}
