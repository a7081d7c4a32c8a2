// What the package refuses of the wider family: each refusal with its code and its words.
import { afterEach, describe, expect, test } from 'vitest';
import {
  DirAlignError,
  dirAlignLoss,
  logpsBackward,
  mixLosses,
  recipe,
  recipes,
  tokenLogps,
} from '../../ts/index.js';
import { objectiveOf } from '../../ts/verification/objectives.js';
import {
  configOf,
  familyLogps,
  familyMethods,
  fieldsWithoutMeaning,
  methodFields,
} from '../support/family-batches.js';
import { detached, expectRefusal, resizable, thrownBy, type Kind } from '../support/refusal.js';

type Given = Record<string, unknown>;
type Method = (typeof familyMethods)[number];

const batchOf = (method: Method): Given => ({ ...familyLogps(1, method, 2) });
const call = (method: Method, fields: Given): unknown =>
  objectiveOf(configOf(method)).fromLogps({ ...batchOf(method), ...fields } as never);

const without = (batch: Given, names: readonly string[]): Given =>
  Object.fromEntries(Object.entries(batch).filter(([name]) => !names.includes(name)));

describe('fields without a meaning, and missing ones', () => {
  test.each(familyMethods)('%s', (method) => {
    const { needs = [] } = methodFields[method];
    for (const [name, value] of fieldsWithoutMeaning(method)) {
      const words = `${name}: '${method}' gives it no meaning`;
      expectRefusal(() => call(method, { [name]: value }), 'TypeError OPTION', words);
    }
    for (const name of needs)
      expectRefusal(
        () => call(method, { [name]: undefined }),
        'TypeError OPTION',
        `${name}: '${method}' needs `,
      );
    for (const name of ['tokenWeights', 'logitScale', 'temperature', 'weight', 'Margins'])
      expectRefusal(() => call(method, { [name]: 1 }), 'TypeError SHAPE', `batch.${name}: no such`);
  });
});

const shared = (...values: number[]): Float64Array => {
  const array = new Float64Array(new SharedArrayBuffer(8 * values.length));
  array.set(values);
  return array;
};
const holes = (length: number): unknown[] => new Array<unknown>(length);

/** A field, what is wrong with it, and the refusal; each of two units. */
const wrong: readonly (readonly [Method, Given, Kind, string])[] = [
  [
    'dpo',
    { weights: [1, -1] },
    'RangeError OPTION',
    'weights[1]: -1 is not a finite number at least 0',
  ],
  ['dpo', { weights: [1, NaN] }, 'RangeError OPTION', 'weights[1]: NaN'],
  ['dpo', { weights: shared(1, Infinity) }, 'RangeError OPTION', 'weights[1]: Infinity'],
  [
    'dpo',
    { weights: holes(2) },
    'TypeError OPTION',
    'weights[0]: undefined is not a finite number',
  ],
  ['dpo', { weights: [1, '1'] }, 'TypeError OPTION', "weights[1]: '1'"],
  ['dpo', { weights: [1, 1n] }, 'TypeError OPTION', 'weights[1]: 1n'],
  ['dpo', { weights: [1, { valueOf: () => 1 }] }, 'TypeError OPTION', 'weights[1]: Object'],
  [
    'dpo',
    { weights: [1, 1, 1] },
    'RangeError SHAPE',
    'weights: length 3; expected 2, one per unit',
  ],
  ['dpo', { weights: holes(2 ** 31) }, 'RangeError SHAPE', 'weights: length 3; expected 2'],
  ['dpo', { weights: new Int32Array(2) }, 'TypeError DTYPE', 'weights: expected Float64Array or'],
  [
    'dpo',
    { weights: 1 },
    'TypeError DTYPE',
    'weights: expected Float64Array or Float32Array, not 1',
  ],
  ['dpo', { weights: null }, 'TypeError DTYPE', 'weights: expected Float64Array or'],
  [
    'dpo',
    { weights: detached(new Float64Array(2)) },
    'TypeError SHAPE',
    'weights: its ArrayBuffer is detached',
  ],
  [
    'dpo',
    { weights: new Float64Array(resizable(16)) },
    'TypeError SHAPE',
    'weights: its ArrayBuffer is resizable',
  ],
  [
    'dpo',
    { margins: [0, -Infinity] },
    'RangeError OPTION',
    'margins[1]: -Infinity is not a finite number',
  ],
  ['dpo', { preferences: [0.5, 1.5] }, 'RangeError OPTION', 'preferences[1]: 1.5'],
  ['dpo', { preferences: [-5e-324, 1] }, 'RangeError OPTION', 'preferences[0]: -5e-324'],
  ['robust', { preferences: [0.5, 1] }, 'RangeError OPTION', 'greater than 0.5'],
  ['exo_pair', { preferences: [0.5, 1] }, 'RangeError OPTION', 'less than 1'],
  ['exo_pair', { preferences: [0, 0.5] }, 'RangeError OPTION', 'greater than 0'],
  ['ipo', { targets: [1, NaN] }, 'RangeError OPTION', 'targets[1]: NaN'],
  ...[0, -0, -1, NaN, Infinity].map(
    (x) =>
      [
        'dpo',
        { denominator: x },
        'RangeError OPTION',
        `denominator: ${x} is not a finite number greater than 0`,
      ] as const,
  ),
  ['dpo', { denominator: '2' }, 'TypeError OPTION', "denominator: '2'"],
  ['kto', { desirable: [1, 2] }, 'RangeError OPTION', 'desirable[1]: 2 is not 0 or 1'],
  ['kto', { desirable: [1, 'yes'] }, 'RangeError OPTION', 'desirable[1]'],
  ['kto', { desirable: new Float64Array(2) }, 'TypeError DTYPE', 'desirable: expected Uint8Array'],
  ['kto', { desirable: Uint8Array.of(1, 0, 1) }, 'RangeError SHAPE', 'desirable: length 3'],
  ['kto', { kl: -0.5 }, 'RangeError OPTION', 'kl: -0.5 is not a finite number at least 0'],
  ['kto', { kl: '1' }, 'TypeError OPTION', "kl: '1'"],
  ['kto', { kl: [1] }, 'TypeError OPTION', 'kl: expected a number or { logps, reference }'],
  ['kto', { kl: {} }, 'TypeError DTYPE', 'kl.logps: expected'],
  [
    'kto',
    { kl: { logps: [1], reference: [1, 2] } },
    'RangeError SHAPE',
    'kl.reference: length 2; expected 1',
  ],
  ['kto', { kl: { logps: [], reference: [] } }, 'RangeError SHAPE', 'kl.logps: has no sequences'],
  ['kto', { kl: { logps: [NaN], reference: [1] } }, 'RangeError OPTION', 'kl.logps[0]: NaN'],
  [
    'kto',
    { kl: { logps: [1], reference: holes(1) } },
    'RangeError OPTION',
    'kl.reference[0]: undefined',
  ],
  [
    'kto',
    { kl: { logps: [1], reference: [1], kl: 1 } },
    'TypeError OPTION',
    'kl.kl: no such option',
  ],
  ['bco', { shift: NaN }, 'RangeError OPTION', 'shift: NaN'],
  ['nca_listwise', { rewards: [1] }, 'RangeError SHAPE', 'rewards: length 1'],
];

describe('values that a field may not have', () => {
  test.each(wrong.map(([method, given, kind, words]) => [words, method, given, kind] as const))(
    '%s',
    (words, method, given, kind) => {
      expectRefusal(() => call(method, given), kind, words);
    },
  );

  test('of groups and ranks', () => {
    const logps = Float64Array.of(-1, -2, -3);
    const three = { logps, counts: Int32Array.of(1, 1, 1), reference: logps };
    const own = (groups: unknown, ranks: unknown = [0, 1, 2]): unknown =>
      dirAlignLoss('plackett_luce', 1).fromLogps({ ...three, groups, ranks } as never);
    const groups = Int32Array.of(0, 1, 3);
    expect(own(groups, [7, -1, 2 ** 53 - 1])).toBeDefined();
    for (const [given, words] of [
      [Int32Array.of(0), 'groups: goes from 0 to 0; expected 0 to the number of sequences, 3'],
      [new Int32Array(0), 'groups: goes from undefined'],
      [Int32Array.of(1, 3), 'groups: goes from 1 to 3'],
      [Int32Array.of(0, 2 ** 31 - 1), 'groups: goes from 0 to 2147483647'],
      [Int32Array.of(0, 2, 2, 3), 'groups: group 1 has no candidates'],
      [Int32Array.of(0, 2, 1, 3), 'groups: group 1 has no candidates'],
      [Int32Array.of(0, -1, 3), 'groups: group 0 has no candidates'],
    ] as const)
      expectRefusal(() => own(given), 'RangeError SHAPE', words);
    for (const given of [[0, 3], new Uint32Array([0, 3]), 3, null])
      expectRefusal(() => own(given), 'TypeError SHAPE', 'groups: expected Int32Array');
    expectRefusal(() => own(undefined), 'TypeError OPTION', "groups: 'plackett_luce' needs");
    expectRefusal(() => own(groups, [0, 1, 1]), 'RangeError OPTION', 'ranks[2]: 1 is the rank of');
    expectRefusal(() => own(groups, [0, 0, -0]), 'RangeError OPTION', 'is the rank of another');
    for (const [rank, shown] of [
      [0.5, '0.5'],
      [NaN, 'NaN'],
      [2 ** 53, '9007199254740992'],
      ['1', "'1'"],
    ] as const)
      expectRefusal(
        () => own(groups, [0, rank, 2]),
        'RangeError OPTION',
        `ranks[1]: ${shown} is not a whole`,
      );
  });

  test('what user code throws passes through', () => {
    const mine = new Error('mine');
    const fail = (): never => {
      throw mine;
    };
    const thrown = (weights: unknown): unknown => thrownBy(() => call('dpo', { weights }));
    expect(thrown(new Proxy([1, 1], { get: fail }))).toBe(mine);
    expect(thrown(Object.defineProperty([1, 1], 1, { get: fail }))).toBe(mine);
    const { proxy, revoke } = Proxy.revocable([1, 1], {});
    revoke();
    expectRefusal(() => call('dpo', { weights: proxy }), 'TypeError DTYPE', 'a revoked Proxy');
  });

  test('each element is read once, and copied', () => {
    const once = (value: number) => {
      let reads = 0;
      return { get: () => (reads++ === 0 ? value : NaN), enumerable: true };
    };
    const weights = Object.defineProperties([0, 0], { 0: once(0.5), 1: once(2) });
    const { losses, loss } = call('dpo', { weights }) as { losses: number[]; loss: number };
    const expected = call('dpo', { weights: [0.5, 2] }) as { loss: number };
    expect([losses.length, loss]).toEqual([2, expected.loss]);
  });
});

describe('mixLosses', () => {
  const dpo = dirAlignLoss('dpo', 0.1);
  const kto = dirAlignLoss('kto', 0.1);
  const group = dirAlignLoss('plackett_luce', 0.1);
  const sft = dirAlignLoss('sft');
  const mix = (...terms: unknown[]) => mixLosses(terms as never);
  const of = (objective: unknown, weight: unknown = 1) => ({ weight, objective });

  test.each<[string, () => unknown, Kind, string]>([
    [
      'nothing',
      () => mixLosses(undefined as never),
      'TypeError OPTION',
      'terms: expected an array of 1 to 64',
    ],
    ['no terms', () => mix(), 'TypeError OPTION', 'not 0'],
    ['65 terms', () => mix(...new Array<unknown>(65).fill(of(dpo))), 'TypeError OPTION', 'not 65'],
    ['2^31 terms', () => mixLosses(holes(2 ** 31) as never), 'TypeError OPTION', 'not 65'],
    [
      'an array-like',
      () => mixLosses({ length: 1, 0: of(dpo) } as never),
      'TypeError OPTION',
      'terms: expected',
    ],
    ['a hole', () => mix(of(dpo), undefined), 'TypeError OPTION', 'terms[1]: expected an object'],
    ['an objective alone', () => mix(dpo), 'TypeError OPTION', 'terms[0]: expected an object'],
    ['a number', () => mix(of(dpo, '1')), 'TypeError OPTION', "terms[0].weight: '1' is no number"],
    ['no weight', () => mix({ objective: dpo }), 'TypeError OPTION', 'terms[0].weight: undefined'],
    ['a negative weight', () => mix(of(dpo, -1)), 'RangeError OPTION', 'terms[0].weight: -1'],
    ['NaN', () => mix(of(dpo, NaN)), 'RangeError OPTION', 'terms[0].weight: NaN'],
    ['Infinity', () => mix(of(dpo, Infinity)), 'RangeError OPTION', 'terms[0].weight: Infinity'],
    [
      'a name',
      () => mix(of('dpo')),
      'TypeError OPTION',
      "terms[0].objective: expected what dirAlignLoss returned, not 'dpo'",
    ],
    ['another function', () => mix(of(() => 1)), 'TypeError OPTION', 'not a function'],
    ['a Proxy', () => mix(of(new Proxy(dpo, {}))), 'TypeError OPTION', 'terms[0].objective'],
    ['an heir', () => mix(of(Object.create(dpo))), 'TypeError OPTION', 'terms[0].objective'],
    [
      'a bound one',
      () => mix(of((dpo as unknown as () => void).bind(null))),
      'TypeError OPTION',
      'not a function',
    ],
    ['a key', () => mix({ ...of(dpo), wieght: 1 }), 'TypeError OPTION', "did you mean 'weight'?"],
    [
      'two arities',
      () => mix(of(dpo), of(kto)),
      'TypeError OPTION',
      "'dpo' compares pairs and 'kto' single sequences",
    ],
    ['groups', () => mix(of(group), of(dpo)), 'TypeError OPTION', 'groups'],
    [
      'a chosen of groups',
      () => mix(of(group), of(sft)),
      'TypeError OPTION',
      'no sequence of a group is the chosen',
    ],
    [
      'a mixture of them',
      () => mix(of(mix(of(group))), of(mix(of(kto)))),
      'TypeError OPTION',
      'compares',
    ],
  ])('%s', (_, work, kind, words) => {
    expectRefusal(work, kind, words);
  });

  test('fields are those of all: weights of every loss, others of one', () => {
    const batch = batchOf('dpo');
    const aot = mix(of(dpo), of(dirAlignLoss('aot', 0.1)));
    const words = "weights: the mixture of 'dpo', 'aot' gives it no meaning";
    expectRefusal(() => aot.fromLogps({ ...batch } as never), 'TypeError OPTION', words);
    const rest = without(batch, ['weights']);
    expect(aot.fromLogps(rest as never).terms).toHaveLength(2);
    const both = mix(of(dpo), of(dirAlignLoss('robust', 0.1)), of(dirAlignLoss('exo_pair', 0.1)));
    const own = (preferences: number[]) => () => both.fromLogps({ ...rest, preferences } as never);
    expectRefusal(own([0.4, 0.9]), 'RangeError OPTION', 'greater than 0.5');
    expectRefusal(own([0.9, 1]), 'RangeError OPTION', 'less than 1');
    expectRefusal(
      () => mix(of(kto)).fromLogps({ ...batchOf('kto'), kl: undefined } as never),
      'TypeError OPTION',
      "kl: 'kto' needs",
    );
  });

  test('getters of terms are read once', () => {
    let reads = 0;
    const term = {
      weight: 1,
      get objective() {
        return reads++ === 0 ? dpo : kto;
      },
    };
    expect(mix(term).terms).toEqual([{ method: 'dpo', weight: 1 }]);
    expect(reads).toBe(1);
  });
});

describe('logpsBackward', () => {
  const labels = Int32Array.of(0, 1, -100, 2);
  const batch = { logits: new Float32Array(12), shape: [2, 2, 3] as const, labels };
  const rows = new Float64Array(4);
  const back = (derivatives: unknown, run?: unknown, more: Given = {}): unknown =>
    logpsBackward({ ...batch, ...more } as never, derivatives as never, run as never);
  const forward = tokenLogps(batch);

  test.each<[string, () => unknown, Kind, string]>([
    [
      'nothing',
      () => back(undefined),
      'TypeError OPTION',
      'derivatives: expected an object with rows',
    ],
    ['an array', () => back(rows), 'TypeError OPTION', 'derivatives: expected an object'],
    ['none', () => back({}), 'TypeError OPTION', 'has neither rows, sequences nor entropy'],
    ['forward alone', () => back({ forward }), 'TypeError OPTION', 'has neither rows'],
    [
      'both',
      () => back({ rows, sequences: rows }),
      'TypeError OPTION',
      'sequences: not together with rows',
    ],
    ['a key', () => back({ row: rows }), 'TypeError OPTION', "did you mean 'rows'?"],
    [
      'a plain array',
      () => back({ rows: [0, 0, 0, 0] }),
      'TypeError DTYPE',
      'derivatives.rows: expected',
    ],
    [
      'integers',
      () => back({ entropy: labels }),
      'TypeError DTYPE',
      'derivatives.entropy: expected',
    ],
    [
      'too many',
      () => back({ rows: new Float32Array(5) }),
      'RangeError SHAPE',
      'derivatives.rows: length 5; expected 4, one per row',
    ],
    [
      'rows for sequences',
      () => back({ sequences: rows }),
      'RangeError SHAPE',
      'derivatives.sequences: length 4; expected 2',
    ],
    ['gone', () => back({ rows: detached(new Float64Array(4)) }), 'TypeError SHAPE', 'detached'],
    [
      'resizable',
      () => back({ rows: new Float64Array(resizable(32)) }),
      'TypeError SHAPE',
      'resizable',
    ],
    [
      'a forward of nothing',
      () => back({ rows, forward: {} }),
      'TypeError DTYPE',
      'forward.logps: expected',
    ],
    [
      'a forward of others',
      () =>
        back({
          rows,
          forward: tokenLogps({
            ...batch,
            shape: [1, 1, 3],
            labels: Int32Array.of(0),
            logits: new Float32Array(3),
          }),
        }),
      'RangeError SHAPE',
      'forward.logps: length 1; expected 4',
    ],
    [
      'no gradient',
      () => back({ rows }, { gradient: 'none' }),
      'TypeError OPTION',
      "gradient: 'none' leaves nothing",
    ],
    [
      'factored entropy',
      () => back({ entropy: rows }, { gradient: 'factored' }),
      'TypeError OPTION',
      "entropy: not with gradient 'factored'",
    ],
    [
      'weights of rows',
      () => back({ rows }, {}, { tokenWeights: rows }),
      'TypeError OPTION',
      'tokenWeights: are those of sequences',
    ],
    [
      'two sets of labels',
      () => back({ rows }, {}, { sftLabels: labels }),
      'TypeError OPTION',
      'sftLabels: logpsBackward has one set',
    ],
    ['metrics', () => back({ rows }, { metrics: [] }), 'TypeError OPTION', 'run.metrics'],
    [
      'a signal',
      () => back({ rows }, { signal: new AbortController().signal }),
      'TypeError OPTION',
      'use logpsBackward.async',
    ],
    ...[0, -1, NaN, Infinity].flatMap((x) =>
      ['logitScale', 'logitSoftcap', 'temperature'].map(
        (name): [string, () => unknown, Kind, string] => [
          `${name} ${x}`,
          () => back({ rows }, {}, { [name]: x }),
          'RangeError OPTION',
          `${name}: ${x} is not a finite number greater than 0`,
        ],
      ),
    ),
    ...[0, null, [1, 2], new Int32Array(2)].map(
      (reference): [string, () => unknown, Kind, string] => [
        'a reference that is none',
        () => back({ rows }, { out: new Float32Array(12) }, { reference }),
        'TypeError REFERENCE',
        'reference: expected',
      ],
    ),
    [
      'a text',
      () => back({ rows }, {}, { temperature: '1' }),
      'TypeError OPTION',
      "temperature: '1'",
    ],
  ])('%s', (_, work, kind, words) => {
    expectRefusal(work, kind, words);
  });

  test('of hidden states, and later', async () => {
    const hidden = {
      hidden: new Float32Array(4),
      weight: new Float32Array(3),
      shape: [2, 2, 3],
      labels,
    };
    const layer = (derivatives: unknown, run?: unknown) => () =>
      logpsBackward(hidden as never, derivatives as never, run as never);
    expectRefusal(
      layer({ rows }, { metrics: [] }),
      'TypeError OPTION',
      'metrics: logpsBackward has none',
    );
    expectRefusal(layer({ rows }, { gradient: 'none' }), 'TypeError OPTION', 'leaves nothing');
    expectRefusal(
      layer({ rows }, { gradient: 'factored' }),
      'TypeError OPTION',
      "'factored' is for logits",
    );
    await expect(logpsBackward.async(batch, {})).rejects.toBeInstanceOf(DirAlignError);
    const signal = AbortSignal.abort();
    await expect(logpsBackward.async(batch, { rows }, { signal })).rejects.toMatchObject({
      code: 'ERR_DIRALIGN_ABORTED',
    });
  });

  test('the derivatives are copied before an asynchronous call goes on', async () => {
    const own = Float64Array.of(1, -1, NaN, 2);
    const expected = logpsBackward(batch, { rows: own });
    const later = logpsBackward.async(batch, { rows: own });
    own.fill(NaN);
    await expect(later).resolves.toEqual(expected);
  });
});

describe('recipes', () => {
  test.each<[string, () => unknown, string]>([
    ['another name', () => recipe('rpoo' as never), "did you mean 'rpo'?"],
    ['of the prototype', () => recipe('toString' as never), "is not one of 'dpo_norm'"],
    ['no name', () => recipe(undefined as never), 'recipe: undefined'],
    ['a text that is none', () => recipe({ toString: () => 'rpo' } as never), 'recipe: Object'],
    ['overrides', () => recipe('rpo', 1 as never), 'overrides: expected an object'],
    [
      'a setting of others',
      () => recipe('cdpo', { gamma: 1 }),
      "overrides.gamma: 'cdpo' has no such",
    ],
    ['a name of nothing', () => recipe('mpo', { wight: 1 } as never), "overrides.wight: 'mpo' has"],
    ['another method', () => recipe('rpo', { method: 'ipo' } as never), "overrides.method: 'rpo'"],
    ['a value', () => recipe('cdpo', { labelSmoothing: 2 }), 'labelSmoothing'],
    ['a beta', () => recipe('rpo', { beta: -1 }), 'beta'],
  ])('%s', (_, work, words) => {
    const error = thrownBy(work);
    expect(error).toBeInstanceOf(DirAlignError);
    expect(error).toMatchObject({ code: 'ERR_DIRALIGN_OPTION' });
    expect(error.message).toContain(words);
  });

  test('are frozen, and built of what they say', () => {
    expect(() => Object.assign(recipes.mpo, { source: '' })).toThrow(TypeError);
    expect((recipe('mpo', { beta: 0.3 }) as unknown as Given).terms).toEqual(
      recipes.mpo.terms.map(({ weight, settings: { method } }) => ({ method, weight })),
    );
    const settings = (objective: object): Given => ({ ...objective });
    expect(settings(recipe('dpo_norm'))).toMatchObject({ method: 'dpo', beta: 5, normalize: true });
    expect(settings(recipe('rpo', { sftWeight: 0.5 }))).toMatchObject({
      sftWeight: 0.5,
      beta: 0.1,
    });
    expect(settings(recipe('rpo', { gamma: undefined }))).toMatchObject({ beta: 0.1 });
  });
});

describe('what a program adds to Object.prototype', () => {
  const added: Given = {
    ...{ weights: [9, 9], margins: [9, 9], denominator: 9, kl: 9, shift: 9, groups: 1 },
    ...{ min: 0.99, above: 0.99, max: 0, below: 0, needed: true, rows: 1, forward: 1 },
    ...{ weight: 7, objective: 1, beta: 9, labelSmoothing: 0.4, gamma: 1 },
  };
  afterEach(() => {
    for (const name of Object.keys(added)) Reflect.deleteProperty(Object.prototype, name);
  });

  test('changes neither losses, mixtures, recipes nor gradients of one’s own', () => {
    const batch = without(batchOf('dpo'), ['weights', 'margins', 'preferences', 'denominator']);
    const logits = {
      logits: Float32Array.of(1, 2, 3),
      shape: [1, 1, 3] as const,
      labels: Int32Array.of(1),
    };
    const work = () => [
      dirAlignLoss('dpo', 0.1).fromLogps(batch as never),
      mixLosses([
        { weight: 1, objective: dirAlignLoss('dpo', 0.1) },
        { weight: 0.5, objective: dirAlignLoss('robust', 0.1) },
      ]).fromLogps({ ...batch, preferences: [0.75, 1] } as never),
      recipe('mpo').fromLogps(batch as never),
      logpsBackward(logits, { sequences: Float64Array.of(1) }),
    ];
    const expected = work();
    Object.assign(Object.prototype, added);
    const found = work();
    for (const name of Object.keys(added)) Reflect.deleteProperty(Object.prototype, name);
    expect(found).toEqual(expected);
  });
});
