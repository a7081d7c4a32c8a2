/**
 * Adam as the paper trains, in one pass over all weights; TensorFlow.js's own takes a dozen ops a
 * matrix.
 */
import { presets } from 'diralign';

const { adamBetas, maxGradNorm, warmupRatio } = presets.recipe;
const epsilon = 1e-8;

/**
 * The share of the learning rate in this step, from 0: up through the warm-up, then down to 0, both
 * linear.
 */
export function schedule(step: number, steps: number): number {
  const warmup = Math.ceil(warmupRatio * steps);
  return step < warmup ? (step + 1) / warmup : (steps - step) / (steps - warmup + 1);
}

export function norm(vector: Float32Array): number {
  let sum = 0;
  for (const value of vector) sum += value * value;
  return Math.sqrt(sum);
}

/**
 * A step changes the weights by their gradient, which is scaled down to the paper's largest norm
 * where it is longer.
 */
export function adam(
  weights: Float32Array,
): (gradient: Float32Array, learningRate: number) => void {
  const [meanDecay, squareDecay] = adamBetas;
  const means = new Float32Array(weights.length);
  const squares = new Float32Array(weights.length);
  let steps = 0;
  return (gradient, learningRate) => {
    steps++;
    const clip = Math.min(1, maxGradNorm / norm(gradient));
    const rate = learningRate / (1 - meanDecay ** steps);
    const squareScale = 1 / (1 - squareDecay ** steps);
    for (let i = 0; i < weights.length; i++) {
      const g = (gradient[i] as number) * clip;
      const mean = meanDecay * (means[i] as number) + (1 - meanDecay) * g;
      const square = squareDecay * (squares[i] as number) + (1 - squareDecay) * g * g;
      means[i] = mean;
      squares[i] = square;
      weights[i] =
        (weights[i] as number) - (rate * mean) / (Math.sqrt(square * squareScale) + epsilon);
    }
  };
}
