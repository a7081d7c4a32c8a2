// The command line as a user has it: the built program.
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

export const root = fileURLToPath(new URL('../..', import.meta.url));
export const program = path.join(root, 'dist/cli/main.js');

/** The newest change below a folder. */
function newest(directory: string): number {
  const entries = fs.readdirSync(directory, { recursive: true, encoding: 'utf8' });
  return Math.max(...entries.map((name) => fs.statSync(path.join(directory, name)).mtimeMs));
}

/** Builds it, where the sources are newer than it is. */
export function buildProgram(): void {
  if (fs.existsSync(program) && fs.statSync(program).mtimeMs > newest(path.join(root, 'ts'))) return;
  const tsc = path.join(root, 'node_modules/typescript/bin/tsc');
  const { status, stdout } = spawnSync(process.execPath, [tsc, '-p', 'tsconfig.build.json'], { cwd: root, encoding: 'utf8' });
  if (status !== 0) throw new Error(stdout);
}
