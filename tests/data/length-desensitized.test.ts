// LD-DPO's weights: the part that both completions of a pair have weighs 1, the rest alpha.
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { collatePairs, lengthDesensitized, type RowsOfPairs } from '../../ts/data/index.js';
import { sequenceLogps } from '../../ts/index.js';
import { at } from '../support/numbers.js';
import { detached, expectRefusal, type Kind, type Words } from '../support/refusal.js';

const ids = (minLength: number, maxLength: number): fc.Arbitrary<number[]> =>
  fc.array(fc.integer({ min: 0, max: 22 }), { minLength, maxLength });
const pairs = fc.array(fc.record({ prompt: ids(1, 5), chosen: ids(1, 7), rejected: ids(1, 7) }), {
  minLength: 1,
  maxLength: 4,
});

test('by hand', () => {
  const examples = [
    { prompt: [1, 2], chosen: [3, 4, 5], rejected: [6] },
    { prompt: [1], chosen: [2, 3], rejected: [4, 5, 6, 7] },
  ];
  const padded = collatePairs(examples, { pad: 0 });
  expect(lengthDesensitized(padded, 0.25)).toEqual(
    Float64Array.of(
      ...[0, 1, 0.25, 0.25, 0],
      ...[1, 1, 0, 0, 0],
      ...[0, 1, 0, 0, 0],
      ...[1, 1, 0.25, 0.25, 0],
    ),
  );
  const packed = collatePairs(examples, { layout: 'packed' });
  expect(lengthDesensitized(packed, 0)).toEqual(
    Float64Array.of(0, 1, 0, 0, 0, 1, 1, 0, 0, 1, 0, 1, 1, 0, 0, 0),
  );
});

test('scored rows are counted, not rows: gaps, and a label of its own for what is ignored', () => {
  const labels = Int32Array.of(7, 3, 7, 3, 3, 7, 3, 7, 7, 7);
  const batch = { labels, shape: [2, 5, 9], ignoreIndex: 7 };
  expect(lengthDesensitized(batch, 0.5)).toEqual(Float64Array.of(0, 1, 0, 0.5, 0.5, 0, 1, 0, 0, 0));
});

describe.each(['padded', 'packed'] as const)('%s', (layout) => {
  test('1 up to the shorter completion, alpha after it', () => {
    const property = (examples: readonly { chosen: number[]; rejected: number[] }[]): void => {
      const alpha = 0.375;
      const batch = collatePairs(examples as never, { layout, pad: 0 });
      const weights = lengthDesensitized(batch, alpha);
      expect(weights.length).toBe(batch.labels.length);
      const ofScored = [...weights].filter((_, row) => batch.labels[row] !== -100);
      const expected = (['chosen', 'rejected'] as const).flatMap((key) =>
        examples.flatMap((example) =>
          example[key].map((_, i) =>
            i < Math.min(example.chosen.length, example.rejected.length) ? 1 : alpha,
          ),
        ),
      );
      expect(ofScored).toEqual(expected);
      expect(
        [...weights].filter((_, row) => batch.labels[row] === -100).every((w) => w === 0),
      ).toBe(true);
    };
    fc.assert(fc.property(pairs, property), { seed: 20260207, numRuns: 200 });
  });
});

test('a batch of a loss, by its shape, has the same weights', () => {
  const examples = [{ prompt: [1], chosen: [2, 3], rejected: [4] }];
  const padded = collatePairs(examples, { pad: 0 });
  const packed = collatePairs(examples, { layout: 'packed' });
  const { labels } = padded;
  expect(lengthDesensitized({ labels, shape: [2, padded.tokens, 50] }, 0.5)).toEqual(
    lengthDesensitized(padded, 0.5),
  );
  expect(lengthDesensitized({ ...packed, shape: [packed.rows, 50] }, 0.5)).toEqual(
    lengthDesensitized(packed, 0.5),
  );
});

test('as token weights: log-probabilities of the public part, and alpha times the rest', () => {
  const examples = [{ prompt: [1], chosen: [2, 3, 1], rejected: [4] }];
  const batch = collatePairs(examples, { pad: 0 });
  const [vocab, alpha] = [5, 0.25];
  const shape = [batch.sequences, batch.tokens, vocab];
  const logits = Float32Array.from({ length: batch.labels.length * vocab }, (_, i) => Math.sin(i));
  const { logps } = sequenceLogps({
    ...batch,
    logits,
    shape,
    tokenWeights: lengthDesensitized(batch, alpha),
  });
  const row = (t: number): number => {
    const values = [...logits.subarray(t * vocab, (t + 1) * vocab)];
    return (
      at(values, at(batch.labels, t)) - Math.log(values.reduce((sum, x) => sum + Math.exp(x), 0))
    );
  };
  const expected = row(0) + alpha * (row(1) + row(2));
  expect(Math.abs(at(logps, 0) / expected - 1)).toBeLessThan(1e-5);
});

const labels = Int32Array.of(1, 2, -100, -100);
const good: RowsOfPairs = { labels, sequences: 2 };
const loose = lengthDesensitized as unknown as (...args: readonly unknown[]) => unknown;
test.each<[string, unknown, unknown, Kind, Words]>([
  ['no alpha', good, undefined, 'TypeError OPTION', 'alpha | undefined'],
  ['alpha as text', good, '0.5', 'TypeError OPTION', "alpha | '0.5' | at most 1"],
  ['alpha NaN', good, NaN, 'RangeError OPTION', 'alpha | NaN'],
  ['alpha below 0', good, -0.1, 'RangeError OPTION', 'alpha | -0.1 | at least 0'],
  ['alpha above 1', good, 1.5, 'RangeError OPTION', 'alpha | 1.5 | at most 1'],
  ['no batch', undefined, 0.5, 'TypeError SHAPE', 'batch | undefined'],
  ['labels alone', { labels }, 0.5, 'TypeError SHAPE', 'sequences | undefined'],
  ['bare labels', labels, 0.5, 'TypeError SHAPE', 'batch | Int32Array'],
  [
    'labels in an array',
    { labels: [1, 2], sequences: 2 },
    0.5,
    'TypeError LABEL',
    'labels | Array',
  ],
  [
    'detached labels',
    { labels: detached(Int32Array.of(1)), sequences: 1 },
    0.5,
    'TypeError SHAPE',
    'labels | detached',
  ],
  [
    'three sequences',
    { labels: new Int32Array(6), sequences: 3 },
    0.5,
    'RangeError SHAPE',
    '3 | even',
  ],
  [
    'one group of rows',
    { labels, offsets: Int32Array.of(0, 4) },
    0.5,
    'RangeError SHAPE',
    '1 | even',
  ],
  ['no sequences', { labels, sequences: 0 }, 0.5, 'RangeError SHAPE', 'sequences | 0 | 4 labels'],
  ['NaN sequences', { labels, sequences: NaN }, 0.5, 'RangeError SHAPE', 'sequences | NaN'],
  ['half a sequence', { labels, sequences: 0.5 }, 0.5, 'RangeError SHAPE', 'sequences | 0.5'],
  [
    'rows left over',
    { labels: new Int32Array(5), sequences: 2 },
    0.5,
    'RangeError SHAPE',
    '5 labels',
  ],
  ['a shape of others', { labels, shape: [2, 3, 9] }, 0.5, 'RangeError SHAPE', 'labels | 4 | 6'],
  ['a shape of no kind', { labels, shape: 'x' }, 0.5, 'TypeError SHAPE', "shape | 'x'"],
  [
    'offsets of others',
    { labels, offsets: Int32Array.of(0, 2, 5) },
    0.5,
    'RangeError SHAPE',
    'offsets | 5 | 4',
  ],
  [
    'offsets that go back',
    { labels, offsets: Int32Array.of(0, 5, 4) },
    0.5,
    'RangeError SHAPE',
    'offsets | decreases',
  ],
  [
    'an ignoreIndex as text',
    { ...good, ignoreIndex: '-100' },
    0.5,
    'RangeError LABEL',
    'ignoreIndex',
  ],
  ['an ignoreIndex of a half', { ...good, ignoreIndex: 0.5 }, 0.5, 'RangeError LABEL', '0.5'],
])('refused: %s', (_, batch, alpha, kind, words) => {
  expectRefusal(() => loose(batch, alpha), kind, words);
});
