/** What a model's summaries of held-out records are worth. */
import { heldOutRecords } from '../records/data.js';
import { judge, type Verdict } from '../records/judge.js';
import { randomFor } from '../records/random.js';
import type { Record } from '../records/record.js';
import { mean } from '../statistics.js';
import { exampleBatch } from './batch.js';
import { sampleSummaries } from './sampling.js';
import { modelShape, sizes } from './settings.js';
import type { Evaluation, PretrainParams } from './tasks.js';
import { completionLogps } from './training.js';

/** Summaries of the held-out records, and what the judge says of each. */
export interface Sampled {
  readonly records: readonly Record[];
  readonly summaries: readonly (readonly number[])[];
  readonly verdicts: readonly Verdict[];
}

/**
 * @param stream two models whose summaries are compared draw from streams of their own: a model
 * against itself is not all ties.
 */
export function sampleHeldOut(
  weights: Float32Array,
  { scale, seed }: PretrainParams,
  stream: 'sampling' | 'sampling of the opponent' = 'sampling',
): Sampled {
  const records = heldOutRecords(seed, sizes[scale].prompts);
  const prompts = records.map(({ tokens }) => tokens);
  const summaries = sampleSummaries(weights, modelShape, prompts, randomFor(seed, stream));
  return {
    records,
    summaries,
    verdicts: records.map((record, i) => judge(record, summaries[i] as readonly number[])),
  };
}

export function evaluationOf({ summaries, verdicts }: Sampled): Evaluation {
  return {
    quality: mean(verdicts.map(({ score }) => score)),
    perfect: mean(verdicts.map(({ score }) => (score === 1 ? 1 : 0))),
    kept: mean(verdicts.map(({ kept }) => kept)),
    invented: mean(verdicts.map(({ invented }) => invented)),
    length: mean(summaries.map(({ length }) => length)),
  };
}

/** Shares of the records where `ours` is better than, as good as and worse than `theirs`. */
export function compare(
  ours: Sampled,
  theirs: Sampled,
): { readonly win: number; readonly tie: number; readonly lose: number } {
  const differences = ours.verdicts.map(
    ({ score }, i) => score - (theirs.verdicts[i] as Verdict).score,
  );
  const share = (is: (difference: number) => boolean): number =>
    mean(differences.map((d) => (is(d) ? 1 : 0)));
  return { win: share((d) => d > 0), tie: share((d) => d === 0), lose: share((d) => d < 0) };
}

/**
 * KL(policy || other) in nats a summary: the mean of log p(y|x) - log q(y|x) over the policy's own
 * samples, which are drawn at temperature 1 from all words, so that it estimates the divergence
 * itself. Single estimates may be below 0.
 */
export function estimateKl(
  policy: Float32Array,
  other: Float32Array,
  { records, summaries }: Sampled,
): number {
  const batch = exampleBatch(
    records.map(({ tokens }, i) => ({
      prompt: tokens,
      completion: summaries[i] as readonly number[],
    })),
  );
  const [p, q] = [policy, other].map((weights) => completionLogps(weights, modelShape, batch)) as [
    Float64Array,
    Float64Array,
  ];
  return mean(Array.from(p, (logp, i) => logp - (q[i] as number)));
}
