// Passes that have no loss, over the batch of one: what they read of its fields, and what they
// refuse.
import { describe, expect, test } from 'vitest';
import { fieldNames, transformNames } from '../../ts/batch/fields.js';
import { logpsBackward, sequenceLogps, tokenLogps } from '../../ts/index.js';
import { expectRefusal, rejection } from '../support/refusal.js';

type Given = Record<string, unknown>;
interface Pass {
  readonly now: (batch: Given) => object;
  readonly later: (batch: Given) => Promise<object>;
}
const derivatives = { sequences: Float64Array.of(1, -0.5, 0, 2) };
const passes: Readonly<Record<string, Pass>> = {
  sequenceLogps: {
    now: (batch) => sequenceLogps(batch as never),
    later: (batch) => sequenceLogps.async(batch as never),
  },
  tokenLogps: {
    now: (batch) => tokenLogps(batch as never),
    later: (batch) => tokenLogps.async(batch as never),
  },
  logpsBackward: {
    now: (batch) => logpsBackward(batch as never, derivatives),
    later: (batch) => logpsBackward.async(batch as never, derivatives),
  },
};

const wave = (n: number): Float32Array => Float32Array.from({ length: n }, (_, i) => Math.sin(i));
const rows = { labels: Int32Array.of(0, 1, 2, -100, 4, 3, 2, 1), shape: [4, 2, 5] };
const packed = { ...rows, shape: [8, 5], offsets: Int32Array.of(0, 2, 4, 6, 8) };
const batches: Readonly<Record<string, Given>> = {
  logits: { ...rows, logits: wave(40) },
  'packed logits': { ...packed, logits: wave(40) },
  'hidden states': { ...rows, hidden: wave(24), weight: wave(15) },
};
const doors = Object.entries(passes).flatMap(([pass, { now, later }]) =>
  Object.entries(batches).map(([data, batch]) => ({ pass, data, now, later, batch })),
);

const ofRows: readonly string[] = ['tokenWeights', ...transformNames];
const ofLosses = ['groups', ...fieldNames].filter((name) => !ofRows.includes(name));

describe.each(doors)('$pass of $data', ({ now, later, batch }) => {
  test('takes the fields of a loss, and does not look at them', async () => {
    expect(ofLosses).toHaveLength(12);
    const expected = now(batch);
    for (const value of [[NaN], 'weights', new Float64Array(99), Symbol('weight')]) {
      const given = { ...batch, ...Object.fromEntries(ofLosses.map((name) => [name, value])) };
      expect(now(given)).toEqual(expected);
      await expect(later(given)).resolves.toEqual(expected);
    }
  });

  test('checks the fields of rows, and refuses names that no batch has', async () => {
    for (const [more, kind, words] of [
      [{ tokenWeights: [1, 1] }, 'RangeError SHAPE', 'tokenWeights: length 2; expected 8'],
      [{ temperature: 0 }, 'RangeError OPTION', 'temperature: 0'],
      [{ logitScale: '1' }, 'TypeError OPTION', "logitScale: '1'"],
      [{ logitSoftcap: NaN }, 'RangeError OPTION', 'logitSoftcap: NaN'],
      [{ wieghts: [1, 1] }, 'TypeError SHAPE', 'batch.wieghts: no such property; did you mean'],
    ] as const) {
      expectRefusal(() => now({ ...batch, ...more }), kind, words);
      expectRefusal(await rejection(later({ ...batch, ...more })), kind, words);
    }
  });
});
