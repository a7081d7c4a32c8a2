/** Completions that a policy has sampled, with what a trainer knows of them. */
import { tokenLogps } from 'diralign';

const [sequences, tokens, vocab] = [4, 5, 11];
export const shape = [sequences, tokens, vocab] as const;
const wave = (step: number): Float32Array =>
  Float32Array.from({ length: sequences * tokens * vocab }, (_, i) => 2 * Math.sin(i * step));
export const labels = Int32Array.from({ length: sequences * tokens }, (_, row) =>
  row % tokens < row % 3 ? -100 : (row * 7) % vocab,
);
export const batch = { logits: wave(0.7), shape, labels };
/** Of the policy that sampled, and of the reference, by row. */
export const { logps: sampled } = tokenLogps({ ...batch, logits: wave(0.705) });
export const { logps: referenceRows } = tokenLogps({ ...batch, logits: wave(0.72) });
export const teacherRows = referenceRows;
export const referenceLogits = wave(0.72);
/** By sequence. */
export const reference = Float64Array.from({ length: sequences }, (_, s) =>
  referenceRows.subarray(s * tokens, (s + 1) * tokens).reduce((sum, x) => sum + x, 0),
);
export const advantages = Float64Array.of(1.2, -0.4, 0.3, -1.1);
export const sequenceOf = (row: number): number => Math.floor(row / tokens);
export const scored = (row: number): boolean => labels[row] !== -100;
