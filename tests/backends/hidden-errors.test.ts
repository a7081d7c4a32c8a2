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
  type Kind,
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
type Words = readonly (string | RegExp)[];
type Row = [string, () => Call, Kind, string, Words];
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
  [
    'no hidden states',
    () => batch({ hidden: undefined }),
    TypeError,
    'DTYPE',
    ['hidden', 'undefined', 'Float32Array'],
  ],
  [
    'hidden states in float64',
    () => batch({ hidden: new Float64Array(84) }),
    TypeError,
    'DTYPE',
    ['hidden', 'Float64Array'],
  ],
  [
    'hidden states in 16 bits without dtype',
    () => batch({ hidden: halves(84) }),
    TypeError,
    'DTYPE',
    ['dtype', "'bfloat16'"],
  ],
  [
    'an unknown dtype',
    () => batch({ dtype: 'fp16' }),
    TypeError,
    'DTYPE',
    ['dtype', 'fp16', "'float16'"],
  ],
  [
    'a dtype that hidden is not in',
    () => batch({ dtype: 'float16' }),
    TypeError,
    'DTYPE',
    ['dtype', 'float16', 'hidden'],
  ],
  [
    'too few hidden states',
    () => batch({ hidden: floats(83) }),
    RangeError,
    'SHAPE',
    ['hidden', '83', '84', '12 rows'],
  ],
  [
    'too many hidden states',
    () => batch({ hidden: floats(85) }),
    RangeError,
    'SHAPE',
    ['hidden', '85', '84'],
  ],
  [
    'no weight',
    () => without('weight'),
    TypeError,
    'DTYPE',
    ['weight', 'undefined', 'Float32Array'],
  ],
  [
    'a weight in float64',
    () => batch({ weight: new Float64Array(35) }),
    TypeError,
    'DTYPE',
    ['weight', 'Float64Array'],
  ],
  [
    'a weight in 16 bits',
    () => batch({ weight: halves(35) }),
    TypeError,
    'DTYPE',
    ['weight', 'Uint16Array', 'Float32Array'],
  ],
  [
    'a weight in 32 bits for hidden states in 16',
    () => batch({ hidden: halves(84), dtype: 'bfloat16' }),
    TypeError,
    'DTYPE',
    ['weight', 'Float32Array', 'Uint16Array'],
  ],
  [
    'a weight that is no whole number of rows',
    () => batch({ weight: floats(36) }),
    RangeError,
    'SHAPE',
    ['weight', '36', '5'],
  ],
  [
    'an empty weight',
    () => batch({ weight: floats(0) }),
    RangeError,
    'SHAPE',
    ['weight', '0', '5'],
  ],
  [
    'a weight of another size',
    () => batch({ weight: floats(40) }),
    RangeError,
    'SHAPE',
    ['hidden', '84', '96', 'hiddenSize 8'],
  ],
  [
    'hiddenSize with a fraction',
    () => batch({ hiddenSize: 6.5 }),
    RangeError,
    'SHAPE',
    ['hiddenSize', '6.5', 'whole'],
  ],
  [
    'hiddenSize 0',
    () => batch({ hiddenSize: 0 }),
    RangeError,
    'SHAPE',
    ['hiddenSize', '0', 'at least 1'],
  ],
  [
    'hiddenSize as a string',
    () => batch({ hiddenSize: '7' }),
    TypeError,
    'SHAPE',
    ['hiddenSize', "'7'"],
  ],
  [
    'another hiddenSize',
    () => batch({ hiddenSize: 6 }),
    RangeError,
    'SHAPE',
    ['hidden', '84', '72'],
  ],
  [
    'a hiddenSize that only hidden has',
    () => batch({ hidden: floats(72), hiddenSize: 6 }),
    RangeError,
    'SHAPE',
    ['weight', '35', '30'],
  ],
  [
    'a plain bias',
    () => batch({ bias: [1, 2, 3, 4, 5] }),
    TypeError,
    'DTYPE',
    ['bias', 'Array', 'Float32Array'],
  ],
  ['bias null', () => batch({ bias: null }), TypeError, 'DTYPE', ['bias', 'null']],
  [
    'a bias in 16 bits',
    () => batch({ bias: halves(5) }),
    TypeError,
    'DTYPE',
    ['bias', 'Uint16Array', 'Float32Array'],
  ],
  [
    'a short bias',
    () => batch({ bias: floats(4) }),
    RangeError,
    'SHAPE',
    ['bias', '4', '5', 'one per word'],
  ],
  [
    'logits, too',
    () => batch({ logits: floats(60) }),
    TypeError,
    'SHAPE',
    ['logits', 'hidden states'],
  ],
  ['a rowStride', () => batch({ rowStride: 8 }), TypeError, 'SHAPE', ['rowStride', 'without gaps']],
  [
    'an address as hidden',
    () => batch({ hidden: { ptr: 1n } }),
    TypeError,
    cuda.available ? 'DTYPE' : 'BACKEND',
    ['hidden', /CUDA|cuda/],
  ],
  [
    'an address as weight',
    () => batch({ weight: { ptr: 1n } }),
    TypeError,
    cuda.available ? 'DTYPE' : 'BACKEND',
    ['weight', /CUDA|cuda/],
  ],
  ['no shape', () => batch({ shape: undefined }), TypeError, 'SHAPE', ['shape', 'undefined']],
  ['no vocabulary', () => batch({ shape: [4, 3, 0] }), RangeError, 'SHAPE', ['vocab', '0']],
  [
    'a shape whose product overflows',
    () => batch({ shape: [2 ** 30, 2 ** 30, 5] }),
    RangeError,
    'SHAPE',
    ['hidden'],
  ],
  [
    'offsets of a padded batch',
    () => batch({ offsets: Int32Array.of(0, 12) }),
    TypeError,
    'SHAPE',
    ['offsets', 'packed'],
  ],
  ['packed without offsets', () => packed(undefined), TypeError, 'SHAPE', ['offsets', 'undefined']],
  [
    'offsets that decrease',
    () => packed(Int32Array.of(0, 6, 3, 9, 12)),
    RangeError,
    'SHAPE',
    ['offsets', 'decreases', '2'],
  ],
  ['no labels', () => batch({ labels: undefined }), TypeError, 'LABEL', ['labels', 'undefined']],
  [
    'too few labels',
    () => batch({ labels: new Int32Array(11) }),
    RangeError,
    'SHAPE',
    ['labels', '11', '12'],
  ],
  [
    'a label of vocab',
    () => batch({ labels: new Int32Array(12).fill(5) }),
    RangeError,
    'LABEL',
    ['labels[0]', '5', '[0, 5)'],
  ],
  [
    'ignoreIndex with a fraction',
    () => batch({ ignoreIndex: 0.5 }),
    RangeError,
    'LABEL',
    ['ignoreIndex', '0.5'],
  ],
  [
    'detached hidden',
    () => batch({ hidden: detached(floats(84)) }),
    TypeError,
    'SHAPE',
    ['hidden', 'detached'],
  ],
  [
    'a detached weight',
    () => batch({ weight: detached(floats(35)) }),
    TypeError,
    'SHAPE',
    ['weight', 'detached'],
  ],
  [
    'a detached bias',
    () => batch({ bias: detached(floats(5)) }),
    TypeError,
    'SHAPE',
    ['bias', 'detached'],
  ],
  [
    'resizable hidden',
    () => batch({ hidden: new Float32Array(resizable(336)) }),
    TypeError,
    'SHAPE',
    ['hidden', 'resizable'],
  ],
  [
    'a resizable weight',
    () => batch({ weight: new Float32Array(resizable(140)) }),
    TypeError,
    'SHAPE',
    ['weight', 'resizable'],
  ],
  [
    'a resizable bias',
    () => batch({ bias: new Float32Array(resizable(20)) }),
    TypeError,
    'SHAPE',
    ['bias', 'resizable'],
  ],
];

const options: [string, object, Kind, Words][] = [
  ['memory 0', { memory: 0 }, RangeError, ['memory', '0', 'at least 1']],
  [
    'memory with a fraction',
    { memory: 1.5 },
    RangeError,
    ['memory', '1.5', 'whole number of bytes'],
  ],
  ['negative memory', { memory: -1 }, RangeError, ['memory', '-1']],
  ['memory NaN', { memory: NaN }, RangeError, ['memory', 'NaN']],
  ['infinite memory', { memory: Infinity }, RangeError, ['memory', 'Infinity']],
  ['memory as a string', { memory: '1 GiB' }, TypeError, ['memory', "'1 GiB'"]],
  ['too little memory', { memory: 1 }, RangeError, ['memory', '1 bytes', /expected at least \d+/]],
  ['threads 0', { threads: 0 }, RangeError, ['threads', '0']],
  ['an unknown backend', { backend: 'gpu' }, TypeError, ['backend', 'gpu']],
];

const refused: Row[] = [
  [
    'no batch',
    () => ({ batch: undefined }),
    TypeError,
    'SHAPE',
    ['batch', 'undefined', 'hidden', 'weight'],
  ],
  ['batch null', () => ({ batch: null }), TypeError, 'SHAPE', ['batch', 'null']],
  ...refusedBatches,
  [
    'an odd number of sequences',
    () => batch({ shape: [3, 4, 5] }),
    RangeError,
    'SHAPE',
    ['3', 'even'],
  ],
  [
    'no reference',
    () => batch({ reference: undefined }),
    TypeError,
    'REFERENCE',
    ['reference', "'dpo'"],
  ],
  [
    'a reference of NaN',
    () => batch({ reference: Float64Array.of(1, NaN, 1, 1) }),
    RangeError,
    'REFERENCE',
    ['NaN', 'index 1'],
  ],
  [
    'too few sftLabels',
    () => batch({ sftLabels: new Int32Array(3) }),
    RangeError,
    'SHAPE',
    ['sftLabels', '3', '12'],
  ],
  [
    'a wrong sft label',
    () => batch({ sftLabels: new Int32Array(12).fill(9) }),
    RangeError,
    'LABEL',
    ['sftLabels[0]', '9'],
  ],
  ['run null', () => ({ batch: good(), run: null }), TypeError, 'OPTION', ['run', 'null']],
  [
    'an unknown run option',
    () => run({ acumulate: true }),
    TypeError,
    'OPTION',
    ['acumulate', 'accumulate'],
  ],
  ['in place', () => run({ inPlace: true }), TypeError, 'OPTION', ['inPlace', 'no logits', 'out']],
  [
    'a factored gradient',
    () => run({ gradient: 'factored' }),
    TypeError,
    'OPTION',
    ['gradient', "'factored'", "'dense'"],
  ],
  [
    'an unknown gradient',
    () => run({ gradient: 'sparse' }),
    TypeError,
    'OPTION',
    ['gradient', "'sparse'", "'none'"],
  ],
  ...options.map(([name, given, kind, words]): Row => [
    name,
    () => run(given),
    kind,
    'OPTION',
    words,
  ]),

  [
    'an array as out',
    () => run({ out: floats(84) }),
    TypeError,
    'OPTION',
    ['out', 'Float32Array', 'gradHidden'],
  ],
  ['out null', () => run({ out: null }), TypeError, 'OPTION', ['out', 'null']],
  [
    'an unknown gradient in out',
    () => out({ gradLogits: true }),
    TypeError,
    'OPTION',
    ['out.gradLogits', 'gradWeight'],
  ],
  [
    'gradHidden null',
    () => out({ gradHidden: null }),
    TypeError,
    'DTYPE',
    ['out.gradHidden', 'null'],
  ],
  [
    'gradHidden a number',
    () => out({ gradHidden: 1 }),
    TypeError,
    'DTYPE',
    ['out.gradHidden', '1', 'Float32Array'],
  ],
  [
    'a plain gradHidden',
    () => out({ gradHidden: [] }),
    TypeError,
    'DTYPE',
    ['out.gradHidden', 'Array'],
  ],
  [
    'gradHidden of another type',
    () => out({ gradHidden: halves(84) }),
    TypeError,
    'DTYPE',
    ['out.gradHidden', 'Uint16Array'],
  ],
  [
    'a short gradHidden',
    () => out({ gradHidden: floats(83) }),
    RangeError,
    'SHAPE',
    ['out.gradHidden', '83', '84'],
  ],
  [
    'gradWeight in 16 bits',
    () => out({ gradWeight: halves(35) }),
    TypeError,
    'DTYPE',
    ['out.gradWeight', 'Float32Array'],
  ],
  [
    'gradWeight in 16 bits as the weight is',
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
    TypeError,
    'DTYPE',
    ['out.gradWeight', 'Float32Array', 'Uint16Array'],
  ],
  [
    'a long gradWeight',
    () => out({ gradWeight: floats(36) }),
    RangeError,
    'SHAPE',
    ['out.gradWeight', '36', '35'],
  ],
  [
    'a short gradBias',
    () => out({ gradBias: floats(4) }),
    RangeError,
    'SHAPE',
    ['out.gradBias', '4', '5'],
  ],
  [
    'gradBias without a bias',
    () => without('bias', { out: { gradBias: floats(5) } }),
    TypeError,
    'OPTION',
    ['out.gradBias', 'no bias'],
  ],
  [
    'gradBias true without a bias',
    () => without('bias', { out: { gradBias: true } }),
    TypeError,
    'OPTION',
    ['out.gradBias', 'no bias'],
  ],
  [
    'a detached gradHidden',
    () => out({ gradHidden: detached(floats(84)) }),
    TypeError,
    'SHAPE',
    ['out.gradHidden', 'detached'],
  ],
  [
    'a resizable gradWeight',
    () => out({ gradWeight: new Float32Array(resizable(140)) }),
    TypeError,
    'SHAPE',
    ['out.gradWeight', 'resizable'],
  ],
  [
    'no gradient, and a buffer',
    () => out(buffers(), { gradient: 'none' }),
    TypeError,
    'OPTION',
    ['out.gradHidden', "'none'"],
  ],
  [
    'no gradient, and true',
    () => out({ gradWeight: true }, { gradient: 'none' }),
    TypeError,
    'OPTION',
    ['out.gradWeight', "'none'"],
  ],

  [
    'accumulate without out',
    () => run({ accumulate: true }),
    TypeError,
    'OPTION',
    ['accumulate', 'no buffer'],
  ],
  [
    'accumulate without a buffer',
    () => out({ gradWeight: true }, { accumulate: true }),
    TypeError,
    'OPTION',
    ['accumulate', 'no buffer'],
  ],
  [
    'accumulate into nothing',
    () => out({ gradWeight: floats(35) }, { accumulate: ['gradHidden'] }),
    TypeError,
    'OPTION',
    ["'gradHidden'", 'no buffer'],
  ],
  [
    'accumulate an unknown name',
    () => out(buffers(), { accumulate: ['weight'] }),
    TypeError,
    'OPTION',
    ["'weight'", "'gradWeight'"],
  ],
  [
    'accumulate as a string',
    () => out(buffers(), { accumulate: 'gradWeight' }),
    TypeError,
    'OPTION',
    ['accumulate', "'gradWeight'", 'array'],
  ],
  [
    'accumulate null',
    () => out(buffers(), { accumulate: null }),
    TypeError,
    'OPTION',
    ['accumulate', 'null'],
  ],
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
    const shared = new (
      own.constructor as new (buffer: ArrayBuffer, offset: number, length: number) => Float32Array
    )(memory, 1024, own.length);
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
  refused.push([`${name} over ${other}`, call, RangeError, 'SHAPE', [name, 'overlaps', other]]);

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

  test.each(refused)('%s', async (_, change, kind, code, words) => {
    const made = change();
    // Everything is watched, the buffers included.
    const watched = arraysIn(made);
    expectRefusal(
      thrownBy(() => call(made.batch, made.run)),
      kind,
      code,
      words,
    );
    // The asynchronous call refuses by its promise, never by a throw.
    const again = change();
    const watchedAgain = arraysIn(again);
    expectRefusal(await rejection(call.async(again.batch, again.run)), kind, code, words);
    for (const [view, before] of [...watched, ...watchedAgain])
      expect(sameBits(view, before)).toBe(true);
  });

  test('what is too little memory leaves the buffers alone, and what it names is enough', async () => {
    const given = buffers();
    const watched = arraysIn(given);
    const error = thrownBy(() => call(good(), { out: given, memory: 1 })) as Error;
    const needed = Number(/at least (\d+)/.exec(error.message)?.[1]);
    expectRefusal(
      thrownBy(() => call(good(), { out: given, memory: needed - 1 })),
      RangeError,
      'OPTION',
      [String(needed)],
    );
    expectRefusal(
      await rejection(call.async(good(), { out: given, memory: needed - 1 })),
      RangeError,
      'OPTION',
      [String(needed)],
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
        thrownBy(() => call({ ...good(), labels }, { out: given, accumulate })),
        RangeError,
        'LABEL',
        ['labels[11]', '5'],
      );
      expectRefusal(
        await rejection(call.async({ ...good(), labels }, { out: given, accumulate })),
        RangeError,
        'LABEL',
        ['labels[11]'],
      );
      for (const [view, before] of watched) expect(sameBits(view, before)).toBe(true);
    }
  });

  test('a signal belongs to the asynchronous call', async () => {
    expectRefusal(
      thrownBy(() => call(good(), { signal: new AbortController().signal })),
      TypeError,
      'OPTION',
      ['signal', 'fromHidden.async'],
    );
    expectRefusal(await rejection(call.async(good(), { signal: {} })), TypeError, 'OPTION', [
      'signal',
      'AbortSignal',
    ]);
  });

  test('sft has one set of labels', () => {
    const given = good();
    expectRefusal(
      thrownBy(() =>
        dirAlignLoss('sft').fromHidden({ ...given, sftLabels: given.labels } as never),
      ),
      TypeError,
      'OPTION',
      ['sftLabels', "'sft'"],
    );
  });

  test.runIf(!cuda.available)('on a device where there is none: refused with the reason', () => {
    expect(cuda.hiddenReason).toBe(cuda.reason);
    expectRefusal(
      thrownBy(() => call(good(), { backend: 'cuda' })),
      TypeError,
      'BACKEND',
      ['cuda', cuda.reason ?? ''],
    );
  });
});

describe.each([
  ['sequenceLogps', sequenceLogps as unknown as Anything],
  ['tokenLogps', tokenLogps as unknown as Anything],
])('%s', (_, logpsOf) => {
  // Without hidden states a batch is one of logits.
  test.each(refusedBatches)('%s', (_name, change, kind, code, words) => {
    expectRefusal(
      thrownBy(() => logpsOf(change().batch)),
      kind,
      code,
      words,
    );
  });
  test.each(options)('%s', (_name, given, kind, words) => {
    expectRefusal(
      thrownBy(() => logpsOf(good(), given)),
      kind,
      'OPTION',
      words,
    );
  });
  test('memory is for hidden states', () => {
    expectRefusal(
      thrownBy(() =>
        logpsOf({ logits: floats(60), shape: [4, 3, 5], labels: good().labels }, { memory: 1e6 }),
      ),
      TypeError,
      'OPTION',
      ['memory', 'hidden states'],
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
