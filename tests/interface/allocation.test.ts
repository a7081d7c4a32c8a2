// Memory that cannot be had: an error with a code and the bytes, and the next call works.
import { spawnSync } from 'node:child_process';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { compilePackage, type Compiled } from '../support/compiled.js';
import { runScript } from '../support/processes.js';
import { isSanitized } from '../support/sanitizers.js';

const hasLimits = process.platform === 'linux' && spawnSync('prlimit', ['--version']).status === 0;

// A sanitizer has reserved the whole address space.
describe.runIf(hasLimits && !isSanitized)('an allocation that fails', () => {
  let compiled: Compiled;
  beforeAll(() => {
    compiled = compilePackage();
  });
  afterAll(() => {
    compiled.remove();
  });

  test.each([
    // Native bookkeeping, native and JavaScript results, the workspace of an output layer.
    ['rows', 40],
    ['rowsAsync', 40],
    ['sequenceLogps', 40],
    ['tokenLogps', 40],
    ['collatePairs', 40],
    ['gradient', 8],
    ['factored', 8],
    ['workspace', 40],
    ['workspaceAsync', 40],
  ])('%s, with %i MiB to spare', async (door, headroom) => {
    const { stdout, stderr } = await runScript(compiled, 'allocation.mjs', [
      door,
      String(headroom),
    ]);
    expect(stderr).toBe('');
    const { ours, code, message, next } = JSON.parse(stdout) as Record<string, unknown>;
    expect({ ours, code }).toEqual({ ours: true, code: 'ERR_DIRALIGN_MEMORY' });
    // More than there was, or about as much: what is free may lie in pieces.
    const bytes = Number(/(\d+) bytes could not be allocated/.exec(String(message))?.[1]);
    expect(bytes).toBeGreaterThan(2 ** 20);
    // Equal log-probabilities, references of -1 and -2.
    expect(next).toBeCloseTo(Math.log1p(Math.exp(0.1)), 12);
  });
});
