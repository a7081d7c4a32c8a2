/** The judge of summaries: a program, which knows the facts. */
import type { Record } from './record.js';
import { summaryEnd } from './vocabulary.js';

export interface Verdict {
  /**
   * Facts kept over facts and inventions together, 0 to 1: 1 for every fact and nothing else. The
   * order of the items does not count.
   */
  readonly score: number;
  /** Facts that the summary has. */
  readonly kept: number;
  /**
   * Everything else that it has: items that are no facts, or repeated, and words that are no items.
   */
  readonly invented: number;
}

/** @param summary token ids, with or without the end; what comes after an end does not count. */
export function judge(record: Record, summary: readonly number[]): Verdict {
  const end = summary.indexOf(summaryEnd);
  const said = end < 0 ? summary : summary.slice(0, end);
  const facts = new Set(record.facts);
  const kept = new Set(said.filter((token) => facts.has(token))).size;
  const invented = said.length - kept;
  return { score: kept / (facts.size + invented), kept, invented };
}
