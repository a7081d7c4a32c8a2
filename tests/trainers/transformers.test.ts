// Log-probabilities by models that only infer: a decoder that the test writes, run by onnxruntime,
// says what its definition says, however the sequences are padded and cut into parts.
import * as ort from 'onnxruntime-web';
import { describe, expect, expectTypeOf, test } from 'vitest';
import { collateGroups, collatePairs, collateUnpaired } from '../../ts/data/index.js';
import { dirAlignLoss } from '../../ts/index.js';
import {
  scoreSequences,
  type ScoredRows,
  type ScoreOptions,
  type SequenceLogps,
} from '../../ts/trainers/transformers/index.js';
import { expectNear } from '../support/near.js';
import { at } from '../support/numbers.js';
import { decoder, type DecoderOptions } from '../support/onnx-decoder.js';
import { expectRefusal, rejection, type Kind, type Words } from '../support/refusal.js';

const { Tensor } = ort;
ort.env.wasm.numThreads = 1;
const vocab = 11;

async function modelOf(options: Partial<DecoderOptions> = {}) {
  const made = decoder({ vocab, ...options });
  return { ...made, session: await ort.InferenceSession.create(made.bytes) };
}

const examples = [
  { prompt: [1, 2, 3], chosen: [4, 5, 6, 7], rejected: [8] },
  { prompt: [9], chosen: [2, 10], rejected: [3, 3, 3, 3, 3, 3] },
  { prompt: [4, 4], chosen: [5], rejected: [6, 7], chosenMask: [1], rejectedMask: [0, 1] },
];
const batches: [string, ScoredRows][] = [
  ['padded', collatePairs(examples, { pad: 10 })],
  ['packed', collatePairs(examples, { layout: 'packed' })],
];

/** By definition, from the logits of each row in float64. */
function byHand(row: (tokens: readonly number[]) => number[]): SequenceLogps {
  const packed = collatePairs(examples, { layout: 'packed' });
  const logps = new Float64Array(packed.sequences);
  const counts = new Int32Array(packed.sequences);
  for (let i = 0; i < packed.sequences; i++) {
    const start = at(packed.offsets, i);
    for (let end = start + 1; end <= at(packed.offsets, i + 1); end++) {
      const label = at(packed.labels, end - 1);
      if (label === -100) continue;
      const logits = row([...packed.inputIds.subarray(start, end)]);
      const sum = logits.reduce((all, logit) => all + Math.exp(logit), 0);
      logps[i] = at(logps, i) + at(logits, label) - Math.log(sum);
      counts[i] = at(counts, i) + 1;
    }
  }
  return { logps, counts };
}

describe.each(batches)('of a %s batch', (_, batch) => {
  test.each<[string, Partial<DecoderOptions>, number]>([
    ['float32', {}, 1e-5],
    ['with positions', { positions: true }, 1e-5],
    ['float16', { output: 'float16' }, 5e-3],
  ])(
    '%s: what the model says by its definition, in parts of any size',
    async (_, options, near) => {
      const { session, row } = await modelOf(options);
      const expected = byHand(row);
      for (const batchSize of [undefined, 1, 2, 4, 100]) {
        const given = { Tensor, ...(batchSize === undefined ? {} : { batchSize }) };
        const { logps, counts } = await scoreSequences(session, batch, given);
        expectNear('logps', logps, expected.logps, near);
        expect(counts).toEqual(expected.counts);
      }
    },
  );

  test('a model of transformers.js: a function that gives tensors, wherever they are', async () => {
    const { session, row } = await modelOf();
    /** Of its own, with the data elsewhere. */
    class OwnTensor {
      constructor(
        readonly type: string,
        readonly data: BigInt64Array,
        readonly dims: number[],
      ) {}
    }
    const model = async (inputs: Record<string, OwnTensor>) => {
      expect(Object.keys(inputs).sort()).toEqual(['attention_mask', 'input_ids']);
      const feeds = Object.fromEntries(
        Object.entries(inputs).map(([name, { type, data, dims }]) => {
          expect(type).toBe('int64');
          return [name, new Tensor('int64', data, dims)];
        }),
      );
      const { logits } = await session.run(feeds);
      const { data, dims } = logits as ort.Tensor;
      return {
        logits: {
          type: 'float32',
          dims,
          location: 'gpu-buffer',
          get data(): never {
            throw new Error('the data is not on the CPU');
          },
          getData: () => Promise.resolve(data),
        },
        past_key_values: null,
      };
    };
    const { logps } = await scoreSequences(model, batch, { Tensor: OwnTensor });
    expectNear('logps', logps, byHand(row).logps, 1e-5);
  });
});

test('every collator, and what the loss makes of it: a policy equal to its reference', async () => {
  const { session } = await modelOf();
  const pairs = collatePairs(examples, { pad: 0 });
  const single = { prompt: [1, 2, 3], completion: [4, 5, 6, 7], desirable: true };
  const group = { prompt: [1, 2, 3], completions: [[8], [4, 5, 6, 7]] };
  const ofPairs = await scoreSequences(session, pairs, { Tensor });
  const ofSingle = await scoreSequences(session, collateUnpaired([single], { pad: 0 }), { Tensor });
  const ofGroup = await scoreSequences(session, collateGroups([group], { layout: 'packed' }), {
    Tensor,
  });
  expectNear('single', ofSingle.logps, [at(ofPairs.logps, 0)], 1e-6);
  expectNear('group', ofGroup.logps, [at(ofPairs.logps, 3), at(ofPairs.logps, 0)], 1e-6);
  const { losses } = dirAlignLoss('dpo', 0.1).fromLogps({
    ...ofPairs,
    reference: ofPairs.logps,
  });
  expect([...losses]).toEqual([Math.LN2, Math.LN2, Math.LN2]);
});

test('the caller may fill its arrays again while the model runs', async () => {
  const { session, row } = await modelOf();
  const batch = collatePairs(examples, { layout: 'packed' });
  const scored = scoreSequences(session, batch, { Tensor, batchSize: 1 });
  for (const array of [batch.inputIds, batch.labels, batch.offsets]) array.fill(0);
  expectNear('logps', (await scored).logps, byHand(row).logps, 1e-5);
});

describe('a runtime that differs from the policy', () => {
  const batch = collatePairs(examples, { pad: 0 });
  test('is refused where the same weights should say the same', async () => {
    const { session, row } = await modelOf();
    const policy = byHand(row);
    const options = { Tensor, policy };
    const agreed = await scoreSequences(session, batch, options);
    expectNear('logps', agreed.logps, policy.logps, 1e-5);
    const other = await modelOf({ seed: 2 });
    expectRefusal(
      await rejection(scoreSequences(other.session, batch, options)),
      'RangeError REFERENCE',
      'policy: gives sequence 0 | more than 0.01 | quantised | the runtime that trains the policy',
    );
  });

  test('by the tolerance for each token', async () => {
    const { session } = await modelOf();
    const { logps, counts } = await scoreSequences(session, batch, { Tensor });
    const policy = { logps: logps.map((logp, i) => logp - 0.02 * at(counts, i)), counts };
    const score = (tolerance: number) =>
      scoreSequences(session, batch, { Tensor, policy, tolerance });
    expect((await score(0.021)).logps).toEqual(logps);
    expectRefusal(await rejection(score(0.019)), 'RangeError REFERENCE', 'more than 0.019');
  });

  test.each<[string, unknown, Kind, Words]>([
    ['no object', 5, 'TypeError REFERENCE', 'policy: expected { logps, counts }, not 5'],
    ['floats', { logps: [1] }, 'TypeError REFERENCE', 'policy.logps: expected Float64Array'],
    [
      'another batch, by its length',
      { logps: new Float64Array(2), counts: new Int32Array(2) },
      'RangeError REFERENCE',
      'policy.logps: length 2; expected 6',
    ],
    [
      'another batch, by its counts',
      { logps: new Float64Array(6), counts: new Int32Array(6).fill(9) },
      'RangeError REFERENCE',
      'policy.counts: 9 at index 0; expected 4',
    ],
    [
      'NaN',
      { logps: new Float64Array(6).fill(NaN), counts: byHand(() => [0]).counts },
      'RangeError REFERENCE',
      'log-probability of NaN',
    ],
  ])('of %s', async (_, policy, kind, words) => {
    const { session } = await modelOf();
    const given = { Tensor, policy } as ScoreOptions<ort.Tensor>;
    expectRefusal(await rejection(scoreSequences(session, batch, given)), kind, words);
  });
});

describe('refused', () => {
  const loose = scoreSequences as unknown as (...given: readonly unknown[]) => Promise<unknown>;
  const batch = collatePairs(examples, { layout: 'packed' });
  const gives = (outputs: unknown) => () => Promise.resolve(outputs);
  const logits = (more: object) => {
    const data = new Float32Array(6 * 7 * vocab);
    return gives({ logits: { type: 'float32', dims: [6, 7, vocab], data, ...more } });
  };

  test.each<[string, unknown, Kind, Words]>([
    ['undefined', undefined, 'TypeError OPTION', 'model: expected an InferenceSession | undefined'],
    ['a path', 'model.onnx', 'TypeError OPTION', "model | 'model.onnx'"],
    ['no logits', gives({}), 'TypeError OPTION', 'model: expected to give { logits }, not Object'],
    ['nothing', gives(undefined), 'TypeError OPTION', '{ logits }, not undefined'],
    [
      'the last token only',
      logits({ dims: [6, 1, vocab] }),
      'RangeError SHAPE',
      'dims [6,1,11]; expected [6,7,vocab], for every row: it was exported',
    ],
    ['flat logits', logits({ dims: [6, vocab] }), 'RangeError SHAPE', 'dims [6,11]'],
    ['no list', logits({ dims: 5 }), 'RangeError SHAPE', 'dims 5'],
    ['no dims', logits({ dims: undefined }), 'RangeError SHAPE', 'dims undefined'],
    ['integers', logits({ type: 'int8' }), 'TypeError DTYPE', "of type 'int8'; expected float32"],
    ['another array', logits({ data: [1] }), 'TypeError DTYPE', 'logits | Array'],
    ['too few', logits({ data: new Float32Array(3) }), 'RangeError SHAPE', 'logits | 3'],
    [
      'a small vocabulary',
      logits({ dims: [6, 7, 5], data: new Float32Array(210) }),
      'RangeError LABEL',
      '5',
    ],
  ])('a model of %s', async (_, model, kind, words) => {
    expectRefusal(await rejection(loose(model, batch, { Tensor })), kind, words);
  });

  test('a session with a cache, or without logits', async () => {
    const cached = await modelOf({ further: 'past_key_values.0.key' });
    expectRefusal(
      await rejection(loose(cached.session, batch, { Tensor })),
      'RangeError OPTION',
      "model: its inputs are | 'past_key_values.0.key' | without a cache",
    );
    const unnamed = await modelOf({ named: 'last_hidden_state' });
    expectRefusal(
      await rejection(loose(unnamed.session, batch, { Tensor })),
      'RangeError OPTION',
      "model: its outputs are 'last_hidden_state'; expected logits",
    );
  });

  test('what the model throws is thrown as it is', async () => {
    const cause = new Error('out of memory');
    expect(await rejection(loose(() => Promise.reject(cause), batch, { Tensor }))).toBe(cause);
  });

  const padded = collatePairs(examples, { pad: 0 });
  const left = padded.attentionMask.slice().reverse();
  test.each<[string, unknown, Kind, Words]>([
    ['null', null, 'TypeError SHAPE', 'batch | null'],
    ['no ids', { ...batch, inputIds: [1] }, 'TypeError LABEL', 'inputIds | Array'],
    ['fewer labels', { ...batch, labels: new Int32Array(3) }, 'RangeError SHAPE', 'labels'],
    ['offsets of more', { ...batch, offsets: Int32Array.of(0, 99) }, 'RangeError SHAPE', 'offsets'],
    ['no offsets', { ...batch, offsets: undefined }, 'TypeError SHAPE', 'tokens | undefined'],
    ['another size', { ...padded, tokens: 5 }, 'RangeError SHAPE', 'inputIds: length 42 | 30'],
    [
      'padding on the left',
      { ...padded, attentionMask: left },
      'RangeError SHAPE',
      'attentionMask: sequence 0',
    ],
  ])('a batch of %s', async (_, given, kind, words) => {
    const { session } = await modelOf();
    expectRefusal(await rejection(loose(session, given, { Tensor })), kind, words);
  });

  test.each<[unknown, Kind, Words]>([
    [undefined, 'TypeError OPTION', 'options: expected { Tensor }'],
    [{}, 'TypeError OPTION', 'Tensor: expected the class | undefined'],
    [{ Tensor, batchSize: 0 }, 'RangeError OPTION', 'batchSize | 0'],
    [{ Tensor, batchSize: 1.5 }, 'RangeError OPTION', 'batchSize | 1.5'],
    [{ Tensor, batchsize: 1 }, 'TypeError OPTION', "batchsize | 'batchSize'"],
    [{ Tensor, tolerance: 1 }, 'TypeError OPTION', 'tolerance: needs a policy'],
  ])('options: %j', async (options, kind, words) => {
    const { session } = await modelOf();
    expectRefusal(await rejection(loose(session, batch, options)), kind, words);
  });
});

test('types: sessions and tensors of onnxruntime are taken as they are', () => {
  expectTypeOf<ort.InferenceSession>().toExtend<Parameters<typeof scoreSequences>[0]>();
  expectTypeOf<{ Tensor: typeof ort.Tensor }>().toExtend<ScoreOptions>();
});
