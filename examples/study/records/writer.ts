/**
 * Writers of summaries, from careless to careful: where demonstrations and preferences come from.
 */
import { integer, type Random } from './random.js';
import { otherValue, type Record } from './record.js';
import { fieldCount, fieldOf, itemOf, summaryEnd, valueCount } from './vocabulary.js';

/**
 * How often a writer without any care makes each mistake; the chance falls linearly to 0 at full
 * care.
 */
const mistakes = {
  /** A fact is left out. */
  dropped: 0.35,
  /** A fact's value is misread as another. */
  misread: 0.1,
  /** A corrected fact is given as it was before. */
  stale: 0.7,
  /** A rumour is given as a fact. */
  believed: 0.7,
  /** A summary has an item of which the record says nothing. */
  invented: 0.3,
} as const;

/**
 * A summary by a writer of this care, from 0 to 1: the items, in canonical order, and the end. A
 * writer of care 1 gives the facts and nothing else.
 */
export function writeSummary(record: Record, care: number, random: Random): number[] {
  const slips = (mistake: keyof typeof mistakes): boolean =>
    random() < mistakes[mistake] * (1 - care);
  const items: number[] = [];
  for (const fact of record.facts) {
    if (slips('dropped')) continue;
    const before = record.stale.get(fact);
    if (before !== undefined && slips('stale')) items.push(before);
    else if (slips('misread')) items.push(otherValue(random, fieldOf(fact), fact % valueCount));
    else items.push(fact);
  }
  for (const item of record.rumours) if (slips('believed')) items.push(item);
  if (slips('invented')) items.push(inventedItem(record, random));
  return [...items.sort((a, b) => a - b), summaryEnd];
}

/** An item of a field of which the record says nothing; there always is one. */
function inventedItem(record: Record, random: Random): number {
  const mentioned = new Set([...record.facts, ...record.rumours].map(fieldOf));
  const silent = Array.from({ length: fieldCount }, (_, field) => field).filter(
    (field) => !mentioned.has(field),
  );
  return itemOf(
    silent[integer(random, 0, silent.length - 1)] as number,
    integer(random, 0, valueCount - 1),
  );
}
