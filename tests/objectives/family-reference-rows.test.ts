// What the fields of rows mean to the reference, by other ways to say the same.
import { describe, expect, test } from 'vitest';
import {
  referenceLogps,
  referenceLogpsBackward,
  referenceLoss,
  referenceTokenLogps,
  type ReferenceBatch,
} from '../../ts/verification/reference.js';
import { configOf, familyLogits } from '../support/family-batches.js';
import { expectNear as near } from '../support/near.js';
import { at } from '../support/numbers.js';

describe('fields of rows', () => {
  const logits = (name: 'tokenWeights' | 'none'): ReferenceBatch & { logits: Float64Array } => {
    const {
      logits: values,
      labels,
      shape,
      reference,
      tokenWeights,
    } = familyLogits(61, 'dpo', 2, []);
    return {
      logits: values,
      labels,
      shape,
      reference,
      tokenWeights: name === 'none' ? undefined : tokenWeights,
    };
  };

  test('a token weight of 0 is an ignored row, which is still counted', () => {
    const batch = logits('none');
    const scored = batch.labels.findIndex((label) => label !== -100);
    const tokenWeights = new Float64Array(batch.labels.length).fill(1).fill(0, scored, scored + 1);
    const labels = batch.labels.slice().fill(-100, scored, scored + 1);
    const nan = batch.logits.slice().fill(NaN, 5 * scored, 5 * scored + 5);
    for (const method of ['dpo', 'simpo', 'r_dpo'] as const) {
      const config = { ...configOf(method), normalize: true };
      const { counts, ...own } = referenceLoss(config, { ...batch, tokenWeights, logits: nan });
      const { counts: fewer, ...expected } = referenceLoss(config, { ...batch, labels });
      expect(own).toEqual(expected);
      expect(at(counts, 0)).toBe(at(fewer, 0) + 1);
    }
  });

  test('weights are relative where the objective normalises; n below 1 divides as it is', () => {
    const batch = logits('tokenWeights');
    const tokenWeights = Float64Array.from(batch.tokenWeights ?? [], (w) => w / 64);
    const [a, b] = [batch, { ...batch, tokenWeights }].map((given) =>
      referenceLoss({ method: 'simpo', beta: 2, sftWeight: 1, sftReduction: 'mean' }, given),
    );
    expect(b?.losses).toEqual(a?.losses);
    expect(b?.gradLogits).toEqual(a?.gradLogits);
  });

  test('a sequence of which all weights are 0 is empty', () => {
    const batch = logits('none');
    const tokenWeights = new Float64Array(batch.labels.length).fill(1).fill(0, 0, 3);
    const { logps, rewards, gradLogits } = referenceLoss(configOf('dpo'), {
      ...batch,
      tokenWeights,
    });
    expect([logps[0], rewards[0]]).toEqual([0, 0]);
    expect(gradLogits.subarray(0, 15)).toEqual(new Float64Array(15));
  });

  test('scale, cap and temperature are those of transformed logits', () => {
    const plain = logits('none');
    const transformed = plain.logits.map((x) => (3 * Math.tanh((0.8 * x) / 3)) / 1.3);
    const batch = { ...plain, logitScale: 0.8, logitSoftcap: 3, temperature: 1.3 };
    const moved = { ...plain, logits: transformed };
    expect(referenceLogps(batch)).toEqual(referenceLogps(moved));
    expect(referenceTokenLogps(batch)).toEqual(referenceTokenLogps(moved));
    expect(referenceLoss(configOf('dpo'), batch).losses).toEqual(
      referenceLoss(configOf('dpo'), moved).losses,
    );
  });

  test('under a cap -inf is probability 0, +inf and NaN make NaN', () => {
    const row = (...z: number[]) => ({
      logits: Float64Array.from(z),
      shape: [1, 1, z.length] as const,
      labels: Int32Array.of(0),
      logitSoftcap: 2,
    });
    const { logps } = referenceTokenLogps(row(1, 0.5, -Infinity));
    expect(logps).toEqual(referenceTokenLogps(row(1, 0.5)).logps);
    const { gradLogits } = referenceLogpsBackward(row(1, 0.5, -Infinity), {
      rows: [1],
      entropy: [1],
    });
    expect(gradLogits[2]).toBe(0);
    expect(gradLogits[0]).toBeGreaterThan(0);
    for (const bad of [Infinity, NaN])
      expect(referenceTokenLogps(row(1, 0.5, bad)).logps[0]).toBeNaN();
  });

  test('the collision is the logarithm of the sum of the squares', () => {
    const batch = familyLogits(62, 'sft', 3, []);
    const { logCollision, entropy } = referenceTokenLogps(batch);
    batch.labels.forEach((label, row) => {
      if (label === -100) {
        expect([logCollision[row], entropy[row]]).toEqual([0, 0]);
        return;
      }
      const p = Array.from({ length: 5 }, (_, v) => {
        const labels = batch.labels.slice().fill(v, row, row + 1);
        return Math.exp(at(referenceTokenLogps({ ...batch, labels }).logps, row));
      });
      const squares = p.reduce((sum, x) => sum + x * x, 0);
      near('logCollision', [at(logCollision, row)], [Math.log(squares)]);
    });
    const sure = { logits: Float64Array.of(50, 0), shape: [1, 1, 2], labels: Int32Array.of(0) };
    // p = 1 - q: log(p^2 + q^2) = -2 q and more of q^2.
    near('sure', referenceTokenLogps(sure).logCollision, [-2 * Math.exp(-50)]);
  });
});
