// Token ids to batches: what each row scores, what truncation keeps, and that both layouts give a
// loss the same numbers.
import fs from 'node:fs';
import path from 'node:path';
import fc from 'fast-check';
import { describe, expect, expectTypeOf, test } from 'vitest';
import {
  collatePairs,
  type CollateOptions,
  type PackedPairs,
  type PaddedPairs,
  type PreferencePair,
} from '../../ts/data/index.js';
import { dirAlignLoss, sequenceLogps, type LogitsBatch } from '../../ts/index.js';
import { at, generator, normal, present, sameBits } from '../support/numbers.js';
import { expectRefusal, resizable, thrownBy, type Kind, type Words } from '../support/refusal.js';

function check<T>(arbitrary: fc.Arbitrary<T>, property: (value: T) => void, numRuns = 200): void {
  fc.assert(fc.property(arbitrary, property), { seed: 20250204, numRuns });
}

const vocab = 23;
const ids = (minLength: number, maxLength: number): fc.Arbitrary<number[] | Int32Array> =>
  fc
    .tuple(fc.array(fc.integer({ min: 0, max: vocab - 1 }), { minLength, maxLength }), fc.boolean())
    .map(([array, typed]) => (typed ? Int32Array.from(array) : array));
const pair = fc.record({ prompt: ids(1, 9), chosen: ids(1, 9), rejected: ids(1, 9) });
const pairs = fc.array(pair, { minLength: 1, maxLength: 5 });

/** The sequences of a batch, as the ids and the labels of their rows. */
function sequencesOf(batch: PaddedPairs | PackedPairs): { ids: number[]; labels: number[] }[] {
  return Array.from({ length: batch.sequences }, (_, i) => {
    const [start, end] =
      'tokens' in batch
        ? [i * batch.tokens, (i + 1) * batch.tokens]
        : [at(batch.offsets, i), at(batch.offsets, i + 1)];
    const length = batch.attentionMask.subarray(start, end).reduce((sum, bit) => sum + bit, 0);
    return {
      ids: [...batch.inputIds.subarray(start, start + length)],
      labels: [...batch.labels.subarray(start, start + length)],
    };
  });
}

/**
 * What TRL's two modes keep, by slices of the whole sequence: ids, and whether each is of the
 * completion.
 */
function slices(
  prompt: ArrayLike<number>,
  completion: ArrayLike<number>,
  options: CollateOptions,
): [number, boolean][] {
  const whole = [
    ...Array.from(prompt, (id): [number, boolean] => [id, false]),
    ...Array.from(completion, (id): [number, boolean] => [id, true]),
  ];
  const { maxLength = Infinity, truncation } = options;
  if (whole.length <= maxLength) return whole;
  return truncation === 'keep_end' ? whole.slice(-maxLength) : whole.slice(0, maxLength);
}
/** The id that a row scores is the one that follows, where that is of the completion. */
const labelsAfter = (tokens: readonly [number, boolean][]): number[] =>
  tokens.map((_, t) => {
    const next = tokens[t + 1];
    return next?.[1] === true ? next[0] : -100;
  });
const scored = (tokens: readonly [number, boolean][]): boolean =>
  labelsAfter(tokens).some((label) => label !== -100);

const layouts = ['padded', 'packed'] as const;
const truncations = ['keep_start', 'keep_end'] as const;

describe.each(layouts)('%s', (layout) => {
  test('every row scores the id after it, or nothing', () => {
    check(pairs, (examples) => {
      const sequences = sequencesOf(collatePairs(examples, { layout, pad: 0 }));
      const expected = [
        ...examples.map(({ prompt, chosen }) => slices(prompt, chosen, {})),
        ...examples.map(({ prompt, rejected }) => slices(prompt, rejected, {})),
      ];
      expect(sequences).toEqual(
        expected.map((tokens) => ({ ids: tokens.map(([id]) => id), labels: labelsAfter(tokens) })),
      );
    });
  });

  test.each(truncations)('%s keeps what it says, or refuses', (truncation) => {
    check(fc.tuple(pairs, fc.integer({ min: 2, max: 20 })), ([examples, maxLength]) => {
      const options = { layout, pad: 0, maxLength, truncation };
      const expected = (['chosen', 'rejected'] as const).flatMap((key) =>
        examples.map((example) => slices(example.prompt, example[key], options)),
      );
      if (expected.every(scored)) {
        const sequences = sequencesOf(collatePairs(examples, options));
        expect(sequences).toEqual(
          expected.map((tokens) => ({
            ids: tokens.map(([id]) => id),
            labels: labelsAfter(tokens),
          })),
        );
      } else {
        const i = expected.findIndex((tokens) => !scored(tokens));
        const side = i < examples.length ? 'chosen' : 'rejected';
        const name = `examples[${i % examples.length}].${side}`;
        expectRefusal(
          () => collatePairs(examples, options),
          'RangeError LABEL',
          `${name} | 'keep_start' | ${maxLength}`,
        );
      }
    });
  });

  test.each(truncations)(
    '%s with maxPromptLength: the prompt first, the same for both',
    (truncation) => {
      const lengths = fc.integer({ min: 2, max: 20 }).chain((maxLength) =>
        fc.record({
          maxLength: fc.constant(maxLength),
          maxPromptLength: fc.integer({ min: 1, max: maxLength - 1 }),
        }),
      );
      check(fc.tuple(pairs, lengths), ([examples, limits]) => {
        const { maxLength, maxPromptLength } = limits;
        const sequences = sequencesOf(
          collatePairs(examples, { layout, pad: 0, truncation, ...limits }),
        );
        examples.forEach(({ prompt, chosen, rejected }, i) => {
          const longer = Math.max(chosen.length, rejected.length);
          let kept = [...prompt];
          if (kept.length + longer > maxLength) {
            kept =
              truncation === 'keep_start'
                ? kept.slice(0, maxPromptLength)
                : kept.slice(-maxPromptLength);
          }
          const most = kept.length + longer > maxLength ? maxLength - maxPromptLength : longer;
          const expected = [chosen, rejected].map((completion) => [
            ...kept,
            ...[...completion].slice(0, most),
          ]);
          const found = [sequences[i], sequences[i + examples.length]];
          expect(found.map((sequence) => sequence?.ids)).toEqual(expected);
          for (const sequence of found) {
            expect(present(sequence).ids.length).toBeLessThanOrEqual(maxLength);
            expect(present(sequence).labels).toEqual(
              labelsAfter(
                present(sequence).ids.map((id, t): [number, boolean] => [id, t >= kept.length]),
              ),
            );
          }
        });
      });
    },
  );

  test('the examples are not written, and the arrays are fresh', () => {
    const example = {
      prompt: Int32Array.of(1, 2, 3),
      chosen: Int32Array.of(4),
      rejected: Int32Array.of(5),
    };
    const { inputIds, labels } = collatePairs([example], { layout, pad: 0 });
    inputIds.fill(9);
    labels.fill(9);
    expect(example).toEqual({
      prompt: Int32Array.of(1, 2, 3),
      chosen: Int32Array.of(4),
      rejected: Int32Array.of(5),
    });
  });
});

test('by hand, padded', () => {
  const examples = [
    { prompt: [1, 2], chosen: [3, 4], rejected: [5] },
    { prompt: [6], chosen: [7], rejected: [8, 9, 10, 11] },
  ];
  expect(collatePairs(examples, { pad: 99 })).toEqual({
    sequences: 4,
    tokens: 5,
    inputIds: Int32Array.of(1, 2, 3, 4, 99, 6, 7, 99, 99, 99, 1, 2, 5, 99, 99, 6, 8, 9, 10, 11),
    labels: Int32Array.of(
      -100,
      3,
      4,
      -100,
      -100,
      7,
      -100,
      -100,
      -100,
      -100,
      -100,
      5,
      -100,
      -100,
      -100,
      8,
      9,
      10,
      11,
      -100,
    ),
    attentionMask: Int32Array.of(1, 1, 1, 1, 0, 1, 1, 0, 0, 0, 1, 1, 1, 0, 0, 1, 1, 1, 1, 1),
    truncated: 0,
    madeIdentical: 0,
  });
});

test('by hand, packed; after an empty prompt the first token is context', () => {
  const examples = [{ prompt: [], chosen: [3, 4], rejected: [5, 6, 7] }];
  expect(collatePairs(examples, { layout: 'packed' })).toEqual({
    sequences: 2,
    rows: 5,
    offsets: Int32Array.of(0, 2, 5),
    inputIds: Int32Array.of(3, 4, 5, 6, 7),
    labels: Int32Array.of(4, -100, 6, 7, -100),
    attentionMask: Int32Array.of(1, 1, 1, 1, 1),
    positionIds: Int32Array.of(0, 1, 0, 1, 2),
    truncated: 0,
    madeIdentical: 0,
  });
});

test('the layouts by type', () => {
  const examples = [{ prompt: [1], chosen: [2], rejected: [3] }];
  expectTypeOf(collatePairs(examples, { pad: 0 })).toEqualTypeOf<PaddedPairs>();
  expectTypeOf(collatePairs(examples, { layout: 'padded', pad: 0 })).toEqualTypeOf<PaddedPairs>();
  expectTypeOf(
    collatePairs(examples, { layout: 'packed', maxLength: 4 }),
  ).toEqualTypeOf<PackedPairs>();
  const either = (layout: CollateOptions['layout']) =>
    collatePairs(examples, { layout: layout ?? 'packed', pad: 0 });
  expectTypeOf(either).returns.toEqualTypeOf<PaddedPairs | PackedPairs>();
});

describe('in a loss', () => {
  /**
   * Logits of the rows of a packed batch, and the same rows in their places of the padded one, with
   * NaN in the padding.
   */
  function bothBatches(
    examples: readonly PreferencePair[],
    options: CollateOptions,
    seed: number,
  ): [LogitsBatch, LogitsBatch] {
    const padded = collatePairs(examples, { ...options, layout: 'padded', pad: 0 });
    const packed = collatePairs(examples, { ...options, layout: 'packed' });
    const random = generator(seed);
    const rows = Float32Array.from({ length: packed.rows * vocab }, () => 3 * normal(random));
    const spread = new Float32Array(padded.sequences * padded.tokens * vocab).fill(NaN);
    for (let i = 0; i < packed.sequences; i++) {
      const [start, end] = [at(packed.offsets, i), at(packed.offsets, i + 1)];
      spread.set(rows.subarray(start * vocab, end * vocab), i * padded.tokens * vocab);
    }
    return [
      { ...padded, logits: spread, shape: [padded.sequences, padded.tokens, vocab] },
      { ...packed, logits: rows, shape: [packed.rows, vocab] },
    ];
  }
  const cases = fc.record({
    examples: pairs,
    seed: fc.integer({ min: 1, max: 0x7fffffff }),
    maxLength: fc.integer({ min: 2, max: 20 }),
  });

  test('padded and packed agree, bit for bit', () => {
    check(cases, ({ examples, seed, maxLength }) => {
      const [padded, packed] = bothBatches(examples, { maxLength, truncation: 'keep_end' }, seed);
      const [a, b] = [sequenceLogps(padded), sequenceLogps(packed)];
      expect(sameBits(a.logps, b.logps)).toBe(true);
      expect(a.counts).toEqual(b.counts);
      expect(Math.min(...a.counts)).toBeGreaterThan(0);
      const reference = a.logps.map((logp, i) => logp + Math.sin(i));
      const dpo = dirAlignLoss('dpo', 0.1);
      const [inPadded, inPacked] = [dpo({ ...padded, reference }), dpo({ ...packed, reference })];
      expect(inPadded.loss).toBe(inPacked.loss);
      expect(inPadded.metrics).toEqual(inPacked.metrics);
      for (const key of ['losses', 'logps', 'rewards', 'coefficients'] as const) {
        expect(sameBits(inPadded[key], inPacked[key]), key).toBe(true);
      }
      // The gradient of the padded batch is the packed one's, in the same places, and 0 in the
      // padding.
      const [spread, rows] = [
        inPadded.gradLogits as Float32Array,
        inPacked.gradLogits as Float32Array,
      ];
      const { offsets = new Int32Array() } = packed;
      const tokens = present(padded.shape[1]);
      const expected = new Float32Array(spread.length);
      for (let i = 0; i + 1 < offsets.length; i++) {
        expected.set(
          rows.subarray(at(offsets, i) * vocab, at(offsets, i + 1) * vocab),
          i * tokens * vocab,
        );
      }
      expect(sameBits(spread, expected)).toBe(true);
    });
  });

  test('log-probabilities are those of the completion, computed from its definition', () => {
    check(
      cases,
      ({ examples, seed }) => {
        const [, packed] = bothBatches(examples, {}, seed);
        const { logps, counts } = sequenceLogps(packed);
        const { offsets = new Int32Array() } = packed;
        const logits = packed.logits as Float32Array;
        const completions = (['chosen', 'rejected'] as const).flatMap((key) =>
          examples.map(({ prompt, [key]: completion }) => ({ prompt, completion })),
        );
        completions.forEach(({ prompt, completion }, i) => {
          let expected = 0;
          for (let j = 0; j < completion.length; j++) {
            // The row before the j-th token of the completion.
            const start = (at(offsets, i) + prompt.length + j - 1) * vocab;
            const row = [...logits.subarray(start, start + vocab)];
            expected +=
              at(row, at(completion, j)) - Math.log(row.reduce((sum, x) => sum + Math.exp(x), 0));
          }
          expect(counts[i]).toBe(completion.length);
          expect(Math.abs(at(logps, i) / expected - 1)).toBeLessThan(1e-5);
        });
      },
      50,
    );
  });
});

// ----------------------------------------------------------------------------------------------

const good = { prompt: [1, 2], chosen: [3], rejected: [4] };
const loose = collatePairs as unknown as (...args: readonly unknown[]) => unknown;
const refused: [string, unknown, unknown, Kind, Words][] = [
  ['no examples', [], { pad: 0 }, 'RangeError SHAPE', 'examples | at least one'],
  ['one example', good, { pad: 0 }, 'TypeError SHAPE', 'examples | Object | array'],
  ['no options', [good], undefined, 'TypeError OPTION', 'options | undefined'],
  ['options that are null', [good], null, 'TypeError OPTION', 'options | null'],
  ['options that are an array', [good], [0], 'TypeError OPTION', 'options | Array'],
  ['options that are a symbol', [good], Symbol('x'), 'TypeError OPTION', 'options | Symbol(x)'],
  [
    'a layout that is a symbol',
    [good],
    { layout: Symbol('x') },
    'TypeError OPTION',
    'layout | Symbol(x)',
  ],
  ['a pad that is a bigint', [good], { pad: 0n }, 'TypeError OPTION', 'pad | 0n'],
  ['maxLength null', [good], { pad: 0, maxLength: null }, 'TypeError OPTION', 'maxLength | null'],
  [
    'maxPromptLength of no kind',
    [good],
    { pad: 0, maxPromptLength: Object.create(null) as unknown },
    'TypeError OPTION',
    'maxPromptLength',
  ],
  [
    'an example that is a symbol',
    [Symbol('x')],
    { pad: 0 },
    'TypeError LABEL',
    'examples[0] | Symbol(x)',
  ],
  ['no pad', [good], {}, 'TypeError OPTION', 'pad | undefined | whole number'],
  ['pad -1', [good], { pad: -1 }, 'RangeError OPTION', 'pad | -1'],
  [
    'pad of a packed batch',
    [good],
    { layout: 'packed', pad: 0.5 },
    'RangeError OPTION',
    'pad | 0.5',
  ],
  [
    'an unknown layout',
    [good],
    { pad: 0, layout: 'ragged' },
    'TypeError OPTION',
    "layout | 'ragged' | 'packed'",
  ],
  [
    'an unknown truncation',
    [good],
    { pad: 0, truncation: 'left' },
    'TypeError OPTION',
    "truncation | 'left' | 'keep_end'",
  ],
  [
    'an unknown option',
    [good],
    { pad: 0, max_length: 4 },
    'TypeError OPTION',
    'max_length | maxLength',
  ],
  ['maxLength 1', [good], { pad: 0, maxLength: 1 }, 'RangeError OPTION', 'maxLength | 1 | from 2'],
  ['maxLength as text', [good], { pad: 0, maxLength: '8' }, 'TypeError OPTION', "maxLength | '8'"],
  ['maxLength NaN', [good], { pad: 0, maxLength: NaN }, 'RangeError OPTION', 'maxLength | NaN'],
  [
    'maxPromptLength alone',
    [good],
    { pad: 0, maxPromptLength: 4 },
    'TypeError OPTION',
    'maxPromptLength | maxLength',
  ],
  [
    'maxPromptLength that leaves no completion',
    [good],
    { pad: 0, maxLength: 4, maxPromptLength: 4 },
    'RangeError OPTION',
    'maxPromptLength | 4 | to 3',
  ],
  [
    'maxPromptLength 0',
    [good],
    { pad: 0, maxLength: 4, maxPromptLength: 0 },
    'RangeError OPTION',
    'maxPromptLength | 0',
  ],
  ['an example that is null', [good, null], { pad: 0 }, 'TypeError LABEL', 'examples[1] | null'],
  ['a hole', Array(1), { pad: 0 }, 'TypeError LABEL', 'examples[0] | undefined'],
  [
    'no rejected',
    [{ prompt: [1], chosen: [1] }],
    { pad: 0 },
    'TypeError LABEL',
    'examples[0].rejected | undefined',
  ],
  [
    'text',
    [{ ...good, chosen: 'abc' }],
    { pad: 0 },
    'TypeError LABEL',
    "examples[0].chosen | 'abc'",
  ],
  [
    'floats',
    [{ ...good, prompt: Float32Array.of(1) }],
    { pad: 0 },
    'TypeError LABEL',
    'examples[0].prompt | Float32Array',
  ],
  [
    'a negative bigint',
    [{ ...good, prompt: [-1n] }],
    { pad: 0 },
    'RangeError LABEL',
    'examples[0].prompt[0] | -1n is not a whole number',
  ],
  [
    'a negative id',
    [good, { ...good, rejected: [1, -5] }],
    { pad: 0 },
    'RangeError LABEL',
    'examples[1].rejected[1] | -5',
  ],
  [
    'a negative id, typed',
    [{ ...good, chosen: Int32Array.of(-100) }],
    { pad: 0 },
    'RangeError LABEL',
    'chosen[0] | -100',
  ],
  [
    'a fraction',
    [{ ...good, prompt: [1.5] }],
    { pad: 0 },
    'RangeError LABEL',
    'examples[0].prompt[0] | 1.5',
  ],
  [
    'NaN',
    [{ ...good, prompt: [NaN] }],
    { pad: 0 },
    'RangeError LABEL',
    'examples[0].prompt[0] | NaN',
  ],
  [
    'an id beyond 32 bits',
    [{ ...good, prompt: [2 ** 31] }],
    { pad: 0 },
    'RangeError LABEL',
    'prompt[0] | 2147483648',
  ],
  [
    'a resizable buffer',
    [{ ...good, prompt: new Int32Array(resizable(8)) }],
    { pad: 0 },
    'TypeError SHAPE',
    'examples[0].prompt | resizable',
  ],
  [
    'an empty completion',
    [{ ...good, rejected: [] }],
    { pad: 0 },
    'RangeError LABEL',
    'examples[0].rejected | no tokens',
  ],
  [
    'nothing to score after an empty prompt',
    [{ ...good, prompt: [] }],
    { pad: 0 },
    'RangeError LABEL',
    'examples[0].chosen | 1 token | empty prompt',
  ],
  [
    'a truncation that leaves one token and no prompt',
    [{ prompt: [], chosen: [1, 2], rejected: [3, 4, 5, 6] }],
    { pad: 0, maxLength: 3, maxPromptLength: 2 },
    'RangeError LABEL',
    'examples[0].chosen | 1 token and no prompt | 3',
  ],
  [
    'a completion that truncation removes',
    [good, { ...good, prompt: [1, 2, 3] }],
    { pad: 0, maxLength: 3 },
    'RangeError LABEL',
    "examples[1].chosen | 'keep_start' | prompt of 3 | maxLength, 3",
  ],
];
test.each(refused)('refused: %s', (_, examples, options, kind, words) => {
  expectRefusal(() => loose(examples, options), kind, words);
});

test('what a program adds to Object.prototype changes nothing', () => {
  const added = Object.prototype as unknown as Record<string, unknown>;
  const expected = collatePairs([good], { pad: 0 });
  try {
    Object.assign(added, { layout: 'packed', pad: -1, maxLength: 2, rejected: [1], padding: 0 });
    expect(collatePairs([good], { pad: 0 })).toEqual(expected);
    expectRefusal(
      () => loose([{ prompt: [1], chosen: [2] }], { pad: 0 }),
      'TypeError LABEL',
      'examples[0].rejected | undefined',
    );
  } finally {
    for (const key of ['layout', 'pad', 'maxLength', 'rejected', 'padding'])
      Reflect.deleteProperty(added, key);
  }
});

test('more rows than 32 bits count are refused before memory is asked for', () => {
  const long = new Int32Array(2 ** 20);
  const examples = Array.from({ length: 1 }, () => ({ prompt: long, chosen: [1], rejected: [2] }));
  const short = { prompt: [1], chosen: [1], rejected: [2] };
  const error = thrownBy(() =>
    loose([...examples, ...Array.from({ length: 1024 }, () => short)], { pad: 0 }),
  );
  expectRefusal(error, 'RangeError SHAPE', `examples | ${2 * 1025 * (2 ** 20 + 1)} | 2147483647`);
});

test('nothing of it needs the addon', () => {
  // Every module that the entry reaches at run time.
  const root = path.resolve(import.meta.dirname, '../../ts');
  const reached = new Set<string>();
  const visit = (file: string): void => {
    if (reached.has(file)) return;
    reached.add(file);
    for (const [, type, specifier] of fs
      .readFileSync(file, 'utf8')
      .matchAll(/^(?:import|export)\s+(type\s)?[^;]*?from '(\.[^']*)'/gm)) {
      if (type === undefined)
        visit(path.resolve(path.dirname(file), present(specifier).replace(/\.js$/, '.ts')));
    }
  };
  visit(path.join(root, 'data/index.ts'));
  const names = [...reached].map((file) => path.relative(root, file));
  expect(names).toContain('safetensors.ts');
  expect(names).not.toContain('native.ts');
});
