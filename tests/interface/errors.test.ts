// Every refusal: its class, its code, a message that names the argument, what was given and what
// was expected, and that nothing was written by then.
import { describe, expect, test } from 'vitest';
import {
  cuda,
  DirAlignError,
  dirAlignLoss,
  methods,
  sequenceLogps,
  tokenLogps,
} from '../../ts/index.js';
import type { LogitsBatch, RunOptions, WithReference } from '../../ts/index.js';

type Given = LogitsBatch & WithReference;
import { sameBits } from '../support/numbers.js';
import {
  arraysIn,
  detached,
  expectRefusal,
  resizable,
  thrownBy,
  titled,
  type Kind,
  type Words,
} from '../support/refusal.js';

// ----------------------------------------------------------------------------------------------
// Building an objective

const build = dirAlignLoss as unknown as (...args: readonly unknown[]) => unknown;

const refusedSettings: [readonly unknown[], Kind, Words][] = [
  [[], 'TypeError OPTION', "method | undefined | 'dpo'"],
  [['dop', 0.1], 'TypeError OPTION', "method | 'dop' | 'dpo' | 'dpop'"],
  [['constructor', 0.1], 'TypeError OPTION', "method | 'constructor'"],
  [[1, 0.1], 'TypeError OPTION', 'method | 1'],
  [[null], 'TypeError OPTION', 'method | null'],
  [[{ beta: 0.1 }], 'TypeError OPTION', 'method | undefined'],
  [['dpo'], 'TypeError OPTION', "beta | 'dpo' | undefined | greater than 0"],
  [[{ method: 'ipo' }], 'TypeError OPTION', "beta | 'ipo' | undefined"],
  [['dpo', '0.1'], 'TypeError OPTION', "beta | '0.1' | number"],
  [['dpo', 0], 'RangeError OPTION', 'beta | 0 | greater than 0'],
  [['dpo', -0], 'RangeError OPTION', 'beta | greater than 0'],
  [['dpo', -0.1], 'RangeError OPTION', 'beta | -0.1 | greater than 0'],
  [['dpo', NaN], 'RangeError OPTION', 'beta | NaN | finite'],
  [['dpo', Infinity], 'RangeError OPTION', 'beta | Infinity | finite'],
  [['dpo', 0.1, 1], 'TypeError OPTION', 'normalize | 1 | boolean'],
  [['dpo', 0.1, null], 'TypeError OPTION', 'normalize | null | boolean'],
  [['dpo', 0.1, false, 'js'], 'TypeError OPTION', 'options | js | object'],
  [['dpo', 0.1, false, null], 'TypeError OPTION', 'options | null | object'],
  [[{ method: 'dpo', beta: 0.1 }, 0.2], 'TypeError OPTION', 'one object | not both'],
  [['dpo', 0.1, false, { gama: 1 }], 'TypeError OPTION', "gama | 'dpo' | 'labelSmoothing'"],
  [
    [{ method: 'dpo', beta: 0.1, gamma: 1 }],
    'TypeError OPTION',
    "gamma | 'dpo' | 'labelSmoothing'",
  ],
  [[{ method: 'dpo', beta: 0.1, toString: 1 }], 'TypeError OPTION', "toString | 'dpo'"],
  [['dpo', 1, false, { labelSmoothing: '0' }], 'TypeError OPTION', "labelSmoothing | '0' | number"],
  [
    ['dpo', 1, false, { labelSmoothing: -0.1 }],
    'RangeError OPTION',
    'labelSmoothing | -0.1 | at least 0',
  ],
  [
    ['simpo', 1, true, { labelSmoothing: 1 }],
    'RangeError OPTION',
    'labelSmoothing | 1 | less than 1',
  ],
  [
    ['cpo', 1, false, { labelSmoothing: NaN }],
    'RangeError OPTION',
    'labelSmoothing | NaN | finite',
  ],
  [
    ['robust', 1, false, { labelSmoothing: 0.5 }],
    'RangeError OPTION',
    'labelSmoothing | 0.5 | less than 0.5',
  ],
  [
    ['exo_pair', 1, false, { labelSmoothing: 0 }],
    'RangeError OPTION',
    'labelSmoothing | 0 | greater than 0',
  ],
  [['simpo', 1, true, { gamma: -Infinity }], 'RangeError OPTION', 'gamma | -Infinity | finite'],
  [['orpo', 1, true, { lambda: -1 }], 'RangeError OPTION', 'lambda | -1 | at least 0'],
  [['asft', 1, true, { sftWeight: -1 }], 'RangeError OPTION', 'sftWeight | -1 | at least 0'],
  [['asft', 1, true, { sftWeight: true }], 'TypeError OPTION', 'sftWeight | true | number'],
  [['sft', '0.1'], 'TypeError OPTION', "beta | 'sft' | '0.1'"],
  [
    ['sft', undefined, true, { sftWeight: 1 }],
    'TypeError OPTION',
    "sftWeight | 'sft' | 'sftReduction'",
  ],
  [
    ['sft', undefined, true, { sftReduction: 'median' }],
    'RangeError OPTION',
    "sftReduction | 'median' | 'token'",
  ],
  [['dpo', 1, true, { sftReduction: 1 }], 'TypeError OPTION', 'sftReduction | 1 | string'],
  [
    ['cal_dpo', 1, false, { calibrationWeight: -1 }],
    'RangeError OPTION',
    'calibrationWeight | -1 | at least 0',
  ],
  [
    ['dpo', 1, false, { divergence: 'kl' }],
    'RangeError OPTION',
    "divergence | 'kl' | 'reverse_kl' | 'alpha'",
  ],
  [['dpo', 1, false, { alpha: 0.5 }], 'TypeError OPTION', "alpha | 'alpha' | 'reverse_kl'"],
  [['dpo', 1, false, { alpha: 0.5, divergence: 'js' }], 'TypeError OPTION', "alpha | 'js'"],
  [['discopop', 1, false, { tau: 0 }], 'RangeError OPTION', 'tau | 0 | greater than 0'],
  [['dpop', 1, false, { penalty: -1 }], 'RangeError OPTION', 'penalty | -1 | at least 0'],
  [['dpo', 1, false, { referenceFree: 1 }], 'TypeError OPTION', 'referenceFree | 1 | boolean'],
];

describe('building an objective', () => {
  test.each(titled(refusedSettings))('%s', (_, args, kind, words) => {
    expectRefusal(() => build(...args), kind, words);
  });

  // Which options a method has, typed in from the interface's description.
  const values: Record<string, unknown> = {
    labelSmoothing: 0.2,
    gamma: 0.3,
    referenceFree: true,
    sftWeight: 0.5,
    sftReduction: 'token',
    lambda: 0.7,
    calibrationWeight: 0.5,
    divergence: 'alpha',
    alpha: 0.4,
    tau: 0.1,
    penalty: 5,
  };
  const withReference =
    'dpo ipo apo_zero nca cal_dpo hinge robust exo_pair bco_pair sppo_hard aot aot_unpaired ' +
    'discopop apo_down r_dpo dpop kto apo_zero_unpaired bco';
  const groups = 'plackett_luce info_nca nca_listwise';
  const paired = `${withReference} simpo orpo asft cpo alphapo simper`;
  const accepted: Record<string, string> = {
    labelSmoothing: 'dpo robust exo_pair simpo cpo aot aot_unpaired alphapo',
    gamma: 'simpo alphapo',
    referenceFree: `${withReference} ${groups}`,
    sftWeight: paired,
    sftReduction: `${paired} sft`,
    lambda: 'orpo asft',
    calibrationWeight: 'cal_dpo',
    divergence: 'dpo',
    alpha: 'dpo alphapo r_dpo',
    tau: 'discopop',
    penalty: 'dpop',
  };
  test.each(Object.keys(values))(
    '%s: accepted where it means something, refused everywhere else',
    (option) => {
      for (const { name } of methods()) {
        const given = {
          [option]: values[option],
          ...(name === 'dpo' && option === 'alpha' ? { divergence: 'alpha' } : {}),
        };
        const action = (): unknown => build({ method: name, beta: 0.5, ...given });
        if (accepted[option]?.split(' ').includes(name))
          expect({ ...(action() as object) }, `${name}.${option}`).toMatchObject(given);
        else expectRefusal(action, 'TypeError OPTION', `${option} | '${name}'`);
      }
    },
  );

  test('undefined is the default', () => {
    const objective = dirAlignLoss({
      method: 'simpo',
      beta: 2,
      gamma: undefined,
      labelSmoothing: undefined,
    } as never);
    expect({ ...(objective as object) }).toMatchObject({
      method: 'simpo',
      beta: 2,
      gamma: 0.5,
      labelSmoothing: 0,
    });
  });

  test('sft needs no beta and ignores one', () => {
    expect(dirAlignLoss('sft').beta).toBeUndefined();
    expect(dirAlignLoss('sft', 0.1).beta).toBeUndefined();
    expect(dirAlignLoss({ method: 'sft' }).normalize).toBe(true);
  });
});

// ----------------------------------------------------------------------------------------------
// Calling one

const [sequences, tokens, vocab] = [4, 3, 5];
const rows = sequences * tokens;

/** A call that is fine, with a value of every argument. */
function good() {
  return {
    logits: Float32Array.from({ length: rows * vocab }, (_, i) => Math.sin(i)),
    shape: [sequences, tokens, vocab] as readonly number[],
    labels: Int32Array.from({ length: rows }, (_, i) => (i % 3 === 0 ? -100 : i % vocab)),
    reference: Float64Array.of(-3, -4, -5, -6),
  };
}

interface Call {
  readonly batch: unknown;
  readonly run?: unknown;
}
type Change = () => Call;
const batch = (change: object): Call => ({ batch: { ...good(), ...change } });
const run = (options: object): Call => ({ batch: good(), run: options });

const floats = (length: number): Float32Array => new Float32Array(length);
const packed = (offsets: unknown): Call => batch({ shape: [rows, vocab], offsets });
const labelled = (index: number, label: number): Int32Array =>
  good().labels.map((old, i) => (i === index ? label : old));
const full = rows * vocab;

type Row = [Change, Kind, Words];
const refusedCalls: Row[] = [
  [() => ({ batch: undefined }), 'TypeError SHAPE', 'batch | undefined | logits | labels'],
  [() => ({ batch: null }), 'TypeError SHAPE', 'batch | null'],
  [() => ({ batch: 3 }), 'TypeError SHAPE', 'batch | 3'],

  [() => batch({ logits: undefined }), 'TypeError DTYPE', 'logits | undefined | Float32Array'],
  [
    () => batch({ logits: [1, 2] }),
    'TypeError DTYPE',
    'logits | Array | Float32Array | Uint16Array',
  ],
  [
    () => batch({ logits: new Float64Array(full) }),
    'TypeError DTYPE',
    'logits | Float64Array | Float32Array',
  ],
  [() => batch({ logits: new Int16Array(full) }), 'TypeError DTYPE', 'logits | Int16Array'],
  [
    () => batch({ logits: new DataView(new ArrayBuffer(4 * full)) }),
    'TypeError DTYPE',
    'logits | DataView',
  ],
  [
    () => batch({ logits: { ptr: 1n, dtype: 'float32' } }),
    cuda.available ? 'TypeError DTYPE' : 'TypeError BACKEND',
    `logits | ${cuda.available ? 'cuda.tensor' : 'CUDA'}`,
  ],
  [
    () => batch({ logits: new Uint16Array(full) }),
    'TypeError DTYPE',
    'dtype | float16 | bfloat16 | undefined',
  ],
  [
    () => batch({ logits: new Uint16Array(full), dtype: 'float32' }),
    'TypeError DTYPE',
    'dtype | float32 | Uint16Array',
  ],
  [() => batch({ dtype: 'bfloat16' }), 'TypeError DTYPE', 'dtype | bfloat16 | Float32Array'],
  [() => batch({ dtype: 'fp16' }), 'TypeError DTYPE', 'dtype | fp16 | float16'],
  [() => batch({ dtype: null }), 'TypeError DTYPE', 'dtype | null | float16'],

  [
    () => batch({ shape: undefined }),
    'TypeError SHAPE',
    'shape | undefined | [sequences, tokens, vocab]',
  ],
  [() => batch({ shape: 3 }), 'TypeError SHAPE', 'shape | 3 | [rows, vocab]'],
  [() => batch({ shape: [full] }), 'RangeError SHAPE', 'shape | 1 | 3 (padded) | 2 (packed)'],
  [() => batch({ shape: [2, 2, 3, 5] }), 'RangeError SHAPE', 'shape | 4 | 3 (padded)'],
  [() => batch({ shape: [-4, 3, 5] }), 'TypeError SHAPE', 'shape | [-4,3,5]'],
  [() => batch({ shape: [4, 1.5, 5] }), 'TypeError SHAPE', 'shape | 1.5'],
  [() => batch({ shape: [4, '3', 5] }), 'TypeError SHAPE', 'shape | "3"'],
  [() => batch({ shape: [4, NaN, 5] }), 'TypeError SHAPE', 'shape'],
  [() => batch({ shape: [4, 3, 0], logits: floats(0) }), 'RangeError SHAPE', 'vocab | 0 | 1'],
  [() => batch({ shape: [4, 3, 2 ** 31] }), 'RangeError SHAPE', 'vocab | 2147483648 | 2147483647'],
  [() => batch({ shape: [3, 4, 5] }), 'RangeError SHAPE', '3 | even | chosen'],
  [
    () => ({
      batch: {
        logits: floats(0),
        shape: [0, 3, 5],
        labels: new Int32Array(0),
        reference: floats(0),
      },
    }),
    'RangeError SHAPE',
    '0 | even | at least 2',
  ],
  [() => batch({ logits: floats(full - 1) }), 'RangeError SHAPE', `logits | ${full - 1} | ${full}`],
  [() => batch({ logits: floats(full + 1) }), 'RangeError SHAPE', `logits | ${full + 1} | ${full}`],
  [() => batch({ shape: [2 ** 30, 2 ** 30, 5] }), 'RangeError SHAPE', 'logits'],

  [() => batch({ rowStride: 4 }), 'RangeError SHAPE', 'rowStride | 4 | 5'],
  [() => batch({ rowStride: 5.5 }), 'RangeError SHAPE', 'rowStride | 5.5'],
  [() => batch({ rowStride: NaN }), 'RangeError SHAPE', 'rowStride | NaN'],
  [() => batch({ rowStride: '5' }), 'RangeError SHAPE', 'rowStride | 5'],
  [() => batch({ rowStride: 6 }), 'RangeError SHAPE', `logits | ${full} | 72 | rowStride 6`],

  [() => batch({ offsets: Int32Array.of(0, 12) }), 'TypeError SHAPE', 'offsets | packed'],
  [
    () => packed(undefined),
    'TypeError SHAPE',
    'offsets | undefined | Int32Array | packed rows | [sequences, tokens, vocab]',
  ],
  [() => packed([0, 3, 6, 9, 12]), 'TypeError SHAPE', 'offsets | Array | Int32Array'],
  [() => packed(Uint32Array.of(0, 3, 6, 9, 12)), 'TypeError SHAPE', 'offsets | Uint32Array'],
  [() => packed(new Int32Array(0)), 'RangeError SHAPE', 'offsets | 0 to rows, 12'],
  [() => packed(Int32Array.of(1, 3, 6, 9, 12)), 'RangeError SHAPE', 'offsets | 1 | 0 to rows, 12'],
  [() => packed(Int32Array.of(0, 3, 6, 9, 11)), 'RangeError SHAPE', 'offsets | 11 | 12'],
  [() => packed(Int32Array.of(0, 3, 6, 9, 13)), 'RangeError SHAPE', 'offsets | 13 | 12'],
  [() => packed(Int32Array.of(0, 6, 3, 9, 12)), 'RangeError SHAPE', 'offsets | decreases | 2'],
  [() => packed(Int32Array.of(0, 6, 9, 12)), 'RangeError SHAPE', '3 | even'],

  [() => batch({ labels: undefined }), 'TypeError LABEL', 'labels | undefined | Int32Array'],
  [
    () => batch({ labels: new BigInt64Array(rows) }),
    'TypeError LABEL',
    'labels | BigInt64Array | Int32Array',
  ],
  [() => batch({ labels: Array.from(good().labels) }), 'TypeError LABEL', 'labels | Array'],
  [() => batch({ labels: new Int32Array(rows - 1) }), 'RangeError SHAPE', 'labels | 11 | 12'],
  [
    () => batch({ labels: labelled(7, vocab) }),
    'RangeError LABEL',
    'labels[7] | 5 | [0, 5) | -100',
  ],
  [() => batch({ labels: labelled(11, -1) }), 'RangeError LABEL', 'labels[11] | -1 | [0, 5)'],
  [() => batch({ labels: labelled(0, -(2 ** 31)) }), 'RangeError LABEL', 'labels[0] | -2147483648'],
  [
    () => batch({ ignoreIndex: -1, labels: labelled(0, -100) }),
    'RangeError LABEL',
    'labels[0] | -100 | -1',
  ],
  [() => batch({ ignoreIndex: 0.5 }), 'RangeError LABEL', 'ignoreIndex | 0.5 | 32-bit'],
  [() => batch({ ignoreIndex: 2 ** 31 }), 'RangeError LABEL', 'ignoreIndex | 2147483648'],
  [() => batch({ ignoreIndex: NaN }), 'RangeError LABEL', 'ignoreIndex | NaN'],

  [
    () => batch({ reference: undefined }),
    'TypeError REFERENCE',
    "reference | 'dpo' | referenceFree",
  ],
  [
    () => batch({ reference: [1, 2, 3, 4] }),
    'TypeError REFERENCE',
    'reference | Array | Float64Array',
  ],
  [() => batch({ reference: new Float64Array(3) }), 'RangeError REFERENCE', 'reference | 3 | 4'],
  [
    () => batch({ reference: Float64Array.of(-1, NaN, -1, -1) }),
    'RangeError REFERENCE',
    'reference | NaN | index 1',
  ],
  [
    () => batch({ reference: Float32Array.of(-1, -1, -1, -Infinity) }),
    'RangeError REFERENCE',
    'reference | -Infinity | index 3',
  ],

  [
    () => ({ batch: { ...good(), sftLabels: good().labels }, run: { gradient: 'factored' } }),
    'TypeError OPTION',
    'sftLabels | factored',
  ],
  [() => batch({ sftLabels: [1] }), 'TypeError LABEL', 'sftLabels | Array | Int32Array'],
  [() => batch({ sftLabels: new Int32Array(3) }), 'RangeError SHAPE', 'sftLabels | 3 | 12'],
  [() => batch({ sftLabels: labelled(4, 9) }), 'RangeError LABEL', 'sftLabels[4] | 9 | [0, 5)'],

  [() => ({ batch: good(), run: null }), 'TypeError OPTION', 'run | null'],
  [() => run({ inplace: true }), 'TypeError OPTION', 'inplace | inPlace'],
  [() => run({ gradient: 'sparse' }), 'TypeError OPTION', "gradient | sparse | 'factored'"],
  [() => run({ inPlace: 'yes' }), 'TypeError OPTION', 'inPlace | yes | boolean'],
  [() => run({ inPlace: true, out: floats(full) }), 'TypeError OPTION', 'out | inPlace'],
  [() => run({ gradient: 'none', inPlace: true }), 'TypeError OPTION', 'inPlace | none'],
  [() => run({ gradient: 'none', out: floats(full) }), 'TypeError OPTION', 'out | none'],
  [() => run({ backend: 'gpu' }), 'TypeError OPTION', "backend | gpu | 'cuda'"],
  [() => run({ out: [] }), 'TypeError DTYPE', 'out | Array | Float32Array'],
  [
    () => run({ out: new Uint16Array(full) }),
    'TypeError DTYPE',
    'out | Uint16Array | Float32Array',
  ],
  [() => run({ out: floats(full - 1) }), 'RangeError SHAPE', `out | ${full - 1} | ${full}`],
  [() => run({ threads: 0 }), 'RangeError OPTION', 'threads | 0 | 1'],
  [() => run({ threads: 1.5 }), 'RangeError OPTION', 'threads | 1.5'],
  [() => run({ threads: NaN }), 'RangeError OPTION', 'threads | NaN'],
  [() => run({ threads: '2' }), 'RangeError OPTION', 'threads | 2'],
  [() => run({ threads: 1e6 }), 'RangeError OPTION', 'threads | 1000000 | 1024'],

  [() => batch({ logits: detached(good().logits) }), 'TypeError SHAPE', 'logits | detached'],
  [() => batch({ labels: detached(good().labels) }), 'TypeError SHAPE', 'labels | detached'],
  [() => batch({ sftLabels: detached(good().labels) }), 'TypeError SHAPE', 'sftLabels | detached'],
  [
    () => batch({ reference: detached(good().reference) }),
    'TypeError SHAPE',
    'reference | detached',
  ],
  [() => packed(detached(new Int32Array(5))), 'TypeError SHAPE', 'offsets | detached'],
  [() => run({ out: detached(floats(full)) }), 'TypeError SHAPE', 'out | detached'],
  [
    () => batch({ logits: new Float32Array(resizable(4 * full)) }),
    'TypeError SHAPE',
    'logits | resizable',
  ],
  [
    () => batch({ labels: new Int32Array(resizable(4 * rows)) }),
    'TypeError SHAPE',
    'labels | resizable',
  ],
  [
    () => batch({ sftLabels: new Int32Array(resizable(4 * rows)) }),
    'TypeError SHAPE',
    'sftLabels | resizable',
  ],
  [
    () => batch({ reference: new Float64Array(resizable(32)) }),
    'TypeError SHAPE',
    'reference | resizable',
  ],
  [() => packed(new Int32Array(resizable(20))), 'TypeError SHAPE', 'offsets | resizable'],
  [() => run({ out: new Float32Array(resizable(4 * full)) }), 'TypeError SHAPE', 'out | resizable'],
];

/** `out` that shares memory with an input. */
const overlaps: [string, () => { batch: Given; run: RunOptions }][] = [
  [
    'logits',
    () => {
      const given = good() as Given;
      return { batch: given, run: { out: given.logits } };
    },
  ],
  [
    'logits',
    () => {
      const memory = new Float32Array(2 * full - 1);
      memory.set(good().logits);
      const given = { ...good(), logits: memory.subarray(0, full) } as Given;
      return { batch: given, run: { out: memory.subarray(full - 1) } };
    },
  ],
  [
    'labels',
    () => {
      const memory = new ArrayBuffer(4 * full);
      const labels = new Int32Array(memory, 4 * (full - rows), rows);
      labels.set(good().labels);
      return { batch: { ...good(), labels }, run: { out: new Float32Array(memory) } };
    },
  ],
  [
    'sftLabels',
    () => {
      const memory = new ArrayBuffer(4 * full);
      const sftLabels = new Int32Array(memory, 0, rows).fill(-100);
      return { batch: { ...good(), sftLabels }, run: { out: new Float32Array(memory) } };
    },
  ],
  [
    'reference',
    () => {
      const memory = new ArrayBuffer(4 * full);
      return {
        batch: { ...good(), reference: new Float64Array(memory, 8, sequences) },
        run: { out: new Float32Array(memory) },
      };
    },
  ],
  [
    'offsets',
    () => {
      const memory = new ArrayBuffer(4 * full);
      const offsets = new Int32Array(memory, 0, 5);
      offsets.set([0, 3, 6, 9, 12]);
      return {
        batch: { ...good(), shape: [rows, vocab], offsets },
        run: { out: new Float32Array(memory) },
      };
    },
  ],
];
for (const [name, call] of overlaps) {
  refusedCalls.push([call, 'RangeError SHAPE', `out | overlaps | ${name}`]);
}

const dpo = dirAlignLoss('dpo', 0.1, false, { sftWeight: 1 });
type Anything = (batch: unknown, run?: unknown) => unknown;
const call = dpo as unknown as Anything & {
  readonly async: (batch: unknown, run?: unknown) => Promise<unknown>;
};

describe('calling one', () => {
  test('the call that the others differ from is fine', () => {
    expect(dpo(good() as Given).metrics).toMatchObject({ nonfinite: 0, empty_sequences: 0 });
    expect(
      dpo({ ...good(), shape: [rows, vocab], offsets: Int32Array.of(0, 3, 6, 9, 12) }).loss,
    ).toBe(dpo(good() as Given).loss);
  });

  test.each(titled(refusedCalls))('%s', async (_, change, kind, words) => {
    const made = change();
    // Everything is watched, out included.
    const watched = arraysIn(made);
    const error = thrownBy(() => call(made.batch, made.run));
    expectRefusal(error, kind, words);
    // The asynchronous call refuses by its promise, never by a throw.
    const again = change();
    const rejected: unknown = await call.async(again.batch, again.run).then(
      () => undefined,
      (reason: unknown) => reason,
    );
    expectRefusal(rejected, kind, words);
    for (const [view, before] of watched) expect(sameBits(view, before)).toBe(true);
  });

  test('a wrong label found late leaves logits and out alone', async () => {
    // The last of many rows, and enough elements for several threads.
    const [T, V] = [64, 2048];
    const labels = new Int32Array(4 * T).fill(1);
    labels[4 * T - 1] = V;
    const logits = new Float32Array(4 * T * V).fill(0.25);
    const before = logits.slice();
    const given: LogitsBatch<Float32Array> & WithReference = {
      logits,
      shape: [4, T, V],
      labels,
      reference: new Float64Array(4),
    };
    const out = new Float32Array(4 * T * V).fill(7);
    for (const options of [
      { inPlace: true },
      { out },
      { inPlace: true, gradient: 'factored' },
      { out, gradient: 'factored' },
    ] as const) {
      expectRefusal(
        () => dpo(given, options),
        'RangeError LABEL',
        `labels[${String(4 * T - 1)}] | 2048`,
      );
      await expect(dpo.async(given, options)).rejects.toMatchObject({ code: 'ERR_DIRALIGN_LABEL' });
      expect(sameBits(logits, before)).toBe(true);
      expect(out.every((x) => x === 7)).toBe(true);
    }
  });

  test('a signal belongs to the asynchronous call', async () => {
    expectRefusal(
      () => call(good(), { signal: new AbortController().signal }),
      'TypeError OPTION',
      'signal | async',
    );
    await expect(call.async(good(), { signal: {} })).rejects.toMatchObject({
      code: 'ERR_DIRALIGN_OPTION',
      message: /signal.*AbortSignal/,
    });
  });

  test('sft has one set of labels', () => {
    const given = { ...good(), reference: undefined };
    expectRefusal(
      () => dirAlignLoss('sft')({ ...given, sftLabels: given.labels }),
      'TypeError OPTION',
      "sftLabels | 'sft'",
    );
    expectRefusal(
      () => dirAlignLoss('sft')({ logits: floats(0), shape: [0, 3, 5], labels: new Int32Array(0) }),
      'RangeError SHAPE',
      '0 | at least 1',
    );
    // Any number of them, though.
    expect(dirAlignLoss('sft')({ ...given, shape: [3, 4, vocab] }).losses).toHaveLength(3);
  });

  test.runIf(!cuda.available)("backend 'cuda' where there is none says why", () => {
    expectRefusal(
      () => call(good(), { backend: 'cuda' }),
      'TypeError BACKEND',
      'backend | cuda | not available',
    );
  });

  test('a reference is not looked at where it is not used', () => {
    const given = { ...good(), reference: Float64Array.of(NaN) } as Given;
    expect(dirAlignLoss('simpo', 2)(given).metrics.nonfinite).toBe(0);
    expect(dirAlignLoss('dpo', 2, false, { referenceFree: true })(given).metrics.nonfinite).toBe(0);
  });
});

describe.each([
  ['sequenceLogps', sequenceLogps as unknown as Anything],
  ['tokenLogps', tokenLogps as unknown as Anything],
])('%s', (_, logpsOf) => {
  const shared = refusedCalls.filter(([change, , words]) => {
    const made = change();
    const given = made.batch as { reference?: unknown; sftLabels?: unknown } | undefined | null;
    return (
      !/reference|even/.test(String(words)) &&
      made.run === undefined &&
      !given?.sftLabels &&
      given?.reference instanceof Float64Array &&
      given.reference.length === sequences
    );
  });
  test.each(titled(shared))('%s', (_, change, kind, words) => {
    expectRefusal(() => logpsOf(change().batch), kind, words);
  });

  test('takes any number of sequences, and none', () => {
    const { logits, labels } = good();
    expect(() => logpsOf({ logits, labels, shape: [3, 4, 5] })).not.toThrow();
    expect(() =>
      logpsOf({ logits: floats(0), labels: new Int32Array(0), shape: [0, 4, 5] }),
    ).not.toThrow();
  });

  test('its own options', () => {
    expectRefusal(() => logpsOf(good(), null), 'TypeError OPTION', 'null | object');
    expectRefusal(() => logpsOf(good(), { thread: 2 }), 'TypeError OPTION', 'thread | threads');
    expectRefusal(() => logpsOf(good(), { threads: 0 }), 'RangeError OPTION', 'threads | 0');
    if (!cuda.available)
      expectRefusal(
        () => logpsOf(good(), { backend: 'cuda' }),
        'TypeError BACKEND',
        'backend | cuda',
      );
    expectRefusal(() => logpsOf(good(), { backend: 'tpu' }), 'TypeError OPTION', 'backend | tpu');
  });
});

describe('fromLogps', () => {
  const fine = () => ({
    logps: Float64Array.of(-3, -4, -5, -6),
    counts: Int32Array.of(1, 2, 3, 4),
    reference: Float64Array.of(-3, -4, -5, -6),
  });
  const fromLogps = (given: unknown): unknown => dpo.fromLogps(given as never);
  const refused: [() => unknown, Kind, Words][] = [
    [() => undefined, 'TypeError SHAPE', 'fromLogps | undefined | logps | counts'],
    [() => null, 'TypeError SHAPE', 'fromLogps | null'],
    [
      () => ({ ...fine(), logps: undefined }),
      'TypeError DTYPE',
      'logps | undefined | Float64Array',
    ],
    [() => ({ ...fine(), logps: [1, 2] }), 'TypeError DTYPE', 'logps | Array | Float32Array'],
    [() => ({ ...fine(), logps: new Float64Array(3) }), 'RangeError SHAPE', '3 | even'],
    [() => ({ ...fine(), logps: new Float64Array(0) }), 'RangeError SHAPE', '0 | even'],
    [
      () => ({ ...fine(), counts: undefined }),
      'TypeError SHAPE',
      'counts | undefined | Int32Array',
    ],
    [
      () => ({ ...fine(), counts: new Float32Array(4) }),
      'TypeError SHAPE',
      'counts | Float32Array | Int32Array or Float64Array',
    ],
    [() => ({ ...fine(), counts: new Int32Array(2) }), 'RangeError SHAPE', 'counts | 2 | 4'],
    [
      () => ({ ...fine(), counts: Int32Array.of(1, 1, -1, 1) }),
      'RangeError SHAPE',
      'counts | -1 | index 2',
    ],
    [() => ({ ...fine(), reference: undefined }), 'TypeError REFERENCE', "reference | 'dpo'"],
    [
      () => ({ ...fine(), reference: new Float64Array(2) }),
      'RangeError REFERENCE',
      'reference | 2 | 4',
    ],
    [
      () => ({ ...fine(), reference: Float64Array.of(1, 2, NaN, 4) }),
      'RangeError REFERENCE',
      'reference | NaN | index 2',
    ],
    [() => ({ ...fine(), logps: detached(fine().logps) }), 'TypeError SHAPE', 'logps | detached'],
    [
      () => ({ ...fine(), counts: new Int32Array(resizable(16)) }),
      'TypeError SHAPE',
      'counts | resizable',
    ],
  ];
  test('the batch that the others differ from is fine', () => {
    expect(() => fromLogps(fine())).not.toThrow();
  });
  test.each(titled(refused))('%s', (_, make, kind, words) => {
    expectRefusal(() => fromLogps(make()), kind, words);
  });
});

test('other errors are not ours', () => {
  for (const value of [
    new Error('x'),
    new TypeError('x'),
    undefined,
    null,
    'x',
    { code: 'ERR_DIRALIGN_SHAPE' },
  ]) {
    expect(value instanceof DirAlignError).toBe(false);
  }
});
