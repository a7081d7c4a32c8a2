// More than 2^31 elements: a batch whose byte offsets need 33 bits and whose element offsets need
// 32. It repeats a few distinct rows, so that every element of the gradient can be compared, and
// the distinct ones are held to float64.
import {
  referenceFromLogps,
  referenceLoss,
  referenceTokenLogps,
} from '../../../dist/verification/reference.js';
import {
  decoder,
  halfGradientBound,
  logpBound,
  lossBound,
} from '../../../dist/verification/verification.js';
import { generator, inDtype, randomRow, sameBits } from './support.mjs';

const distinct = 32;
const ignoredRow = 5;
const sequences = 8;
const dtype = 'bfloat16';

export async function huge({ subject, misses, scale, progress, note, device }) {
  const { vocab, tokens } = scale.huge;
  const rows = sequences * tokens;
  const elements = rows * vocab;
  if (elements <= 2 ** 31) note(`run with ${elements} elements: says nothing about 2^31`);
  if (2 * elements > 0.9 * device.freeMemory) {
    note(
      `needs ${((2 * elements) / 1e9).toFixed(1)} GB of device memory; ` +
        `${(device.freeMemory / 1e9).toFixed(1)} GB are free`,
    );
    return;
  }
  if (tokens % distinct !== 0)
    throw new Error('the sequences must hold whole blocks of the distinct rows');

  const random = generator(vocab);
  const values = new Float32Array(distinct * vocab);
  for (let row = 0; row < distinct; row++) values.set(randomRow(random, vocab), row * vocab);
  values.fill(NaN, ignoredRow * vocab, (ignoredRow + 1) * vocab);
  const block = inDtype(values, dtype);
  // The chosen and the rejected differ in their labels.
  const labelsOf = [0, 1].map(() =>
    Int32Array.from({ length: distinct }, (_, row) =>
      row === ignoredRow ? -100 : Math.floor(random() * vocab),
    ),
  );
  const half = (row) => (row < rows / 2 ? 0 : 1);
  const labels = Int32Array.from({ length: rows }, (_, row) => labelsOf[half(row)][row % distinct]);

  const blocks = tokens / distinct;
  const small = labelsOf.map((own) => ({
    logits: block,
    dtype,
    shape: [1, distinct, vocab],
    labels: own,
  }));
  const tokenLogps = small.map((batch) => referenceTokenLogps(batch).logps);
  const logps = Float64Array.from({ length: sequences }, (_, b) =>
    tokenLogps[half(b * tokens)].reduce((sum, x) => sum + blocks * x, 0),
  );
  const counts = new Int32Array(sequences).fill(blocks * (distinct - 1));
  const reference = logps.map((x, b) => x + 3 * (b % 3) - 2);
  const config = { method: 'dpo', beta: 0.1 };
  const expected = referenceFromLogps(config, { logps, counts, reference });
  // onehot - softmax of the distinct rows: the likelihood objective of one sequence has the
  // coefficient -1.
  const residuals = small.map((batch) =>
    referenceLoss({ method: 'sft', normalize: false }, batch).gradLogits.map((g) => -g),
  );

  const buffer = subject.cuda.alloc(2 * elements, { device: device.index });
  try {
    const write = async (share) => {
      for (let at = 0; at < rows; at += distinct) {
        buffer.copyFrom(block, { offset: 2 * at * vocab });
        if (at % (32 * distinct) === 0) await progress((share + at / rows) / 4);
      }
    };
    const batch = {
      logits: buffer.tensor(dtype),
      shape: [sequences, tokens, vocab],
      labels,
      reference,
    };
    const objective = subject.dirAlignLoss(config);
    await write(0);
    const numbers = objective(batch, { gradient: 'none' });
    misses.each('logps', numbers.logps, logps, (x, b) => logpBound(x, counts[b]));
    misses.near('loss', numbers.loss, expected.loss, lossBound(expected.loss));
    misses.require(sameBits(numbers.counts, counts), 'counts');
    const tokensOf = subject.tokenLogps(batch).logps;
    for (let at = 0; at < rows; at += distinct) {
      const own = tokensOf.subarray(half(at) * (rows / 2), half(at) * (rows / 2) + distinct);
      misses.require(
        sameBits(tokensOf.subarray(at, at + distinct), own),
        () => `tokenLogps of row ${at} and on`,
      );
    }

    for (const [turn, gradient] of ['dense', 'factored'].entries()) {
      if (turn > 0) await write(2);
      const result = objective(batch, { gradient, inPlace: true });
      misses.require(Object.is(result.loss, numbers.loss), `${gradient}: loss`);
      misses.require(sameBits(result.logps, numbers.logps), `${gradient}: logps`);
      const first = new Map();
      const got = new Uint16Array(distinct * vocab);
      for (let at = 0; at < rows; at += distinct) {
        buffer.copyTo(got, { offset: 2 * at * vocab });
        // Rows of one sequence are the same where their logits and labels are; a factored
        // gradient's are the same in all sequences.
        const key = gradient === 'dense' ? Math.floor(at / tokens) : half(at);
        const known = first.get(key);
        if (known)
          misses.require(sameBits(got, known), () => `${gradient}: gradient of row ${at} and on`);
        else {
          first.set(key, got.slice());
          const b = Math.floor(at / tokens);
          checkBlock(
            misses,
            `${gradient}, sequence ${b}`,
            got,
            residuals[half(at)],
            gradient === 'dense' ? result.coefficients[b] : 1,
          );
        }
        if (at % (32 * distinct) === 0) await progress((2 * turn + 1 + at / rows) / 4);
      }
      if (gradient === 'factored') {
        const scales = Float32Array.from(labels, (label, row) =>
          label === -100 ? 0 : result.coefficients[Math.floor(row / tokens)],
        );
        misses.require(sameBits(result.rowScale, scales), 'rowScale');
      }
      const { coefficients } = result;
      misses.each(
        `${gradient}: coefficients`,
        coefficients,
        expected.gradLogps,
        (x) => 1e-5 * Math.abs(x),
      );
    }
  } finally {
    buffer.dispose();
  }
}

function checkBlock(misses, what, bits, residual, coefficient) {
  const decode = decoder(dtype);
  for (let i = 0; i < bits.length; i++) {
    const value = decode(bits[i]);
    const want = coefficient * residual[i];
    misses.near(() => `${what}, element ${i}`, value, want, halfGradientBound(want, dtype));
  }
}
