// Groups, mixtures and metrics on a device, and losses of the caller's own through an output layer,
// against float64.
import { describe, expect, test } from 'vitest';
import {
  cuda,
  dirAlignLoss,
  mixLosses,
  type HiddenBatch,
  type tokenLogps,
  type WeightedObjective,
} from '../../ts/index.js';
import {
  referenceLayer,
  referenceLogpsBackward,
  referenceLoss,
  referenceMix,
  referenceTokenLogps,
  type ReferenceConfig,
} from '../../ts/verification/reference.js';
import { dtypes, inDtype, objectiveOf, type Dtype } from '../support/batches.js';
import { largestOf, logpBound, lossBound, Misses } from '../support/bounds.js';
import { expectDevice } from '../support/expect-device.js';
import { at, decodeHalf, generator, normal, present } from '../support/numbers.js';
import {
  backwardCall,
  exact,
  nearElements,
  objectiveCall,
  randomRows,
  tokensCall,
  ways,
  type Numbers,
} from '../support/on-device.js';

expectDevice();

/** Ranks from 0 in each group. */
function distinct(keys: Int32Array, sizes: readonly number[]): Int32Array {
  const ranks = new Int32Array(keys.length);
  let first = 0;
  for (const n of sizes) {
    const order = Array.from({ length: n }, (_, k) => k).sort(
      (a, b) => at(keys, first + a) - at(keys, first + b) || a - b,
    );
    order.forEach((k, rank) => (ranks[first + k] = rank));
    first += n;
  }
  return ranks;
}

describe.runIf(cuda.available).each(ways)('units, $name', ({ compute }) => {
  test.each(['plackett_luce', 'info_nca', 'nca_listwise'] as const)(
    '%s: groups of 1 to 9 candidates, some without a weight',
    (method) => {
      const random = generator(12);
      const sizes = [1, 9, 2, 5, 3, 1, 7, 4, 8, 6];
      const groups = Int32Array.from([0, ...sizes]).map((_, i) =>
        sizes.slice(0, i).reduce((sum, n) => sum + n, 0),
      );
      const sequences = at(groups, sizes.length);
      const ranks = Int32Array.from(
        sizes.flatMap((n) => Array.from({ length: n }, (_, k) => (k * 7 + 3) % n)),
      );
      const field =
        method === 'plackett_luce'
          ? { ranks: distinct(ranks, sizes) }
          : { rewards: Float64Array.from(ranks, () => normal(random)) };
      const weights = Float64Array.from(sizes, (_, i) => (i === 3 ? 0 : 0.5 + random()));
      const batch = { ...randomRows(13, { sequences, vocab: 9 }), groups, weights, ...field };
      const config: ReferenceConfig = { method, beta: 0.5 };
      const expected = referenceLoss(config, exact(batch));
      const result = compute(batch, objectiveCall(config));
      const misses = new Misses();
      misses.near('loss', result.loss as number, expected.loss, lossBound(expected.loss));
      nearElements(misses, 'gradLogits', result.gradLogits, expected.gradLogits);
      expect(misses.list).toEqual([]);
    },
  );

  const mixes: readonly (readonly [string, readonly ReferenceConfig[]])[] = [
    [
      'sorted beside others',
      [
        { method: 'dpo', beta: 0.3 },
        { method: 'aot', beta: 0.4 },
      ],
    ],
    [
      'sorted first',
      [
        { method: 'aot', beta: 0.4 },
        { method: 'ipo', beta: 0.4 },
      ],
    ],
    [
      'two sorted and a likelihood',
      [
        { method: 'aot', beta: 0.4 },
        { method: 'aot_unpaired', beta: 0.2 },
        { method: 'sft', sftReduction: 'mean' },
      ],
    ],
  ];
  test.each(mixes)('a mixture, %s', (_, configs) => {
    const batch = randomRows(14, { sequences: 26, vocab: 9 });
    const weighted = configs.map((config, i) => ({ weight: 0.5 + i, config }));
    const expected = referenceMix(weighted, exact(batch) as never);
    const terms = weighted.map(({ weight, config }): WeightedObjective => ({
      weight,
      objective: objectiveOf(config),
    }));
    const misses = new Misses();
    const result = compute(batch, mixLosses(terms));
    misses.near('loss', result.loss as number, expected.loss, lossBound(expected.loss));
    nearElements(misses, 'gradLogits', result.gradLogits, expected.gradLogits);
    expect(misses.list).toEqual([]);
  });

  test('metrics of transformed rows', () => {
    const rows = randomRows(15, { vocab: 9000 });
    const batch = { ...rows, logitSoftcap: 2, temperature: 0.5, tokenWeights: undefined };
    const dpo = dirAlignLoss('dpo', 0.3);
    const metrics = ['entropy', 'logits/chosen', 'mean_token_accuracy'] as const;
    const { metrics: found } = compute(batch, (b: typeof batch, run: object) =>
      dpo(b, { ...run, metrics }),
    ) as unknown as {
      metrics: Record<string, number>;
    };
    const cpu: Readonly<Record<string, number>> = dpo(batch, { backend: 'cpu', metrics }).metrics;
    const misses = new Misses();
    for (const name of metrics)
      misses.near(name, found[name], present(cpu[name]), lossBound(present(cpu[name])));
    const { entropy, logps } = referenceTokenLogps(
      exact({ ...batch, tokenWeights: undefined } as never) as never,
    );
    const scored = batch.labels.filter((label) => label !== -100).length;
    expect(logps.some((x) => x < 0)).toBe(true);
    const mean = entropy.reduce((sum, x) => sum + x, 0) / scored;
    misses.near('entropy', found.entropy, mean, lossBound(mean));
    expect(misses.list).toEqual([]);
  });
});

describe.runIf(cuda.available).each(ways)('through an output layer, $name', ({ compute }) => {
  const layer = (dtype: Dtype) => {
    const random = generator(16);
    const [sequences, tokens, vocab, size] = [4, 3, 37, 6];
    const numbers = (n: number) => Float32Array.from({ length: n }, () => normal(random));
    const arrays = {
      hidden: numbers(sequences * tokens * size),
      weight: numbers(vocab * size),
      bias: numbers(vocab),
    };
    const { labels, reference } = randomRows(17, { sequences, tokens, vocab });
    const stored = Object.entries(arrays).map(([name, x]) => [name, inDtype(x, dtype)] as const);
    const float64 = stored.map(([name, x]) => [
      name,
      dtype === 'float32' ? Float64Array.from(x) : decodeHalf(x, dtype),
    ]);
    const rest = { shape: [sequences, tokens, vocab] as const, labels, reference };
    return {
      batch: { ...rest, dtype, ...Object.fromEntries(stored) } as HiddenBatch & object,
      float64: { ...rest, ...Object.fromEntries(float64) } as never,
      rows: sequences * tokens,
    };
  };
  const precision = { float32: 1e-5, float16: 2 ** -9, bfloat16: 2 ** -7 };

  test.each(dtypes.flatMap((dtype) => [2 ** 28, undefined].map((memory) => ({ dtype, memory }))))(
    '$dtype, memory $memory',
    ({ dtype, memory }) => {
      const { batch, float64, rows } = layer(dtype);
      const random = generator(18);
      const derivatives = {
        rows: Float64Array.from({ length: rows }, (_, i) => (i % 3 === 1 ? 0 : normal(random))),
        entropy: Float64Array.from({ length: rows }, (_, i) => (i % 3 === 1 ? 0 : normal(random))),
      };
      const misses = new Misses();
      for (const transform of [{}, { logitSoftcap: 2, temperature: 0.5 }, { logitScale: 64 }]) {
        const own = { ...batch, ...transform };
        const reference = { ...(float64 as object), ...transform } as never;
        const forward = compute(own, tokensCall) as unknown as ReturnType<typeof tokenLogps>;
        const exactRows = referenceTokenLogps(referenceLayer(reference).batch);
        misses.each('logps', forward.logps, exactRows.logps, (x) => logpBound(x, 64));
        const expected = referenceLogpsBackward(reference, derivatives) as unknown as {
          gradHidden: Float64Array;
          gradWeight: Float64Array;
          gradBias: Float64Array;
        };
        // As little memory as there must be: a chunk is a row.
        const run = memory === undefined ? { memory: 1 << 12 } : { memory };
        for (const known of [{}, { forward }]) {
          const result = compute(own, backwardCall({ ...derivatives, ...known }), run);
          for (const name of ['gradHidden', 'gradWeight', 'gradBias'] as const) {
            const values =
              name !== 'gradHidden' || dtype === 'float32'
                ? (result[name] as Numbers)
                : decodeHalf(result[name], dtype);
            const largest = largestOf(expected[name]);
            misses.each(name, values, expected[name], () => precision[dtype] * largest);
          }
        }
      }
      expect(misses.list).toEqual([]);
    },
  );

  test('a row that is not finite, and has no share, brings no NaN into the sums', () => {
    const { batch, rows } = layer('float32');
    const hidden = (batch.hidden as Float32Array).slice();
    const scored = Int32Array.from({ length: rows }, () => 1);
    hidden.fill(Infinity, 6, 12);
    const own = { ...batch, hidden, labels: scored };
    const derivatives = Float64Array.from({ length: rows }, (_, row) => (row === 1 ? 0 : 1));
    const forward = compute(own, tokensCall) as unknown as ReturnType<typeof tokenLogps>;
    for (const known of [{}, { forward }]) {
      const result = compute(own, backwardCall({ rows: derivatives, ...known }));
      expect(Array.from(result.gradWeight).every(Number.isFinite)).toBe(true);
      expect(largestOf(result.gradWeight)).toBeGreaterThan(0.1);
    }
  });
});
