// The wider family on a device: transformed logits, groups, mixtures, weights of tokens, and losses
// of the caller's own, on tensors there and on host arrays that travel there, against float64. Few
// and small: the emulation is slow.
import { describe, expect, test } from 'vitest';
import {
  cuda,
  dirAlignLoss,
  logpsBackward,
  mixLosses,
  tokenLogps,
  type HiddenBatch,
  type LogitsBatch,
  type LogpsDerivatives,
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
import { gradientBound, halfBound, logpBound, lossBound, Misses } from '../support/bounds.js';
import { Copy, takeGradient, type Elements } from '../support/device.js';
import { expectDevice } from '../support/expect-device.js';
import { familyCases } from '../support/family.js';
import { at, choose, decodeHalf, generator, integer, normal, present } from '../support/numbers.js';

expectDevice();

type Numbers = ArrayLike<number>;
type Arrays = 'logits' | 'hidden' | 'weight' | 'bias';
interface Run {
  readonly backend?: 'cuda';
  readonly gradient?: 'dense' | 'factored';
  readonly inPlace?: true;
  readonly memory?: number;
}
type Batch = LogitsBatch | HiddenBatch;
/** Any call of the package: its gradients come back as numbers. */
type Call = (batch: never, run: never) => object;
interface Results {
  readonly gradLogits: Elements;
  readonly gradHidden: Elements;
  readonly gradWeight: Elements;
  readonly gradBias: Elements;
  readonly [other: string]: unknown;
}
interface Way {
  readonly name: string;
  readonly compute: (batch: object, call: Call, run?: Run, shift?: number) => Results;
}

const arraysOf = (batch: object): [Arrays, Elements][] =>
  (Object.entries(batch) as [Arrays, Elements][]).filter(([name]) =>
    ['logits', 'hidden', 'weight', 'bias'].includes(name),
  );
/** Of the array that it is the gradient of. */
const gradientName = (name: Arrays) => `grad${name.charAt(0).toUpperCase()}${name.slice(1)}`;

const ways: readonly Way[] = [
  {
    name: 'in device memory',
    compute(batch, call, run = {}, shift = 1) {
      const { dtype } = batch as { readonly dtype?: Dtype };
      const arrays = arraysOf(batch);
      const copies = arrays.map(
        ([name, array]) => [name, new Copy(array, dtype, { shift })] as const,
      );
      try {
        const tensors = Object.fromEntries(copies.map(([name, copy]) => [name, copy.tensor]));
        const result = call({ ...batch, ...tensors } as never, run as never);
        const read = arrays.flatMap(([name, array], i) => {
          const gradient = (result as Record<string, unknown>)[gradientName(name)];
          const copy = present(copies[i])[1];
          if (gradient === undefined) return [];
          const like =
            name === 'logits' || name === 'hidden' ? array : new Float32Array(array.length);
          const host = run.inPlace ? copy.read() : takeGradient(gradient as never, like as never);
          return [[gradientName(name), host]];
        });
        return { ...result, ...Object.fromEntries(read) } as Results;
      } finally {
        for (const [, copy] of copies) copy.dispose();
      }
    },
  },
  {
    name: 'in host arrays',
    compute(batch, call, run = {}) {
      const own = run.inPlace
        ? Object.fromEntries(arraysOf(batch).map(([name, array]) => [name, array.slice()]))
        : {};
      return call({ ...batch, ...own } as never, { ...run, backend: 'cuda' } as never) as Results;
    },
  },
];

const byId = <C extends { readonly id: string }>(cases: readonly C[]) =>
  cases.map((c) => [c.id, c] as const);
const largestOf = (values: Numbers): number =>
  Array.from(values).reduce((most, x) => Math.max(most, Math.abs(x)), 0);

/**
 * An element that is a difference of larger ones, as those of the entropy and of products are, is
 * as good as the largest.
 */
function nearLargest(misses: Misses, what: string, actual: Numbers, expected: Numbers): void {
  const largest = largestOf(expected);
  misses.each(what, actual, expected, () => gradientBound(largest, 0));
}
/** A unit whose coefficient nearly cancels has the error of its log-probabilities. */
function nearElements(misses: Misses, what: string, actual: Numbers, expected: Numbers): void {
  const largest = largestOf(expected);
  misses.each(what, actual, expected, (x) => gradientBound(Math.abs(x), 20 * largest));
}
function nearRows(misses: Misses, actual: Numbers, expected: Numbers): void {
  misses.each('logps', actual, expected, (x) => logpBound(x, 1));
}
function nearLayer(
  misses: Misses,
  actual: Results,
  expected: { gradHidden: Numbers; gradWeight: Numbers; gradBias?: Numbers },
): void {
  for (const name of ['gradHidden', 'gradWeight', 'gradBias'] as const)
    if (expected[name]) nearLargest(misses, name, actual[name], expected[name]);
}

const objectiveCall = (config: ReferenceConfig): Call => objectiveOf(config) as unknown as Call;
const hiddenCall =
  (config: ReferenceConfig): Call =>
  (batch, run) =>
    objectiveOf(config).fromHidden(batch, run);
const backwardCall =
  (derivatives: LogpsDerivatives): Call =>
  (batch, run) =>
    logpsBackward(batch, derivatives, run) as object;
const tokensCall: Call = (batch: LogitsBatch, run: object) =>
  tokenLogps(batch, { ...run, collision: true });

describe.runIf(cuda.available).each(ways)('reference cases, $name', ({ compute }) => {
  test.each(byId(familyCases('loss')))('%s', (_, { call, batch, expected }) => {
    const misses = new Misses();
    const result = compute(batch, objectiveCall(call));
    misses.near('loss', result.loss as number, expected.loss, lossBound(expected.loss));
    nearElements(misses, 'gradLogits', result.gradLogits, expected.gradLogits);
    expect(misses.list).toEqual([]);
    expect(result.backend).toBe('cuda');
  });

  test.each(byId(familyCases('mix')))('%s', (_, { call, batch, expected }) => {
    const misses = new Misses();
    const mix = mixLosses(
      call.map(({ weight, objective }) => ({ weight, objective: objectiveOf(objective) })),
    );
    const result = compute(batch, mix as unknown as Call);
    misses.near('loss', result.loss as number, expected.loss, lossBound(expected.loss));
    nearElements(misses, 'gradLogits', result.gradLogits, expected.gradLogits);
    expect(misses.list).toEqual([]);
  });

  test.each(byId(familyCases('fromHidden')))('%s', (_, { call, batch, expected }) => {
    const misses = new Misses();
    const result = compute(batch, hiddenCall(call));
    misses.near('loss', result.loss as number, expected.loss, lossBound(expected.loss));
    nearLayer(misses, result, expected);
    expect(misses.list).toEqual([]);
  });

  test.each(byId(familyCases('logpsBackward')))('%s', (_, { call, batch, expected }) => {
    const misses = new Misses();
    const forward = compute(batch, tokensCall) as unknown as ReturnType<typeof tokenLogps>;
    nearRows(misses, forward.logps, expected.logps);
    nearRows(misses, forward.entropy, expected.entropy);
    for (const known of [{}, { forward }]) {
      const { gradLogits } = compute(batch, backwardCall({ ...call, ...known }));
      nearLargest(misses, 'gradLogits', gradLogits, expected.gradLogits);
    }
    expect(misses.list).toEqual([]);
  });

  test.each(byId(familyCases('hiddenLogpsBackward')))('%s', (_, { call, batch, expected }) => {
    const misses = new Misses();
    const forward = compute(batch, tokensCall) as unknown as ReturnType<typeof tokenLogps>;
    nearRows(misses, forward.logps, expected.logps);
    for (const known of [{}, { forward }])
      nearLayer(misses, compute(batch, backwardCall({ ...call, ...known })), expected);
    expect(misses.list).toEqual([]);
  });
});

const transforms = [
  { logitScale: 0.0625 },
  { logitSoftcap: 3 },
  { logitScale: 1.5, logitSoftcap: 30, temperature: 0.7 },
  { temperature: 1.25 },
] as const;

interface Spec {
  readonly dtype?: Dtype;
  readonly sequences?: number;
  readonly tokens?: number;
  readonly vocab: number;
  readonly padding?: number;
  readonly deviation?: number;
}

/** Rows of logits, some without a label, and weights of the tokens, some of them 0. */
function randomRows(seed: number, spec: Spec) {
  const { dtype = 'float32', sequences = 4, tokens = 2, vocab, padding = 0, deviation = 3 } = spec;
  const random = generator(seed);
  const rows = sequences * tokens;
  const rowStride = vocab + padding;
  const numbers = Float32Array.from({ length: rows * rowStride }, (_, i) =>
    i % rowStride < vocab ? deviation * normal(random) : NaN,
  );
  const logits = inDtype(numbers, dtype);
  return {
    logits,
    dtype,
    shape: [sequences, tokens, vocab] as const,
    rowStride,
    labels: Int32Array.from({ length: rows }, (_, row) =>
      row % tokens > 0 && random() < 0.3 ? -100 : integer(random, 0, vocab - 1),
    ),
    reference: Float64Array.from({ length: sequences }, () => -5 * random()),
    tokenWeights: Float64Array.from({ length: rows }, (_, row) =>
      row % tokens > 0 && random() < 0.3 ? 0 : 0.5 + random(),
    ),
  };
}
type RandomRows = ReturnType<typeof randomRows>;

/** The same in float64, without what lies between the rows. */
function exact<B extends RandomRows>(batch: B) {
  const { logits, dtype, shape, rowStride, ...rest } = batch;
  const values = dtype === 'float32' ? logits : decodeHalf(logits, dtype);
  const vocab = shape[2];
  const packed = new Float64Array(batch.labels.length * vocab);
  batch.labels.forEach((_, row) => {
    for (let v = 0; v < vocab; v++) packed[row * vocab + v] = at(values, row * rowStride + v);
  });
  return { ...rest, shape, logits: packed };
}

/** A gradient of logits, where the padding must be 0. */
function nearGradient(
  misses: Misses,
  { dtype, shape, rowStride }: RandomRows,
  actual: Elements,
  expected: Numbers,
  bound: (expected: number, row: number) => number,
): void {
  const values = dtype === 'float32' ? actual : decodeHalf(actual, dtype);
  const vocab = shape[2];
  values.forEach((value, i) => {
    const [row, v] = [Math.floor(i / rowStride), i % rowStride];
    const wanted = v < vocab ? at(expected, row * vocab + v) : 0;
    const own = dtype === 'float32' ? 0 : halfBound(wanted, dtype);
    misses.near(() => `[${row}, ${v}]`, value, wanted, v < vocab ? bound(wanted, row) + own : 0);
  });
}

/** Odd ones and several parts: a part of float32 is 8192 words, one of 16 bits 16384. */
const shapes = [
  { vocab: 1, padding: 0 },
  { vocab: 5, padding: 0 },
  { vocab: 257, padding: 6 },
  { vocab: 8195, padding: 1 },
  { vocab: 16651, padding: 0 },
] as const;

describe.runIf(cuda.available).each(ways)('shapes, $name', ({ compute }) => {
  const cases = dtypes.flatMap((dtype, d) =>
    shapes.map((shape, s) => ({
      dtype,
      ...shape,
      transform: choose(generator(d * 9 + s), transforms),
    })),
  );

  test.each(cases)('$dtype, vocab $vocab: $transform', ({ transform, ...spec }) => {
    const rows = randomRows(7, spec);
    const batch = { ...rows, ...transform };
    const config: ReferenceConfig = { method: 'dpo', beta: 0.4, sftWeight: 0.5 };
    const expected = referenceLoss(config, exact(batch) as never);
    const largest = largestOf(expected.gradLogits);
    const misses = new Misses();
    const inPlace = { inPlace: true } as const;
    for (const [shift, run] of [
      [0, {}],
      [1, inPlace],
      [3, {}],
    ] as const) {
      const result = compute(batch, objectiveCall(config), run, shift);
      misses.near('loss', result.loss as number, expected.loss, lossBound(expected.loss) * 4);
      nearGradient(misses, rows, result.gradLogits, expected.gradLogits, (x) =>
        gradientBound(Math.abs(x), largest),
      );
    }
    const factored = compute(batch, objectiveCall(config), { gradient: 'factored', ...inPlace });
    const scales = factored.rowScale as Float32Array;
    const { labels } = batch;
    const ones = Float64Array.from(labels, (label) => (label === -100 ? 0 : 1));
    const residuals = referenceLogpsBackward(
      { ...exact(batch), tokenWeights: undefined } as never,
      { rows: ones },
    ).gradLogits;
    nearGradient(misses, rows, factored.gradLogits, residuals, (x) =>
      gradientBound(Math.abs(x), 1),
    );
    const { vocab } = spec;
    labels.forEach((_, row) => {
      const [first, of] = [row * vocab, (i: number) => Math.abs(at(residuals, i))];
      let v = first;
      for (let i = first; i < first + vocab; i++) if (of(i) > of(v)) v = i;
      misses.near(
        () => `rowScale[${row}]`,
        at(scales, row) * at(residuals, v),
        at(expected.gradLogits, v),
        gradientBound(Math.abs(at(expected.gradLogits, v)), 0),
      );
    });
    expect(misses.list).toEqual([]);
  });

  test.each(cases)('of one’s own, $dtype, vocab $vocab: $transform', ({ transform, ...spec }) => {
    const random = generator(31);
    const { tokenWeights: _, ...batch } = { ...randomRows(8, spec), ...transform };
    const rows = Float64Array.from(batch.labels, (__, i) => (i === 1 ? 0 : normal(random)));
    const entropy = rows.map(() => normal(random));
    const reference = referenceTokenLogps(exact(batch as never) as never);
    const misses = new Misses();
    const forward = compute(batch, tokensCall) as unknown as ReturnType<typeof tokenLogps<true>>;
    for (const name of ['logps', 'logsumexp', 'entropy', 'logCollision'] as const)
      misses.each(name, forward[name], reference[name], (x) => logpBound(x, 4));
    for (const derivatives of [{ rows }, { rows, entropy }, { entropy }]) {
      const { gradLogits } = referenceLogpsBackward(exact(batch as never) as never, derivatives);
      const vocab = spec.vocab;
      const largest = Array.from(rows, (__, row) =>
        largestOf(gradLogits.subarray(row * vocab, (row + 1) * vocab)),
      );
      for (const known of [{}, { forward }])
        for (const run of [{}, { inPlace: true }] as const) {
          const call = backwardCall({ ...derivatives, ...known });
          const result = compute(batch, call, run, 3);
          nearGradient(misses, batch as never, result.gradLogits, gradLogits, (x, row) =>
            'entropy' in derivatives
              ? gradientBound(at(largest, row), 0)
              : gradientBound(Math.abs(x), at(largest, row)),
          );
        }
    }
    const { gradLogits } = referenceLogpsBackward(exact(batch as never) as never, {
      rows: Float64Array.from(batch.labels, () => 1),
    });
    for (const known of [{}, { forward }]) {
      const run = { gradient: 'factored' } as const;
      const result = compute(batch, backwardCall({ rows, ...known }), run);
      nearGradient(misses, batch as never, result.gradLogits, gradLogits, (x) =>
        gradientBound(Math.abs(x), 1),
      );
      const scored = rows.map((x, row) => (batch.labels[row] === -100 ? 0 : x));
      expect(result.rowScale).toEqual(Float32Array.from(scored));
    }
    expect(misses.list).toEqual([]);
  });

  test('no transform, whatever else: the plain kernels’ bits', () => {
    const batch = randomRows(9, { vocab: 300 });
    const plain = compute(batch, objectiveCall({ method: 'dpo', beta: 0.4 }));
    const same = { ...batch, logitScale: 2, temperature: 2 };
    const result = compute(same, objectiveCall({ method: 'dpo', beta: 0.4 }));
    expect(result.gradLogits).toEqual(plain.gradLogits);
    expect(result.loss).toBe(plain.loss);
    const tokens = (collision: boolean) =>
      compute(batch, ((b: LogitsBatch, run: object) =>
        tokenLogps(b, { ...run, collision })) as Call);
    for (const name of ['logps', 'logsumexp', 'entropy'])
      expect(tokens(true)[name]).toEqual(tokens(false)[name]);
  });

  test.each([{ logitSoftcap: 3 }, { logitScale: 4 }, { logitScale: 1e30 }])(
    'infinities and NaN: %o',
    (transform) => {
      const rows = randomRows(10, { sequences: 2, tokens: 3, vocab: 40 });
      const { reference: _, tokenWeights: __, ...plain } = rows;
      const logits = rows.logits as Float32Array<ArrayBuffer>;
      const labels = Int32Array.from({ length: 6 }, () => 5);
      logits.fill(-Infinity, 20, 40); // masked words
      logits[40 + 7] = Infinity;
      logits[2 * 40 + 7] = NaN;
      logits.fill(-Infinity, 3 * 40, 4 * 40);
      logits[4 * 40 + 5] = -Infinity;
      const batch = { ...plain, labels, ...transform };
      const { logps } = compute(batch, tokensCall) as unknown as { logps: Float64Array };
      const expected = referenceTokenLogps(exact(batch as never) as never).logps;
      expect(Number.isFinite(logps[0])).toBe(true);
      expect([logps[1], logps[2], logps[3]]).toEqual([NaN, NaN, NaN]);
      expect(logps[4]).toBe(-Infinity);
      expect(Number.isFinite(expected[0])).toBe(true);
      const { gradLogits } = compute(batch, backwardCall({ rows: new Float64Array(6).fill(1) }));
      expect(Array.from(gradLogits.subarray(20, 40), Math.abs)).toEqual(Array<number>(20).fill(0));
      expect(gradLogits.subarray(0, 20).every(Number.isFinite)).toBe(true);
      expect(gradLogits.subarray(40, 80).some(Number.isNaN)).toBe(true);
    },
  );

  test('a large scale: what remains is the largest', () => {
    const batch = { ...randomRows(11, { vocab: 70, deviation: 100 }), logitScale: 50 };
    const expected = referenceTokenLogps(exact(batch) as never);
    const { logps } = compute(batch, tokensCall);
    // A float32 of this size, before the difference.
    const misses = new Misses();
    misses.each(
      'logps',
      logps as Numbers,
      expected.logps,
      (x) => logpBound(x, 1) + 50 * 500 * 2 ** -23,
    );
    expect(misses.list).toEqual([]);
  });
});

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
      const expected = referenceLoss(config, exact(batch) as never);
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
    const result = compute(batch, mixLosses(terms) as unknown as Call);
    misses.near('loss', result.loss as number, expected.loss, lossBound(expected.loss));
    nearElements(misses, 'gradLogits', result.gradLogits, expected.gradLogits);
    expect(misses.list).toEqual([]);
  });

  test('metrics of transformed rows', () => {
    const { tokenWeights: _, ...rows } = randomRows(15, { vocab: 9000 });
    const batch = { ...rows, logitSoftcap: 2, temperature: 0.5 };
    const dpo = dirAlignLoss('dpo', 0.3);
    const metrics = ['entropy', 'logits/chosen', 'mean_token_accuracy'] as const;
    const { metrics: found } = compute(batch, ((b: typeof batch, run: object) =>
      dpo(b, { ...run, metrics })) as Call) as unknown as {
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
        const expected = referenceLogpsBackward(reference, derivatives as never) as unknown as {
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
    }
  });
});
