/**
 * A scorer r(x, y): one hidden layer of ReLU units over prompt and response, forward and backward
 * by hand in float64.
 */
import type { Pairs } from './data.js';
import { uniformNumbers } from '../random.js';

/**
 * Where a parameter is in the vector of them: per hidden unit its weights of x and y, bias and
 * output weight; last the output bias.
 */
const unit = 4;
export const parameterCount = (hidden: number): number => unit * hidden + 1;

/** PyTorch's default for a linear layer: weights and biases uniform within 1 / sqrt(inputs). */
export function initialise(seed: number, hidden: number): Float64Array {
  const uniform = uniformNumbers(seed, 2);
  const within = (inputs: number): number => (2 * uniform() - 1) / Math.sqrt(inputs);
  const parameters = new Float64Array(parameterCount(hidden));
  for (let j = 0; j < hidden; j++) {
    for (let k = 0; k < 3; k++) parameters[unit * j + k] = within(2);
    parameters[unit * j + 3] = within(hidden);
  }
  parameters[unit * hidden] = within(hidden);
  return parameters;
}

/**
 * Scores of the chosen responses into the first half of `scores`, of the rejected ones into the
 * second.
 *
 * @returns whether a unit is active for any of them; if not, every score is the output bias.
 */
export function score(parameters: Float64Array, pairs: Pairs, scores: Float64Array): boolean {
  const n = pairs.x.length;
  const hidden = (parameters.length - 1) / unit;
  let active = false;
  scores.fill(parameters[unit * hidden] as number);
  for (let j = 0; j < hidden; j++) {
    const [ofX = 0, ofY = 0, bias = 0, out = 0] = parameters.subarray(unit * j, unit * (j + 1));
    for (let i = 0; i < n; i++) {
      const prompt = ofX * (pairs.x[i] as number) + bias;
      const chosen = prompt + ofY * (pairs.chosen[i] as number);
      const rejected = prompt + ofY * (pairs.rejected[i] as number);
      if (chosen > 0) scores[i] = (scores[i] as number) + out * chosen;
      if (rejected > 0) scores[n + i] = (scores[n + i] as number) + out * rejected;
      active ||= chosen > 0 || rejected > 0;
    }
  }
  return active;
}

/**
 * d loss / d parameters into `gradient`, from d loss / d scores. With g of the responses that a
 * unit is active for, its sums of g x, g y and g are the gradients of its weights up to the output
 * weight, and the output weight's own is their product with the weights.
 */
export function backward(
  parameters: Float64Array,
  pairs: Pairs,
  ofScores: Float64Array,
  gradient: Float64Array,
): void {
  const n = pairs.x.length;
  const hidden = (parameters.length - 1) / unit;
  for (let j = 0; j < hidden; j++) {
    const [ofX = 0, ofY = 0, bias = 0, out = 0] = parameters.subarray(unit * j, unit * (j + 1));
    let sumX = 0;
    let sumY = 0;
    let sum = 0;
    for (let i = 0; i < n; i++) {
      const x = pairs.x[i] as number;
      const prompt = ofX * x + bias;
      const chosen = pairs.chosen[i] as number;
      const rejected = pairs.rejected[i] as number;
      // A product, because the processor cannot foresee which way a branch would go.
      const w = Number(prompt + ofY * chosen > 0) * (ofScores[i] as number);
      const l = Number(prompt + ofY * rejected > 0) * (ofScores[n + i] as number);
      sumX += (w + l) * x;
      sumY += w * chosen + l * rejected;
      sum += w + l;
    }
    gradient[unit * j] = out * sumX;
    gradient[unit * j + 1] = out * sumY;
    gradient[unit * j + 2] = out * sum;
    gradient[unit * j + 3] = ofX * sumX + ofY * sumY + bias * sum;
  }
  gradient[unit * hidden] = total(ofScores);
}

/** The same where no unit is active: only the output bias has a gradient. */
export function backwardInactive(ofScores: Float64Array, gradient: Float64Array): void {
  gradient.fill(0);
  gradient[gradient.length - 1] = total(ofScores);
}

function total(values: Float64Array): number {
  let sum = 0;
  for (const value of values) sum += value;
  return sum;
}
