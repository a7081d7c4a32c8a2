// A trainer written by hand: any model that gives logits and takes their gradient trains on these
// losses. Run it:
//   node plain-trainer.mjs [DIRECTORY]     with a directory, the metrics of each step go there,
//                                          for: tensorboard --logdir DIRECTORY
//
// The model is a table, weights[word][next]: its logits for the next character are the row of the
// last one. What a trainer of your own needs is between the two lines below; the rest is the model
// and the data.
import { dirAlignLoss, sequenceLogps } from 'diralign';
import { tensorBoardLogger } from 'diralign/logging';

const pairs = [
  { prompt: 'is tea hot? ', chosen: 'yes, it is.', rejected: 'who cares!!' },
  { prompt: 'is ice hot? ', chosen: 'no, it is not.', rejected: 'no!! go away!' },
  { prompt: 'can i go? ', chosen: 'yes, go on.', rejected: 'no way!!!' },
];
const vocabulary = [
  ...new Set(pairs.map(({ prompt, chosen, rejected }) => prompt + chosen + rejected).join('')),
];
const vocab = vocabulary.length;
const weights = Float32Array.from({ length: vocab * vocab }, (_, i) => 0.3 * Math.sin(i));

// Chosen first, then rejected; row t scores the character after it; the prompt and the padding are
// not scored.
const sequences = ['chosen', 'rejected'].flatMap((which) =>
  pairs.map((pair) => [pair.prompt, pair[which]]),
);
const tokens =
  Math.max(...sequences.map(([prompt, completion]) => prompt.length + completion.length)) - 1;
const shape = [sequences.length, tokens, vocab];
const words = new Int32Array(sequences.length * tokens);
const labels = new Int32Array(sequences.length * tokens).fill(-100);
sequences.forEach(([prompt, completion], s) => {
  const text = [...(prompt + completion)].map((character) => vocabulary.indexOf(character));
  for (let t = 0; t + 1 < text.length; t++) {
    words[s * tokens + t] = text[t];
    if (t + 1 >= prompt.length) labels[s * tokens + t] = text[t + 1];
  }
});

function forward() {
  const logits = new Float32Array(words.length * vocab);
  words.forEach((word, row) =>
    logits.set(weights.subarray(word * vocab, (word + 1) * vocab), row * vocab),
  );
  return logits;
}

function backwardAndStep(gradLogits, learningRate) {
  const gradient = new Float32Array(weights.length);
  gradLogits.forEach((g, i) => (gradient[words[Math.floor(i / vocab)] * vocab + (i % vocab)] += g));
  gradient.forEach((g, i) => (weights[i] -= learningRate * g));
}

// ----------------------------------------------------------------------------------------------
const dpo = dirAlignLoss('dpo', 0.1);
const gradient = new Float32Array(words.length * vocab); // reused in every step
// The reference is the model before training.
const { logps: reference } = sequenceLogps({ logits: forward(), shape, labels });

const logger = process.argv[2] === undefined ? undefined : tensorBoardLogger(process.argv[2]);

for (let step = 0; step <= 50; step++) {
  const batch = { logits: forward(), shape, labels, reference };
  const { loss, metrics, gradLogits } = dpo(batch, { out: gradient });
  logger?.log(step, { loss, ...metrics });
  if (step % 10 === 0) console.log(step, loss.toFixed(4), metrics['rewards/accuracies'].toFixed(2));
  backwardAndStep(gradLogits, 2);
}
await logger?.close();
// ----------------------------------------------------------------------------------------------
