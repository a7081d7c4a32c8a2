/** The data of a seed, each kind from a stream of its own. */
import type { PreferencePair } from 'diralign/data';
import { judge } from './judge.js';
import { randomFor, type Random } from './random.js';
import { drawRecord, type Record } from './record.js';
import { writeSummary } from './writer.js';

/** Prompt and completion, token ids. */
export interface Example {
  readonly prompt: readonly number[];
  readonly completion: readonly number[];
}

/** The care of writers is uniform between these. */
export const care = {
  base: [0, 0.8],
  demonstrations: [0.5, 0.9],
  preferences: [0.2, 1],
} as const;

function drawCare(random: Random, [low, high]: readonly [number, number]): number {
  return low + (high - low) * random();
}

function* summaries(random: Random, range: readonly [number, number]): Generator<Example, never> {
  for (;;) {
    const record = drawRecord(random);
    yield {
      prompt: record.tokens,
      completion: writeSummary(record, drawCare(random, range), random),
    };
  }
}

/** What the base model is trained on, without end: summaries by careless writers. */
export function carelessSummaries(seed: number): Generator<Example, never> {
  return summaries(randomFor(seed, 'careless summaries'), care.base);
}

/**
 * What SFT trains on: better summaries, and still not free of mistakes. The first of a larger count
 * are those of a smaller one.
 */
export function demonstrations(seed: number, count: number): Example[] {
  const source = summaries(randomFor(seed, 'demonstrations'), care.demonstrations);
  return Array.from({ length: count }, () => source.next().value);
}

/**
 * Two writers' summaries of one record, the better as the judge sees it chosen; pairs that it holds
 * for equal are left out.
 */
export function preferences(seed: number, count: number): PreferencePair<readonly number[]>[] {
  const random = randomFor(seed, 'preferences');
  const pairs: PreferencePair<readonly number[]>[] = [];
  while (pairs.length < count) {
    const record = drawRecord(random);
    const [a, b] = [drawCare(random, care.preferences), drawCare(random, care.preferences)].map(
      (writer) => writeSummary(record, writer, random),
    ) as [number[], number[]];
    const difference = judge(record, a).score - judge(record, b).score;
    if (difference === 0) continue;
    const [chosen, rejected] = difference > 0 ? [a, b] : [b, a];
    pairs.push({ prompt: record.tokens, chosen, rejected });
  }
  return pairs;
}

/** Records that no training sees. */
export function heldOutRecords(seed: number, count: number): Record[] {
  const random = randomFor(seed, 'held-out records');
  return Array.from({ length: count }, () => drawRecord(random));
}
