// The reference held to the cases of the wider family.
import { describe, expect, test } from 'vitest';
import {
  referenceHiddenLoss,
  referenceLayer,
  referenceLogpsBackward,
  referenceLoss,
  referenceMix,
  referenceTokenLogps,
  type ReferenceConfig,
} from '../../ts/verification/reference.js';
import { expectNear } from '../support/near.js';
import { byId, familyCases, type LayerGradients } from '../support/family.js';

/** The cases have 13 digits. */
function near(what: string, actual: ArrayLike<number>, expected: ArrayLike<number>): void {
  expectNear(what, actual, expected, 1e-12);
}

function nearLayer(actual: LayerGradients, expected: LayerGradients): void {
  near('gradHidden', actual.gradHidden, expected.gradHidden);
  near('gradWeight', actual.gradWeight, expected.gradWeight);
  if (expected.gradBias) near('gradBias', actual.gradBias ?? [], expected.gradBias);
}

/** The objective without its likelihood term, whose losses the cases have. */
function alone(config: ReferenceConfig): ReferenceConfig {
  return config.sftWeight === undefined ? config : { ...config, sftWeight: 0 };
}

describe('cases', () => {
  test('all of them are there', () => {
    const doors = ['loss', 'mix', 'fromHidden', 'logpsBackward', 'hiddenLogpsBackward'] as const;
    expect(doors.map((door) => familyCases(door).length)).toEqual([236, 8, 12, 12, 12]);
  });

  test.each(byId(familyCases('loss')))('%s', (_, { call, batch, expected }) => {
    const { loss, gradLogits } = referenceLoss(call, batch);
    near('loss', [loss], [expected.loss]);
    near('gradLogits', gradLogits, expected.gradLogits);
    const likelihood = call.sftWeight !== undefined;
    const own = likelihood ? { ...batch, sftDenominator: undefined } : batch;
    near('losses', referenceLoss(alone(call), own).losses, expected.losses);
  });

  test.each(byId(familyCases('mix')))('%s', (_, { call, batch, expected }) => {
    const terms = call.map(({ weight, objective: config }) => ({ weight, config }));
    const { loss, terms: parts, gradLogits } = referenceMix(terms, batch);
    near('loss', [loss], [expected.loss]);
    near('terms', parts, expected.terms);
    near('gradLogits', gradLogits, expected.gradLogits);
  });

  test.each(byId(familyCases('fromHidden')))('%s', (_, { call, batch, expected }) => {
    const result = referenceHiddenLoss(call, batch);
    near('loss', [result.loss], [expected.loss]);
    near('losses', result.losses, expected.losses);
    nearLayer(result, expected);
  });

  test.each(byId(familyCases('logpsBackward')))('%s', (_, { call, batch, expected }) => {
    const { logps, entropy } = referenceTokenLogps(batch);
    near('logps', logps, expected.logps);
    near('entropy', entropy, expected.entropy);
    near('gradLogits', referenceLogpsBackward(batch, call).gradLogits, expected.gradLogits);
  });

  test.each(byId(familyCases('hiddenLogpsBackward')))('%s', (_, { call, batch, expected }) => {
    const { logps, entropy } = referenceTokenLogps(referenceLayer(batch).batch);
    near('logps', logps, expected.logps);
    near('entropy', entropy, expected.entropy);
    nearLayer(referenceLogpsBackward(batch, call), expected);
  });
});
