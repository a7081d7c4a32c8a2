// The words of an output layer over ranks that compute on devices.
import { describe, expect, test } from 'vitest';
import { cuda, dirAlignLoss, type HiddenLossResult, type Objective } from '../../ts/index.js';
import { dtypes, objectiveOf } from '../support/batches.js';
import { largestOf, Misses } from '../support/bounds.js';
import { expectDevice } from '../support/expect-device.js';
import {
  checkLayerCase,
  layerBatch,
  leastMemory,
  loadLayerCases,
  randomHidden,
  type HostHidden,
} from '../support/hidden.js';
import { at, decodeHalf, present } from '../support/numbers.js';
import {
  boundaries,
  differences,
  hiddenOnDevice,
  hiddenOverVocab,
  within,
  wordsOf,
} from '../support/ranks.js';

expectDevice();
const dpo = dirAlignLoss('dpo', 0.1);
const device = hiddenOnDevice();
const gradients = ['gradHidden', 'gradWeight', 'gradBias'] as const;

/** Within what sums in another order are rounded by, in a type of so many bits. */
function expectNear(actual: HiddenLossResult, expected: HiddenLossResult, bits = 20): void {
  const misses = new Misses();
  for (const name of gradients) {
    const [a, b] = [actual, expected].map((result) => result[name] as Float32Array);
    const largest = largestOf(b as Float32Array);
    misses.each(name, a as Float32Array, b as Float32Array, (x) =>
      Math.max(2 ** -bits * Math.abs(x), 1e-6 * largest),
    );
  }
  expect(misses.list).toEqual([]);
}
const decoded = (result: HiddenLossResult, dtype: 'float16' | 'bfloat16'): HiddenLossResult =>
  ({ ...result, gradHidden: decodeHalf(result.gradHidden as never, dtype) }) as never;

const batch = randomHidden({ seed: 3, sequences: 6, tokens: 7, vocab: 1500, size: 16 });

describe.runIf(cuda.available)('words over ranks', () => {
  const cases = loadLayerCases().map((c, i) => [c.id, i, c] as const);
  test.each(cases)('the reference case %s', async (id, i, c) => {
    const size = i % 2 === 0 ? 2 : 4;
    const cuts = boundaries(c.input.V, size, size > 2);
    const misses = new Misses();
    const compute = hiddenOnDevice(i % 3);
    const given = layerBatch(c);
    const result = await hiddenOverVocab(objectiveOf(c.call), given, cuts, {}, i % 2, compute);
    checkLayerCase(misses, id, c, { ...result, backend: 'cpu' } as never);
    expect(misses.list).toEqual([]);
  });

  test.each([
    dirAlignLoss('sft'),
    dirAlignLoss('aot', 0.1),
    dirAlignLoss('orpo', 0.1),
    dirAlignLoss('dpo', 0.1, false, { sftWeight: 0.2, sftReduction: 'token' }),
  ] as unknown as Objective[])(
    '$method in a large workspace and in a small one',
    async (objective) => {
      const cuts = boundaries(1500, 3, true);
      const metrics = ['entropy', 'logits/chosen'] as const;
      const host = await hiddenOverVocab(objective, batch, cuts, { metrics });
      const large = await hiddenOverVocab(objective, batch, cuts, { metrics }, 0, device);
      // Units are gone through in chunks of a few rows.
      const run = { memory: 40_000, metrics };
      const small = await hiddenOverVocab(objective, batch, cuts, run, 0, device);
      expect(small.memory).toBeLessThanOrEqual(40_000);
      expect(large.memory).toBeGreaterThan(40_000);
      expect(differences(small, large)).toEqual([]);
      expectNear(small, large);
      expectNear(large, host, 16);
      for (const name of metrics)
        expect(large.metrics[name]).toBeCloseTo(host.metrics[name] ?? NaN, 5);
    },
  );

  // Rounded once: the sum of rounded parts is as far off as some parts are large.
  test.each(dtypes)('%s: the gradient of hidden states', async (dtype) => {
    const given = randomHidden({ seed: 4, sequences: 4, tokens: 5, vocab: 300, size: 24, dtype });
    const one = await hiddenOverVocab(dpo, given, [0, 300], {}, 0, device);
    const many = await hiddenOverVocab(dpo, given, boundaries(300, 4), {}, 0, device);
    if (dtype === 'float32') expectNear(many, one);
    else {
      const bits = dtype === 'float16' ? 10 : 7;
      const misses = new Misses();
      const [a, b] = [many, one].map((r) => decoded(r, dtype).gradHidden as never as Float32Array);
      const largest = largestOf(b as Float32Array);
      misses.each('gradHidden', a as Float32Array, b as Float32Array, (x) =>
        Math.max(2 ** -bits * Math.abs(x), 1e-5 * largest),
      );
      expect(misses.list).toEqual([]);
      // What travels in that dtype: four parts and their sum, each rounded.
      const wire = 'native';
      const native = await hiddenOverVocab(dpo, given, boundaries(300, 4), { wire }, 0, device);
      const c = decoded(native, dtype).gradHidden as never as Float32Array;
      expect(differences(native, many, ['gradHidden'])).toEqual(['gradHidden']);
      misses.each('native', c, a as Float32Array, () => 2 ** -bits * largest * 4);
      expect(misses.list).toEqual([]);
    }
  });

  test('partial gradients of hidden states add up to the whole', async () => {
    const cuts = boundaries(1500, 2);
    const whole = await hiddenOverVocab(dpo, batch, cuts, {}, 0, device);
    const communicators = within(2);
    const parts = await Promise.all(
      communicators.map((vocab, rank) =>
        device(dpo, wordsOf(batch as never, at(cuts, rank), at(cuts, rank + 1)), {
          parallel: { vocab, gradHidden: 'partial' },
        }),
      ),
    );
    const [a, b] = parts.map(({ gradHidden }) => gradHidden as never as Float32Array);
    const sum = (a as Float32Array).map((x, i) => x + at(b as Float32Array, i));
    expectNear({ ...whole, gradHidden: sum }, whole);
  });

  test('padding past the words has no gradient, and buffers are added to', async () => {
    const plain = await hiddenOverVocab(dpo, batch, boundaries(1500, 3), {}, 0, device);
    const padded = await hiddenOverVocab(dpo, batch, boundaries(1500, 3), {}, 5, device);
    expect(differences(padded, plain, ['loss', 'logps', 'gradHidden', 'gradWeight'])).toEqual([]);
    // Twice into the same buffers.
    const communicators = within(2);
    const sums = await Promise.all(
      communicators.map(async (vocab, rank) => {
        const [first, end] = rank === 0 ? [0, 800] : [800, 1500];
        using hidden = cuda.alloc(batch.hidden.byteLength);
        hidden.copyFrom(new Float32Array(batch.hidden.length).fill(1));
        using weight = cuda.alloc((end - first) * 16 * 4);
        weight.copyFrom(new Float32Array((end - first) * 16).fill(2));
        const out = { gradHidden: hidden.tensor('float32'), gradWeight: weight.tensor('float32') };
        await accumulate(wordsOf(batch, first, end), { vocab }, out);
        const read = new Float32Array(batch.hidden.length);
        hidden.copyTo(read);
        const words = new Float32Array((end - first) * 16);
        weight.copyTo(words);
        return [read.map((x) => x - 1), words.map((x) => x - 2)] as const;
      }),
    );
    const near = (actual: Float32Array, expected: Float32Array): void => {
      const misses = new Misses();
      // Of sums with 1 and 2 in float32.
      misses.each('sum', actual, expected, () => 8 * 2 ** -24);
      expect(misses.list).toEqual([]);
    };
    for (const [hidden] of sums) near(hidden, plain.gradHidden as never);
    near(
      Float32Array.from(sums.flatMap(([, words]) => [...words])),
      plain.gradWeight as Float32Array,
    );
  });

  test('a workspace that is too small for one rank is refused by all', async () => {
    const communicators = within(2);
    const codes = await Promise.all(
      communicators.map((vocab, rank) => {
        const own = rank === 0 ? wordsOf(batch, 0, 700) : wordsOf(batch, 700, 1500);
        const memory = rank === 1 ? 100 : undefined;
        return device(dpo, own, { parallel: { vocab }, memory }).then(
          () => 'ok',
          (error: unknown) => (error as { code: string }).code,
        );
      }),
    );
    expect(codes).toEqual(['ERR_DIRALIGN_PEER', 'ERR_DIRALIGN_OPTION']);
  });

  test('a rank of the CPU beside one of a device: they cut rows differently', async () => {
    const communicators = within(2);
    const codes = await Promise.all(
      communicators.map((vocab, rank) => {
        const run = { parallel: { vocab } };
        const call =
          rank === 0
            ? device(dpo, wordsOf(batch, 0, 700), run)
            : dpo.fromHidden.async(wordsOf(batch as never, 700, 1500) as never, run);
        return call.then(
          () => 'ok',
          (error: unknown) => (error as { code: string }).code,
        );
      }),
    );
    expect(codes).toEqual(['ERR_DIRALIGN_DISAGREE', 'ERR_DIRALIGN_DISAGREE']);
  });
});

/** Adds the gradients of hidden states and weight to what is in `out`. */
async function accumulate(own: HostHidden, parallel: object, out: object): Promise<void> {
  const upload = (array: Float32Array) => {
    const buffer = cuda.alloc(array.byteLength);
    buffer.copyFrom(array);
    return buffer;
  };
  const { hidden, weight, bias } = own as never as Record<string, Float32Array>;
  const buffers = [hidden, weight, bias].map((array) => upload(array as Float32Array));
  const [h, w, b] = buffers.map((buffer) => buffer.tensor('float32'));
  const run = { parallel, out: { ...out, gradBias: false }, accumulate: Object.keys(out) };
  await dpo.fromHidden.async({ ...own, hidden: h, weight: w, bias: b } as never, run as never);
  for (const buffer of buffers) buffer.dispose();
}

// The sums of a rank's sequences alone, coefficients of a part, means over local tokens.
describe.runIf(cuda.available)('units and tokens over ranks', () => {
  const size = 16;
  const rowsOf = (rows: readonly number[], sequences: readonly number[]): HostHidden => ({
    ...batch,
    hidden: Float32Array.from(
      rows.flatMap((r) => [...batch.hidden.subarray(r * size, (r + 1) * size)]),
    ),
    shape: [sequences.length, rows.length / sequences.length, 1500],
    labels: Int32Array.from(rows, (r) => at(batch.labels, r)),
    reference: Float64Array.from(sequences, (s) => at(batch.reference, s)),
  });
  test.each([
    dirAlignLoss('dpo', 0.1),
    dirAlignLoss('aot', 0.1),
    dirAlignLoss('dpo', 0.1, false, { sftWeight: 0.2, sftReduction: 'token' }),
  ] as unknown as Objective[])('$method', async (objective) => {
    const one = await device(objective, batch, {});
    const cut = {
      data: [
        [0, 3], // pair 0
        [1, 2, 4, 5],
      ].map((sequences) =>
        rowsOf(
          sequences.flatMap((s) => [0, 1, 2, 3, 4, 5, 6].map((t) => s * 7 + t)),
          sequences,
        ),
      ),
      sequence: [
        [0, 4],
        [1, 2, 3, 5, 6],
      ].map((tokens) =>
        rowsOf(
          [0, 1, 2, 3, 4, 5].flatMap((s) => tokens.map((t) => s * 7 + t)),
          [0, 1, 2, 3, 4, 5],
        ),
      ),
    };
    for (const [axis, parts] of Object.entries(cut)) {
      const communicators = within(2);
      const memory = axis === 'data' ? undefined : leastMemory(batch) + 100_000;
      const ranks = await Promise.all(
        parts.map((part, rank) =>
          device(objective, part, { parallel: { [axis]: communicators[rank] }, memory }),
        ),
      );
      const [first, second] = ranks.map(({ gradWeight }) => gradWeight as Float32Array);
      const sum = present(first).map((x, i) => x + at(present(second), i));
      for (const result of ranks) {
        if (axis === 'data') expect(differences(result, one, ['loss', 'metrics'])).toEqual([]);
        else expect(Math.abs(result.loss / one.loss - 1)).toBeLessThan(1e-9);
      }
      const misses = new Misses();
      const expected = one.gradWeight as Float32Array;
      const bound = 1e-6 * largestOf(expected);
      misses.each(axis, sum, expected, () => bound);
      expect(misses.list).toEqual([]);
    }
  });
});
