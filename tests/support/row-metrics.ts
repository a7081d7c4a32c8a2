// The metrics that `run.metrics` asks for, in float64 from the rows themselves.
import { expect } from 'vitest';
import type { MethodInfo, RowMetric } from '../../ts/index.js';
import type { ReferenceBatch } from '../../ts/verification/reference.js';
import { decoder, rowsOf } from '../../ts/verification/verification.js';
import { Misses } from './bounds.js';
import { at, present } from './numbers.js';

export const rowMetricNames = [
  'entropy',
  'mean_token_accuracy',
  'logits/chosen',
  'logits/rejected',
] as const;

type Rows = ReferenceBatch;
type Arity = MethodInfo['arity'];

interface Expected {
  readonly value: number;
  /** What an error is relative to: the mean size of the logits, where the value is their mean. */
  readonly size: number;
}

/**
 * The first half of pairs, single sequences that are not undesirable, the best candidate of each
 * group: the first of the best.
 */
function chosenOf(batch: Rows, arity: Arity): (sequence: number) => boolean {
  const { desirable, groups, ranks, rewards } = batch;
  if (arity === 'pair') return (s) => s < rowsOf(batch).sequences / 2;
  if (arity === 'single') return (s) => !desirable || Boolean(desirable[s]);
  const offsets = present(groups);
  const worth = (s: number) => (ranks ? -at(ranks, s) : at(present(rewards), s));
  const best = new Set<number>();
  for (let g = 0; g + 1 < offsets.length; g++) {
    let chosen = at(offsets, g);
    for (let s = chosen; s < at(offsets, g + 1); s++) if (worth(s) > worth(chosen)) chosen = s;
    best.add(chosen);
  }
  return (s) => best.has(s);
}

/** Of a batch, padded or packed, with any stride. */
function expectedRowMetrics(batch: Rows, arity: Arity): Record<RowMetric, Expected> {
  const isChosen = chosenOf(batch, arity);
  const { sequences, vocab, stride, offset, ignoreIndex } = rowsOf(batch);
  const decode =
    batch.logits instanceof Float64Array ? (x: number) => x : decoder(batch.dtype ?? 'float32');
  const elements = batch.logits as ArrayLike<number>;
  const side = () => ({ rows: 0, logits: 0, sizes: 0, entropy: 0, hits: 0 });
  const sides = [side(), side()] as const;
  for (let s = 0; s < sequences; s++) {
    const sums = sides[isChosen(s) ? 0 : 1];
    for (let row = offset(s); row < offset(s + 1); row++) {
      const label = at(batch.labels, row);
      if (label === ignoreIndex) continue;
      const own = Array.from({ length: vocab }, (_, v) => decode(at(elements, row * stride + v)));
      const max = Math.max(...own);
      const logNormalizer = Math.log(own.reduce((sum, x) => sum + Math.exp(x - max), 0));
      const logps = own.map((x) => x - max - logNormalizer);
      sums.rows++;
      sums.logits += own.reduce((x, y) => x + y, 0) / vocab;
      sums.sizes += own.reduce((x, y) => x + Math.abs(y), 0) / vocab;
      sums.entropy -= logps.reduce(
        (sum, logp) => sum + (logp === -Infinity ? 0 : Math.exp(logp) * logp),
        0,
      );
      sums.hits += own.every((x, v) => v === label || x < at(own, label)) ? 1 : 0;
    }
  }
  const [w, l] = sides;
  const mean = (sum: number, rows: number): number => (rows > 0 ? sum / rows : 0);
  const entropy = mean(w.entropy + l.entropy, w.rows + l.rows);
  return {
    entropy: { value: entropy, size: entropy },
    mean_token_accuracy: { value: mean(w.hits, w.rows), size: 0 },
    'logits/chosen': { value: mean(w.logits, w.rows), size: mean(w.sizes, w.rows) },
    'logits/rejected': { value: mean(l.logits, l.rows), size: mean(l.sizes, l.rows) },
  };
}

/**
 * How the metrics that were asked for miss what the rows make of them; `error` of a logit of size
 * 1.
 */
export function rowMetricMisses(
  batch: Rows,
  actual: Readonly<Partial<Record<RowMetric, number>>>,
  arity: Arity,
  error = 2e-6,
): Misses {
  const expected = expectedRowMetrics(batch, arity);
  const misses = new Misses();
  for (const name of rowMetricNames) {
    const { value, size } = expected[name];
    // Counts are exact, but where logits that are nearly alike were computed.
    const bound = name === 'mean_token_accuracy' ? 2 ** -50 : error * Math.max(1, size);
    if (actual[name] !== undefined) misses.near(name, actual[name], value, bound);
  }
  return misses;
}

export function checkRowMetrics(
  batch: Rows,
  actual: Readonly<Partial<Record<RowMetric, number>>>,
  arity: Arity = 'pair',
): void {
  const misses = rowMetricMisses(batch, actual, arity);
  expect(misses.checked).toBeGreaterThan(0);
  expect(misses.list).toEqual([]);
}
