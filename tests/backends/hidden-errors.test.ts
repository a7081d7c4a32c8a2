// Every refusal of `fromHidden`, and of the log-probabilities of hidden states: as errors.test.ts
// has those of logits.
import { describe, expect, test } from 'vitest';
import { cuda, dirAlignLoss, sequenceLogps, tokenLogps } from '../../ts/index.js';
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

const [sequences, tokens, vocab, size] = [4, 3, 5, 7];
const rows = sequences * tokens;
const floats = (length: number): Float32Array =>
  Float32Array.from({ length }, (_, i) => Math.sin(i + 1));
const halves = (length: number): Uint16Array => new Uint16Array(length).fill(0x3c00);

/** A call that is fine, with a value of every argument. */
const good = () => ({
  hidden: floats(rows * size),
  weight: floats(vocab * size),
  bias: floats(vocab),
  shape: [sequences, tokens, vocab] as readonly number[],
  labels: Int32Array.from({ length: rows }, (_, i) => (i % 3 === 0 ? -100 : i % vocab)),
  reference: Float64Array.of(-3, -4, -5, -6),
});
const buffers = () => ({
  gradHidden: floats(rows * size),
  gradWeight: floats(vocab * size),
  gradBias: floats(vocab),
});

interface Call {
  readonly batch: unknown;
  readonly run?: unknown;
}
type Row = [() => Call, Kind, Words];
const batch = (change: object): Call => ({ batch: { ...good(), ...change } });
const run = (options: object): Call => ({ batch: good(), run: options });
const out = (change: object, options: object = {}): Call => run({ out: change, ...options });
const without = (name: 'bias' | 'weight', options: object = {}): Call => ({
  batch: Object.fromEntries(Object.entries(good()).filter(([key]) => key !== name)),
  run: options,
});
const packed = (offsets: unknown): Call => batch({ shape: [rows, vocab], offsets });

/** Refused whatever is computed. */
const refusedBatches: Row[] = [
  [() => batch({ hidden: undefined }), 'TypeError DTYPE', 'hidden | undefined | Float32Array'],
  [() => batch({ hidden: new Float64Array(84) }), 'TypeError DTYPE', 'hidden | Float64Array'],
  [() => batch({ hidden: halves(84) }), 'TypeError DTYPE', "dtype | 'bfloat16'"],
  [() => batch({ dtype: 'fp16' }), 'TypeError DTYPE', "dtype | fp16 | 'float16'"],
  [() => batch({ dtype: 'float16' }), 'TypeError DTYPE', 'dtype | float16 | hidden'],
  [() => batch({ hidden: floats(83) }), 'RangeError SHAPE', 'hidden | 83 | 84 | 12 rows'],
  [() => batch({ hidden: floats(85) }), 'RangeError SHAPE', 'hidden | 85 | 84'],
  [() => without('weight'), 'TypeError DTYPE', 'weight | undefined | Float32Array'],
  [() => batch({ weight: new Float64Array(35) }), 'TypeError DTYPE', 'weight | Float64Array'],
  [() => batch({ weight: halves(35) }), 'TypeError DTYPE', 'weight | Uint16Array | Float32Array'],
  [
    () => batch({ hidden: halves(84), dtype: 'bfloat16' }),
    'TypeError DTYPE',
    'weight | Float32Array | Uint16Array',
  ],
  [() => batch({ weight: floats(36) }), 'RangeError SHAPE', 'weight | 36 | 5'],
  [() => batch({ weight: floats(0) }), 'RangeError SHAPE', 'weight | 0 | 5'],
  [() => batch({ weight: floats(40) }), 'RangeError SHAPE', 'hidden | 84 | 96 | hiddenSize 8'],
  [() => batch({ hiddenSize: 6.5 }), 'RangeError SHAPE', 'hiddenSize | 6.5 | whole'],
  [() => batch({ hiddenSize: 0 }), 'RangeError SHAPE', 'hiddenSize | 0 | at least 1'],
  [() => batch({ hiddenSize: '7' }), 'TypeError SHAPE', "hiddenSize | '7'"],
  [() => batch({ hiddenSize: 6 }), 'RangeError SHAPE', 'hidden | 84 | 72'],
  [() => batch({ hidden: floats(72), hiddenSize: 6 }), 'RangeError SHAPE', 'weight | 35 | 30'],
  [() => batch({ bias: [1, 2, 3, 4, 5] }), 'TypeError DTYPE', 'bias | Array | Float32Array'],
  [() => batch({ bias: null }), 'TypeError DTYPE', 'bias | null'],
  [() => batch({ bias: halves(5) }), 'TypeError DTYPE', 'bias | Uint16Array | Float32Array'],
  [() => batch({ bias: floats(4) }), 'RangeError SHAPE', 'bias | 4 | 5 | one per word'],
  [() => batch({ logits: floats(60) }), 'TypeError SHAPE', 'logits | hidden states'],
  [() => batch({ rowStride: 8 }), 'TypeError SHAPE', 'rowStride | without gaps'],
  [
    () => batch({ hidden: { ptr: 1n } }),
    cuda.available ? 'TypeError DTYPE' : 'TypeError BACKEND',
    ['hidden', /CUDA|cuda/],
  ],
  [
    () => batch({ weight: { ptr: 1n } }),
    cuda.available ? 'TypeError DTYPE' : 'TypeError BACKEND',
    ['weight', /CUDA|cuda/],
  ],
  [() => batch({ shape: undefined }), 'TypeError SHAPE', 'shape | undefined'],
  [() => batch({ shape: [4, 3, 0] }), 'RangeError SHAPE', 'vocab | 0'],
  [() => batch({ shape: [2 ** 30, 2 ** 30, 5] }), 'RangeError SHAPE', 'hidden'],
  [() => batch({ offsets: Int32Array.of(0, 12) }), 'TypeError SHAPE', 'offsets | packed'],
  [() => packed(undefined), 'TypeError SHAPE', 'offsets | undefined'],
  [() => packed(Int32Array.of(0, 6, 3, 9, 12)), 'RangeError SHAPE', 'offsets | decreases | 2'],
  [() => batch({ labels: undefined }), 'TypeError LABEL', 'labels | undefined'],
  [() => batch({ labels: new Int32Array(11) }), 'RangeError SHAPE', 'labels | 11 | 12'],
  [
    () => batch({ labels: new Int32Array(12).fill(5) }),
    'RangeError LABEL',
    'labels[0] | 5 | [0, 5)',
  ],
  [() => batch({ ignoreIndex: 0.5 }), 'RangeError LABEL', 'ignoreIndex | 0.5'],
  [() => batch({ hidden: detached(floats(84)) }), 'TypeError SHAPE', 'hidden | detached'],
  [() => batch({ weight: detached(floats(35)) }), 'TypeError SHAPE', 'weight | detached'],
  [() => batch({ bias: detached(floats(5)) }), 'TypeError SHAPE', 'bias | detached'],
  [
    () => batch({ hidden: new Float32Array(resizable(336)) }),
    'TypeError SHAPE',
    'hidden | resizable',
  ],
  [
    () => batch({ weight: new Float32Array(resizable(140)) }),
    'TypeError SHAPE',
    'weight | resizable',
  ],
  [() => batch({ bias: new Float32Array(resizable(20)) }), 'TypeError SHAPE', 'bias | resizable'],
];

const options: [object, Kind, Words][] = [
  [{ memory: 0 }, 'RangeError OPTION', 'memory | 0 | at least 1'],
  [{ memory: 1.5 }, 'RangeError OPTION', 'memory | 1.5 | whole number of bytes'],
  [{ memory: -1 }, 'RangeError OPTION', 'memory | -1'],
  [{ memory: NaN }, 'RangeError OPTION', 'memory | NaN'],
  [{ memory: Infinity }, 'RangeError OPTION', 'memory | Infinity'],
  [{ memory: '1 GiB' }, 'TypeError OPTION', "memory | '1 GiB'"],
  [{ memory: 1 }, 'RangeError OPTION', ['memory', '1 bytes', /expected at least \d+/]],
  [{ threads: 0 }, 'RangeError OPTION', 'threads | 0'],
  [{ backend: 'gpu' }, 'TypeError OPTION', 'backend | gpu'],
];

const refused: Row[] = [
  [() => ({ batch: undefined }), 'TypeError SHAPE', 'batch | undefined | hidden | weight'],
  [() => ({ batch: null }), 'TypeError SHAPE', 'batch | null'],
  ...refusedBatches,
  [() => batch({ shape: [3, 4, 5] }), 'RangeError SHAPE', '3 | even'],
  [() => batch({ reference: undefined }), 'TypeError REFERENCE', "reference | 'dpo'"],
  [
    () => batch({ reference: Float64Array.of(1, NaN, 1, 1) }),
    'RangeError REFERENCE',
    'NaN | index 1',
  ],
  [() => batch({ sftLabels: new Int32Array(3) }), 'RangeError SHAPE', 'sftLabels | 3 | 12'],
  [() => batch({ sftLabels: new Int32Array(12).fill(9) }), 'RangeError LABEL', 'sftLabels[0] | 9'],
  [() => ({ batch: good(), run: null }), 'TypeError OPTION', 'run | null'],
  [() => run({ acumulate: true }), 'TypeError OPTION', 'acumulate | accumulate'],
  [() => run({ inPlace: true }), 'TypeError OPTION', 'inPlace | no logits | out'],
  [() => run({ gradient: 'factored' }), 'TypeError OPTION', "gradient | 'factored' | 'dense'"],
  [() => run({ gradient: 'sparse' }), 'TypeError OPTION', "gradient | 'sparse' | 'none'"],
  ...options.map(([given, kind, words]): Row => [() => run(given), kind, words]),

  [() => run({ out: floats(84) }), 'TypeError OPTION', 'out | Float32Array | gradHidden'],
  [() => run({ out: null }), 'TypeError OPTION', 'out | null'],
  [() => out({ gradLogits: true }), 'TypeError OPTION', 'out.gradLogits | gradWeight'],
  [() => out({ gradHidden: null }), 'TypeError DTYPE', 'out.gradHidden | null'],
  [() => out({ gradHidden: 1 }), 'TypeError DTYPE', 'out.gradHidden | 1 | Float32Array'],
  [() => out({ gradHidden: [] }), 'TypeError DTYPE', 'out.gradHidden | Array'],
  [() => out({ gradHidden: halves(84) }), 'TypeError DTYPE', 'out.gradHidden | Uint16Array'],
  [() => out({ gradHidden: floats(83) }), 'RangeError SHAPE', 'out.gradHidden | 83 | 84'],
  [() => out({ gradWeight: halves(35) }), 'TypeError DTYPE', 'out.gradWeight | Float32Array'],
  [
    () => ({
      batch: {
        ...good(),
        hidden: halves(84),
        weight: halves(35),
        bias: halves(5),
        dtype: 'bfloat16',
      },
      run: { out: { gradWeight: halves(35) } },
    }),
    'TypeError DTYPE',
    'out.gradWeight | Float32Array | Uint16Array',
  ],
  [() => out({ gradWeight: floats(36) }), 'RangeError SHAPE', 'out.gradWeight | 36 | 35'],
  [() => out({ gradBias: floats(4) }), 'RangeError SHAPE', 'out.gradBias | 4 | 5'],
  [
    () => without('bias', { out: { gradBias: floats(5) } }),
    'TypeError OPTION',
    'out.gradBias | no bias',
  ],
  [
    () => without('bias', { out: { gradBias: true } }),
    'TypeError OPTION',
    'out.gradBias | no bias',
  ],
  [() => out({ gradHidden: detached(floats(84)) }), 'TypeError SHAPE', 'out.gradHidden | detached'],
  [
    () => out({ gradWeight: new Float32Array(resizable(140)) }),
    'TypeError SHAPE',
    'out.gradWeight | resizable',
  ],
  [() => out(buffers(), { gradient: 'none' }), 'TypeError OPTION', "out.gradHidden | 'none'"],
  [
    () => out({ gradWeight: true }, { gradient: 'none' }),
    'TypeError OPTION',
    "out.gradWeight | 'none'",
  ],

  [() => run({ accumulate: true }), 'TypeError OPTION', 'accumulate | no buffer'],
  [
    () => out({ gradWeight: true }, { accumulate: true }),
    'TypeError OPTION',
    'accumulate | no buffer',
  ],
  [
    () => out({ gradWeight: floats(35) }, { accumulate: ['gradHidden'] }),
    'TypeError OPTION',
    "'gradHidden' | no buffer",
  ],
  [() => out(buffers(), { accumulate: ['weight'] }), 'TypeError OPTION', "'weight' | 'gradWeight'"],
  [
    () => out(buffers(), { accumulate: 'gradWeight' }),
    'TypeError OPTION',
    "accumulate | 'gradWeight' | array",
  ],
  [() => out(buffers(), { accumulate: null }), 'TypeError OPTION', 'accumulate | null'],
];

/** A buffer that shares memory with something else. */
const overlaps: [string, string, () => Call][] = (
  ['hidden', 'weight', 'bias', 'labels', 'reference'] as const
).map((name) => [
  'out.gradWeight',
  name,
  () => {
    const given = good();
    const memory = new ArrayBuffer(4096);
    const own = given[name] as Float32Array;
    const shared = new (own.constructor as new (
      buffer: ArrayBuffer,
      offset: number,
      length: number,
    ) => Float32Array)(memory, 1024, own.length);
    shared.set(own);
    // From its last element on.
    const begin = 1024 + own.byteLength - 4;
    return {
      batch: { ...given, [name]: shared },
      run: { out: { gradWeight: new Float32Array(memory, begin, vocab * size) } },
    };
  },
]);
overlaps.push(
  [
    'out.gradWeight',
    'out.gradHidden',
    () => {
      const memory = floats(rows * size + vocab * size - 1);
      return out({
        gradHidden: memory.subarray(0, rows * size),
        gradWeight: memory.subarray(rows * size - 1),
      });
    },
  ],
  [
    'out.gradBias',
    'out.gradWeight',
    () => {
      const memory = floats(vocab * size);
      return out({ gradWeight: memory, gradBias: memory.subarray(0, vocab) }, { accumulate: true });
    },
  ],
);
for (const [name, other, call] of overlaps)
  refused.push([call, 'RangeError SHAPE', `${name} | overlaps | ${other}`]);

type Anything = (batch: unknown, run?: unknown) => unknown;
const dpo = dirAlignLoss('dpo', 0.1, false, { sftWeight: 1 });
const call = dpo.fromHidden as unknown as Anything & {
  readonly async: (batch: unknown, run?: unknown) => Promise<unknown>;
};
const rejection = (promise: Promise<unknown>): Promise<unknown> =>
  promise.then(
    () => undefined,
    (reason: unknown) => reason,
  );

describe('fromHidden', () => {
  test('the call that the others differ from is fine', () => {
    expect(() => call(good(), { out: buffers(), accumulate: true, memory: 1e7 })).not.toThrow();
    expect(() =>
      call(good(), {
        out: { gradHidden: false, gradWeight: false, gradBias: false },
        gradient: 'none',
      }),
    ).not.toThrow();
    expect(() => call({ ...good(), hiddenSize: size }, { accumulate: false })).not.toThrow();
    expect(() => call(without('bias').batch, { out: { gradBias: false } })).not.toThrow();
  });

  test.each(titled(refused))('%s', async (_, change, kind, words) => {
    const made = change();
    // Everything is watched, the buffers included.
    const watched = arraysIn(made);
    expectRefusal(() => call(made.batch, made.run), kind, words);
    // The asynchronous call refuses by its promise, never by a throw.
    const again = change();
    const watchedAgain = arraysIn(again);
    expectRefusal(await rejection(call.async(again.batch, again.run)), kind, words);
    for (const [view, before] of [...watched, ...watchedAgain])
      expect(sameBits(view, before)).toBe(true);
  });

  test('too little memory leaves the buffers alone; what the error names is enough', async () => {
    const given = buffers();
    const watched = arraysIn(given);
    const error = thrownBy(() => call(good(), { out: given, memory: 1 })) as Error;
    const needed = Number(/at least (\d+)/.exec(error.message)?.[1]);
    expectRefusal(
      () => call(good(), { out: given, memory: needed - 1 }),
      'RangeError OPTION',
      `${needed}`,
    );
    expectRefusal(
      await rejection(call.async(good(), { out: given, memory: needed - 1 })),
      'RangeError OPTION',
      `${needed}`,
    );
    for (const [view, before] of watched) expect(sameBits(view, before)).toBe(true);
    expect(() => call(good(), { out: given, memory: needed })).not.toThrow();
  });

  test('a wrong label found late leaves the buffers alone', async () => {
    const labels = good().labels.map((label, i) => (i === rows - 1 ? vocab : label));
    for (const accumulate of [false, true]) {
      const given = buffers();
      const watched = arraysIn(given);
      expectRefusal(
        () => call({ ...good(), labels }, { out: given, accumulate }),
        'RangeError LABEL',
        'labels[11] | 5',
      );
      expectRefusal(
        await rejection(call.async({ ...good(), labels }, { out: given, accumulate })),
        'RangeError LABEL',
        'labels[11]',
      );
      for (const [view, before] of watched) expect(sameBits(view, before)).toBe(true);
    }
  });

  test('a signal belongs to the asynchronous call', async () => {
    expectRefusal(
      () => call(good(), { signal: new AbortController().signal }),
      'TypeError OPTION',
      'signal | fromHidden.async',
    );
    expectRefusal(
      await rejection(call.async(good(), { signal: {} })),
      'TypeError OPTION',
      'signal | AbortSignal',
    );
  });

  test('sft has one set of labels', () => {
    const given = good();
    expectRefusal(
      () => dirAlignLoss('sft').fromHidden({ ...given, sftLabels: given.labels } as never),
      'TypeError OPTION',
      "sftLabels | 'sft'",
    );
  });

  test.runIf(!cuda.available)('on a device where there is none: refused with the reason', () => {
    expect(cuda.hiddenReason).toBe(cuda.reason);
    expectRefusal(() => call(good(), { backend: 'cuda' }), 'TypeError BACKEND', [
      'cuda',
      cuda.reason ?? '',
    ]);
  });
});

describe.each([
  ['sequenceLogps', sequenceLogps as unknown as Anything],
  ['tokenLogps', tokenLogps as unknown as Anything],
])('%s', (_, logpsOf) => {
  // Without hidden states a batch is one of logits.
  test.each(titled(refusedBatches))('%s', (_name, change, kind, words) => {
    expectRefusal(() => logpsOf(change().batch), kind, words);
  });
  test.each(titled(options))('%s', (_name, given, kind, words) => {
    expectRefusal(() => logpsOf(good(), given), kind, words);
  });
  test('memory is for hidden states', () => {
    expectRefusal(
      () =>
        logpsOf({ logits: floats(60), shape: [4, 3, 5], labels: good().labels }, { memory: 1e6 }),
      'TypeError OPTION',
      'memory | hidden states',
    );
  });
  test('takes any number of sequences, and none', () => {
    const { weight, bias, hidden, labels } = good();
    expect(() => logpsOf({ weight, bias, hidden, labels, shape: [3, 4, 5] })).not.toThrow();
    expect(() =>
      logpsOf({ weight, bias, hidden: floats(0), labels: new Int32Array(0), shape: [0, 4, 5] }),
    ).not.toThrow();
  });
});
