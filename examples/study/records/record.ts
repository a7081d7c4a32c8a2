/** Noisy records of facts: what the model reads. */
import { integer, shuffled, type Random } from './random.js';
import {
  correction,
  fieldCount,
  fillerCount,
  firstFiller,
  itemOf,
  rumour,
  valueCount,
} from './vocabulary.js';

export interface Record {
  /** Token ids. */
  readonly tokens: readonly number[];
  /** Items that are true at the end of the record, in canonical order, one a field. */
  readonly facts: readonly number[];
  /** By fact: the item that was said first and then corrected to it. */
  readonly stale: ReadonlyMap<number, number>;
  /** Items that the record calls rumours. */
  readonly rumours: readonly number[];
}

const leastFacts = 3;
const mostFacts = 5;
const mostRumours = 2;
const correctionRate = 0.3;
const repetitionRate = 0.15;
const fillerRate = 0.12;

/**
 * A corrected fact takes three words, a rumour two, and each remark may have a filler before it.
 */
export const longestRecord = mostFacts * (3 + 2) + mostRumours * (2 + 1);

/** An item of the field other than `item`. */
export function otherValue(random: Random, field: number, value: number): number {
  return itemOf(field, (value + integer(random, 1, valueCount - 1)) % valueCount);
}

export function drawRecord(random: Random): Record {
  const order = shuffled(
    random,
    Array.from({ length: fieldCount }, (_, field) => field),
  );
  const factCount = integer(random, leastFacts, mostFacts);
  const rumourCount = integer(random, 0, mostRumours);
  const facts: number[] = [];
  const stale = new Map<number, number>();
  const rumours: number[] = [];
  const remarks: { readonly at: number; readonly words: readonly number[] }[] = [];

  for (const field of order.slice(0, factCount)) {
    const value = integer(random, 0, valueCount - 1);
    const fact = itemOf(field, value);
    facts.push(fact);
    const said = random();
    const again = said + random() * (1 - said);
    if (random() < correctionRate) {
      const wrong = otherValue(random, field, value);
      stale.set(fact, wrong);
      remarks.push({ at: said, words: [wrong] }, { at: again, words: [correction, fact] });
    } else {
      remarks.push({ at: said, words: [fact] });
      if (random() < repetitionRate) remarks.push({ at: again, words: [fact] });
    }
  }
  for (const field of order.slice(factCount, factCount + rumourCount)) {
    const item = itemOf(field, integer(random, 0, valueCount - 1));
    rumours.push(item);
    remarks.push({ at: random(), words: [rumour, item] });
  }

  const tokens: number[] = [];
  for (const { words } of remarks.sort((a, b) => a.at - b.at)) {
    if (random() < fillerRate) tokens.push(firstFiller + integer(random, 0, fillerCount - 1));
    tokens.push(...words);
  }
  return { tokens, facts: facts.sort((a, b) => a - b), stale, rumours };
}
