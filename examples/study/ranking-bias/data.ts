/**
 * Preferences over scalar responses, with a prompt bias that says nothing about which response is
 * better.
 */
import { uniformNumbers } from '../random.js';

/** Pair i: prompt `x[i]`, chosen response `chosen[i]`, rejected response `rejected[i]`. */
export interface Pairs {
  readonly x: Float64Array;
  readonly chosen: Float64Array;
  readonly rejected: Float64Array;
}

export interface Data {
  readonly train: Pairs;
  readonly test: Pairs;
}

const pairs = 2000;
/** Of the 2000, the first. */
export const trainPairs = 1600;
const temperature = 1e-6;

/**
 * x, s1, s2 ~ U(0, 1); y_i = s_i - (s1 + s2) / 2 + strength [x < 0.5]; the chosen response is a
 * Bradley-Terry draw on y1 and y2 with temperature 1e-6, which is the larger one unless they are
 * that close.
 *
 * @param strength the prompt bias; the same seed has the same x, s1, s2 and draws whatever it is.
 */
export function makeData(seed: number, strength: number): Data {
  const uniform = uniformNumbers(seed, 1);
  const all = {
    x: new Float64Array(pairs),
    chosen: new Float64Array(pairs),
    rejected: new Float64Array(pairs),
  };
  for (let i = 0; i < pairs; i++) {
    const x = uniform();
    const half = (uniform() - uniform()) / 2; // s1 - (s1 + s2) / 2
    const firstWins = uniform() < 1 / (1 + Math.exp((-2 * half) / temperature));
    const bias = x < 0.5 ? strength : 0;
    all.x[i] = x;
    all.chosen[i] = bias + (firstWins ? half : -half);
    all.rejected[i] = bias - (firstWins ? half : -half);
  }
  return { train: slice(all, 0, trainPairs), test: slice(all, trainPairs, pairs) };
}

function slice({ x, chosen, rejected }: Pairs, from: number, to: number): Pairs {
  return {
    x: x.subarray(from, to),
    chosen: chosen.subarray(from, to),
    rejected: rejected.subarray(from, to),
  };
}
