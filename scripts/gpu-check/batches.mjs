// Random batches for `gpu:check`, the same in every run.
import { encode } from '../../dist/verification/verification.js';

/** Uniform numbers in [0, 1) (mulberry32). */
export function uniform(seed) {
  let state = seed | 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Roughly normal: the sum of four uniform numbers, which is quick and has bounded tails. */
const noise = (random) => 1.7 * (random() + random() + random() + random() - 2);

export const dtypes = ['float32', 'float16', 'bfloat16'];

/** Logits of a standard deviation near 2.5, a few far above the rest as a trained head has them. */
export function randomRow(random, vocab) {
  const row = Float32Array.from({ length: vocab }, () => 2.5 * noise(random));
  for (let i = 0; i < 3; i++) row[Math.floor(random() * vocab)] += 4 + 4 * random();
  return row;
}

export function inDtype(values, dtype) {
  return dtype === 'float32' ? values : Uint16Array.from(values, (x) => encode(x, dtype));
}

/**
 * Padded pairs. A third of the rows is ignored and holds NaN, but the first of each sequence never;
 * the reference is near a uniform policy's log-probability.
 */
export function randomBatch({ seed, sequences, tokens, vocab, dtype = 'float32', ignored = 0.33 }) {
  const random = uniform(seed);
  const rows = sequences * tokens;
  const logits = new Float32Array(rows * vocab);
  const labels = new Int32Array(rows);
  for (let row = 0; row < rows; row++) {
    const skip = row % tokens !== 0 && random() < ignored;
    labels[row] = skip ? -100 : Math.floor(random() * vocab);
    if (skip) logits.fill(NaN, row * vocab, (row + 1) * vocab);
    else logits.set(randomRow(random, vocab), row * vocab);
  }
  const reference = Float64Array.from({ length: sequences }, (_, b) => {
    const scored = labels
      .subarray(b * tokens, (b + 1) * tokens)
      .filter((label) => label !== -100).length;
    return -scored * (Math.log(vocab) + 1 + noise(random)) - 0.1;
  });
  return {
    logits: inDtype(logits, dtype),
    dtype,
    shape: [sequences, tokens, vocab],
    labels,
    reference,
  };
}

/** The rows of a padded batch that count, one after the other, with offsets. */
export function packed(batch) {
  const { shape, labels, logits, ...rest } = batch;
  const [sequences, tokens, vocab] = shape;
  const offsets = [0];
  const kept = [];
  for (let b = 0; b < sequences; b++) {
    for (let row = b * tokens; row < (b + 1) * tokens; row++)
      if (labels[row] !== -100) kept.push(row);
    offsets.push(kept.length);
  }
  const dense = new logits.constructor(kept.length * vocab);
  kept.forEach((row, i) => dense.set(logits.subarray(row * vocab, (row + 1) * vocab), i * vocab));
  return {
    batch: {
      ...rest,
      logits: dense,
      shape: [kept.length, vocab],
      offsets: Int32Array.from(offsets),
      labels: Int32Array.from(kept, (row) => labels[row]),
    },
    rows: kept,
  };
}
