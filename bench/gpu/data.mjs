// Logits for the benchmarks: 64 distinct rows, as a trained head makes them, over and over. Drawing
// gigabytes of random numbers would take longer than everything else, and the memory does not know
// that a row came by before.
import { makeBatch, randomNumbers, toBfloat16, toFloat16 } from '../../dist/bench/data.js';

export const distinctRows = 64;

const convert = { float32: (values) => values, float16: toFloat16, bfloat16: toBfloat16 };

/** The distinct rows of a vocabulary in a dtype, and a likely label of each. */
export function makeBlock(vocab, dtype) {
  const { logits, labels } = makeBatch(1, distinctRows / 2, vocab);
  return { logits: convert[dtype](logits), labels };
}

/** Normal numbers in bfloat16. */
export function makeNumbers(count, deviation, seed) {
  const random = randomNumbers(seed);
  const normal = () => Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());
  return toBfloat16(Float32Array.from({ length: count }, () => deviation * normal()));
}

/**
 * Labels of a batch: likely tokens for the chosen, any for the rejected; the first tokens of each
 * sequence are a prompt.
 */
export function makeLabels(block, { sequences, tokens, vocab }, fraction) {
  const prompt = tokens - Math.round(tokens * fraction);
  const half = (sequences * tokens) / 2;
  return Int32Array.from({ length: 2 * half }, (_, row) => {
    if (row % tokens < prompt) return -100;
    return row < half
      ? block.labels[row % distinctRows]
      : (Math.imul(row + 1, 0x9e3779b1) >>> 0) % vocab;
  });
}
