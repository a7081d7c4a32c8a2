// Processes and workers that end in mid-computation, and what is left of calls that are over:
// nothing.
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { compilePackage, type Compiled } from '../support/compiled.js';
import { expectFlat, leakEnvironment, type LeakReport } from '../support/leaks.js';
import { runScript } from '../support/processes.js';
import { isSanitized } from '../support/sanitizers.js';

let compiled: Compiled;
beforeAll(() => {
  compiled = compilePackage();
});
afterAll(() => {
  compiled.remove();
});

/** Runs a script; a crash or a hang is an error here. */
const run = async (name: string, args: readonly string[] = [], flags: readonly string[] = []) => {
  const { stdout, stderr, code } = await runScript(compiled, name, args, flags, leakEnvironment);
  if (code !== 0) throw new Error(`${name} ended with ${String(code)}: ${stderr}`);
  return { stdout, stderr };
};

describe('processes and workers', () => {
  test('20 workers terminated in mid-computation', async () => {
    expect(await run('terminate.mjs', ['20'])).toEqual({ stdout: 'terminated 20', stderr: '' });
  });

  test('10 workers terminated in the middle of an output layer', async () => {
    expect(await run('terminate.mjs', ['10', 'hidden'])).toEqual({
      stdout: 'terminated 10',
      stderr: '',
    });
  });

  test('workers terminated four at a time, and calls aborted, at random moments', async () => {
    const seed = Math.floor(Math.random() * 2 ** 31);
    const { stdout, stderr } = await run('storm.mjs', ['10', String(seed)]);
    expect(stderr, `seed ${seed}`).toBe('');
    expect(JSON.parse(stdout), `seed ${seed}`).toMatchObject({ terminated: 40 });
  });

  test('calls that wait behind another environment: abort and terminate are at once', async () => {
    expect(await run('queue.mjs', [], ['--expose-gc'])).toEqual({ stdout: 'at once', stderr: '' });
  });

  test('workers alone have the addon, and end by themselves', async () => {
    expect(await run('workers-only.mjs')).toEqual({ stdout: 'workers 8', stderr: '' });
  });

  test('process.exit() in mid-computation: with its code', async () => {
    const { stdout, stderr, code } = await runScript(compiled, 'exit.mjs');
    expect({ stdout, stderr, code }).toEqual({ stdout: 'leaving', stderr: '', code: 3 });
  });

  test('a pending computation keeps the process alive, an idle addon does not', async () => {
    const { stdout, stderr } = await run('pending.mjs');
    expect(stdout).toMatch(/^loss \d+\.\d+$/);
    expect(stderr).toBe('');
  });

  test('a batch lives as long as its computation, and no longer', async () => {
    expect(await run('collect.mjs', [], ['--expose-gc'])).toEqual({
      stdout: 'collected',
      stderr: '',
    });
  });
});

describe('memory', () => {
  test.runIf(process.platform === 'linux')(
    'an output layer takes the workspace that it was given, and no more',
    async () => {
      const { stdout, stderr } = await run('hidden-memory.mjs', [], ['--expose-gc']);
      expect(stderr).toBe('');
      interface Taken {
        readonly memory: number;
        readonly growth: number;
      }
      // In MiB, with little workspace, and with enough for all of the logits.
      const { logits, little, much } = JSON.parse(stdout) as {
        logits: number;
        little: Taken;
        much: Taken;
      };
      expect(little.memory).toBeLessThanOrEqual(8);
      expect(little.growth).toBeLessThan(2 * little.memory);
      // It was a measurement.
      expect(much.memory).toBeGreaterThan(logits / 2);
      expect(much.growth).toBeGreaterThan(logits / 2);
    },
  );

  // Under AddressSanitizer this memory is its own, and what else it finds shows in few calls.
  test.skipIf(isSanitized)('is flat over thousands of calls of every kind', async () => {
    const { stdout, stderr } = await run('leak.mjs', [], ['--expose-gc']);
    expect(stderr).toBe('');
    const report = JSON.parse(stdout) as LeakReport;
    expect(Object.keys(report)).toHaveLength(14);
    expectFlat(report);
  });
});
