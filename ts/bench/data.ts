import { sequenceLogps } from '../logps.js';

/**
 * Preference pairs in the layout of the public calls: the first half of the sequences chosen, the
 * second half rejected.
 */
export interface BenchBatch {
  readonly logits: Float32Array;
  readonly shape: readonly [sequences: number, tokens: number, vocab: number];
  readonly labels: Int32Array;
  readonly reference: Float64Array;
}

export const rowsOf = (batch: BenchBatch): number => batch.shape[0] * batch.shape[1];

/** Uniform numbers in [0, 1) (mulberry32): the same on every machine. */
export function randomNumbers(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let x = Math.imul(state ^ (state >>> 15), state | 1);
    x ^= x + Math.imul(x ^ (x >>> 7), x | 61);
    return ((x ^ (x >>> 14)) >>> 0) / 2 ** 32;
  };
}

function normalNumbers(random: () => number): () => number {
  return () => Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());
}

/**
 * Logits as a trained head makes them: a smooth part shared by all rows (frequent tokens score
 * higher), noise, and a few tokens per row far above the rest; standard deviation about 2.5. A row
 * of zeros would be a different problem: its maximum never moves.
 */
export function makeBatch(pairs: number, tokens: number, vocab: number, seed = 1): BenchBatch {
  const random = randomNumbers(seed);
  const normal = normalNumbers(random);
  const sequences = 2 * pairs;
  const rows = sequences * tokens;
  const prior = Float32Array.from(
    { length: vocab },
    (_, v) => 2 * Math.cos((7 * v) / vocab) - Math.log1p((20 * v) / vocab),
  );
  // Each row reads a stretch of one table of noise from a place of its own: a normal number for
  // every logit would take seconds.
  const noise = Float32Array.from({ length: vocab + (1 << 18) }, () => 2 * normal());
  const logits = new Float32Array(rows * vocab);
  const labels = new Int32Array(rows);
  for (let row = 0; row < rows; row++) {
    const from = Math.floor(random() * (1 << 18));
    const line = logits.subarray(row * vocab, (row + 1) * vocab);
    for (let v = 0; v < vocab; v++) line[v] = (prior[v] as number) + (noise[from + v] as number);
    for (let i = 0; i < 5; i++) line[Math.floor(random() * vocab)] = 8 + 4 * random();
    labels[row] = likelyToken(line, random);
  }
  const batch = { logits, shape: [sequences, tokens, vocab] as const, labels };
  const { logps } = sequenceLogps(batch);
  return { ...batch, reference: logps.map((logp) => logp + 3 * normal()) };
}

/** The best of a few tokens drawn at random: labels of real text are rarely in the tail. */
function likelyToken(line: Float32Array, random: () => number): number {
  let best = Math.floor(random() * line.length);
  for (let i = 1; i < 32; i++) {
    const other = Math.floor(random() * line.length);
    if ((line[other] as number) > (line[best] as number)) best = other;
  }
  return best;
}

/**
 * Labels with the first tokens of every sequence ignored, as a prompt is, so that `fraction` of the
 * rows stay scored.
 */
export function withPrompt(batch: BenchBatch, fraction: number): Int32Array {
  const tokens = batch.shape[1];
  const prompt = tokens - Math.max(1, Math.round(tokens * fraction));
  return batch.labels.map((label, row) => (row % tokens < prompt ? -100 : label));
}

/** Bits of the nearest bfloat16 of each number, ties to even. All numbers are finite. */
export function toBfloat16(values: Float32Array): Uint16Array {
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
  const halves = new Uint16Array(values.length);
  for (let i = 0; i < bits.length; i++) {
    const x = bits[i] as number;
    halves[i] = (x + 0x7fff + ((x >>> 16) & 1)) >>> 16;
  }
  return halves;
}

/** The numbers that the bfloat16 bits stand for. */
export function roundedToBfloat16(values: Float32Array): Float32Array {
  return new Float32Array(Uint32Array.from(toBfloat16(values), (bits) => bits << 16).buffer);
}

/**
 * Bits of the nearest float16 of each number, ties to even. All are finite and below 65504 in size.
 */
export function toFloat16(values: Float32Array): Uint16Array {
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
  const halves = new Uint16Array(values.length);
  for (let i = 0; i < bits.length; i++) {
    const x = bits[i] as number;
    const size = x & 0x7fffffff;
    // Below 2^-14 the spacing is fixed: 2^-24.
    const half =
      size < 0x38800000
        ? roundHalfEven(Math.abs(values[i] as number) * 2 ** 24)
        : (size - 0x38000000 + 0xfff + ((size >>> 13) & 1)) >>> 13;
    halves[i] = ((x >>> 16) & 0x8000) | half;
  }
  return halves;
}

function roundHalfEven(x: number): number {
  const low = Math.floor(x);
  const rest = x - low;
  return rest > 0.5 || (rest === 0.5 && low % 2 === 1) ? low + 1 : low;
}
