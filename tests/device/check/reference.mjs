// Vocabularies of every size against the float64 reference, and many rows against the few that they
// repeat.
import {
  referenceLogpsBackward,
  referenceTokenLogps,
} from '../../../dist/verification/reference.js';
import {
  checkObjective,
  gradientBound,
  halfGradientBound,
  library,
  logpBound,
  prepare,
} from '../../../dist/verification/verification.js';
import {
  call,
  Copy,
  decodeHalf,
  dtypes,
  generator,
  inDtype,
  normal,
  onDevice,
  onHost,
  randomBatch,
  randomRow,
  sameBits,
} from './support.mjs';

const objectives = [
  { method: 'dpo', beta: 0.1 },
  { method: 'simpo', beta: 2 },
  { method: 'orpo', beta: 1, sftWeight: 1 },
  { method: 'ipo', beta: 0.1, normalize: true },
  { method: 'asft', beta: 1, sftWeight: 0.5, sftReduction: 'token' },
  { method: 'sft', normalize: true },
  { method: 'aot', beta: 0.1 },
];

/** The package on the device behind the interface that `diralign verify` checks. */
function libraryOf(subject, misses, what, prepare, { place = 'fresh', ...where } = {}) {
  return {
    ...library,
    loss(config, batch, { inPlace, ...run }) {
      const options = { ...run, ...where, place: inPlace ? 'inPlace' : place };
      const { result, problems } = call(subject.dirAlignLoss(config), prepare(batch, options));
      for (const problem of problems) misses.require(false, `${what}: ${problem}`);
      if (inPlace) batch.logits.set(result.gradLogits);
      return result;
    },
  };
}

function take(misses, what, tally) {
  misses.checked += 1;
  const worst = Math.max(...Object.values(tally.worst));
  if (worst > misses.worst) misses.worst = worst;
  for (const { what: where, actual, expected, bound } of tally.misses) {
    misses.require(false, `${what}: ${where}: ${actual}, expected ${expected} within ${bound}`);
  }
  misses.require(tally.count === 0, `${what}: ${tally.count} out of bounds`);
}

function checkTokens(subject, misses, what, batch, shift) {
  const expected = referenceTokenLogps(batch);
  const logits = new Copy(batch.logits, batch.dtype, { shift }, subject.cuda);
  const actual = subject.tokenLogps({ ...batch, logits: logits.tensor });
  logits.dispose();
  misses.each(`${what} tokenLogps.logps`, actual.logps, expected.logps, (x) => logpBound(x, 1));
  misses.each(`${what} tokenLogps.logsumexp`, actual.logsumexp, expected.logsumexp, (x) =>
    logpBound(x, 1),
  );
  misses.each(
    `${what} tokenLogps.entropy`,
    actual.entropy,
    expected.entropy,
    (x) => 1e-5 * Math.max(1, Math.abs(x)),
  );
}

const transforms = [
  { logitSoftcap: 20, temperature: 0.8 },
  { logitScale: 0.5 },
  { logitScale: 1.5, logitSoftcap: 5 },
];

/**
 * Transformed logits: numbers of tokens with the collision, and a loss of one's own, in place and
 * with entropies. Where these cancel, an element is as good as the largest of its row.
 */
function checkTransformed(subject, misses, what, given, shift, transform) {
  const batch = { ...given, ...transform };
  const { dtype = 'float32', labels, shape } = batch;
  const vocab = shape.at(-1);
  const expected = referenceTokenLogps(batch);
  const random = generator(vocab + shift);
  const derivatives = {
    rows: Float64Array.from(labels, () => normal(random)),
    entropy: Float64Array.from(labels, () => normal(random)),
  };
  const logits = new Copy(batch.logits, dtype, { shift }, subject.cuda);
  const own = { ...batch, logits: logits.tensor };
  const forward = subject.tokenLogps(own, { collision: true });
  for (const key of ['logps', 'logsumexp', 'entropy', 'logCollision'])
    misses.each(`${what} ${key}`, forward[key], expected[key], (x) => logpBound(x, 4));
  for (const known of [{}, { forward }]) {
    logits.write(batch.logits);
    subject.logpsBackward(own, { ...derivatives, ...known }, { inPlace: true });
    const all = logits.read();
    const values = dtype === 'float32' ? all : decodeHalf(all, dtype);
    const { gradLogits } = referenceLogpsBackward(batch, derivatives);
    for (let row = 0; row < labels.length; row++) {
      const wanted = gradLogits.subarray(row * vocab, (row + 1) * vocab);
      const largest = wanted.reduce((most, x) => Math.max(most, Math.abs(x)), 0);
      misses.each(
        `${what} row ${row}`,
        values.subarray(row * vocab, (row + 1) * vocab),
        wanted,
        (x) => gradientBound(largest, 0) + (dtype === 'float32' ? 0 : halfGradientBound(x, dtype)),
      );
    }
  }
  logits.dispose();
}

export async function reference({ subject, misses, scale, progress }) {
  let turn = 0;
  for (const [i, vocab] of scale.vocabularies.entries()) {
    for (const dtype of dtypes) {
      const tokens = scale.tokens(vocab);
      const batch = randomBatch({
        peaked: true,
        seed: 100 * vocab + dtype.length,
        sequences: 4,
        tokens,
        vocab,
        dtype,
      });
      const prepared = prepare(batch);
      for (const shift of scale.shifts) {
        const config = objectives[turn % objectives.length];
        const place = ['fresh', 'out'][turn % 2];
        const exact = turn % 3 === 0;
        turn++;
        const what = `V = ${vocab}, ${dtype}, ${shift} elements off, ${config.method}`;
        take(
          misses,
          what,
          checkObjective(
            libraryOf(subject, misses, what, onDevice(subject.cuda), { shift, exact, place }),
            config,
            prepared,
            'cuda',
          ),
        );
        checkTokens(subject, misses, what, batch, shift);
        const transform = transforms[turn % transforms.length];
        checkTransformed(subject, misses, `${what}, transformed`, batch, shift, transform);
      }
      const config = objectives[turn % objectives.length];
      const what = `V = ${vocab}, ${dtype}, staged, ${config.method}`;
      take(
        misses,
        what,
        checkObjective(libraryOf(subject, misses, what, onHost('cuda')), config, prepared, 'cuda'),
      );
      await progress((i + (dtypes.indexOf(dtype) + 1) / dtypes.length) / scale.vocabularies.length);
    }
  }
  for (const size of scale.manyRows) manyRows(subject, misses, size);
}

/**
 * Every row of a large batch must have the bits of the row that it repeats, and that one is held to
 * the reference.
 */
function manyRows(subject, misses, { vocab, rows }) {
  const distinct = 16;
  const random = generator(vocab);
  const values = new Float32Array(distinct * vocab);
  for (let row = 0; row < distinct; row++) values.set(randomRow(random, vocab), row * vocab);
  const labelOf = Int32Array.from({ length: distinct }, () => Math.floor(random() * vocab));
  for (const dtype of dtypes) {
    const what = `${rows} rows, V = ${vocab}, ${dtype}`;
    const few = inDtype(values, dtype);
    const expected = referenceTokenLogps({
      logits: few,
      dtype,
      shape: [1, distinct, vocab],
      labels: labelOf,
    });
    const logits = new few.constructor(rows * vocab);
    for (let row = 0; row < rows; row += distinct) logits.set(few, row * vocab);
    const labels = Int32Array.from({ length: rows }, (_, row) => labelOf[row % distinct]);
    const batch = {
      dtype,
      shape: [2, rows / 2, vocab],
      labels,
      reference: Float64Array.of(-1, -2),
    };
    const resident = new Copy(logits, dtype, { shift: 1 }, subject.cuda);

    const tokens = subject.tokenLogps({ ...batch, logits: resident.tensor });
    misses.each(`${what} logps`, tokens.logps.subarray(0, distinct), expected.logps, (x) =>
      logpBound(x, 1),
    );
    for (const key of ['logps', 'logsumexp', 'entropy']) {
      const first = tokens[key].subarray(0, distinct);
      for (let row = 0; row < rows; row += distinct)
        misses.require(
          sameBits(tokens[key].subarray(row, row + distinct), first),
          () => `${what} ${key}: row ${row} and on`,
        );
    }
    const dpo = subject.dirAlignLoss('dpo', 0.1);
    for (const gradient of ['factored', 'dense']) {
      resident.write(logits);
      dpo({ ...batch, logits: resident.tensor }, { gradient, inPlace: true });
      const all = resident.read();
      for (const half of [0, rows / 2]) {
        const first = all.subarray(half * vocab, (half + distinct) * vocab);
        for (let row = half; row < half + rows / 2; row += distinct) {
          const block = all.subarray(row * vocab, (row + distinct) * vocab);
          misses.require(
            sameBits(block, first),
            () => `${what} ${gradient} gradient: row ${row} and on`,
          );
        }
      }
    }
    resident.dispose();
  }
}
