/**
 * Share of pairs whose chosen response scores higher. Equal scores are wrong: a network that is
 * dead ranks nothing.
 */
export function accuracy(scores: Float64Array): number {
  const n = scores.length / 2;
  let right = 0;
  for (let i = 0; i < n; i++) if ((scores[i] as number) > (scores[n + i] as number)) right++;
  return right / n;
}

/**
 * The share of the scores' variance that is between prompts, from -1 (none) to 1 (all): 2
 * Var_x((r_w + r_l) / 2) / Var(r) - 1, the intraclass correlation ICC(1) of two responses a prompt.
 * Undefined where all scores are equal.
 */
export function icc1(scores: Float64Array): number | undefined {
  if (scores.every((r) => r === scores[0])) return undefined;
  const n = scores.length / 2;
  const prompts = Float64Array.from(
    { length: n },
    (_, i) => ((scores[i] as number) + (scores[n + i] as number)) / 2,
  );
  return (2 * variance(prompts)) / variance(scores) - 1;
}

function variance(values: Float64Array): number {
  const average = values.reduce((sum, v) => sum + v, 0) / values.length;
  return values.reduce((sum, v) => sum + (v - average) ** 2, 0) / values.length;
}
