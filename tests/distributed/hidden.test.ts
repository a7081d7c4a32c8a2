// The words of an output layer over ranks.
import { describe, expect, test } from 'vitest';
import { dirAlignLoss } from '../../ts/index.js';
import { objectiveOf } from '../support/batches.js';
import { Misses } from '../support/bounds.js';
import {
  checkLayerCase,
  layerBatch,
  leastMemory,
  loadLayerCases,
  randomHidden,
  type HostHidden,
} from '../support/hidden.js';
import { at, decodeHalf, encodeHalf, sameBits } from '../support/numbers.js';
import { boundaries, differences, hiddenOverVocab, within, wordsOf } from '../support/ranks.js';
import { rejection } from '../support/refusal.js';

const dpo = dirAlignLoss('dpo', 0.1);
describe.each([2, 4])('the reference cases over %i shards', (size) => {
  test.each(loadLayerCases().map((c) => [c.id, c] as const))('%s', async (id, c) => {
    const cuts = boundaries(c.input.V, size, size > 2);
    for (const memory of [undefined, leastMemory(layerBatch(c), c.call)]) {
      const misses = new Misses();
      const result = await hiddenOverVocab(objectiveOf(c.call), layerBatch(c), cuts, { memory });
      checkLayerCase(misses, `${id}, memory ${String(memory)}`, c, result as never);
      expect(misses.list).toEqual([]);
    }
  });
});

const batch = randomHidden({ seed: 3, sequences: 6, tokens: 7, vocab: 1500, size: 16 });

/** Within what sums in another order are rounded by. */
function expectNear(actual: Float32Array, expected: Float32Array): void {
  const misses = new Misses();
  const largest = Math.max(...expected.map(Math.abs));
  misses.each('gradient', actual, expected, () => 1e-6 * largest);
  expect(misses.list).toEqual([]);
}

test('with a grid, losses and gradients of the weight have the same bits everywhere', async () => {
  const run = { columnGrid: 512 };
  const one = await dpo.fromHidden.async(batch as never, { parallel: run });
  for (const size of [1, 2, 3]) {
    const many = await hiddenOverVocab(dpo, batch, boundaries(1500, size, false, 512), run);
    expect(differences(many, one as object)).toEqual([]);
    const { gradWeight, gradHidden } = one as never as Record<string, Float32Array>;
    expect(sameBits(many.gradWeight as Float32Array, gradWeight as Float32Array)).toBe(true);
    expectNear(many.gradHidden as Float32Array, gradHidden as Float32Array);
  }
});

test.each([
  dirAlignLoss('sft'),
  dirAlignLoss('aot', 0.1),
  dirAlignLoss('orpo', 0.1),
  dirAlignLoss('dpo', 0.1, false, { sftWeight: 0.2, sftReduction: 'token' }),
])('$method in a small workspace, and in a large one', async (objective) => {
  const large = await hiddenOverVocab(objective as never, batch, boundaries(1500, 3));
  const small = await hiddenOverVocab(objective as never, batch, boundaries(1500, 3), {
    memory: leastMemory(batch), // units are gone through in chunks
  });
  expect(differences(small, large)).toEqual([]);
  for (const name of ['gradHidden', 'gradWeight', 'gradBias'] as const)
    expectNear(small[name] as Float32Array, large[name] as Float32Array);
});

test('padding past the words is never read, and has no gradient', async () => {
  const cuts = boundaries(1500, 3);
  const plain = await hiddenOverVocab(dpo, batch, cuts);
  const padded = await hiddenOverVocab(dpo, batch, cuts, {}, 5);
  expect(differences(padded, plain, ['loss', 'logps', 'gradHidden', 'gradWeight'])).toEqual([]);
});

test('partial gradients of hidden states add up to the whole', async () => {
  const cuts = boundaries(1500, 2);
  const whole = await hiddenOverVocab(dpo, batch, cuts);
  const communicators = within(2);
  const parts = await Promise.all(
    communicators.map((vocab, rank) => {
      const [first, end] = [at(cuts, rank), at(cuts, rank + 1)];
      return dpo.fromHidden.async(wordsOf(batch as never, first, end), {
        parallel: { vocab, gradHidden: 'partial' },
      });
    }),
  );
  const [a, b] = parts.map(({ gradHidden }) => gradHidden as never as Float32Array);
  const sum = (a as Float32Array).map((x, i) => x + at(b as Float32Array, i));
  expectNear(sum, whole.gradHidden as Float32Array);
});

/** Of ranks whose words begin at `cuts`: each one's gradient of the hidden states. */
const partsOf = (given: HostHidden, cuts: readonly number[]) =>
  Promise.all(
    within(cuts.length - 1).map(async (vocab, rank) => {
      const own = wordsOf(given, at(cuts, rank), at(cuts, rank + 1));
      const run = { parallel: { vocab, gradHidden: 'partial' } } as const;
      return (await dpo.fromHidden.async(own, run)).gradHidden as Uint16Array;
    }),
  );
// What travels in the layer's dtype is the sum of rounded parts, in the order of the ranks.
test.each(['float16', 'bfloat16'] as const)("wire: 'native', %s", async (dtype) => {
  const given = randomHidden({ seed: 4, sequences: 4, tokens: 5, vocab: 300, size: 23, dtype });
  const cuts = boundaries(300, 4, true);
  const sized = { ...given, hiddenSize: 23 }; // which an empty shard does not tell
  const parts = (await partsOf(sized, cuts)).map((part) => decodeHalf(part, dtype));
  const sums = (parts[0] as Float64Array).map((_, i) =>
    parts.reduce((sum, part) => sum + at(part, i), 0),
  );
  const expected = encodeHalf(sums, dtype);
  for (const memory of [undefined, leastMemory(given)]) {
    const run = { memory, wire: 'native' } as const;
    const native = (await hiddenOverVocab(dpo, given, cuts, run)).gradHidden as Uint16Array;
    if (memory === undefined) expect(sameBits(native, expected)).toBe(true);
    const float = (await hiddenOverVocab(dpo, given, cuts, { memory })).gradHidden as Uint16Array;
    expect(sameBits(native, float)).toBe(false);
  }
});
test("wire: 'native' of float32 is float32, and says no other number", async () => {
  const cuts = boundaries(1500, 3);
  const [a, b] = [
    await hiddenOverVocab(dpo, batch, cuts, { wire: 'native' }),
    await hiddenOverVocab(dpo, batch, cuts, { wire: 'float32' }),
  ];
  expect(differences(a, b)).toEqual([]);
  for (const name of ['gradHidden', 'gradWeight', 'gradBias'] as const)
    expect(sameBits(a[name] as Float32Array, b[name] as Float32Array)).toBe(true);
});
test('ranks that disagree on the wire', async () => {
  const codes = await Promise.all(
    within(2).map((vocab, rank) =>
      rejection(
        dpo.fromHidden.async(wordsOf(batch, 750 * rank, 750 * (rank + 1)), {
          parallel: { vocab, wire: rank === 0 ? 'native' : 'float32' },
        }),
      ),
    ),
  );
  for (const error of codes) expect(error).toMatchObject({ code: 'ERR_DIRALIGN_DISAGREE' });
});

test('buffers: padding is zeroed, or left alone where it is added to', () => {
  const own = (gradWeight: Float32Array, accumulate: boolean) =>
    dpo.fromHidden(
      { ...(batch as object), shard: { first: 0, vocab: 1490 }, labels: labels } as never,
      { out: { gradWeight }, accumulate } as never,
    );
  const labels = batch.labels.map((y) => Math.min(y, 1489));
  const buffer = new Float32Array(1500 * 16).fill(7);
  own(buffer, true);
  expect(buffer.subarray(1490 * 16).every((x) => x === 7)).toBe(true);
  own(buffer, false);
  expect(buffer.subarray(1490 * 16).every((x) => x === 0)).toBe(true);
});

test('a workspace that is too small for one rank is refused by all', async () => {
  const communicators = within(2);
  const codes = await Promise.all(
    communicators.map((vocab, rank) => {
      const [first, end] = rank === 0 ? ([0, 700] as const) : ([700, 1500] as const);
      return dpo.fromHidden
        .async(wordsOf(batch as never, first, end), {
          parallel: { vocab },
          memory: rank === 1 ? 100 : undefined,
        })
        .then(
          () => 'ok',
          (error: unknown) => (error as { code: string }).code,
        );
    }),
  );
  expect(codes).toEqual(['ERR_DIRALIGN_PEER', 'ERR_DIRALIGN_OPTION']);
});
