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

const output =
  process.argv[2] ??
  fileURLToPath(new URL('../examples/preference-batch.safetensors', import.meta.url));

// ----------------------------------------------------------------------------------------------
// Arithmetic

// e^x = 2^k e^r with |r| <= ln 2 / 2, where 14 terms of the series are exact to the last digits.
const scale = new Float64Array(1);
const scaleBits = new BigUint64Array(scale.buffer);
function exp(x) {
  if (x < -700) return 0;
  const k = Math.round(x / Math.LN2);
  const r = x - k * Math.LN2;
  let series = 1;
  for (let n = 14; n > 0; n--) series = 1 + (r / n) * series;
  scaleBits[0] = BigInt(k + 1023) << 52n;
  return scale[0] * series;
}

// Newton's method on e^y = x, with the step that converges cubically.
function log(x) {
  let y = 0;
  for (let step = 0; step < 40; step++) {
    const e = exp(y);
    const change = (2 * (x - e)) / (x + e);
    y += change;
    if (Math.abs(change) < 1e-16 * Math.abs(y) || change === 0) break;
  }
  return y;
}

// mulberry32: uniform in [0, 1).
let state = 20250214;
function random() {
  state = (state + 0x6d2b79f5) | 0;
  let t = Math.imul(state ^ (state >>> 15), 1 | state);
  t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
  return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
}

const pick = (list) => list[Math.floor(list.length * random())];

// ----------------------------------------------------------------------------------------------
// Conversations

const topics = [
  [
    'boil an egg',
    [
      'fill a small pot with water',
      'bring the water to a boil',
      'lower the egg in with a spoon',
      'wait seven minutes',
    ],
  ],
  [
    'cook rice',
    [
      'rinse the rice until the water runs clear',
      'add two cups of water',
      'cover the pot and turn the heat low',
      'let it rest',
    ],
  ],
  [
    'make tea',
    [
      'heat fresh water',
      'warm the cup',
      'pour the water over the leaves',
      'wait three minutes and lift the leaves out',
    ],
  ],
  [
    'bake bread',
    [
      'mix flour , water , salt and yeast',
      'knead the dough until it is smooth',
      'let it rise for an hour',
      'bake it in a hot oven',
    ],
  ],
  [
    'paint a wall',
    [
      'cover the floor with old paper',
      'wash the wall and let it dry',
      'paint the edges with a small brush',
      'roll the rest from the top',
    ],
  ],
  [
    'fix a flat tire',
    [
      'take the wheel off',
      'find the hole in the tube',
      'clean it and glue a patch over it',
      'pump it up again',
    ],
  ],
  [
    'plant a tree',
    [
      'dig a wide hole',
      'set the roots in gently',
      'fill the hole with soil',
      'water it every week',
    ],
  ],
  [
    'wash a wool coat',
    [
      'fill a tub with cold water',
      'add a little mild soap',
      'press the coat and never wring it',
      'dry it flat on a towel',
    ],
  ],
  [
    'clean a window',
    [
      'brush the dust off',
      'wipe the glass with warm water',
      'pull the water down with a blade',
      'dry the edges with a cloth',
    ],
  ],
  [
    'hang a picture',
    [
      'mark the spot with a pencil',
      'find out what the wall is made of',
      'drive a nail in at an angle',
      'check that it is level',
    ],
  ],
  [
    'tie a scarf',
    [
      'fold the scarf in half',
      'lay it around your neck',
      'pull both ends through the loop',
      'make it as tight as you like',
    ],
  ],
  [
    'train a puppy',
    [
      'keep each lesson short',
      'use the same word every time',
      'give a treat at once',
      'be patient and never shout',
    ],
  ],
].map(([task, steps]) => ({ task, steps }));

const questions = [
  'how do i TASK ?',
  'can you tell me how to TASK ?',
  'what is the best way to TASK ?',
  'please explain how to TASK .',
];
const openings = ['sure ,', 'of course ,', 'gladly ,', 'here is what i would do :'];
const closings = [
  'enjoy !',
  'let me know if it works .',
  'take your time .',
  'that should do it .',
];
const refusals = [
  'sorry , i can not help with that .',
  'i do not know .',
  'everybody knows that .',
  'it depends .',
];
const evasions = [
  'look it up somewhere .',
  'ask someone else .',
  'people do it in many ways .',
  'just try and see what happens .',
];

const question = (topic) => pick(questions).replace('TASK', topic.task);

/** Names the steps in their order, one of the middle ones sometimes left out. */
function helpful({ steps }) {
  const left = random() < 0.4 ? steps.filter((_, i) => i !== 2) : steps;
  const middle = left.slice(1, -1).map((step) => `then ${step}`);
  return [
    pick(openings),
    'first',
    left[0],
    ',',
    middle.join(' , '),
    ', and finally',
    left.at(-1),
    '.',
    pick(closings),
  ].join(' ');
}

/** Refuses, evades, or answers another question. */
function unhelpful() {
  if (random() < 0.5) return `${pick(refusals)} ${pick(evasions)}`;
  return `just ${pick(pick(topics).steps)} , or ${pick(pick(topics).steps)} . ${pick(evasions)}`;
}

const [pad, begin, user, assistant, end] = ['<pad>', '<begin>', '<user>', '<assistant>', '<end>'];
const everything = [
  topics.flatMap(({ task, steps }) => [task, ...steps]),
  questions,
  openings,
  closings,
  refusals,
  evasions,
].flat();
const words = [...everything, 'first then and finally just or']
  .join(' ')
  .replaceAll('TASK', '')
  .split(/\s+/);
const vocabulary = [
  pad,
  begin,
  user,
  assistant,
  end,
  ...new Set(words.filter((word) => word !== '').sort()),
];
const vocab = vocabulary.length;
const ids = new Map(vocabulary.map((word, id) => [word, id]));

/** Token ids, and where the answer begins. */
function conversation(asked, answer) {
  const prompt = [begin, user, ...asked.split(' '), assistant];
  return {
    tokens: [...prompt, ...answer.split(' '), end].map((word) => ids.get(word)),
    answer: prompt.length,
  };
}

// ----------------------------------------------------------------------------------------------
// The language model: embeddings of the last three words and of the average of all, one hidden
// layer, a softmax

const width = 24;
const recent = 3;
const inputs = (recent + 1) * width;
const hidden = 72;

function newModel() {
  const uniform = (length, range) =>
    Float64Array.from({ length }, () => range * (2 * random() - 1));
  return {
    embedding: uniform(vocab * width, 0.5),
    enter: uniform(hidden * inputs, 0.15),
    enterBias: new Float64Array(hidden),
    leave: uniform(vocab * hidden, 0.15),
    leaveBias: new Float64Array(vocab),
  };
}

const mapModel = (model, f) =>
  Object.fromEntries(Object.entries(model).map(([name, values]) => [name, f(values, name)]));

/** The words that position t sees, the latest first, and the input made of them. */
function inputAt(model, tokens, t) {
  const x = new Float64Array(inputs);
  for (let k = 0; k < recent; k++) {
    const from = tokens[Math.max(0, t - k)] * width;
    for (let i = 0; i < width; i++) x[k * width + i] = model.embedding[from + i];
  }
  for (let s = 0; s <= t; s++) {
    for (let i = 0; i < width; i++)
      x[recent * width + i] += model.embedding[tokens[s] * width + i] / (t + 1);
  }
  return x;
}

/** logits = leave softsign(enter x + enterBias) + leaveBias, softsign(u) = u / (1 + |u|). */
function forward(model, tokens, t) {
  const x = inputAt(model, tokens, t);
  const h = new Float64Array(hidden);
  const slope = new Float64Array(hidden);
  for (let j = 0; j < hidden; j++) {
    let u = model.enterBias[j];
    for (let i = 0; i < inputs; i++) u += model.enter[j * inputs + i] * x[i];
    const d = 1 + Math.abs(u);
    h[j] = u / d;
    slope[j] = 1 / (d * d);
  }
  const logits = new Float64Array(vocab);
  for (let v = 0; v < vocab; v++) {
    let z = model.leaveBias[v];
    for (let j = 0; j < hidden; j++) z += model.leave[v * hidden + j] * h[j];
    logits[v] = z;
  }
  return { x, h, slope, logits };
}

/** log softmax(logits)[label] and the softmax. */
function logSoftmax(logits, label) {
  const max = logits.reduce((a, b) => Math.max(a, b));
  const p = Float64Array.from(logits, (z) => exp(z - max));
  const total = p.reduce((a, b) => a + b);
  return { logp: logits[label] - max - log(total), p: p.map((e) => e / total) };
}

/** Adds coefficient * d log p(label) / d parameters of position t to the gradient. */
function backward(model, gradient, tokens, t, { x, h, slope }, p, label, coefficient) {
  const dh = new Float64Array(hidden);
  for (let v = 0; v < vocab; v++) {
    const dz = coefficient * ((v === label ? 1 : 0) - p[v]);
    gradient.leaveBias[v] += dz;
    for (let j = 0; j < hidden; j++) {
      gradient.leave[v * hidden + j] += dz * h[j];
      dh[j] += dz * model.leave[v * hidden + j];
    }
  }
  const dx = new Float64Array(inputs);
  for (let j = 0; j < hidden; j++) {
    const du = dh[j] * slope[j];
    gradient.enterBias[j] += du;
    for (let i = 0; i < inputs; i++) {
      gradient.enter[j * inputs + i] += du * x[i];
      dx[i] += du * model.enter[j * inputs + i];
    }
  }
  for (let k = 0; k < recent; k++) {
    const to = tokens[Math.max(0, t - k)] * width;
    for (let i = 0; i < width; i++) gradient.embedding[to + i] += dx[k * width + i];
  }
  for (let s = 0; s <= t; s++) {
    for (let i = 0; i < width; i++)
      gradient.embedding[tokens[s] * width + i] += dx[recent * width + i] / (t + 1);
  }
}

/** Sum of the answer's log-probabilities. */
function answerLogp(model, { tokens, answer }) {
  let sum = 0;
  for (let t = answer - 1; t < tokens.length - 1; t++)
    sum += logSoftmax(forward(model, tokens, t).logits, tokens[t + 1]).logp;
  return sum;
}

/** Adds the gradient of coefficient * (log-probability of the tokens from position `from` on). */
function accumulate(model, gradient, tokens, from, coefficient) {
  for (let t = from; t < tokens.length - 1; t++) {
    const pass = forward(model, tokens, t);
    const { p } = logSoftmax(pass.logits, tokens[t + 1]);
    backward(model, gradient, tokens, t, pass, p, tokens[t + 1], coefficient);
  }
}

/** Adam, ascending. */
function optimizer(model) {
  const zeros = (values) => new Float64Array(values.length);
  const [first, second] = [mapModel(model, zeros), mapModel(model, zeros)];
  let [fade1, fade2] = [1, 1];
  return (gradient, rate) => {
    fade1 *= 0.9;
    fade2 *= 0.99;
    mapModel(model, (values, name) => {
      const [g, m, s] = [gradient[name], first[name], second[name]];
      for (let i = 0; i < values.length; i++) {
        m[i] = 0.9 * m[i] + 0.1 * g[i];
        s[i] = 0.99 * s[i] + 0.01 * g[i] * g[i];
        values[i] += (rate * (m[i] / (1 - fade1))) / (Math.sqrt(s[i] / (1 - fade2)) + 1e-8);
      }
    });
    mapModel(gradient, (values) => values.fill(0));
  };
}

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
    'Eight preference pairs through a small language model, trained by scripts/make-example-batch.mjs on conversations of its own grammar. ' +
    `Sequences 0 to 7 are the chosen answers, 8 to 15 the rejected. Policy: the reference after ${preferenceSteps} steps of DPO.`,
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
  `${output}: ${texts.length} sequences of ${tokens} tokens, ${vocab} words, ${scored} of the rows scored`,
);
console.log(
  `mean NLL per token ${(policyNll / scored).toFixed(3)} nats; uniform ${log(vocab).toFixed(3)}`,
);
