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
  type Kind,
} from '../support/refusal.js';

// ----------------------------------------------------------------------------------------------
// Building an objective

const build = dirAlignLoss as unknown as (...args: readonly unknown[]) => unknown;

const refusedSettings: [string, readonly unknown[], Kind, readonly (string | RegExp)[]][] = [
  ['no method', [], TypeError, ['method', 'undefined', "'dpo'"]],
  ['an unknown method', ['dop', 0.1], TypeError, ['method', "'dop'", "'dpo'", "'dpop'"]],
  ['a method of the prototype', ['constructor', 0.1], TypeError, ['method', "'constructor'"]],
  ['a method that is a number', [1, 0.1], TypeError, ['method', '1']],
  ['null', [null], TypeError, ['method', 'null']],
  ['an object without a method', [{ beta: 0.1 }], TypeError, ['method', 'undefined']],
  ['no beta', ['dpo'], TypeError, ['beta', "'dpo'", 'undefined', 'greater than 0']],
  ['no beta, by name', [{ method: 'ipo' }], TypeError, ['beta', "'ipo'", 'undefined']],
  ['beta as a string', ['dpo', '0.1'], TypeError, ['beta', "'0.1'", 'number']],
  ['beta 0', ['dpo', 0], RangeError, ['beta', '0', 'greater than 0']],
  ['beta -0', ['dpo', -0], RangeError, ['beta', 'greater than 0']],
  ['negative beta', ['dpo', -0.1], RangeError, ['beta', '-0.1', 'greater than 0']],
  ['beta NaN', ['dpo', NaN], RangeError, ['beta', 'NaN', 'finite']],
  ['infinite beta', ['dpo', Infinity], RangeError, ['beta', 'Infinity', 'finite']],
  ['normalize as a number', ['dpo', 0.1, 1], TypeError, ['normalize', '1', 'boolean']],
  ['normalize null', ['dpo', 0.1, null], TypeError, ['normalize', 'null', 'boolean']],
  ['options as a string', ['dpo', 0.1, false, 'js'], TypeError, ['options', 'js', 'object']],
  ['options null', ['dpo', 0.1, false, null], TypeError, ['options', 'null', 'object']],
  ['both forms', [{ method: 'dpo', beta: 0.1 }, 0.2], TypeError, ['one object', 'not both']],
  [
    'an unknown option',
    ['dpo', 0.1, false, { gama: 1 }],
    TypeError,
    ['gama', "'dpo'", "'labelSmoothing'"],
  ],
  [
    'an unknown option, by name',
    [{ method: 'dpo', beta: 0.1, gamma: 1 }],
    TypeError,
    ['gamma', "'dpo'", "'labelSmoothing'"],
  ],
  [
    'an option of the prototype',
    [{ method: 'dpo', beta: 0.1, toString: 1 }],
    TypeError,
    ['toString', "'dpo'"],
  ],
  [
    'labelSmoothing as a string',
    ['dpo', 1, false, { labelSmoothing: '0' }],
    TypeError,
    ['labelSmoothing', "'0'", 'number'],
  ],
  [
    'negative labelSmoothing',
    ['dpo', 1, false, { labelSmoothing: -0.1 }],
    RangeError,
    ['labelSmoothing', '-0.1', 'at least 0'],
  ],
  [
    'labelSmoothing 1',
    ['simpo', 1, true, { labelSmoothing: 1 }],
    RangeError,
    ['labelSmoothing', '1', 'less than 1'],
  ],
  [
    'labelSmoothing NaN',
    ['cpo', 1, false, { labelSmoothing: NaN }],
    RangeError,
    ['labelSmoothing', 'NaN', 'finite'],
  ],
  [
    'robust at 1/2',
    ['robust', 1, false, { labelSmoothing: 0.5 }],
    RangeError,
    ['labelSmoothing', '0.5', 'less than 0.5'],
  ],
  [
    'exo_pair at 0',
    ['exo_pair', 1, false, { labelSmoothing: 0 }],
    RangeError,
    ['labelSmoothing', '0', 'greater than 0'],
  ],
  [
    'gamma infinite',
    ['simpo', 1, true, { gamma: -Infinity }],
    RangeError,
    ['gamma', '-Infinity', 'finite'],
  ],
  [
    'negative lambda',
    ['orpo', 1, true, { lambda: -1 }],
    RangeError,
    ['lambda', '-1', 'at least 0'],
  ],
  [
    'negative sftWeight',
    ['asft', 1, true, { sftWeight: -1 }],
    RangeError,
    ['sftWeight', '-1', 'at least 0'],
  ],
  [
    'sftWeight true',
    ['asft', 1, true, { sftWeight: true }],
    TypeError,
    ['sftWeight', 'true', 'number'],
  ],
  ['beta of sft', ['sft', '0.1'], TypeError, ['beta', "'sft'", "'0.1'"]],
  [
    'sftWeight of sft',
    ['sft', undefined, true, { sftWeight: 1 }],
    TypeError,
    ['sftWeight', "'sft'", "'sftReduction'"],
  ],
  [
    'sftReduction',
    ['sft', undefined, true, { sftReduction: 'mean' }],
    RangeError,
    ['sftReduction', "'mean'", "'token'"],
  ],
  [
    'sftReduction as a number',
    ['dpo', 1, true, { sftReduction: 1 }],
    TypeError,
    ['sftReduction', '1', 'string'],
  ],
  [
    'negative calibrationWeight',
    ['cal_dpo', 1, false, { calibrationWeight: -1 }],
    RangeError,
    ['calibrationWeight', '-1', 'at least 0'],
  ],
  [
    'an unknown divergence',
    ['dpo', 1, false, { divergence: 'kl' }],
    RangeError,
    ['divergence', "'kl'", "'reverse_kl'", "'alpha'"],
  ],
  [
    'alpha without its divergence',
    ['dpo', 1, false, { alpha: 0.5 }],
    TypeError,
    ['alpha', "'alpha'", "'reverse_kl'"],
  ],
  [
    'alpha of another divergence',
    ['dpo', 1, false, { alpha: 0.5, divergence: 'js' }],
    TypeError,
    ['alpha', "'js'"],
  ],
  ['tau 0', ['discopop', 1, false, { tau: 0 }], RangeError, ['tau', '0', 'greater than 0']],
  [
    'negative penalty',
    ['dpop', 1, false, { penalty: -1 }],
    RangeError,
    ['penalty', '-1', 'at least 0'],
  ],
  [
    'referenceFree as a number',
    ['dpo', 1, false, { referenceFree: 1 }],
    TypeError,
    ['referenceFree', '1', 'boolean'],
  ],
];

describe('building an objective', () => {
  test.each(refusedSettings)('%s', (_, args, kind, words) => {
    expectRefusal(
      thrownBy(() => build(...args)),
      kind,
      'OPTION',
      words,
    );
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
    'dpo ipo apo_zero nca cal_dpo hinge robust exo_pair bco_pair sppo_hard aot aot_unpaired discopop apo_down r_dpo dpop';
  const paired = `${withReference} simpo orpo asft cpo alphapo`;
  const accepted: Record<string, string> = {
    labelSmoothing: 'dpo robust exo_pair simpo cpo aot aot_unpaired alphapo',
    gamma: 'simpo alphapo',
    referenceFree: withReference,
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
        else expectRefusal(thrownBy(action), TypeError, 'OPTION', [option, `'${name}'`]);
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

type Row = [string, Change, Kind, string, readonly (string | RegExp)[]];
const refusedCalls: Row[] = [
  [
    'no batch',
    () => ({ batch: undefined }),
    TypeError,
    'SHAPE',
    ['batch', 'undefined', 'logits', 'labels'],
  ],
  ['batch null', () => ({ batch: null }), TypeError, 'SHAPE', ['batch', 'null']],
  ['batch a number', () => ({ batch: 3 }), TypeError, 'SHAPE', ['batch', '3']],

  [
    'no logits',
    () => batch({ logits: undefined }),
    TypeError,
    'DTYPE',
    ['logits', 'undefined', 'Float32Array'],
  ],
  [
    'logits a plain array',
    () => batch({ logits: [1, 2] }),
    TypeError,
    'DTYPE',
    ['logits', 'Array', 'Float32Array', 'Uint16Array'],
  ],
  [
    'logits in float64',
    () => batch({ logits: new Float64Array(full) }),
    TypeError,
    'DTYPE',
    ['logits', 'Float64Array', 'Float32Array'],
  ],
  [
    'logits in int16',
    () => batch({ logits: new Int16Array(full) }),
    TypeError,
    'DTYPE',
    ['logits', 'Int16Array'],
  ],
  [
    'logits in a DataView',
    () => batch({ logits: new DataView(new ArrayBuffer(4 * full)) }),
    TypeError,
    'DTYPE',
    ['logits', 'DataView'],
  ],
  [
    'an address as logits',
    () => batch({ logits: { ptr: 1n, dtype: 'float32' } }),
    TypeError,
    cuda.available ? 'DTYPE' : 'BACKEND',
    ['logits', cuda.available ? 'cuda.tensor' : 'CUDA'],
  ],
  [
    'Uint16Array without dtype',
    () => batch({ logits: new Uint16Array(full) }),
    TypeError,
    'DTYPE',
    ['dtype', 'float16', 'bfloat16', 'undefined'],
  ],
  [
    'Uint16Array as float32',
    () => batch({ logits: new Uint16Array(full), dtype: 'float32' }),
    TypeError,
    'DTYPE',
    ['dtype', 'float32', 'Uint16Array'],
  ],
  [
    'Float32Array as bfloat16',
    () => batch({ dtype: 'bfloat16' }),
    TypeError,
    'DTYPE',
    ['dtype', 'bfloat16', 'Float32Array'],
  ],
  [
    'an unknown dtype',
    () => batch({ dtype: 'fp16' }),
    TypeError,
    'DTYPE',
    ['dtype', 'fp16', 'float16'],
  ],
  ['dtype null', () => batch({ dtype: null }), TypeError, 'DTYPE', ['dtype', 'null', 'float16']],

  [
    'no shape',
    () => batch({ shape: undefined }),
    TypeError,
    'SHAPE',
    ['shape', 'undefined', '[sequences, tokens, vocab]'],
  ],
  [
    'shape a number',
    () => batch({ shape: 3 }),
    TypeError,
    'SHAPE',
    ['shape', '3', '[rows, vocab]'],
  ],
  [
    'one dimension',
    () => batch({ shape: [full] }),
    RangeError,
    'SHAPE',
    ['shape', '1', '3 (padded)', '2 (packed)'],
  ],
  [
    'four dimensions',
    () => batch({ shape: [2, 2, 3, 5] }),
    RangeError,
    'SHAPE',
    ['shape', '4', '3 (padded)'],
  ],
  [
    'a negative dimension',
    () => batch({ shape: [-4, 3, 5] }),
    TypeError,
    'SHAPE',
    ['shape', '[-4,3,5]'],
  ],
  ['half a dimension', () => batch({ shape: [4, 1.5, 5] }), TypeError, 'SHAPE', ['shape', '1.5']],
  [
    'a dimension as a string',
    () => batch({ shape: [4, '3', 5] }),
    TypeError,
    'SHAPE',
    ['shape', '"3"'],
  ],
  ['a dimension NaN', () => batch({ shape: [4, NaN, 5] }), TypeError, 'SHAPE', ['shape']],
  [
    'no vocabulary',
    () => batch({ shape: [4, 3, 0], logits: floats(0) }),
    RangeError,
    'SHAPE',
    ['vocab', '0', '1'],
  ],
  [
    'a vocabulary past 2^31',
    () => batch({ shape: [4, 3, 2 ** 31] }),
    RangeError,
    'SHAPE',
    ['vocab', '2147483648', '2147483647'],
  ],
  [
    'an odd number of sequences',
    () => batch({ shape: [3, 4, 5] }),
    RangeError,
    'SHAPE',
    ['3', 'even', 'chosen'],
  ],
  [
    'no sequences',
    () => ({
      batch: {
        logits: floats(0),
        shape: [0, 3, 5],
        labels: new Int32Array(0),
        reference: floats(0),
      },
    }),
    RangeError,
    'SHAPE',
    ['0', 'even', 'at least 2'],
  ],
  [
    'too few logits',
    () => batch({ logits: floats(full - 1) }),
    RangeError,
    'SHAPE',
    ['logits', String(full - 1), String(full)],
  ],
  [
    'too many logits',
    () => batch({ logits: floats(full + 1) }),
    RangeError,
    'SHAPE',
    ['logits', String(full + 1), String(full)],
  ],
  [
    'a shape whose product overflows',
    () => batch({ shape: [2 ** 30, 2 ** 30, 5] }),
    RangeError,
    'SHAPE',
    ['logits'],
  ],

  [
    'rowStride below vocab',
    () => batch({ rowStride: 4 }),
    RangeError,
    'SHAPE',
    ['rowStride', '4', '5'],
  ],
  [
    'rowStride with a fraction',
    () => batch({ rowStride: 5.5 }),
    RangeError,
    'SHAPE',
    ['rowStride', '5.5'],
  ],
  ['rowStride NaN', () => batch({ rowStride: NaN }), RangeError, 'SHAPE', ['rowStride', 'NaN']],
  [
    'rowStride as a string',
    () => batch({ rowStride: '5' }),
    RangeError,
    'SHAPE',
    ['rowStride', '5'],
  ],
  [
    'too few logits for rowStride',
    () => batch({ rowStride: 6 }),
    RangeError,
    'SHAPE',
    ['logits', String(full), '72', 'rowStride 6'],
  ],

  [
    'offsets of a padded batch',
    () => batch({ offsets: Int32Array.of(0, 12) }),
    TypeError,
    'SHAPE',
    ['offsets', 'packed'],
  ],
  [
    'packed without offsets',
    () => packed(undefined),
    TypeError,
    'SHAPE',
    ['offsets', 'undefined', 'Int32Array', 'packed rows', '[sequences, tokens, vocab]'],
  ],
  [
    'offsets a plain array',
    () => packed([0, 3, 6, 9, 12]),
    TypeError,
    'SHAPE',
    ['offsets', 'Array', 'Int32Array'],
  ],
  [
    'offsets of unsigned numbers',
    () => packed(Uint32Array.of(0, 3, 6, 9, 12)),
    TypeError,
    'SHAPE',
    ['offsets', 'Uint32Array'],
  ],
  [
    'no offsets',
    () => packed(new Int32Array(0)),
    RangeError,
    'SHAPE',
    ['offsets', '0 to rows, 12'],
  ],
  [
    'offsets that start late',
    () => packed(Int32Array.of(1, 3, 6, 9, 12)),
    RangeError,
    'SHAPE',
    ['offsets', '1', '0 to rows, 12'],
  ],
  [
    'offsets that end early',
    () => packed(Int32Array.of(0, 3, 6, 9, 11)),
    RangeError,
    'SHAPE',
    ['offsets', '11', '12'],
  ],
  [
    'offsets that end late',
    () => packed(Int32Array.of(0, 3, 6, 9, 13)),
    RangeError,
    'SHAPE',
    ['offsets', '13', '12'],
  ],
  [
    'offsets that decrease',
    () => packed(Int32Array.of(0, 6, 3, 9, 12)),
    RangeError,
    'SHAPE',
    ['offsets', 'decreases', '2'],
  ],
  [
    'an odd number of packed sequences',
    () => packed(Int32Array.of(0, 6, 9, 12)),
    RangeError,
    'SHAPE',
    ['3', 'even'],
  ],

  [
    'no labels',
    () => batch({ labels: undefined }),
    TypeError,
    'LABEL',
    ['labels', 'undefined', 'Int32Array'],
  ],
  [
    'labels in int64',
    () => batch({ labels: new BigInt64Array(rows) }),
    TypeError,
    'LABEL',
    ['labels', 'BigInt64Array', 'Int32Array'],
  ],
  [
    'labels in a plain array',
    () => batch({ labels: Array.from(good().labels) }),
    TypeError,
    'LABEL',
    ['labels', 'Array'],
  ],
  [
    'too few labels',
    () => batch({ labels: new Int32Array(rows - 1) }),
    RangeError,
    'SHAPE',
    ['labels', '11', '12'],
  ],
  [
    'a label of vocab',
    () => batch({ labels: labelled(7, vocab) }),
    RangeError,
    'LABEL',
    ['labels[7]', '5', '[0, 5)', '-100'],
  ],
  [
    'a label of -1',
    () => batch({ labels: labelled(11, -1) }),
    RangeError,
    'LABEL',
    ['labels[11]', '-1', '[0, 5)'],
  ],
  [
    'the smallest label',
    () => batch({ labels: labelled(0, -(2 ** 31)) }),
    RangeError,
    'LABEL',
    ['labels[0]', '-2147483648'],
  ],
  [
    '-100 where another is ignored',
    () => batch({ ignoreIndex: -1, labels: labelled(0, -100) }),
    RangeError,
    'LABEL',
    ['labels[0]', '-100', '-1'],
  ],
  [
    'ignoreIndex with a fraction',
    () => batch({ ignoreIndex: 0.5 }),
    RangeError,
    'LABEL',
    ['ignoreIndex', '0.5', '32-bit'],
  ],
  [
    'ignoreIndex past 32 bits',
    () => batch({ ignoreIndex: 2 ** 31 }),
    RangeError,
    'LABEL',
    ['ignoreIndex', '2147483648'],
  ],
  [
    'ignoreIndex NaN',
    () => batch({ ignoreIndex: NaN }),
    RangeError,
    'LABEL',
    ['ignoreIndex', 'NaN'],
  ],

  [
    'no reference',
    () => batch({ reference: undefined }),
    TypeError,
    'REFERENCE',
    ['reference', "'dpo'", 'referenceFree'],
  ],
  [
    'reference a plain array',
    () => batch({ reference: [1, 2, 3, 4] }),
    TypeError,
    'REFERENCE',
    ['reference', 'Array', 'Float64Array'],
  ],
  [
    'too few reference numbers',
    () => batch({ reference: new Float64Array(3) }),
    RangeError,
    'REFERENCE',
    ['reference', '3', '4'],
  ],
  [
    'a reference of NaN',
    () => batch({ reference: Float64Array.of(-1, NaN, -1, -1) }),
    RangeError,
    'REFERENCE',
    ['reference', 'NaN', 'index 1'],
  ],
  [
    'an infinite reference',
    () => batch({ reference: Float32Array.of(-1, -1, -1, -Infinity) }),
    RangeError,
    'REFERENCE',
    ['reference', '-Infinity', 'index 3'],
  ],

  [
    'sftLabels and factored',
    () => ({ batch: { ...good(), sftLabels: good().labels }, run: { gradient: 'factored' } }),
    TypeError,
    'OPTION',
    ['sftLabels', 'factored'],
  ],
  [
    'sftLabels a plain array',
    () => batch({ sftLabels: [1] }),
    TypeError,
    'LABEL',
    ['sftLabels', 'Array', 'Int32Array'],
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
    () => batch({ sftLabels: labelled(4, 9) }),
    RangeError,
    'LABEL',
    ['sftLabels[4]', '9', '[0, 5)'],
  ],

  ['run null', () => ({ batch: good(), run: null }), TypeError, 'OPTION', ['run', 'null']],
  [
    'an unknown run option',
    () => run({ inplace: true }),
    TypeError,
    'OPTION',
    ['inplace', 'inPlace'],
  ],
  [
    'an unknown gradient',
    () => run({ gradient: 'sparse' }),
    TypeError,
    'OPTION',
    ['gradient', 'sparse', "'factored'"],
  ],
  [
    'inPlace as a string',
    () => run({ inPlace: 'yes' }),
    TypeError,
    'OPTION',
    ['inPlace', 'yes', 'boolean'],
  ],
  [
    'in place and out',
    () => run({ inPlace: true, out: floats(full) }),
    TypeError,
    'OPTION',
    ['out', 'inPlace'],
  ],
  [
    'no gradient, in place',
    () => run({ gradient: 'none', inPlace: true }),
    TypeError,
    'OPTION',
    ['inPlace', 'none'],
  ],
  [
    'no gradient, and out',
    () => run({ gradient: 'none', out: floats(full) }),
    TypeError,
    'OPTION',
    ['out', 'none'],
  ],
  [
    'an unknown backend',
    () => run({ backend: 'gpu' }),
    TypeError,
    'OPTION',
    ['backend', 'gpu', "'cuda'"],
  ],
  ['a plain out', () => run({ out: [] }), TypeError, 'DTYPE', ['out', 'Array', 'Float32Array']],
  [
    'out of another type',
    () => run({ out: new Uint16Array(full) }),
    TypeError,
    'DTYPE',
    ['out', 'Uint16Array', 'Float32Array'],
  ],
  [
    'a short out',
    () => run({ out: floats(full - 1) }),
    RangeError,
    'SHAPE',
    ['out', String(full - 1), String(full)],
  ],
  ['threads 0', () => run({ threads: 0 }), RangeError, 'OPTION', ['threads', '0', '1']],
  ['half a thread', () => run({ threads: 1.5 }), RangeError, 'OPTION', ['threads', '1.5']],
  ['threads NaN', () => run({ threads: NaN }), RangeError, 'OPTION', ['threads', 'NaN']],
  ['threads as a string', () => run({ threads: '2' }), RangeError, 'OPTION', ['threads', '2']],
  [
    'a million threads',
    () => run({ threads: 1e6 }),
    RangeError,
    'OPTION',
    ['threads', '1000000', '1024'],
  ],

  [
    'detached logits',
    () => batch({ logits: detached(good().logits) }),
    TypeError,
    'SHAPE',
    ['logits', 'detached'],
  ],
  [
    'detached labels',
    () => batch({ labels: detached(good().labels) }),
    TypeError,
    'SHAPE',
    ['labels', 'detached'],
  ],
  [
    'detached sftLabels',
    () => batch({ sftLabels: detached(good().labels) }),
    TypeError,
    'SHAPE',
    ['sftLabels', 'detached'],
  ],
  [
    'detached reference',
    () => batch({ reference: detached(good().reference) }),
    TypeError,
    'SHAPE',
    ['reference', 'detached'],
  ],
  [
    'detached offsets',
    () => packed(detached(new Int32Array(5))),
    TypeError,
    'SHAPE',
    ['offsets', 'detached'],
  ],
  [
    'detached out',
    () => run({ out: detached(floats(full)) }),
    TypeError,
    'SHAPE',
    ['out', 'detached'],
  ],
  [
    'resizable logits',
    () => batch({ logits: new Float32Array(resizable(4 * full)) }),
    TypeError,
    'SHAPE',
    ['logits', 'resizable'],
  ],
  [
    'resizable labels',
    () => batch({ labels: new Int32Array(resizable(4 * rows)) }),
    TypeError,
    'SHAPE',
    ['labels', 'resizable'],
  ],
  [
    'resizable sftLabels',
    () => batch({ sftLabels: new Int32Array(resizable(4 * rows)) }),
    TypeError,
    'SHAPE',
    ['sftLabels', 'resizable'],
  ],
  [
    'resizable reference',
    () => batch({ reference: new Float64Array(resizable(32)) }),
    TypeError,
    'SHAPE',
    ['reference', 'resizable'],
  ],
  [
    'resizable offsets',
    () => packed(new Int32Array(resizable(20))),
    TypeError,
    'SHAPE',
    ['offsets', 'resizable'],
  ],
  [
    'resizable out',
    () => run({ out: new Float32Array(resizable(4 * full)) }),
    TypeError,
    'SHAPE',
    ['out', 'resizable'],
  ],
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
  refusedCalls.push([`out over ${name}`, call, RangeError, 'SHAPE', ['out', 'overlaps', name]]);
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

  test.each(refusedCalls)('%s', async (_, change, kind, code, words) => {
    const made = change();
    // Everything is watched, out included.
    const watched = arraysIn(made);
    const error = thrownBy(() => call(made.batch, made.run));
    expectRefusal(error, kind, code, words);
    // The asynchronous call refuses by its promise, never by a throw.
    const again = change();
    const rejected: unknown = await call.async(again.batch, again.run).then(
      () => undefined,
      (reason: unknown) => reason,
    );
    expectRefusal(rejected, kind, code, words);
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
        thrownBy(() => dpo(given, options)),
        RangeError,
        'LABEL',
        [`labels[${String(4 * T - 1)}]`, '2048'],
      );
      await expect(dpo.async(given, options)).rejects.toMatchObject({ code: 'ERR_DIRALIGN_LABEL' });
      expect(sameBits(logits, before)).toBe(true);
      expect(out.every((x) => x === 7)).toBe(true);
    }
  });

  test('a signal belongs to the asynchronous call', async () => {
    expectRefusal(
      thrownBy(() => call(good(), { signal: new AbortController().signal })),
      TypeError,
      'OPTION',
      ['signal', 'async'],
    );
    await expect(call.async(good(), { signal: {} })).rejects.toMatchObject({
      code: 'ERR_DIRALIGN_OPTION',
      message: /signal.*AbortSignal/,
    });
  });

  test('sft has one set of labels', () => {
    const given = { ...good(), reference: undefined };
    expectRefusal(
      thrownBy(() => dirAlignLoss('sft')({ ...given, sftLabels: given.labels })),
      TypeError,
      'OPTION',
      ['sftLabels', "'sft'"],
    );
    expectRefusal(
      thrownBy(() =>
        dirAlignLoss('sft')({ logits: floats(0), shape: [0, 3, 5], labels: new Int32Array(0) }),
      ),
      RangeError,
      'SHAPE',
      ['0', 'at least 1'],
    );
    // Any number of them, though.
    expect(dirAlignLoss('sft')({ ...given, shape: [3, 4, vocab] }).losses).toHaveLength(3);
  });

  test.runIf(!cuda.available)("backend 'cuda' where there is none says why", () => {
    expectRefusal(
      thrownBy(() => call(good(), { backend: 'cuda' })),
      TypeError,
      'BACKEND',
      ['backend', 'cuda', 'not available'],
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
  const shared = refusedCalls.filter(([, change]) => {
    const made = change();
    const given = made.batch as { reference?: unknown; sftLabels?: unknown } | undefined | null;
    return (
      made.run === undefined &&
      !given?.sftLabels &&
      given?.reference instanceof Float64Array &&
      given.reference.length === sequences
    );
  });
  const about = /reference|sequences$|even/;
  test.each(shared.filter(([name]) => !about.test(name)))('%s', (_, change, kind, code, words) => {
    expectRefusal(
      thrownBy(() => logpsOf(change().batch)),
      kind,
      code,
      words,
    );
  });

  test('takes any number of sequences, and none', () => {
    const { logits, labels } = good();
    expect(() => logpsOf({ logits, labels, shape: [3, 4, 5] })).not.toThrow();
    expect(() =>
      logpsOf({ logits: floats(0), labels: new Int32Array(0), shape: [0, 4, 5] }),
    ).not.toThrow();
  });

  test('its own options', () => {
    expectRefusal(
      thrownBy(() => logpsOf(good(), null)),
      TypeError,
      'OPTION',
      ['null', 'object'],
    );
    expectRefusal(
      thrownBy(() => logpsOf(good(), { thread: 2 })),
      TypeError,
      'OPTION',
      ['thread', 'threads'],
    );
    expectRefusal(
      thrownBy(() => logpsOf(good(), { threads: 0 })),
      RangeError,
      'OPTION',
      ['threads', '0'],
    );
    if (!cuda.available)
      expectRefusal(
        thrownBy(() => logpsOf(good(), { backend: 'cuda' })),
        TypeError,
        'BACKEND',
        ['backend', 'cuda'],
      );
    expectRefusal(
      thrownBy(() => logpsOf(good(), { backend: 'tpu' })),
      TypeError,
      'OPTION',
      ['backend', 'tpu'],
    );
  });
});

describe('fromLogps', () => {
  const fine = () => ({
    logps: Float64Array.of(-3, -4, -5, -6),
    counts: Int32Array.of(1, 2, 3, 4),
    reference: Float64Array.of(-3, -4, -5, -6),
  });
  const fromLogps = (given: unknown): unknown => dpo.fromLogps(given as never);
  const refused: [string, () => unknown, Kind, string, readonly (string | RegExp)[]][] = [
    ['nothing', () => undefined, TypeError, 'SHAPE', ['fromLogps', 'undefined', 'logps', 'counts']],
    ['null', () => null, TypeError, 'SHAPE', ['fromLogps', 'null']],
    [
      'no logps',
      () => ({ ...fine(), logps: undefined }),
      TypeError,
      'DTYPE',
      ['logps', 'undefined', 'Float64Array'],
    ],
    [
      'logps in a plain array',
      () => ({ ...fine(), logps: [1, 2] }),
      TypeError,
      'DTYPE',
      ['logps', 'Array', 'Float32Array'],
    ],
    [
      'an odd number',
      () => ({ ...fine(), logps: new Float64Array(3) }),
      RangeError,
      'SHAPE',
      ['3', 'even'],
    ],
    ['none', () => ({ ...fine(), logps: new Float64Array(0) }), RangeError, 'SHAPE', ['0', 'even']],
    [
      'no counts',
      () => ({ ...fine(), counts: undefined }),
      TypeError,
      'SHAPE',
      ['counts', 'undefined', 'Int32Array'],
    ],
    [
      'counts in floats',
      () => ({ ...fine(), counts: new Float64Array(4) }),
      TypeError,
      'SHAPE',
      ['counts', 'Float64Array', 'Int32Array'],
    ],
    [
      'too few counts',
      () => ({ ...fine(), counts: new Int32Array(2) }),
      RangeError,
      'SHAPE',
      ['counts', '2', '4'],
    ],
    [
      'a negative count',
      () => ({ ...fine(), counts: Int32Array.of(1, 1, -1, 1) }),
      RangeError,
      'SHAPE',
      ['counts', '-1', 'index 2'],
    ],
    [
      'no reference',
      () => ({ ...fine(), reference: undefined }),
      TypeError,
      'REFERENCE',
      ['reference', "'dpo'"],
    ],
    [
      'a short reference',
      () => ({ ...fine(), reference: new Float64Array(2) }),
      RangeError,
      'REFERENCE',
      ['reference', '2', '4'],
    ],
    [
      'a reference of NaN',
      () => ({ ...fine(), reference: Float64Array.of(1, 2, NaN, 4) }),
      RangeError,
      'REFERENCE',
      ['reference', 'NaN', 'index 2'],
    ],
    [
      'detached logps',
      () => ({ ...fine(), logps: detached(fine().logps) }),
      TypeError,
      'SHAPE',
      ['logps', 'detached'],
    ],
    [
      'resizable counts',
      () => ({ ...fine(), counts: new Int32Array(resizable(16)) }),
      TypeError,
      'SHAPE',
      ['counts', 'resizable'],
    ],
  ];
  test('the batch that the others differ from is fine', () => {
    expect(() => fromLogps(fine())).not.toThrow();
  });
  test.each(refused)('%s', (_, make, kind, code, words) => {
    expectRefusal(
      thrownBy(() => fromLogps(make())),
      kind,
      code,
      words,
    );
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
