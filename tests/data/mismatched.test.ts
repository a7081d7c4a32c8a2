// KTO's baseline: every prompt gets a completion that is not its own, the nearest one after it.
import fc from 'fast-check';
import { expect, expectTypeOf, test } from 'vitest';
import { collateUnpaired, mismatched, type UnpairedExample } from '../../ts/data/index.js';
import { detached, expectRefusal, type Kind, type Words } from '../support/refusal.js';

const of = (completion: readonly number[] | Int32Array, i: number): UnpairedExample => ({
  prompt: [i + 1],
  completion,
  desirable: i % 2 === 0,
});

test('each prompt has the next completion, the last the first, with its own other fields', () => {
  const examples = [of([7], 0), of([8, 8], 1), of([9], 2)].map((example, id) => ({
    ...example,
    id,
  }));
  const before = structuredClone(examples);
  const baseline = mismatched(examples);
  expectTypeOf(baseline).toEqualTypeOf<typeof examples>();
  expect(baseline).toEqual([
    { prompt: [1], completion: [8, 8], desirable: true, id: 0 },
    { prompt: [2], completion: [9], desirable: false, id: 1 },
    { prompt: [3], completion: [7], desirable: true, id: 2 },
  ]);
  expect(examples).toEqual(before);
  expect(collateUnpaired(baseline, { layout: 'packed' }).inputIds).toEqual(
    Int32Array.of(1, 8, 8, 2, 9, 3, 7),
  );
});

test.each([
  [[0, 0, 1], '[2,2,0]'],
  [[0, 1, 1], '[1,0,0]'],
  [[1, 0, 0, 1], '[1,3,3,1]'],
  [[0, 0, 0, 1, 0], '[3,3,3,4,3]'],
])('where completions repeat: %j', (kinds, expected) => {
  const completions = [[5], [6]];
  const examples = kinds.map((kind, i) => of([...(completions[kind] as number[])], i));
  const sources = mismatched(examples).map(({ completion }) =>
    examples.findIndex((example) => example.completion === completion),
  );
  expect(JSON.stringify(sources)).toBe(expected);
});

test('the nearest after each that has another one, whichever array it is in', () => {
  const completion = fc
    .tuple(fc.array(fc.integer({ min: 0, max: 1 }), { maxLength: 1 }), fc.boolean())
    .map(([ids, typed]) => (typed ? Int32Array.from(ids) : ids));
  const property = (completions: (number[] | Int32Array)[]): void => {
    const examples = completions.map(of);
    const texts = completions.map((ids) => ids.join());
    if (new Set(texts).size < 2) {
      expectRefusal(() => mismatched(examples), 'RangeError SHAPE', 'examples | completion');
      return;
    }
    const expected = completions.map((_, i) => {
      let source = i;
      while (texts[source] === texts[i]) source = (source + 1) % completions.length;
      return completions[source];
    });
    const found = mismatched(examples).map((example) => example.completion);
    expect(found.every((each, i) => each === expected[i])).toBe(true);
  };
  fc.assert(fc.property(fc.array(completion, { minLength: 1, maxLength: 8 }), property), {
    seed: 20260206,
    numRuns: 500,
  });
});

test('text and messages, as a reader gives them', () => {
  const texts = ['a', 'a', 'b'].map((completion, i) => ({ prompt: String(i), completion }));
  expect(mismatched(texts).map(({ completion }) => completion)).toEqual(['b', 'b', 'a']);
  const said = (content: string) => [{ role: 'assistant', content }];
  const talks = ['a', 'a', 'b'].map((content, i) => ({
    prompt: [{ role: 'user', content: String(i) }],
    completion: said(content),
    record: { i },
  }));
  expect(mismatched(talks).map(({ completion }) => completion)).toEqual(['b', 'b', 'a'].map(said));
});

test('a long run of equal completions is compared once', () => {
  let compared = 0;
  const counted = (id: number): number[] =>
    Object.defineProperty([id], 0, {
      get: () => {
        compared++;
        return id;
      },
      enumerable: true,
    });
  const count = 500;
  const examples = Array.from({ length: count }, (_, i) => of(counted(i === 0 ? 1 : 2), i));
  const baseline = mismatched(examples);
  expect(baseline.slice(1).every(({ completion }) => completion === examples[0]?.completion)).toBe(
    true,
  );
  expect(baseline[0]?.completion).toBe(examples[1]?.completion);
  // Each with two neighbours, a few reads each: not with all others.
  expect(compared).toBeLessThan(20 * count);
});

test.each<[string, unknown, Kind, Words]>([
  ['no examples', [], 'RangeError SHAPE', 'examples | at least one'],
  ['one example', [of([1], 0)], 'RangeError SHAPE', 'examples | has one | two'],
  ['one completion', [of([1], 0), of([1], 1)], 'RangeError SHAPE', 'all 2 | same completion'],
  [
    'one completion in two kinds of array',
    [of([1], 0), of(Int32Array.of(1), 1)],
    'RangeError SHAPE',
    'all 2 | same completion',
  ],
  ['one text', [{ prompt: 'a', completion: 'b' }], 'RangeError SHAPE', 'examples | has one'],
  ['a batch', { inputIds: [] }, 'TypeError SHAPE', 'examples | array of examples | Object'],
  ['null', [of([1], 0), null], 'TypeError LABEL', 'examples[1] | null'],
  ['no completion', [of([1], 0), { prompt: [1] }], 'TypeError LABEL', 'examples[1].completion'],
  ['no prompt', [{ completion: [1] }, of([2], 0)], 'TypeError LABEL', 'examples[0].prompt'],
  [
    'a pair',
    [of([1], 0), { prompt: [1], chosen: [1], rejected: [2] }],
    'TypeError LABEL',
    'examples[1].completion | undefined',
  ],
  [
    'floats',
    [of([1], 0), { prompt: [1], completion: Float32Array.of(1) }],
    'TypeError LABEL',
    'examples[1].completion | Float32Array',
  ],
  [
    'detached ids',
    [of([1], 0), of(detached(Int32Array.of(1)), 1)],
    'TypeError SHAPE',
    'examples[1].completion | detached',
  ],
])('refused: %s', (_, examples, kind, words) => {
  const loose = mismatched as unknown as (examples: unknown) => unknown;
  expectRefusal(() => loose(examples), kind, words);
});
