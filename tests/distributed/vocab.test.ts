// Columns of the vocabulary over ranks: numbers, bits, and what may not be read.
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { dirAlignLoss, type LossResult, type RunOptions } from '../../ts/index.js';
import { vocabShard } from '../../ts/distributed/index.js';
import { Misses } from '../support/bounds.js';
import { dtypes, randomBatch } from '../support/batches.js';
import { build, checkGradient, checkNumbers, makeBatch } from '../support/cases.js';
import { Coverage, inputs, total } from '../support/every-case.js';
import { at, sameBits } from '../support/numbers.js';
import { boundaries, cutColumns, differences, edgesOfShards, overVocab } from '../support/ranks.js';

const gridded = [512, 1024] as const;
const dpo = dirAlignLoss('dpo', 0.1);

describe.each([2, 4])('the reference cases over %i shards', (size) => {
  const ran = new Coverage();
  test.each(inputs)('%s', async (_, input) => {
    const misses = new Misses();
    for (const c of ran.cases(input, 'vocab')) {
      const cuts = boundaries(input.V, size, size > 2);
      const result = await overVocab(build(c), makeBatch(c), cuts);
      checkNumbers(misses, c, result);
      checkGradient(misses, c, result.gradLogits);
    }
    expect(misses.list).toEqual([]);
  });
  test(`all ${String(total)} cases but those of robustness were run`, () => {
    expect(ran.size('vocab')).toBeGreaterThan(total / 2);
  });
});

// A merge that depends on how many ranks there are, or an entry of a label that two shards write.
test.each(dtypes)(
  '%s: a grid of columns gives the same bits for any number of ranks',
  async (dtype) => {
    const vocab = 5000;
    const batch = randomBatch({ seed: 1, sequences: 4, tokens: 5, vocab, dtype, peaked: true });
    const run = { metrics: ['entropy', 'mean_token_accuracy', 'logits/chosen'] } as const;
    for (const columnGrid of gridded) {
      const one = (await dpo.async(batch, { ...run, parallel: { columnGrid } })) as never;
      for (const size of [1, 2, 3, 4]) {
        const cuts = boundaries(vocab, size, size === 4, columnGrid);
        const many = await overVocab(dpo, batch, cuts, { ...run, columnGrid });
        expect(differences(many, one)).toEqual([]);
        expect(sameBits(many.gradLogits, (one as typeof many).gradLogits)).toBe(true);
      }
    }
  },
);

test.each(['factored', 'none'] as const)('gradient %s', async (gradient) => {
  const vocab = 1300;
  const batch = randomBatch({ seed: 2, sequences: 4, tokens: 5, vocab, peaked: true });
  const dense = await overVocab(dpo, batch, boundaries(vocab, 3));
  const other = await overVocab(dpo, batch, boundaries(vocab, 3), { gradient });
  expect(differences(other, dense, ['loss', 'losses', 'logps', 'coefficients'])).toEqual([]);
  if (gradient === 'none') return;
  const { rowScale = [] } = other;
  other.gradLogits.forEach((g, i) => {
    const x = at(dense.gradLogits, i);
    expect(Math.abs(g * at(rowScale, Math.floor(i / vocab)) - x)).toBeLessThanOrEqual(
      2 ** -21 * Math.abs(x),
    );
  });
});

test('padding past the words and columns of other ranks are never read', async () => {
  const vocab = 1111;
  const batch = randomBatch({ seed: 3, sequences: 4, tokens: 3, vocab, peaked: true });
  const cuts = boundaries(vocab, 3, true);
  const plain = await overVocab(dpo, batch, cuts);
  const padded = await overVocab(dpo, batch, cuts, {}, 7);
  expect(differences(padded, plain)).toEqual([]);
  expect(sameBits(padded.gradLogits, plain.gradLogits)).toBe(true);
});

/** Within what sums in another order are rounded by. */
function expectNear(many: Awaited<ReturnType<typeof overVocab>>, one: LossResult): void {
  const misses = new Misses();
  misses.each('loss', [many.loss], [one.loss], (x) => 1e-7 * Math.abs(x));
  const expected = one.gradLogits as Float32Array;
  const largest = expected.reduce((most, x) => Math.max(most, Math.abs(x)), 0);
  const bound = (x: number): number => 2e-6 * Math.abs(x) + 1e-8 * largest;
  misses.each('gradLogits', many.gradLogits, expected, bound);
  expect(misses.list).toEqual([]);
}

test('a likelihood term with labels of its own, in other shards than the labels', async () => {
  const vocab = 40;
  const batch = randomBatch({ seed: 4, sequences: 4, tokens: 6, vocab });
  const sftLabels = batch.labels.map((label, r) => (r % 3 ? (label + 117) % vocab : -100));
  const orpo = dirAlignLoss('simpo', 2, true, { sftWeight: 0.5 });
  const given = { ...batch, sftLabels };
  const one = orpo(given);
  const many = await overVocab(orpo, given, boundaries(vocab, 4));
  expectNear(many, one);
});

test('transformed logits', async () => {
  const vocab = 700;
  const given = {
    ...randomBatch({ seed: 5, sequences: 4, tokens: 3, vocab, peaked: true }),
    logitScale: 0.7,
    logitSoftcap: 5,
    temperature: 1.3,
  };
  const one = dpo(given);
  const many = await overVocab(dpo, given, boundaries(vocab, 3));
  expectNear(many, one);
});

// -inf in whole shards, a NaN in one, a label whose probability tends to 1.
test('what a shard holds reaches every rank, and only its pair', async () => {
  const { batch, logits, vocab } = edgesOfShards();
  const cuts = boundaries(vocab, 4);
  const one = dpo(batch);
  const many = await overVocab(dpo, batch, cuts);
  expect(Math.abs(at(many.logps, 1) / (-63 * Math.exp(-80)) - 1)).toBeLessThan(1e-6);
  expect(Math.abs(many.loss / one.loss - 1)).toBeLessThan(1e-7);
  logits[vocab + 60] = NaN; // of the second pair, in the last shard
  const nan = await overVocab(dpo, batch, cuts);
  expect([...nan.losses].map(Number.isNaN)).toEqual([false, true]);
  expect(nan.metrics.nonfinite).toBe(1);
});

test('any boundaries, any vocabulary: within the bounds of one process', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.integer({ min: 1, max: 1600 }),
      fc.array(fc.double({ min: 0, max: 1, noNaN: true }), { maxLength: 4 }),
      fc.integer({ min: 1, max: 1000 }),
      fc.constantFrom(...dtypes),
      async (vocab, where, seed, dtype) => {
        const batch = randomBatch({ seed, sequences: 2, tokens: 3, vocab, dtype });
        const cuts = [0, ...where.map((x) => Math.floor(x * vocab)).sort((a, b) => a - b), vocab];
        const one = dpo(batch);
        const many = await overVocab(dpo, batch, cuts);
        expect(Math.abs(many.loss - one.loss)).toBeLessThan(1e-6);
        one.logps.forEach((x, s) => {
          expect(Math.abs(at(many.logps, s) - x)).toBeLessThan(3e-6 + 1e-6 * Math.abs(x));
        });
      },
    ),
    { numRuns: 60 },
  );
});

test('vocabShard: shards follow one another, in units, and miss no word', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 300_000 }),
      fc.integer({ min: 1, max: 70 }),
      fc.integer({ min: 1, max: 3000 }),
      (vocab, size, unit) => {
        let end = 0;
        for (let rank = 0; rank < size; rank++) {
          const shard = vocabShard(vocab, { rank, size }, unit);
          expect(shard.first).toBe(end);
          end += shard.columns;
          expect(end === vocab || end % unit === 0).toBe(true);
        }
        expect(end).toBe(vocab);
      },
    ),
  );
});

test('a synchronous call with a grid alone', () => {
  const vocab = 1200;
  const batch = randomBatch({ seed: 7, sequences: 2, tokens: 2, vocab });
  const run: RunOptions = { parallel: { columnGrid: 512 } };
  const shard = { first: 0, vocab: vocab - 100 };
  const own = { ...batch, labels: batch.labels.map((y) => Math.min(y, vocab - 101)) };
  const whole = dpo(
    { ...own, logits: cutColumns(own.logits, vocab, 0, vocab - 100), shape: [2, 2, vocab - 100] },
    run as never,
  );
  expect(dpo({ ...own, shard }, run as never).loss).toBe(whole.loss);
});
