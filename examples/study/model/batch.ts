/**
 * Batches as packed rows. The rows of the prompts come first, then those of the completions, each
 * of which begins with the word that starts a summary. A prompt is there once, also where two
 * completions follow it: both see its rows. So no row is padding, and the scored rows are one
 * block.
 */
import {
  collatePairs,
  collateUnpaired,
  type PreferencePair,
  type UnpairedExample,
} from 'diralign/data';
import type { Example } from '../records/data.js';
import { longestRecord } from '../records/record.js';
import { fieldCount, summaryStart } from '../records/vocabulary.js';
import type { Span } from './attention.js';

/**
 * Tokens of a summary, its end included: one item a field, and one more for a model that does not
 * know when to end.
 */
export const longestSummary = fieldCount + 2;

/**
 * Positions of records, then of summaries: the n-th word of a summary is at the same position after
 * any record.
 */
export const positionCount = longestRecord + longestSummary + 1;

export interface Batch {
  /** [rows] */
  readonly inputIds: Int32Array;
  /** [rows] */
  readonly positions: Int32Array;
  readonly prompts: readonly Span[];
  /** Of the completions, each after the rows of its prompt. */
  readonly branches: readonly Span[];
  /** Rows of prompts: the logits are of the rows after these. */
  readonly promptRows: number;
  /** [rows - promptRows]: what the rows score. */
  readonly labels: Int32Array;
  /** [completions + 1], in rows of logits. */
  readonly offsets: Int32Array;
}

function rowsFrom(start: number, count: number): number[] {
  return Array.from({ length: count }, (_, i) => start + i);
}

/** `completions[i]` follows `prompts[i % prompts.length]`. */
export function pack(
  prompts: readonly (readonly number[])[],
  completions: {
    readonly inputIds: Int32Array;
    readonly labels: Int32Array;
    readonly offsets: Int32Array;
  },
): Batch {
  const promptRows = prompts.reduce((sum, { length }) => sum + length, 0);
  const inputIds = new Int32Array(promptRows + completions.inputIds.length);
  const positions = new Int32Array(inputIds.length);
  const promptSpans: Span[] = [];
  const branches: Span[] = [];
  let row = 0;
  for (const prompt of prompts) {
    promptSpans.push({ rows: Int32Array.from(rowsFrom(row, prompt.length)), context: 0 });
    prompt.forEach((token, position) => {
      inputIds[row] = token;
      positions[row++] = position;
    });
  }
  inputIds.set(completions.inputIds, promptRows);
  for (let i = 0; i + 1 < completions.offsets.length; i++) {
    const { rows: context } = promptSpans[i % promptSpans.length] as Span;
    const start = completions.offsets[i] as number;
    const length = (completions.offsets[i + 1] as number) - start;
    branches.push({
      rows: Int32Array.from([...context, ...rowsFrom(promptRows + start, length)]),
      context: context.length,
    });
    for (let position = 0; position < length; position++)
      positions[row++] = longestRecord + position;
  }
  return {
    inputIds,
    positions,
    prompts: promptSpans,
    branches,
    promptRows,
    labels: completions.labels,
    offsets: completions.offsets,
  };
}

/** Pairs: the chosen completions, then the rejected, as the losses take them. */
export function pairBatch(pairs: readonly PreferencePair<readonly number[]>[]): Batch {
  const branches = pairs.map(({ chosen, rejected }) => ({
    prompt: [summaryStart],
    chosen,
    rejected,
  }));
  return pack(
    pairs.map(({ prompt }) => [...prompt]),
    collatePairs(branches, { layout: 'packed' }),
  );
}

/** Single examples, with what is said of each. */
export interface UnpairedBatch extends Batch {
  readonly desirable: Uint8Array;
}
export function unpairedBatch(
  examples: readonly UnpairedExample<readonly number[]>[],
): UnpairedBatch {
  const collated = collateUnpaired(
    examples.map(({ completion, desirable }) => ({
      prompt: [summaryStart],
      completion,
      desirable,
    })),
    { layout: 'packed' },
  );
  const batch = pack(
    examples.map(({ prompt }) => [...prompt]),
    collated,
  );
  return { ...batch, desirable: collated.desirable };
}

/** One completion each. */
export function exampleBatch(examples: readonly Example[]): Batch {
  const offsets = new Int32Array(examples.length + 1);
  examples.forEach(({ completion }, i) => {
    offsets[i + 1] = (offsets[i] as number) + completion.length;
  });
  const labels = Int32Array.from(examples.flatMap(({ completion }) => completion));
  const inputIds = Int32Array.from(
    examples.flatMap(({ completion }) => [summaryStart, ...completion.slice(0, -1)]),
  );
  return pack(
    examples.map(({ prompt }) => prompt),
    { inputIds, labels, offsets },
  );
}
