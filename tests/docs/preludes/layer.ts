/**
 * An output layer of Llama's vocabulary, of few dimensions, and a batch that scores few of its
 * rows.
 */
import { dirAlignLoss } from 'diralign';

export const dpo = dirAlignLoss('dpo', 0.1);
export const [vocab, H] = [128256, 8];
const [sequences, tokens] = [4, 4096];
export const shape = [sequences, tokens, vocab] as const;
export const labels = new Int32Array(sequences * tokens).fill(-100);
for (let row = 10; row < labels.length; row += 2048) labels.fill(7, row, row + 4);
export const reference = new Float64Array(sequences).fill(-40);

const wave = (length: number, step: number): Float32Array =>
  Float32Array.from({ length }, (_, i) => Math.sin(i * step));
export const hidden = wave(sequences * tokens * H, 0.7);
export const weight = wave(vocab * H, 0.3);
export const referenceHidden = hidden.map((x) => 0.9 * x);
export const referenceWeight = weight;
export const batch = { hidden, weight, shape, labels, reference };
export const microBatches = [batch, batch];
export const embeddingGradient = new Float32Array(vocab * H);
export const policy = {
  backward: (gradient: Float32Array): void => {
    if (gradient.length !== hidden.length) throw new Error('there is no gradient');
  },
};
