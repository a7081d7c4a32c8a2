// Float16Array in and out, on runtimes that have one: the numbers are those of the same bits in a
// Uint16Array.
import { describe, expect, test } from 'vitest';
import { cuda, dirAlignLoss, sequenceLogps, tokenLogps } from '../../ts/index.js';
import type {
  Float16ArrayLike,
  HiddenBatch,
  LogitsBatch,
  RunOptions,
  WithReference,
} from '../../ts/index.js';
import { randomBatch } from '../support/batches.js';
import { randomHidden } from '../support/hidden.js';
import { present, sameBits } from '../support/numbers.js';
import { expectRefusal, thrownBy } from '../support/refusal.js';

type Constructor = new (
  buffer: ArrayBufferLike,
  byteOffset?: number,
  length?: number,
) => Float16ArrayLike;
const Float16 = (globalThis as { readonly Float16Array?: Constructor }).Float16Array;

/** The same memory, as a Float16Array. */
function asFloat16(bits: ArrayLike<number>): Float16ArrayLike {
  const copy = Uint16Array.from(bits);
  return new (Float16 as Constructor)(copy.buffer, copy.byteOffset, copy.length);
}

const spec = { seed: 7, sequences: 4, tokens: 5, vocab: 131, dtype: 'float16' } as const;
const bits = randomBatch(spec);
const layerBits = randomHidden({ ...spec, size: 17 });
const dpo = dirAlignLoss('dpo', 0.1);

/** Without `dtype`, which the array tells. */
function floats(): LogitsBatch<Float16ArrayLike> & WithReference {
  const { logits, shape, labels, reference } = bits;
  return { logits: asFloat16(logits), shape, labels, reference: present(reference) };
}
function layerFloats(): HiddenBatch<Float16ArrayLike> & WithReference {
  const { hidden, weight, bias, shape, labels, reference } = layerBits;
  const data = {
    hidden: asFloat16(hidden),
    weight: asFloat16(weight),
    bias: asFloat16(present(bias)),
  };
  return { ...data, shape, labels, reference: present(reference) };
}

describe.runIf(Float16).each(['cpu', 'cuda'] as const)('on the %s backend', (backend) => {
  const unavailable = backend === 'cuda' && !cuda.available;

  test.skipIf(unavailable).each<[string, RunOptions<Float16ArrayLike>]>([
    ['dense', {}],
    ['factored', { gradient: 'factored' }],
    ['in place', { inPlace: true }],
    ['none', { gradient: 'none' }],
  ])('a gradient of the kind of the logits: %s', async (_, run) => {
    const expected = dpo(bits, { backend, ...(run.gradient && { gradient: run.gradient }) });
    for (const call of [dpo, (...args: Parameters<typeof dpo.async>) => dpo.async(...args)]) {
      const batch = floats();
      const { loss, losses, gradLogits } = await call(batch as never, { ...run, backend });
      expect(loss).toBe(expected.loss);
      expect(sameBits(losses, expected.losses)).toBe(true);
      if (!expected.gradLogits) continue;
      expect(Object.prototype.toString.call(gradLogits)).toBe('[object Float16Array]');
      expect(sameBits(present(gradLogits) as Float16ArrayLike, expected.gradLogits)).toBe(true);
      expect(gradLogits === batch.logits).toBe(run.inPlace === true);
    }
  });

  test.skipIf(unavailable)('into a buffer of the same kind, and of no other', () => {
    const { gradLogits } = dpo(bits, { backend });
    const out = asFloat16(bits.logits);
    expect(dpo(floats(), { backend, out }).gradLogits).toBe(out);
    expect(sameBits(out, present(gradLogits))).toBe(true);
    const raw = new Uint16Array(out.length) as unknown as Float16ArrayLike;
    const refused = thrownBy(() => dpo(floats(), { backend, out: raw }));
    expectRefusal(refused, 'TypeError DTYPE', 'out | Float16Array | Uint16Array');
  });

  test.skipIf(backend === 'cuda' && cuda.hiddenReason !== undefined)(
    'hidden states, weight and bias',
    async () => {
      const expected = dpo.fromHidden(layerBits, { backend });
      for (const result of [
        dpo.fromHidden(layerFloats(), { backend }),
        await dpo.fromHidden.async(layerFloats(), { backend }),
      ]) {
        expect(result.loss).toBe(expected.loss);
        expect(Object.prototype.toString.call(result.gradHidden)).toBe('[object Float16Array]');
        for (const key of ['gradHidden', 'gradWeight', 'gradBias'] as const)
          expect(sameBits(present(result[key]), present(expected[key])), key).toBe(true);
      }
    },
  );

  test.skipIf(unavailable)('log-probabilities of sequences and tokens', () => {
    const actual = {
      ...sequenceLogps(floats(), { backend }),
      ...tokenLogps(floats(), { backend }),
    };
    const expected = { ...sequenceLogps(bits, { backend }), ...tokenLogps(bits, { backend }) };
    expect(actual).toStrictEqual(expected);
  });
});

test.runIf(Float16)('the dtype that an array tells cannot be another', () => {
  expect(dpo({ ...floats(), dtype: 'float16' }).loss).toBe(dpo(bits).loss);
  for (const dtype of ['bfloat16', 'float32'] as const) {
    const refused = thrownBy(() => dpo({ ...floats(), dtype }));
    expectRefusal(refused, 'TypeError DTYPE', `dtype | ${dtype} | Float16Array`);
  }
});

test.runIf(Float16).each(['buffer', 'byteOffset', 'byteLength', 'length'])(
  'what an array says of itself is asked of the engine: %s',
  (key) => {
    const batch = floats();
    const get = (): never => {
      throw new Error('read');
    };
    Object.defineProperty(batch.logits, key, { get });
    expect(dpo(batch).loss).toBe(dpo(bits).loss);
    const layer = layerFloats();
    for (const data of [layer.hidden, layer.weight, present(layer.bias)])
      Object.defineProperty(data, key, { get });
    expect(dpo.fromHidden(layer).loss).toBe(dpo.fromHidden(layerBits).loss);
  },
);
