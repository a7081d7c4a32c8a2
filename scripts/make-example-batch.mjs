#!/usr/bin/env node
// Writes examples/preference-batch.safetensors: preference pairs through a small language model
// that is trained here.
//
//   node scripts/make-example-batch.mjs [FILE]
//
// 1. A grammar makes questions about small household tasks, with helpful answers and answers nobody
// wants.
// 2. A language model learns conversations with both kinds of answers: the reference.
// 3. A copy of it is trained further by direct preference optimisation: the policy.
// 4. Pairs that neither has seen become the batch: the policy's logits, the labels, the reference's
// log-probabilities.
//
// The file comes out bit for bit the same everywhere. For that, random numbers are seeded, and exp
// and log are written in the operations that IEEE 754 defines exactly: Math.exp may differ in its
// last bit from one JavaScript engine to another.
import fs from 'node:fs';
import { fileURLToPath } from 'node:url';
import { exp, log, pick, random } from './example-batch/arithmetic.mjs';
import {
  conversation,
  helpful,
  ids,
  pad,
  question,
  topics,
  unhelpful,
  vocab,
  vocabulary,
} from './example-batch/conversations.mjs';
import {
  accumulate,
  answerLogp,
  forward,
  logSoftmax,
  mapModel,
  newModel,
  optimizer,
} from './example-batch/model.mjs';

const output =
  process.argv[2] ??
  fileURLToPath(new URL('../examples/preference-batch.safetensors', import.meta.url));

// ----------------------------------------------------------------------------------------------
// Training

const reference = newModel();
const gradient = mapModel(reference, (values) => new Float64Array(values.length));

const learn = optimizer(reference);
const steps = 160;
for (let step = 0; step < steps; step++) {
  const conversations = Array.from({ length: 6 }, () => {
    const topic = pick(topics);
    return conversation(question(topic), random() < 0.6 ? helpful(topic) : unhelpful());
  });
  const tokens = conversations.reduce((sum, { tokens }) => sum + tokens.length, 0);
  for (const { tokens: text } of conversations)
    accumulate(reference, gradient, text, 0, 1 / tokens);
  learn(gradient, 0.012 * (1 - step / steps));
}

function pair() {
  const topic = pick(topics);
  const asked = question(topic);
  return {
    chosen: conversation(asked, helpful(topic)),
    rejected: conversation(asked, unhelpful()),
  };
}

// Direct preference optimisation: ascend log sigmoid(beta h), h the chosen log-ratio less the
// rejected one.
const policy = mapModel(reference, (values) => values.slice());
const prefer = optimizer(policy);
const beta = 0.1;
const preferenceSteps = 24;
for (let step = 0; step < preferenceSteps; step++) {
  for (const { chosen, rejected } of Array.from({ length: 4 }, pair)) {
    const ratio = (text) => answerLogp(policy, text) - answerLogp(reference, text);
    const coefficient = beta / (1 + exp(beta * (ratio(chosen) - ratio(rejected)))) / 4;
    accumulate(policy, gradient, chosen.tokens, chosen.answer - 1, coefficient);
    accumulate(policy, gradient, rejected.tokens, rejected.answer - 1, -coefficient);
  }
  prefer(gradient, 0.0005);
}

// ----------------------------------------------------------------------------------------------
// The batch

/** Nearest bfloat16, ties to even. */
const float = new Float32Array(1);
const floatBits = new Uint32Array(float.buffer);
function toBfloat16(x) {
  float[0] = x;
  return (floatBits[0] + 0x7fff + ((floatBits[0] >>> 16) & 1)) >>> 16;
}
function fromBfloat16(bits) {
  floatBits[0] = bits << 16;
  return float[0];
}

const pairs = Array.from({ length: 8 }, pair);
const texts = [...pairs.map(({ chosen }) => chosen), ...pairs.map(({ rejected }) => rejected)];
const tokens = Math.max(...texts.map((text) => text.tokens.length)) - 1;
const logits = new Uint16Array(texts.length * tokens * vocab);
const labels = new Int32Array(texts.length * tokens).fill(-100);
const referenceLogps = new Float64Array(texts.length);
let [policyNll, scored] = [0, 0];

texts.forEach((text, b) => {
  const padded = Array.from({ length: tokens + 1 }, (_, t) => text.tokens[t] ?? ids.get(pad));
  for (let t = 0; t < tokens; t++) {
    const row = b * tokens + t;
    const policyRow = Uint16Array.from(forward(policy, padded, t).logits, toBfloat16);
    logits.set(policyRow, row * vocab);
    if (t < text.answer - 1 || t >= text.tokens.length - 1) continue;
    labels[row] = padded[t + 1];
    // The reference's logits are rounded as the policy's are: both models would run in bfloat16.
    const referenceRow = Float64Array.from(forward(reference, padded, t).logits, (z) =>
      fromBfloat16(toBfloat16(z)),
    );
    referenceLogps[b] += logSoftmax(referenceRow, labels[row]).logp;
    policyNll -= logSoftmax(Float64Array.from(policyRow, fromBfloat16), labels[row]).logp;
    scored++;
  }
});

const metadata = {
  description:
    'Eight preference pairs through a small language model, ' +
    'trained by scripts/make-example-batch.mjs on conversations of its own grammar. ' +
    'Sequences 0 to 7 are the chosen answers, 8 to 15 the rejected. ' +
    `Policy: the reference after ${preferenceSteps} steps of DPO.`,
  logits: 'the policy, aligned: row t scores label t',
  labels: 'ids of the vocabulary; -100 for prompt and padding',
  reference:
    'log-probability of each answer under the reference model, summed over the rows with labels',
  vocabulary: vocabulary.join(' '),
  texts: JSON.stringify(texts.map((text) => text.tokens.map((id) => vocabulary[id]).join(' '))),
};

// The widest elements first, the header padded to 8 bytes: every tensor is aligned.
const parts = [
  ['reference', 'F64', [texts.length], referenceLogps],
  ['labels', 'I32', [texts.length, tokens], labels],
  ['logits', 'BF16', [texts.length, tokens, vocab], logits],
];
const header = { __metadata__: metadata };
let offset = 0;
for (const [name, dtype, shape, { byteLength }] of parts) {
  header[name] = { dtype, shape, data_offsets: [offset, (offset += byteLength)] };
}
const json = JSON.stringify(header);
const headerBytes = Buffer.from(json.padEnd(Math.ceil(json.length / 8) * 8));
const length = Buffer.alloc(8);
length.writeBigUInt64LE(BigInt(headerBytes.length));
const data = parts.map(([, , , array]) => Buffer.from(array.buffer));
fs.writeFileSync(output, Buffer.concat([length, headerBytes, ...data]));

console.log(
  `${output}: ${texts.length} sequences of ${tokens} tokens, ${vocab} words, ` +
    `${scored} of the rows scored`,
);
console.log(
  `mean NLL per token ${(policyNll / scored).toFixed(3)} nats; uniform ${log(vocab).toFixed(3)}`,
);
