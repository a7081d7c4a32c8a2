// The kernels' names as the tables of docs/ have them.
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..');

/** The names of an enumeration, which template arguments have as numbers. */
function enumerators(file, name) {
  const body = new RegExp(`enum class ${name}[^{]*\\{([^}]*)\\}`).exec(
    readFileSync(path.join(root, file), 'utf8'),
  )?.[1];
  if (body === undefined) throw new Error(`no enumeration ${name} in ${file}`);
  return [...body.replace(/\/\/.*/g, '').matchAll(/\w+/g)].map(([word]) => word);
}

/** Symbols without the namespaces, the arguments and what every name has. */
export function readableNames(symbols) {
  if (symbols.length === 0) return [];
  const passes = enumerators('cuda/plan.h', 'Pass');
  const names = execFileSync('c++filt', symbols, { encoding: 'utf8' }).trim().split('\n');
  return names.map((name) =>
    name
      .replace(/^void /, '')
      .replace(/\((?!anonymous)(?:[^()]|\([^()]*\))*\)$/, '')
      .replace(/\(anonymous namespace\)::|diralign::(?:cuda::)?/g, '')
      .replace(/\(Pass\)(\d+)/g, (_, pass) => passes[pass])
      .replace(/\((?:int|bool|unsigned int)\)/g, ''),
  );
}
