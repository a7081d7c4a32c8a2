// The command line as a user has it: the built program in a process of its own.
import { spawnSync } from 'node:child_process';
import path from 'node:path';
import { expect } from 'vitest';
import { program, root } from './program.js';

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

export function diralign(args: readonly string[], { env = {}, node = [], cwd = root, uid }: Surroundings = {}): Ended {
  const { status, stdout, stderr } = spawnSync(process.execPath, [...node, program, ...args], {
    cwd,
    encoding: 'utf8',
    env: { ...process.env, NO_COLOR: undefined, FORCE_COLOR: undefined, ...env },
    maxBuffer: 2 ** 28,
    ...(uid !== undefined && { uid }),
  });
  return { status, stdout, stderr };
}

/** What a command prints that goes well. */
export function output(...args: string[]): string {
  const { status, stdout, stderr } = diralign(args);
  expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
  return stdout;
}

/** One line on standard error, nothing on the other. */
export function refusal(status: number, ...args: string[]): string {
  const ended = diralign(args);
  expect(ended.stdout).toBe('');
  expect(ended.stderr).toMatch(/^diralign[^\n]*: [^\n]+\n$/);
  expect(ended.status).toBe(status);
  return ended.stderr.trim();
}
