// The command line as a user has it: the built program in a process of its own.
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect } from 'vitest';
import { compile } from './compiled.js';

export const root = fileURLToPath(new URL('../..', import.meta.url));
export const program = path.join(root, 'dist/cli/main.js');
export const example = path.join(root, 'examples/preference-batch.safetensors');

export interface Ended {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

interface Surroundings {
  readonly env?: NodeJS.ProcessEnv;
  readonly node?: readonly string[];
  readonly cwd?: string;
  readonly uid?: number | undefined;
}

export function diralign(
  args: readonly string[],
  { env = {}, node = [], cwd = root, uid }: Surroundings = {},
): Ended {
  const { status, stdout, stderr } = spawnSync(process.execPath, [...node, program, ...args], {
    cwd,
    encoding: 'utf8',
    env: { ...process.env, NO_COLOR: undefined, FORCE_COLOR: undefined, ...env },
    maxBuffer: 2 ** 28,
    ...(uid !== undefined && { uid }),
  });
  return { status, stdout, stderr };
}

/** Words as they are typed: several may stand in one text. */
const words = (args: readonly string[]): string[] => args.flatMap((arg) => arg.split(' '));

/** What a command prints that goes well. */
export function output(...args: string[]): string {
  const { status, stdout, stderr } = diralign(words(args));
  expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
  return stdout;
}

/** One line on standard error, nothing on the other. */
export function refusal(status: number, ...args: string[]): string {
  const ended = diralign(words(args));
  expect(ended.stdout).toBe('');
  expect(ended.stderr).toMatch(/^diralign[^\n]*: [^\n]+\n$/);
  expect(ended.status).toBe(status);
  return ended.stderr.trim();
}

/** The newest change below a folder. */
function newest(directory: string): number {
  const entries = fs.readdirSync(directory, { recursive: true, encoding: 'utf8' });
  return Math.max(...entries.map((name) => fs.statSync(path.join(directory, name)).mtimeMs));
}

/** Compiles the program where it is older than its sources. */
export function compileProgram(): void {
  if (fs.existsSync(program) && fs.statSync(program).mtimeMs > newest(path.join(root, 'ts')))
    return;
  compile();
}
