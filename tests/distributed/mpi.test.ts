// Real processes under every launcher that is installed; without one there is nothing to start.
import { afterAll, describe, expect, test } from 'vitest';
import { compilePackage } from '../support/compiled.js';
import { launch, launchers } from '../support/launchers.js';

const compiled = compilePackage();
afterAll(() => {
  compiled.remove();
});

test.skipIf(launchers.length > 0)('no mpirun here (Debian: openmpi-bin, mpich)', () => {
  console.log('tests/distributed/mpi.test.ts: no mpirun was found; nothing was started');
});

/** Exit code, ranks that held, most seconds on a busy machine. */
const anyFailure = { code: 'not 0', held: 0, seconds: 40 } as const;
const stories = {
  groups: { code: 0, held: 16, seconds: 40 },
  badLabel: { code: 0, held: 4, seconds: 40 },
  badShape: { code: 0, held: 4, seconds: 40 },
  settings: { code: 0, held: 4, seconds: 40 },
  labels: { code: 0, held: 4, seconds: 40 },
  shards: { code: 0, held: 4, seconds: 40 },
  crossed: { code: 0, held: 4, seconds: 40 },
  twoGroups: { code: 0, held: 4, seconds: 40 },
  aborted: { code: 0, held: 4, seconds: 40 },
  concurrent: { code: 0, held: 8, seconds: 40 },
  wasm: { code: 0, held: 4, seconds: 40 },
  leaves: { code: 3, held: 3, seconds: 40 },
  stopped: { code: 3, held: 3, seconds: 40 },
  throws: anyFailure,
  killed: anyFailure,
} as const;

describe.each(launchers)('$name', (launcher) => {
  test.each(Object.entries(stories))('%s', async (story, wanted) => {
    const { code, text, seconds } = await launch(launcher, 4, 'stories.mjs', [compiled.url, story]);
    if (wanted.code === 'not 0') expect([0, 'SIGKILL'], text).not.toContain(code);
    else expect(code, text).toBe(wanted.code);
    expect(text.split('HELD').length - 1, text).toBe(wanted.held);
    expect(text).not.toContain('still alive');
    expect(seconds).toBeLessThan(wanted.seconds);
  });
});

// An engine that adds up in an order of its own, or a merge that depends on the number of ranks.
test.runIf(launchers.length > 0)('the bits are those of any library and any number', async () => {
  const prints = new Set<string>();
  for (const launcher of launchers) {
    for (const ranks of [1, 2, 3, 4]) {
      const { code, text } = await launch(launcher, ranks, 'stories.mjs', [
        compiled.url,
        'fingerprint',
      ]);
      expect(code, text).toBe(0);
      const found = [...text.matchAll(/FINGERPRINT (\w+)/g)].map(([, print]) => print ?? '');
      expect(found, text).toHaveLength(ranks);
      for (const print of found) prints.add(print);
    }
  }
  expect(prints.size).toBe(1);
});
