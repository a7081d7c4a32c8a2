/**
 * Two models, and what a data loader would give: what the snippets about training take for granted.
 */
export const [sequences, tokens, vocab] = [4, 512, 32000];

/** A few scored rows; the others are never read, so that their pages are never touched. */
function labelsOf(rows: number): Int32Array {
  const labels = new Int32Array(rows).fill(-100);
  for (let row = 100; row < rows; row += 128) labels.fill(row % 97, row, row + 3);
  return labels;
}

const inputIds = new Int32Array(sequences * tokens).fill(1);
export const batches = [{ inputIds, tokens: inputIds, labels: labelsOf(sequences * tokens) }];

type Inputs = ArrayLike<number> | { readonly inputIds: ArrayLike<number> };
const logitsFor = (inputs: Inputs): Float32Array => {
  const { length } = 'inputIds' in inputs ? inputs.inputIds : inputs;
  return new Float32Array(length * vocab);
};

export const referenceModel = { forward: logitsFor };

export const policy = {
  forward: (inputs: Inputs): Float32Array => {
    const logits = logitsFor(inputs);
    for (let i = 0; i < logits.length; i += 9973) logits[i] = 0.5;
    return logits;
  },
  backward: (gradient: Float32Array): void => {
    if (gradient.length === 0) throw new Error('there is no gradient');
  },
};
