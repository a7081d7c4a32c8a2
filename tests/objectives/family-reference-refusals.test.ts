// What the reference refuses: nothing is ignored.
import { describe, expect, test } from 'vitest';
import {
  referenceFromLogps,
  referenceLogpsBackward,
  referenceLoss,
  type ReferenceCoefficients,
  type ReferenceConfig,
} from '../../ts/verification/reference.js';
import {
  configOf,
  familyLogits,
  familyLogps,
  familyMethods,
  fieldsWithoutMeaning,
  methodFields,
  type Field,
} from '../support/family-batches.js';

function refuses(call: () => unknown, code: string, message: RegExp): void {
  const text: unknown = expect.stringMatching(message);
  expect(call).toThrow(expect.objectContaining({ code, message: text }) as Error);
}
const option = 'ERR_DIRALIGN_OPTION';

describe('fields without a meaning, and missing ones', () => {
  test.each(familyMethods)('%s', (method) => {
    const { needs = [] } = methodFields[method];
    const batch = familyLogps(1, method, 2);
    referenceFromLogps(configOf(method), batch);
    for (const [name, value] of fieldsWithoutMeaning(method)) {
      refuses(
        () => referenceFromLogps(configOf(method), { ...batch, [name]: value }),
        option,
        new RegExp(`^${name}: '${method}' gives it no meaning`),
      );
    }
    for (const name of needs) {
      refuses(
        () => referenceFromLogps(configOf(method), { ...batch, [name]: undefined }),
        option,
        new RegExp(`^${name}: '${method}' needs it`),
      );
    }
  });

  test.each(['tokenWeights', 'logitScale', 'logitSoftcap', 'temperature'])(
    'log-probabilities have no %s',
    (name) => {
      const batch = { ...familyLogps(2, 'dpo', 2), [name]: 1 };
      refuses(() => referenceFromLogps(configOf('dpo'), batch), option, new RegExp(`^${name}: `));
    },
  );

  test('sftDenominator is for a likelihood term by tokens', () => {
    const batch = { ...familyLogps(3, 'dpo', 2), sftDenominator: 10 };
    const configs: ReferenceConfig[] = [
      { ...configOf('dpo'), sftReduction: 'token' },
      { ...configOf('dpo'), sftWeight: 1 },
      { ...configOf('dpo'), sftWeight: 1, sftReduction: 'mean' },
      { method: 'sft', sftReduction: 'mean' },
    ];
    for (const config of configs) {
      const own =
        config.method === 'sft' ? { ...familyLogps(3, 'sft', 2), sftDenominator: 9 } : batch;
      refuses(() => referenceFromLogps(config, own), option, /^sftDenominator: /);
    }
  });

  test.each(['plackett_luce', 'info_nca', 'nca_listwise'] as const)(
    '%s has no likelihood term',
    (method) => {
      const batch = familyLogps(4, method, 2);
      refuses(
        () => referenceFromLogps({ ...configOf(method), sftWeight: 1 }, batch),
        option,
        /^sftWeight: /,
      );
    },
  );
});

describe('values', () => {
  type Values = readonly [method: Parameters<typeof configOf>[0], field: Field, value: unknown];
  test.each<Values>([
    ['kto', 'kl', -0.1],
    ['kto', 'kl', NaN],
    ['kto', 'desirable', Float64Array.of(0, 2, 1)],
    ['bco', 'shift', Infinity],
    ['dpo', 'weights', Float64Array.of(1, -1, 1)],
    ['dpo', 'weights', Float64Array.of(1, Infinity, 1)],
    ['dpo', 'margins', Float64Array.of(1, NaN, 1)],
    ['dpo', 'preferences', Float64Array.of(1, 1.5, 1)],
    ['robust', 'preferences', Float64Array.of(1, 0.5, 1)],
    ['exo_pair', 'preferences', Float64Array.of(0.5, 1, 0.5)],
    ['exo_pair', 'preferences', Float64Array.of(0.5, 0, 0.5)],
    ['ipo', 'targets', Float64Array.of(1, -Infinity, 1)],
    ['dpo', 'denominator', 0],
    ['dpo', 'denominator', NaN],
    ['plackett_luce', 'ranks', new Float64Array(9)],
    ['plackett_luce', 'ranks', Float64Array.of(0, 1, 2, 3, 4, 5, 6, 7, 0.5)],
    ['info_nca', 'rewards', new Float64Array(9).fill(NaN)],
  ])('%s, %s: %s', (method, field, value) => {
    const given = familyLogps(5, method, 3);
    const { arity } = methodFields[method];
    // Three groups of three.
    const nine = { ...familyLogps(5, 'sft', 9, []), groups: Int32Array.of(0, 3, 6, 9) };
    const ranked = { ...nine, ranks: Int32Array.of(0, 1, 2, 0, 1, 2, 0, 1, 2) };
    const batch = arity !== 'group' ? given : method === 'plackett_luce' ? ranked : nine;
    refuses(
      () => referenceFromLogps(configOf(method), { ...batch, [field]: value }),
      option,
      new RegExp(`^${field}`),
    );
  });

  test.each(['logitScale', 'logitSoftcap', 'temperature'] as const)('%s', (name) => {
    for (const value of [0, -1, NaN, Infinity]) {
      const batch = { ...familyLogits(6, 'dpo', 1), [name]: value };
      refuses(() => referenceLoss(configOf('dpo'), batch), option, new RegExp(`^${name}`));
    }
  });

  test('tokenWeights', () => {
    const batch = familyLogits(7, 'dpo', 1);
    for (const value of [-1, NaN, Infinity]) {
      const tokenWeights = new Float64Array(6).fill(value);
      const call = () => referenceLoss(configOf('dpo'), { ...batch, tokenWeights });
      refuses(call, option, /^tokenWeights/);
    }
  });

  test.each<readonly [method: 'dpo' | 'kto', field: Field]>([
    ['dpo', 'weights'],
    ['dpo', 'margins'],
    ['dpo', 'preferences'],
    ['kto', 'desirable'],
  ])('%s: %s of another length', (method, field) => {
    const batch = { ...familyLogps(8, method, 3), [field]: new Float64Array(4).fill(1) };
    refuses(
      () => referenceFromLogps(configOf(method), batch),
      'ERR_DIRALIGN_SHAPE',
      new RegExp(`^${field}: 4`),
    );
  });

  test.each([[[0, 4]], [[1, 6]], [[0, 4, 2, 6]], [[0, 3, 3, 6]], [[]]])('groups: %j', (groups) => {
    const batch = { ...familyLogps(9, 'sft', 6, []), ranks: [0, 1, 2, 3, 4, 5], groups };
    refuses(
      () => referenceFromLogps(configOf('plackett_luce'), batch),
      'ERR_DIRALIGN_SHAPE',
      /^groups: /,
    );
  });
});

describe('logpsBackward', () => {
  const batch = familyLogits(10, 'sft', 2, []);
  test.each<readonly [string, string, ReferenceCoefficients]>([
    ['nothing', option, {}],
    ['rows and sequences', option, { rows: [1, 1, 1, 1, 1, 1], sequences: [1, 1] }],
    ['too few rows', 'ERR_DIRALIGN_SHAPE', { rows: [1] }],
    ['too many sequences', 'ERR_DIRALIGN_SHAPE', { sequences: [1, 1, 1] }],
    ['too few entropies', 'ERR_DIRALIGN_SHAPE', { entropy: [1] }],
  ])('%s', (_, code, given) => {
    refuses(() => referenceLogpsBackward(batch, given), code, /expected/);
  });

  test('fields of units', () => {
    const weighted = { ...batch, weights: Float64Array.of(1, 1) };
    refuses(() => referenceLogpsBackward(weighted, { rows: [1] }), option, /^weights: /);
  });
});
