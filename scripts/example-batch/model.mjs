// A language model: embeddings of the last three words and of the average of all, one hidden layer,
// a softmax.
import { exp, log, random } from './arithmetic.mjs';
import { vocab } from './conversations.mjs';

const width = 24;
const recent = 3;
const inputs = (recent + 1) * width;
const hidden = 72;

export function newModel() {
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

export const mapModel = (model, f) =>
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
export function forward(model, tokens, t) {
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
export function logSoftmax(logits, label) {
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
export function answerLogp(model, { tokens, answer }) {
  let sum = 0;
  for (let t = answer - 1; t < tokens.length - 1; t++)
    sum += logSoftmax(forward(model, tokens, t).logits, tokens[t + 1]).logp;
  return sum;
}

/** Adds the gradient of coefficient * (log-probability of the tokens from position `from` on). */
export function accumulate(model, gradient, tokens, from, coefficient) {
  for (let t = from; t < tokens.length - 1; t++) {
    const pass = forward(model, tokens, t);
    const { p } = logSoftmax(pass.logits, tokens[t + 1]);
    backward(model, gradient, tokens, t, pass, p, tokens[t + 1], coefficient);
  }
}

/** Adam, ascending. */
export function optimizer(model) {
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
