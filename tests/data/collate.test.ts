// Single completions and groups as batches: the rows are those of pairs of the same sequences, and
// what is said of each sequence stands in its order.
import fc from 'fast-check';
import { describe, expect, expectTypeOf, test } from 'vitest';
import {
  collateGroups,
  collatePairs,
  collateUnpaired,
  type CollateOptions,
  type CompletionGroup,
  type PackedGroups,
  type PackedPairs,
  type PackedUnpaired,
  type PaddedGroups,
  type PaddedUnpaired,
  type UnpairedExample,
} from '../../ts/data/index.js';
import { dirAlignLoss } from '../../ts/index.js';
import { expectNear } from '../support/near.js';
import { at, generator, normal } from '../support/numbers.js';
import { detached, expectRefusal, resizable, type Kind, type Words } from '../support/refusal.js';

function check<T>(arbitrary: fc.Arbitrary<T>, property: (value: T) => void): void {
  fc.assert(fc.property(arbitrary, property), { seed: 20260205, numRuns: 200 });
}

const ids = (minLength: number, maxLength: number): fc.Arbitrary<number[] | Int32Array> =>
  fc
    .tuple(fc.array(fc.integer({ min: 0, max: 22 }), { minLength, maxLength }), fc.boolean())
    .map(([array, typed]) => (typed ? Int32Array.from(array) : array));
const group = fc.record({
  prompt: ids(1, 9),
  completions: fc.array(ids(1, 9), { minLength: 1, maxLength: 4 }),
});
const groups = fc.array(group, { minLength: 1, maxLength: 4 });
/** Options with which a sequence of any of these lengths keeps a scored row. */
const options: fc.Arbitrary<CollateOptions> = fc.oneof(
  fc.constant({}),
  fc.record({ maxLength: fc.integer({ min: 2, max: 20 }), truncation: fc.constant('keep_end') }),
  fc.record({ maxLength: fc.integer({ min: 10, max: 20 }), truncation: fc.constant('keep_start') }),
);
const layouts = ['padded', 'packed'] as const;

/** The rows of each sequence: ids, labels and mask, without padding. */
function sequencesOf(batch: ReturnType<typeof collateGroups | typeof collatePairs>): unknown[] {
  return Array.from({ length: batch.sequences }, (_, i) => {
    const [start, end] =
      'tokens' in batch
        ? [i * batch.tokens, (i + 1) * batch.tokens]
        : [at(batch.offsets, i), at(batch.offsets, i + 1)];
    const { inputIds, labels, attentionMask } = batch;
    const length = attentionMask.subarray(start, end).reduce((sum, bit) => sum + bit, 0);
    return [inputIds, labels].map((rows) => [...rows.subarray(start, start + length)]);
  });
}

describe.each(layouts)('%s', (layout) => {
  test('single completions have the rows of the chosen of pairs', () => {
    check(fc.tuple(groups, options, fc.boolean()), ([examples, cutting, first]) => {
      const given = { pad: 7, ...cutting, layout };
      const singles = examples.flatMap(({ prompt, completions }) =>
        completions.map((completion) => ({ prompt, completion })),
      );
      // Each sequence is a pair of itself: the first half of the pairs' rows.
      const pairs = collatePairs(
        singles.map(({ prompt, completion }) => ({
          prompt,
          chosen: completion,
          rejected: completion,
        })),
        given,
      );
      const { desirable, ...rows } = collateUnpaired(
        singles.map((example, i) => ({ ...example, desirable: (i % 2 === 0) === first })),
        given,
      );
      const half = singles.length;
      expect(sequencesOf(rows as never)).toEqual(sequencesOf(pairs).slice(0, half));
      expect(rows.sequences).toBe(half);
      expect([...Object.keys(rows), 'madeIdentical']).toEqual(Object.keys(pairs));
      expect(rows.inputIds).toEqual(pairs.inputIds.slice(0, rows.inputIds.length));
      expect(rows.labels).toEqual(pairs.labels.slice(0, rows.labels.length));
      expect(desirable).toEqual(
        Uint8Array.from(singles, (_, i) => Number((i % 2 === 0) === first)),
      );
    });
  });

  test('groups have the rows of their completions one after another', () => {
    check(fc.tuple(groups, options), ([examples, cutting]) => {
      const given = { pad: 7, ...cutting, layout };
      const singles = examples.flatMap(({ prompt, completions }) =>
        completions.map((completion) => ({ prompt, completion, desirable: true })),
      );
      const { desirable, truncated: cut, ...expected } = collateUnpaired(singles, given);
      const { groups: offsets, truncated, ...rows } = collateGroups(examples, given);
      expect([truncated > 0, truncated <= cut]).toEqual([cut > 0, true]);
      expect(desirable.length).toBe(expected.sequences);
      expect(rows).toEqual(expected);
      const sizes = examples.map((_, i) => at(offsets, i + 1) - at(offsets, i));
      expect(offsets).toBeInstanceOf(Int32Array);
      expect([offsets.length, offsets[0]]).toEqual([examples.length + 1, 0]);
      expect(sizes).toEqual(examples.map(({ completions }) => completions.length));
    });
  });

  test('maxPromptLength: the longest completion of a group cuts the prompt of all', () => {
    const lengths = fc.integer({ min: 2, max: 20 }).chain((maxLength) =>
      fc.record({
        maxLength: fc.constant(maxLength),
        maxPromptLength: fc.integer({ min: 1, max: maxLength - 1 }),
        truncation: fc.constantFrom('keep_start' as const, 'keep_end' as const),
      }),
    );
    check(fc.tuple(groups, lengths), ([examples, limits]) => {
      const found = sequencesOf(collateGroups(examples, { layout, pad: 0, ...limits }));
      const expected = examples.flatMap(({ prompt, completions }) => {
        const longest = completions.reduce((a, b) => (b.length > a.length ? b : a));
        // A pair with the longest has the same cut.
        return completions.map((chosen) => {
          const pair = { prompt, chosen, rejected: longest };
          return sequencesOf(collatePairs([pair], { layout, pad: 0, ...limits }))[0];
        });
      });
      expect(found).toEqual(expected);
    });
  });
});

test('by hand, padded: single completions', () => {
  const examples = [
    { prompt: [1, 2], completion: [3, 4], desirable: false },
    { prompt: [5], completion: Int32Array.of(6), desirable: true },
  ];
  expect(collateUnpaired(examples, { pad: 99 })).toEqual({
    sequences: 2,
    tokens: 4,
    inputIds: Int32Array.of(1, 2, 3, 4, 5, 6, 99, 99),
    labels: Int32Array.of(-100, 3, 4, -100, 6, -100, -100, -100),
    attentionMask: Int32Array.of(1, 1, 1, 1, 1, 1, 0, 0),
    truncated: 0,
    desirable: Uint8Array.of(0, 1),
  });
});

test('by hand, packed: groups with ranks and rewards', () => {
  const examples = [
    { prompt: [1], completions: [[2], [3, 4], [5]], ranks: [2, 0, 1], rewards: [0, 9.5, -1] },
    {
      prompt: [6],
      completions: [[7]],
      ranks: Int32Array.of(-4),
      rewards: Float32Array.of(0.5),
    },
  ];
  expect(collateGroups(examples, { layout: 'packed' })).toEqual({
    sequences: 4,
    rows: 9,
    offsets: Int32Array.of(0, 2, 5, 7, 9),
    inputIds: Int32Array.of(1, 2, 1, 3, 4, 1, 5, 6, 7),
    labels: Int32Array.of(2, -100, 3, 4, -100, 5, -100, 7, -100),
    attentionMask: new Int32Array(9).fill(1),
    positionIds: Int32Array.of(0, 1, 0, 1, 2, 0, 1, 0, 1),
    truncated: 0,
    groups: Int32Array.of(0, 3, 4),
    ranks: Float64Array.of(2, 0, 1, -4),
    rewards: Float64Array.of(0, 9.5, -1, 0.5),
  });
});

test('without ranks and rewards a batch of groups has no such keys', () => {
  const batch = collateGroups([{ prompt: [1], completions: [[2]], ranks: undefined }], { pad: 0 });
  expect(Object.keys(batch).sort()).toEqual(
    ['attentionMask', 'groups', 'inputIds', 'labels', 'sequences', 'tokens', 'truncated'].sort(),
  );
});

test('the layouts by type', () => {
  const single: UnpairedExample[] = [{ prompt: [1], completion: [2], desirable: true }];
  const many: CompletionGroup[] = [{ prompt: [1], completions: [[2]] }];
  expectTypeOf(collateUnpaired(single, { pad: 0 })).toEqualTypeOf<PaddedUnpaired>();
  expectTypeOf(collateUnpaired(single, { layout: 'packed' })).toEqualTypeOf<PackedUnpaired>();
  expectTypeOf(collateGroups(many, { pad: 0 })).toEqualTypeOf<PaddedGroups>();
  expectTypeOf(collateGroups(many, { layout: 'packed' })).toEqualTypeOf<PackedGroups>();
  expectTypeOf<PackedGroups>().toExtend<Omit<PackedPairs, 'madeIdentical'>>();
});

describe('what it returns is a batch of a loss', () => {
  const vocab = 5;
  const random = generator(5);
  /** Logits of what follows an id, which say what each row must have. */
  const following = Float32Array.from({ length: vocab * vocab }, () => normal(random));
  const after = (id: number): Float32Array => following.subarray(id * vocab, (id + 1) * vocab);
  /** The batch of a loss, and the same in log-probabilities by definition. */
  function batchesOf(
    rows: ReturnType<typeof collateUnpaired | typeof collateGroups>,
    sequences: readonly (readonly [prompt: readonly number[], completion: readonly number[]])[],
  ) {
    const shape = 'tokens' in rows ? [rows.sequences, rows.tokens, vocab] : [rows.rows, vocab];
    const logits = Float32Array.from([...rows.inputIds].flatMap((id) => [...after(id)]));
    const logps = Float64Array.from(sequences, ([prompt, completion]) => {
      const ids = [...prompt.slice(-1), ...completion];
      return completion.reduce((sum, id, i) => {
        const z = after(at(ids, i));
        return sum + at(z, id) - Math.log(z.reduce((all, x) => all + Math.exp(x), 0));
      }, 0);
    });
    const counts = Int32Array.from(sequences, ([, completion]) => completion.length);
    return { batch: { ...rows, shape, logits }, byHand: { logps, counts } };
  }

  test.each(layouts)('of single completions, %s', (layout) => {
    const examples = [
      { prompt: [1, 2], completion: [3], desirable: true },
      { prompt: [1], completion: [4, 1, 0], desirable: false },
      { prompt: [2, 2], completion: [1], desirable: false },
    ];
    const rows = collateUnpaired(examples, { layout, pad: 0 });
    const { batch, byHand } = batchesOf(
      rows,
      examples.map(({ prompt, completion }) => [prompt, completion]),
    );
    const fields = { reference: Float64Array.of(-2, -5, -2), kl: 0.25 };
    const kto = dirAlignLoss('kto', 0.5);
    const { losses } = kto({ ...batch, ...fields } as never);
    const desirable = [true, false, false];
    const expected = kto.fromLogps({ ...byHand, ...fields, desirable }).losses;
    expectNear('losses', losses, expected, 1e-6);
  });

  test.each(
    layouts.flatMap((layout) => [
      [layout, 'plackett_luce', 'ranks', [1, 0, 2, 5]] as const,
      [layout, 'info_nca', 'rewards', [0.5, 2, -1, 3]] as const,
      [layout, 'nca_listwise', 'rewards', [0.5, 2, -1, 3]] as const,
    ]),
  )('of groups, %s: %s', (layout, method, key, values) => {
    const examples = [
      { prompt: [1, 2], completions: [[3], [4, 1], [0, 2, 1]], [key]: values.slice(0, 3) },
      { prompt: [1], completions: [[4]], [key]: values.slice(3) },
    ];
    const rows = collateGroups(examples, { layout, pad: 0 });
    const { batch, byHand } = batchesOf(
      rows,
      examples.flatMap(({ prompt, completions }) =>
        completions.map((completion) => [prompt, completion] as const),
      ),
    );
    const reference = Float64Array.of(-2, -3, -4, -2);
    const objective = dirAlignLoss({ method, beta: 0.5 });
    const { losses } = objective({ ...batch, reference } as never);
    const groups = Int32Array.of(0, 3, 4);
    const given = { ...byHand, reference, groups, [key]: values };
    expectNear('losses', losses, objective.fromLogps(given as never).losses, 1e-6);
  });
});

// ----------------------------------------------------------------------------------------------

const single = { prompt: [1, 2], completion: [3], desirable: true };
const several = { prompt: [1, 2], completions: [[3], [4, 5]] };
const looseUnpaired = collateUnpaired as unknown as (...args: readonly unknown[]) => unknown;
const looseGroups = collateGroups as unknown as (...args: readonly unknown[]) => unknown;
const revoked = (): unknown => {
  const { proxy, revoke } = Proxy.revocable<unknown[]>([], {});
  revoke();
  return proxy;
};
const holes = (length: number): unknown[] => {
  const array: unknown[] = [];
  array.length = length;
  return array;
};

describe('refused, of both', () => {
  test.each<[string, unknown, unknown, Kind, Words]>([
    ['no examples', [], { pad: 0 }, 'RangeError SHAPE', 'examples | at least one'],
    ['no array', { length: 1 }, { pad: 0 }, 'TypeError SHAPE', 'examples | Object | array'],
    ['a revoked Proxy', revoked(), { pad: 0 }, 'TypeError SHAPE', 'examples | revoked Proxy'],
    ['a typed array', Int32Array.of(1), { pad: 0 }, 'TypeError SHAPE', 'examples | Int32Array'],
    ['no options', [single], undefined, 'TypeError OPTION', 'options | undefined'],
    ['no pad', [single], {}, 'TypeError OPTION', 'pad | undefined'],
    ['an unknown option', [single], { pads: 0 }, 'TypeError OPTION', "pads | 'pad'"],
    ['an example that is null', [null], { pad: 0 }, 'TypeError LABEL', 'examples[0] | null'],
    ['an example of ids', [[1, 2]], { pad: 0 }, 'TypeError LABEL', 'examples[0] | Array'],
    ['a revoked example', [revoked()], { pad: 0 }, 'TypeError LABEL', 'examples[0] | revoked'],
    ['holes without end', holes(2 ** 32 - 1), { pad: 0 }, 'TypeError LABEL', 'examples[0]'],
  ])('%s', (_, examples, options, kind, words) => {
    for (const collate of [looseUnpaired, looseGroups])
      expectRefusal(() => collate(examples, options), kind, words);
  });

  test.each<[string, unknown, Kind, Words]>([
    ['undefined', undefined, 'TypeError LABEL', 'prompt | undefined'],
    ['text', 'abc', 'TypeError LABEL', "prompt | 'abc'"],
    ['a BigInt of 65 bits', [2n ** 64n], 'RangeError LABEL', 'prompt[0] | 18446744073709551616'],
    ['a negative BigInt', BigInt64Array.of(-1n), 'RangeError LABEL', 'prompt[0] | -1'],
    ['clamped bytes', Uint8ClampedArray.of(1), 'TypeError LABEL', 'prompt | Uint8ClampedArray'],
    ['floats', Float64Array.of(1), 'TypeError LABEL', 'prompt | Float64Array'],
    ['a boxed number', [Object(3)], 'TypeError LABEL', 'prompt[0] | Number'],
    ['NaN', [1, NaN], 'RangeError LABEL', 'prompt[1] | NaN'],
    ['a negative id', Int32Array.of(-100), 'RangeError LABEL', 'prompt[0] | -100'],
    ['an id of 33 bits', [2 ** 32], 'RangeError LABEL', 'prompt[0] | 4294967296'],
    // oxlint-disable-next-line no-sparse-arrays
    ['a hole', [1, , 3], 'TypeError LABEL', 'prompt[1] | undefined'],
    ['holes without end', holes(2 ** 32 - 1), 'TypeError LABEL', 'prompt[0] | undefined'],
    ['a revoked Proxy', revoked(), 'TypeError LABEL', 'prompt | revoked Proxy'],
    ['a resizable buffer', new Int32Array(resizable(8)), 'TypeError SHAPE', 'prompt | resizable'],
    ['a detached one', detached(Int32Array.of(1)), 'TypeError SHAPE', 'prompt | detached'],
  ])('a prompt of %s', (_, prompt, kind, words) => {
    const named = (words as string).replace('prompt', 'examples[1].prompt');
    expectRefusal(() => looseUnpaired([single, { ...single, prompt }], { pad: 0 }), kind, named);
    expectRefusal(() => looseGroups([several, { ...several, prompt }], { pad: 0 }), kind, named);
    const completion = named.replace('prompt', 'completion');
    expectRefusal(
      () => looseUnpaired([single, { ...single, completion: prompt }], { pad: 0 }),
      kind,
      completion,
    );
    const candidate = named.replace('prompt', 'completions[1]');
    expectRefusal(
      () => looseGroups([several, { ...several, completions: [[1], prompt] }], { pad: 0 }),
      kind,
      candidate,
    );
  });
});

test.each<[unknown, Words]>([
  [undefined, 'desirable | undefined'],
  [1, 'desirable | 1'],
  ['true', "desirable | 'true'"],
  [null, 'desirable | null'],
  [new Boolean(false), 'desirable | Boolean'],
])('refused: desirable of %j', (desirable, words) => {
  expectRefusal(
    () => looseUnpaired([single, { ...single, desirable }], { pad: 0 }),
    'TypeError OPTION',
    ['examples[1]', ...(words as string).split(' | ')],
  );
});

test.each<[string, unknown, CollateOptions, Kind, Words]>([
  ['no completions', { prompt: [1] }, {}, 'TypeError LABEL', 'completions | undefined'],
  ['completions of none', { ...several, completions: [] }, {}, 'RangeError SHAPE', 'completions'],
  ['one completion, bare', { prompt: [1], completions: [3, 4] }, {}, 'TypeError LABEL', '[0] | 3'],
  ['ids as completions', { prompt: [1], completions: Int32Array.of(3) }, {}, 'TypeError LABEL', ''],
  [
    'holes without end',
    { prompt: [1], completions: holes(2 ** 32 - 1) },
    {},
    'TypeError LABEL',
    'examples[0].completions[0] | undefined',
  ],
  [
    'an empty completion',
    { prompt: [1], completions: [[1], []] },
    {},
    'RangeError LABEL',
    'examples[0].completions[1] | no tokens',
  ],
  [
    'nothing to score after an empty prompt',
    { prompt: [], completions: [[1, 2], [3]] },
    {},
    'RangeError LABEL',
    'examples[0].completions[1] | 1 token | empty prompt',
  ],
  [
    'a prompt that leaves no room',
    several,
    { maxLength: 2 },
    'RangeError LABEL',
    "examples[0].completions[0] | 'keep_start' | maxLength, 2",
  ],
  ['too few ranks', { ...several, ranks: [1] }, {}, 'RangeError SHAPE', 'ranks | 1 | 2'],
  ['too many rewards', { ...several, rewards: [1, 2, 3] }, {}, 'RangeError SHAPE', 'rewards | 3'],
  ['rewards as text', { ...several, rewards: 'ab' }, {}, 'TypeError DTYPE', "rewards | 'ab'"],
  ['rewards null', { ...several, rewards: null }, {}, 'TypeError DTYPE', 'rewards | null'],
  [
    'rewards of bytes',
    { ...several, rewards: Uint8Array.of(1, 2) },
    {},
    'TypeError DTYPE',
    'Uint8',
  ],
  [
    'a reward of NaN',
    { ...several, rewards: [1, NaN] },
    {},
    'RangeError OPTION',
    'rewards[1] | NaN',
  ],
  [
    'an infinite reward',
    { ...several, rewards: Float32Array.of(-Infinity, 0) },
    {},
    'RangeError OPTION',
    'rewards[0] | -Infinity',
  ],
  [
    'a reward as text',
    { ...several, rewards: [1, '2'] },
    {},
    'TypeError OPTION',
    "rewards[1] | '2'",
  ],
  ['a BigInt reward', { ...several, rewards: [1n, 2n] }, {}, 'TypeError OPTION', 'rewards[0] | 1n'],
  ['rewards with a hole', { ...several, rewards: holes(2) }, {}, 'TypeError OPTION', 'rewards[0]'],
  ['endless ranks', { ...several, ranks: holes(2 ** 32 - 1) }, {}, 'RangeError SHAPE', 'ranks | 3'],
  ['a rank of NaN', { ...several, ranks: [NaN, 0] }, {}, 'RangeError OPTION', 'ranks[0] | NaN'],
  ['half a rank', { ...several, ranks: [0, 0.5] }, {}, 'RangeError OPTION', 'ranks[1] | 0.5'],
  ['a rank beyond 2^53', { ...several, ranks: [0, 2 ** 60] }, {}, 'RangeError OPTION', 'ranks[1]'],
  [
    'equal ranks',
    { ...several, ranks: [3, 3] },
    {},
    'RangeError OPTION',
    'ranks[1] | 3 | distinct',
  ],
  ['zeros of both signs', { ...several, ranks: [0, -0] }, {}, 'RangeError OPTION', 'ranks[1]'],
])('refused, of groups: %s', (_, example, options, kind, words) => {
  expectRefusal(() => looseGroups([example], { pad: 0, ...options }), kind, words);
});

test.each(['ranks', 'rewards'])('refused: %s that only some groups have', (key) => {
  const judged = { ...several, [key]: [0, 1] };
  const words = `${key} | undefined | examples[`;
  const mixed: [unknown[], string][] = [
    [[judged, several], `examples[1].${words}0]`],
    [[several, several, judged], `examples[0].${words}2]`],
  ];
  for (const [examples, expected] of mixed)
    expectRefusal(() => looseGroups(examples, { pad: 0 }), 'TypeError OPTION', expected);
});

describe('arrays that change while they are read', () => {
  test.each(['1', NaN, -1, 0.5, 2 ** 53, 1n, {}])(
    'a Proxy with a length of %s is refused',
    (length) => {
      const lying = new Proxy([1, 2], {
        get: (target, key) => (key === 'length' ? length : (Reflect.get(target, key) as unknown)),
      });
      const refused = (examples: unknown, code: string, words: string, collate = looseUnpaired) => {
        expectRefusal(() => collate(examples, { pad: 0 }), `RangeError ${code}`, words);
      };
      refused(lying, 'SHAPE', 'examples: its length is');
      refused([{ ...single, prompt: lying }], 'LABEL', 'examples[0].prompt: its length is');
      refused([{ ...single, completion: lying }], 'LABEL', 'examples[0].completion: its length is');
      refused(
        [{ prompt: [1], completions: lying }],
        'SHAPE',
        'completions: its length',
        looseGroups,
      );
    },
  );

  /** An array whose first element is another one each time it is read. */
  const changing = (...values: unknown[]): unknown[] => {
    let reads = 0;
    return Object.defineProperty([0, 1], 0, {
      get: () => values[Math.min(reads++, values.length - 1)],
    });
  };

  test.each([-100, 2 ** 31, 1.5, 'a', undefined])('%s never gets into a batch', (later) => {
    for (const key of ['prompt', 'completion']) {
      const example = { ...single, [key]: changing(3, later) };
      const words = `examples[0].${key}[0]`;
      const kind = typeof later === 'number' ? 'RangeError LABEL' : 'TypeError LABEL';
      expectRefusal(() => looseUnpaired([example], { pad: 0 }), kind, words);
    }
  });

  test('an array that another example empties is refused', () => {
    const completion = [3, 4, 5];
    const other = {
      ...single,
      get completion() {
        completion.length = 0;
        return [1];
      },
    };
    expectRefusal(
      () => looseUnpaired([{ ...single, completion }, other], { pad: 0 }),
      'TypeError LABEL',
      'examples[0].completion[0] | undefined',
    );
  });

  test('properties of an example are read once, ranks and rewards too', () => {
    const reads: string[] = [];
    const example = new Proxy(
      { ...several, ranks: [1, 0], rewards: [1, 2] },
      {
        get: (target, key) => {
          reads.push(String(key));
          return Reflect.get(target, key) as unknown;
        },
      },
    );
    const { ranks, rewards } = collateGroups([example], { pad: 0 });
    expect([...(ranks ?? []), ...(rewards ?? [])]).toEqual([1, 0, 1, 2]);
    expect(reads.filter((key) => !['constructor'].includes(key)).sort()).toEqual(
      ['completionMasks', 'completions', 'prompt', 'ranks', 'rewards'].sort(),
    );
  });

  test('an iterator of its own does not decide what an array has', () => {
    const examples = Object.assign([single], {
      *[Symbol.iterator]() {
        for (;;) yield single;
      },
    });
    expect(collateUnpaired(examples, { pad: 0 }).sequences).toBe(1);
  });
});

test('more rows than 32 bits count are refused before memory is asked for', () => {
  const completion = new Int32Array(2 ** 20);
  const examples = Array.from({ length: 2049 }, (_, i) =>
    i === 0 ? { ...single, completion } : single,
  );
  expectRefusal(
    () => looseUnpaired(examples, { pad: 0 }),
    'RangeError SHAPE',
    `examples | ${2049 * (2 ** 20 + 2)} | 2147483647`,
  );
  const completions = [completion, ...Array.from({ length: 2048 }, () => [3])];
  expectRefusal(
    () => looseGroups([{ prompt: [1, 2], completions }], { pad: 0 }),
    'RangeError SHAPE',
    `examples | ${2049 * (2 ** 20 + 2)} | 2147483647`,
  );
});

test('what a program adds to Object.prototype changes nothing', () => {
  const added = Object.prototype as unknown as Record<string, unknown>;
  const expected = [collateUnpaired([single], { pad: 0 }), collateGroups([several], { pad: 0 })];
  try {
    Object.assign(added, { ranks: [1], rewards: [1], desirable: false, completions: [] });
    expect([collateUnpaired([single], { pad: 0 }), collateGroups([several], { pad: 0 })]).toEqual(
      expected,
    );
    expectRefusal(
      () => looseUnpaired([{ prompt: [1], completion: [2] }], { pad: 0 }),
      'TypeError OPTION',
      'examples[0].desirable | undefined',
    );
  } finally {
    for (const key of ['ranks', 'rewards', 'desirable', 'completions'])
      Reflect.deleteProperty(added, key);
  }
});
