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

/** How many times ranks say that it held, where all end in order. */
const inOrder = {
  groups: 16,
  badLabel: 4,
  badShape: 4,
  settings: 4,
  labels: 4,
  shards: 4,
  crossed: 4,
  twoGroups: 4,
  aborted: 4,
  concurrent: 8,
  wasm: 4,
} as const;
/** The same where the job is ended by one rank's failure. */
const ended = { leaves: 3, stopped: 3, throws: 0, killed: 0 } as const;

describe.each(launchers)('$name', (launcher) => {
  test.each(Object.entries(inOrder))('%s', async (story, held) => {
    const { code, text, alive } = await launch(launcher, 4, 'stories.mjs', [compiled.url, story]);
    expect(code, text).toBe(0);
    expect(text.split('HELD').length - 1, text).toBe(held);
    expect(alive).toEqual([]);
  });
  // No rank is left behind. mpirun of Open MPI 4.1 itself crashes or hangs now and then as it ends
  // such a job, when its ranks are gone.
  test.each(Object.entries(ended))('%s', async (story, held) => {
    const args = [compiled.url, story];
    const { code, text, alive } = await launch(launcher, 4, 'stories.mjs', args, 40);
    expect(code, text).not.toBe(0);
    expect(text.split('HELD').length - 1, text).toBe(held);
    expect(text).not.toContain('still alive');
    expect(alive).toEqual([]);
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
