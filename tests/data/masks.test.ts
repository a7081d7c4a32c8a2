// Tokens that no model wrote are not scored, ids are the same in whatever array they come, and what
// truncation does to pairs is counted.
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  collateGroups,
  collatePairs,
  collateUnpaired,
  learnedTurns,
  mismatched,
  type CollateOptions,
  type PackedRows,
  type PreferencePair,
  type TokenMask,
} from '../../ts/data/index.js';
import { dirAlignLoss } from '../../ts/index.js';
import { at } from '../support/numbers.js';
import { detached, expectRefusal, type Kind, type Words } from '../support/refusal.js';
import { assistant } from '../support/turns.js';

const packed = { layout: 'packed' } as const;

test('by hand: tokens with 0 in the mask are context, and the others are scored', () => {
  const example = {
    prompt: [1, 2],
    chosen: [3, 4, 5, 6],
    chosenMask: [1, 0, 0, 1],
    rejected: [7, 8],
    rejectedMask: [false, true],
  };
  const batch = collatePairs([example], packed);
  expect([...batch.inputIds]).toEqual([1, 2, 3, 4, 5, 6, 1, 2, 7, 8]);
  expect([...batch.labels]).toEqual([-100, 3, -100, -100, 6, -100, -100, -100, 8, -100]);
  expect(batch.attentionMask).toEqual(new Int32Array(10).fill(1));
  const single = { prompt: [1], completion: [3, 4], completionMask: [0, 1], desirable: true };
  expect([...collateUnpaired([single], { pad: 0 }).labels]).toEqual([-100, 4, -100]);
  const several = { prompt: [1], completions: [[3, 4], [5]], completionMasks: [[1, 0], undefined] };
  expect([...collateGroups([several], packed).labels]).toEqual([3, -100, -100, 5, -100]);
});

test('a mask leaves out what it says, whatever truncation keeps', () => {
  const ids = fc.array(fc.integer({ min: 1, max: 9 }), { minLength: 1, maxLength: 8 });
  const cutting: fc.Arbitrary<CollateOptions> = fc.record({
    maxLength: fc.integer({ min: 4, max: 17 }),
    truncation: fc.constantFrom('keep_start', 'keep_end'),
  });
  let scored = 0;
  const property = fc.property(
    ids,
    ids,
    fc.infiniteStream(fc.boolean()),
    cutting,
    (prompt, completion, flags, options) => {
      const completionMask = completion.map(() => flags.next().value as boolean);
      const example = { prompt, completion, desirable: true };
      const collate = (given: typeof example & { completionMask?: TokenMask }): PackedRows =>
        collateUnpaired([given], { ...options, layout: 'packed' });
      let all: PackedRows;
      try {
        all = collate(example);
      } catch {
        return;
      }
      // The place in the completion of the token that each row scores, by way of ids that tell it.
      const places = collate({ ...example, completion: completion.map((_, i) => 1000 + i) }).labels;
      const expected = all.labels.map((label, row) =>
        completionMask[at(places, row) - 1000] === true ? label : -100,
      );
      if (expected.every((label) => label === -100)) {
        expectRefusal(
          () => collate({ ...example, completionMask }),
          'RangeError LABEL',
          'examples[0].completionMask: leaves no token to score',
        );
        return;
      }
      scored++;
      const masked = collate({ ...example, completionMask });
      expect(masked.labels).toEqual(expected);
      expect(masked.inputIds).toEqual(all.inputIds);
    },
  );
  fc.assert(property, { seed: 20261129, numRuns: 500 });
  expect(scored).toBeGreaterThan(200);
});

test('the masks that the turns of a conversation make', () => {
  const turns = [
    { ...assistant(''), ids: [3, 4], tool_calls: [{}] },
    { role: 'tool', content: '12:00', ids: [5, 6, 7] },
    { ...assistant('Noon.'), ids: [8, 2] },
  ];
  const learned = learnedTurns(turns);
  const chosen = turns.flatMap(({ ids }) => ids);
  const chosenMask = turns.flatMap(({ ids }, i) => ids.map(() => learned[i] ?? false));
  const { labels } = collatePairs([{ prompt: [1], chosen, chosenMask, rejected: [9, 2] }], packed);
  expect([...labels]).toEqual([3, 4, -100, -100, -100, 8, 2, -100, 9, 2, -100]);
});

describe('ids and masks in any array', () => {
  const plain = { prompt: [1, 2], chosen: [3, 4], rejected: [5], chosenMask: [0, 1] };
  const big = (array: readonly number[]): bigint[] => array.map(BigInt);
  test.each<[string, (array: readonly number[]) => PreferencePair['prompt']]>([
    ['Int8Array', (array) => Int8Array.from(array)],
    ['Uint8Array', (array) => Uint8Array.from(array)],
    ['Buffer', (array) => Buffer.from(array)],
    ['Int16Array', (array) => Int16Array.from(array)],
    ['Uint16Array', (array) => Uint16Array.from(array)],
    ['Uint32Array', (array) => Uint32Array.from(array)],
    ['BigInt64Array', (array) => BigInt64Array.from(big(array))],
    ['BigUint64Array', (array) => BigUint64Array.from(big(array))],
    ['big integers', (array) => big(array)],
  ])('%s', (_, made) => {
    const example = Object.fromEntries(
      Object.entries(plain).map(([key, array]) => [key, made(array)]),
    ) as unknown as PreferencePair;
    expect(collatePairs([example], { pad: 0 })).toEqual(collatePairs([plain], { pad: 0 }));
  });

  test('the largest id, and the first that is none', () => {
    const example = (id: bigint) => ({ ...plain, prompt: BigUint64Array.of(id) });
    expect(collatePairs([example(2n ** 31n - 1n)], packed).inputIds[0]).toBe(0x7fffffff);
    expectRefusal(
      () => collatePairs([example(2n ** 31n)], packed),
      'RangeError LABEL',
      'examples[0].prompt[0]: 2147483648n is not a whole number',
    );
  });
});

describe('what truncation does is counted', () => {
  const options = { ...packed, maxLength: 5 };
  const short = { prompt: [1], chosen: [2], rejected: [3] };
  test('pairs that lost tokens, in either sequence', () => {
    const long = { prompt: [1, 1], chosen: [2, 2, 2, 2], rejected: [3] };
    const wide = { prompt: [1, 1], chosen: [2], rejected: [3, 3, 3, 3] };
    expect(collatePairs([short, long, wide], options)).toMatchObject({
      truncated: 2,
      madeIdentical: 0,
    });
    expect(collatePairs([short, long, wide], packed)).toMatchObject({ truncated: 0 });
  });

  test('pairs that truncation made the same; not those that were, or differ still', () => {
    const made = { prompt: [1, 1], chosen: [2, 3, 4, 5], rejected: [2, 3, 4, 6] };
    const other = { prompt: [1, 1], chosen: [2, 3, 4, 5], rejected: [2, 3, 4] };
    const were = { prompt: [1, 1], chosen: [2, 3, 4, 5], rejected: [2, 3, 4, 5] };
    const differ = { prompt: [1, 1], chosen: [2, 3, 4, 5], rejected: [2, 3, 9, 5] };
    const batch = collatePairs([short, made, other, were, differ], options);
    expect(batch).toMatchObject({ truncated: 4, madeIdentical: 2 });
    // Those that differ at their start, and those that differ in what is scored.
    const atEnd = { ...options, truncation: 'keep_end' } as const;
    const starts = { prompt: [1], chosen: [8, 2, 3, 4, 5, 6], rejected: [9, 2, 3, 4, 5, 6] };
    expect(collatePairs([starts], atEnd).madeIdentical).toBe(1);
    const masked = { ...made, chosenMask: [1, 1, 0, 1], rejectedMask: [1, 0, 1, 1] };
    expect(collatePairs([masked], options)).toMatchObject({ truncated: 1, madeIdentical: 0 });
  });

  test('single completions and groups', () => {
    const single = (length: number) => ({
      prompt: [1],
      completion: new Uint8Array(length).fill(2),
      desirable: true,
    });
    expect(collateUnpaired([4, 5, 6].map(single), options).truncated).toBe(2);
    const group = (...lengths: number[]) => ({
      prompt: [1],
      completions: lengths.map((length) => new Uint8Array(length).fill(2)),
    });
    expect(collateGroups([group(4, 4), group(5, 6), group(1, 5)], options).truncated).toBe(2);
  });

  test('a loss takes the batch as it is', () => {
    const batch = collatePairs([short, short], packed);
    const logits = new Float32Array(batch.rows * 4);
    const { losses } = dirAlignLoss(
      'dpo',
      0.1,
    )({
      ...batch,
      logits,
      shape: [batch.rows, 4],
      reference: new Float64Array(4),
    });
    expect([...losses]).toEqual([Math.LN2, Math.LN2]);
  });
});

test('positions begin anew with each sequence, after truncation at its start too', () => {
  const example = { prompt: [1, 2, 3], chosen: [4, 5], rejected: [6] };
  const options = { ...packed, maxLength: 3, truncation: 'keep_end' } as const;
  const { positionIds, offsets } = collatePairs([example], options);
  expect([...offsets]).toEqual([0, 3, 6]);
  expect([...positionIds]).toEqual([0, 1, 2, 0, 1, 2]);
});

test('the baseline of KTO has the mask of the completion that it has', () => {
  const examples = [
    { prompt: [1], completion: [2, 3], completionMask: [0, 1], desirable: true },
    { prompt: [4], completion: BigInt64Array.of(5n), desirable: false },
  ];
  expect(mismatched(examples as never)).toEqual([
    { prompt: [1], completion: BigInt64Array.of(5n), completionMask: undefined, desirable: true },
    { prompt: [4], completion: [2, 3], completionMask: [0, 1], desirable: false },
  ]);
  const equal = [
    { prompt: [1], completion: [2n, 3n], desirable: true },
    { prompt: [4], completion: Uint16Array.of(2, 3), desirable: true },
  ];
  expectRefusal(() => mismatched(equal), 'RangeError SHAPE', 'all 2 have the same completion');
});

describe('refused', () => {
  const good = { prompt: [1, 2], chosen: [3, 4], rejected: [5] };
  test.each<[string, unknown, Kind, Words]>([
    ['text', '10', 'TypeError LABEL', "expected 0 or 1 for each token | '10'"],
    ['null', null, 'TypeError LABEL', 'null'],
    ['floats', Float32Array.of(1, 0), 'TypeError LABEL', 'Float32Array'],
    ['a weight', [1, 0.5], 'TypeError LABEL', 'chosenMask[1]: expected 0 or 1, not 0.5'],
    ['a big integer', [1n, 2n], 'TypeError LABEL', 'chosenMask[1] | 2n'],
    ['a hole', Array(2), 'TypeError LABEL', 'chosenMask[0] | undefined'],
    ['too few', [1], 'RangeError SHAPE', 'length 1; expected 2, one per token of the completion'],
    ['too many', [1, 1, 1], 'RangeError SHAPE', 'length 3; expected 2'],
    ['all 0', [0, 0], 'RangeError LABEL', 'leaves no token to score in the 2 that are kept of 2'],
    ['a detached one', detached(Uint8Array.of(1, 1)), 'TypeError SHAPE', 'detached'],
  ])('a mask of %s', (_, chosenMask, kind, words) => {
    const examples = [good, { ...good, chosenMask }] as never;
    const named = typeof words === 'string' ? words.split(' | ') : words;
    expectRefusal(() => collatePairs(examples, { pad: 0 }), kind, [
      'examples[1].chosenMask',
      ...named,
    ]);
  });

  test('a mask whose only token is the first of a sequence, which is never scored', () => {
    const example = { prompt: [], chosen: [3, 4], chosenMask: [1, 0], rejected: [5, 6] };
    expectRefusal(() => collatePairs([example], packed), 'RangeError LABEL', 'leaves no token');
  });

  test('masks of a group', () => {
    const group = (completionMasks: unknown) => ({
      prompt: [1],
      completions: [[2], [3]],
      completionMasks,
    });
    const collate = (masks: unknown) => () => collateGroups([group(masks)] as never, packed);
    expectRefusal(collate(5), 'TypeError LABEL', 'completionMasks: expected an array of masks');
    expectRefusal(collate([[1]]), 'RangeError SHAPE', 'length 1; expected 2, one per completion');
    expectRefusal(collate([[1], [0]]), 'RangeError LABEL', 'completionMasks[1]: leaves no token');
  });

  test('a mask is read once', () => {
    let reads = 0;
    const chosenMask = Object.defineProperty([0, 1], 0, { get: () => (reads++ === 0 ? 1 : 'x') });
    const { labels } = collatePairs([{ ...good, chosenMask }] as never, packed);
    expect([...labels]).toEqual([-100, 3, 4, -100, -100, 5, -100]);
    expect(reads).toBe(1);
  });
});

test('learnedTurns refuses what is no list of turns', () => {
  const revoked = Proxy.revocable([], {});
  revoked.revoke();
  for (const bad of [undefined, null, 0, 'x', {}, revoked.proxy])
    expectRefusal(() => learnedTurns(bad as never), 'TypeError OPTION', [/^turns: expected/]);
  for (const bad of [null, undefined, 1, []])
    expectRefusal(() => learnedTurns([bad] as never), 'TypeError OPTION', [/^turns\[0\]: expect/]);
  expect(learnedTurns([{ content: 'x' }] as never)).toEqual([false]);
});
