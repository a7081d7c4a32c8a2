// Real processes under every launcher that is installed; without one there is nothing to start.
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import v8 from 'node:v8';
import { afterAll, describe, expect, test } from 'vitest';
import { dirAlignLoss, type Objective } from '../../ts/index.js';
import { exact, isSft, makeBatch } from '../support/cases.js';
import { compilePackage } from '../support/compiled.js';
import { Coverage, inputs, total } from '../support/every-case.js';
import { launch, launchers } from '../support/launchers.js';
import { within } from '../support/ranks.js';

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
  hardware: 4,
  protocol: 4,
  nodes: 4,
  window: 12,
  twoPasses: 8,
  wire: 4,
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
const ended = { worker: 4, leaves: 3, stopped: 3, throws: 0, killed: 0 } as const;

describe.each(launchers)('$name', (launcher) => {
  // In one job, for starting one takes a second. Ranks that share memory leave little to MPI.
  test.each(['', '--apart'])('stories that end in order %s', async (apart) => {
    const args = [compiled.url, '--mixed', ...Object.keys(inOrder), ...(apart ? [apart] : [])];
    const { code, text, alive } = await launch(launcher, 4, 'stories.mjs', args);
    expect(code, text).toBe(0);
    const held = [...text.matchAll(/HELD (\w+)/g)].map(([, story]) => story);
    const counts = Object.keys(inOrder).map((story) => [
      story,
      held.filter((one) => one === story).length,
    ]);
    expect(Object.fromEntries(counts), text).toEqual(inOrder);
    expect(alive).toEqual([]);
  });
  // No rank is left behind. mpirun of Open MPI 4.1 itself crashes or hangs now and then as it ends
  // such a job, when its ranks are gone.
  test.each(Object.entries(ended))('%s', async (story, held) => {
    const args = [compiled.url, story, ...(launcher.name === 'MPICH' ? ['--apart'] : [])];
    const { code, text, alive } = await launch(launcher, 4, 'stories.mjs', args, 40);
    expect(code, text).not.toBe(0);
    expect(text.split('HELD').length - 1, text).toBe(held);
    expect(text).not.toContain('still alive');
    expect(alive).toEqual([]);
  });
});

/** Every reference case, by the batches that they are of. */
function allCases(): { arity: string; batch: object; calls: object[] }[] {
  const ran = new Coverage();
  const all = inputs.flatMap(([, input]) =>
    [true, false].map((single) => {
      const cases = ran.cases(input, 'mpi', (c) => exact(c) && isSft(c) === single);
      const arity = single ? 'single' : 'pair';
      const [first] = cases;
      return { arity, batch: first && makeBatch(first), calls: cases.map(({ call }) => call) };
    }),
  );
  expect(ran.size('mpi')).toBeGreaterThan(total / 2);
  return all.filter(({ batch }) => batch !== undefined) as never;
}

// In one process the cases are held to their numbers by vocab.test.ts and data.test.ts; here, an
// engine that mixes ranks up, tears long messages, or ends an exchange early.
test.runIf(launchers.length > 0)(
  'every reference case over four ranks has the bits of one process, by any library',
  async () => {
    const cases = allCases();
    const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'diralign-cases-'));
    const file = path.join(folder, 'cases');
    fs.writeFileSync(file, v8.serialize(cases));
    const script = '../fixtures/distributed/cases.mjs' as string;
    const { hashOf } = (await import(script)) as {
      readonly hashOf: (
        compute: (objective: Objective, batch: never, run: object) => unknown,
        build: unknown,
        cases: unknown,
        groups: object,
      ) => Promise<string>;
    };
    const all = within(4);
    const vocab = [within(2), within(2)];
    const data = [within(2), within(2)];
    const expected = await Promise.all(
      all.map((communicator, rank) => {
        const [d, v] = [Math.floor(rank / 2), rank % 2];
        const groups = { all: communicator, vocab: vocab[d]?.[v], data: data[v]?.[d] };
        return hashOf((o, batch, run) => o.async(batch, run), dirAlignLoss, cases, groups);
      }),
    );
    for (const launcher of launchers) {
      const { code, text } = await launch(launcher, 4, 'cases.mjs', [compiled.url, file]);
      expect(code, text).toBe(0);
      const lines = [...text.matchAll(/RANK (\d) (\w+)/g)];
      const found = lines.map(([, rank, print]) => [rank, print]);
      expect(Object.fromEntries(found), launcher.name).toEqual(
        Object.fromEntries(expected.entries()),
      );
    }
    fs.rmSync(folder, { recursive: true });
  },
);

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
    // Bytes in another's place, or a transfer that is left where it is; and an engine that needs
    // its callers' threads.
    const stories = ['--torn', 'fingerprint', 'groups', 'concurrent', 'aborted'];
    const { code, text } = await launch(launcher, 2, 'stories.mjs', [compiled.url, ...stories]);
    expect(code, text).toBe(0);
    for (const [, print = ''] of text.matchAll(/FINGERPRINT (\w+)/g)) prints.add(print);
    expect(text.split('HELD').length - 1, text).toBe(2 * (1 + 4 + 2 + 1));
  }
  expect(prints.size).toBe(1);
});
