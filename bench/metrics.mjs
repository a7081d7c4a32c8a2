/**
 * npm run bench:metrics [-- --backend cuda]: what the metrics of `run.metrics` cost, as ratios to the same call without any. The calls take
 * turns within a round; the median over the rounds is printed, with its quartiles.
 */
import { parseArgs } from 'node:util';
import { dirAlignLoss } from '../dist/index.js';

const { values } = parseArgs({
  options: {
    backend: { type: 'string', default: 'cpu' },
    rounds: { type: 'string', default: '15' },
    vocab: { type: 'string', default: '32000' },
  },
});
const [sequences, tokens, vocab] = [4, 128, Number(values.vocab)];
const logits = Float32Array.from({ length: sequences * tokens * vocab }, (_, i) => 4 * Math.sin(i * i));
const labels = Int32Array.from({ length: sequences * tokens }, (_, row) => (row * 7919) % vocab);
const batch = { logits, shape: [sequences, tokens, vocab], labels, reference: new Float64Array(sequences).fill(-1300) };
const out = new Float32Array(logits.length);
const dpo = dirAlignLoss('dpo', 0.1);

const asked = [
  [],
  ['mean_token_accuracy'],
  ['entropy'],
  ['logits/chosen'],
  ['entropy', 'mean_token_accuracy', 'logits/chosen', 'logits/rejected'],
];
for (const gradient of ['none', 'dense', 'factored']) {
  const run = { gradient, backend: values.backend, ...(gradient !== 'none' && { out }) };
  const ratios = asked.map(() => []);
  for (let round = 0; round <= Number(values.rounds); round++) {
    const times = asked.map((metrics) => {
      const start = performance.now();
      dpo(batch, { ...run, metrics });
      return performance.now() - start;
    });
    if (round > 0) times.forEach((time, i) => ratios[i].push(time / times[0])); // the first one warms up
  }
  asked.forEach((metrics, i) => {
    const sorted = ratios[i].sort((x, y) => x - y);
    const [low, median, high] = [0.25, 0.5, 0.75].map((q) => sorted[Math.floor(q * (sorted.length - 1))].toFixed(3));
    console.log(`${gradient.padEnd(9)} ${median} (${low} to ${high})  ${metrics.join(', ') || 'nothing asked for'}`);
  });
}
