// The world of the study: records, writers and the judge.
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { carelessSummaries, demonstrations, heldOutRecords, preferences } from '../records/data.js';
import { judge } from '../records/judge.js';
import { randomFor, shuffled } from '../records/random.js';
import { drawRecord, longestRecord, type Record } from '../records/record.js';
import {
  correction,
  fieldOf,
  isItem,
  rumour,
  summaryEnd,
  vocabulary,
} from '../records/vocabulary.js';
import { writeSummary } from '../records/writer.js';
import { mean } from '../statistics.js';

const anySeed = fc.integer({ min: 0, max: 2 ** 31 - 1 });
const anyRecord = anySeed.map((seed) => drawRecord(randomFor(seed, 'held-out records')));

/** What a careful reader makes of the words: an independent reading, in one pass. */
function factsRead(tokens: readonly number[]): number[] {
  const values = new Map<number, number>();
  tokens.forEach((token, i) => {
    if (isItem(token) && tokens[i - 1] !== rumour) values.set(fieldOf(token), token);
  });
  return [...values.values()].sort((a, b) => a - b);
}

describe('records', () => {
  test('say their facts: what is said last of a field is true of it, rumours aside', () => {
    fc.assert(
      fc.property(anyRecord, (record) => {
        expect(factsRead(record.tokens)).toEqual(record.facts);
      }),
    );
  });

  test('are of the vocabulary and no longer than they can be', () => {
    fc.assert(
      fc.property(anyRecord, ({ tokens }) => {
        expect(tokens.length).toBeLessThanOrEqual(longestRecord);
        expect(tokens.every((token) => token >= 0 && token < summaryEnd - 1)).toBe(true);
      }),
    );
  });

  test('give the item before and after each correction', () => {
    const records = heldOutRecords(1, 200);
    expect(records.some(({ stale }) => stale.size > 0)).toBe(true);
    for (const { tokens, stale } of records) {
      expect(tokens.filter((token) => token === correction)).toHaveLength(stale.size);
      for (const [fact, before] of stale) {
        expect(fieldOf(before)).toBe(fieldOf(fact));
        expect(before).not.toBe(fact);
        expect(tokens.indexOf(before)).toBeLessThan(tokens.indexOf(fact));
        expect(tokens[tokens.indexOf(fact) - 1]).toBe(correction);
      }
    }
  });

  test('are the same for a seed and others for another', () => {
    expect(heldOutRecords(3, 5)).toEqual(heldOutRecords(3, 5));
    expect(heldOutRecords(3, 5)).not.toEqual(heldOutRecords(4, 5));
  });
});

describe('the judge', () => {
  test('gives 1 to the facts in any order', () => {
    fc.assert(
      fc.property(anyRecord, anySeed, (record, seed) => {
        const verdict = judge(record, [
          ...shuffled(randomFor(seed, 'sampling'), record.facts),
          summaryEnd,
        ]);
        expect(verdict).toEqual({ score: 1, kept: record.facts.length, invented: 0 });
      }),
    );
  });

  test('takes a fact that is dropped, a word that is added and a repetition for mistakes', () => {
    fc.assert(
      fc.property(anyRecord, fc.nat(), (record, choice) => {
        const { facts } = record;
        const fact = facts[choice % facts.length] as number;
        const dropped = facts.filter((item) => item !== fact);
        const n = facts.length;
        expect(judge(record, [...dropped, summaryEnd])).toEqual({
          score: (n - 1) / n,
          kept: n - 1,
          invented: 0,
        });
        const extra = choice % vocabulary.length;
        if (!facts.includes(extra) && extra !== summaryEnd) {
          expect(judge(record, [...facts, extra, summaryEnd])).toEqual({
            score: n / (n + 1),
            kept: n,
            invented: 1,
          });
        }
        expect(judge(record, [fact, ...facts, summaryEnd]).score).toBe(n / (n + 1));
      }),
    );
  });

  test('reads up to the end, and a summary without one to its last word', () => {
    const record: Record = { tokens: [1, 6], facts: [1, 6], stale: new Map(), rumours: [] };
    expect(judge(record, [1, 6]).score).toBe(1);
    expect(judge(record, [1, summaryEnd, 6, 7])).toEqual({ score: 0.5, kept: 1, invented: 0 });
    expect(judge(record, [summaryEnd])).toEqual({ score: 0, kept: 0, invented: 0 });
  });
});

describe('writers', () => {
  test('of full care give the facts in canonical order and nothing else', () => {
    fc.assert(
      fc.property(anyRecord, anySeed, (record, seed) => {
        expect(writeSummary(record, 1, randomFor(seed, 'sampling'))).toEqual([
          ...record.facts,
          summaryEnd,
        ]);
      }),
    );
  });

  test('give items of the record or of fields it is silent of, in canonical order', () => {
    fc.assert(
      fc.property(anyRecord, anySeed, (record, seed) => {
        const summary = writeSummary(record, 0, randomFor(seed, 'sampling'));
        const items = summary.slice(0, -1);
        expect(summary.at(-1)).toBe(summaryEnd);
        expect(items.every(isItem)).toBe(true);
        expect(items).toEqual([...items].sort((a, b) => a - b));
        expect(new Set(items.map(fieldOf)).size).toBe(items.length);
      }),
    );
  });

  test('are better the more care they take', () => {
    const records = heldOutRecords(5, 400);
    const random = randomFor(5, 'sampling');
    const scores = [0, 0.25, 0.5, 0.75, 1].map((care) =>
      mean(records.map((record) => judge(record, writeSummary(record, care, random)).score)),
    );
    for (let i = 1; i < scores.length; i++)
      expect(scores[i]).toBeGreaterThan((scores[i - 1] as number) + 0.05);
  });
});

describe('the data of a seed', () => {
  test('has the better of two summaries as the chosen', () => {
    const seen = preferences(7, 300);
    expect(seen).toHaveLength(300);
    for (const { prompt, chosen, rejected } of seen) {
      const record = {
        tokens: [...prompt],
        facts: factsRead([...prompt]),
        stale: new Map(),
        rumours: [],
      };
      expect(judge(record, [...chosen]).score).toBeGreaterThan(judge(record, [...rejected]).score);
    }
  });

  test('has demonstrations of which a share is the beginning', () => {
    expect(demonstrations(7, 50).slice(0, 5)).toEqual(demonstrations(7, 5));
  });

  test('is drawn apart: no kind of it repeats the records of another', () => {
    const source = carelessSummaries(7);
    const kinds = [
      Array.from({ length: 100 }, () => source.next().value.prompt),
      demonstrations(7, 100).map(({ prompt }) => prompt),
      preferences(7, 100).map(({ prompt }) => [...prompt]),
      heldOutRecords(7, 100).map(({ tokens }) => tokens),
    ].map((prompts) => prompts.map((prompt) => prompt.join(' ')));
    const all = kinds.flat();
    expect(new Set(all).size).toBe(all.length);
  });
});
