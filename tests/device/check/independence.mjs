// A pair's numbers are its own: the same bits alone, among others, at another place, another
// alignment, padded or packed, and whatever the padding holds.
import { call, dtypes, onDevice, packed, randomBatch, sameBits } from './support.mjs';

const objectives = [
  ['dpo', 0.1],
  ['simpo', 2],
  ['orpo', 1, undefined, { sftWeight: 1 }],
];
/** A power of two: the mean over pairs then scales a coefficient without rounding. */
const pairs = 4;

/** Pair `index` of a padded batch, alone. */
function pairOf(batch, index) {
  const [, tokens, vocab] = batch.shape;
  const half = batch.shape[0] / 2;
  const joined = (array, length) => {
    const both = new array.constructor(2 * length);
    [index, index + half].forEach((b, i) =>
      both.set(array.subarray(b * length, (b + 1) * length), i * length),
    );
    return both;
  };
  return {
    dtype: batch.dtype,
    shape: [2, tokens, vocab],
    logits: joined(batch.logits, tokens * vocab),
    labels: joined(batch.labels, tokens),
    reference: joined(batch.reference, 1),
  };
}

/** The pairs in one batch, in this order. */
function together(list) {
  const join = (pick) => {
    const parts = [0, 1].flatMap((half) => list.map((pair) => pick(pair, half)));
    const all = new parts[0].constructor(parts.length * parts[0].length);
    parts.forEach((part, i) => all.set(part, i * part.length));
    return all;
  };
  const [, tokens, vocab] = list[0].shape;
  const halfOf = (array, half) =>
    array.subarray((half * array.length) / 2, ((half + 1) * array.length) / 2);
  return {
    dtype: list[0].dtype,
    shape: [2 * list.length, tokens, vocab],
    logits: join((pair, half) => halfOf(pair.logits, half)),
    labels: join((pair, half) => halfOf(pair.labels, half)),
    reference: join((pair, half) => halfOf(pair.reference, half)),
  };
}

/** Two more rows behind each sequence, which nothing scores and which hold NaN or numbers. */
function padded(batch, filler) {
  const [sequences, tokens, vocab] = batch.shape;
  const wide = tokens + 2;
  const logits = new batch.logits.constructor(sequences * wide * vocab).fill(filler);
  const labels = new Int32Array(sequences * wide).fill(-100);
  for (let b = 0; b < sequences; b++) {
    logits.set(
      batch.logits.subarray(b * tokens * vocab, (b + 1) * tokens * vocab),
      b * wide * vocab,
    );
    labels.set(batch.labels.subarray(b * tokens, (b + 1) * tokens), b * wide);
  }
  return { ...batch, shape: [sequences, wide, vocab], logits, labels };
}

/** What belongs to one pair in a result of several; of its rows the scored ones, in their order. */
function share(result, batch, index) {
  const [sequences, tokens, vocab] = batch.shape;
  const owned = [index, index + sequences / 2];
  const scoredRows = owned.flatMap((b) =>
    Array.from({ length: tokens }, (_, t) => b * tokens + t).filter(
      (row) => batch.labels[row] !== -100,
    ),
  );
  const perSequence = (array) => owned.map((b) => array.slice(b, b + 1));
  const perRow = (array, length) =>
    scoredRows.map((row) => array.slice(row * length, (row + 1) * length));
  return {
    losses: [result.losses.slice(index, index + 1)],
    logps: perSequence(result.logps),
    counts: perSequence(result.counts),
    rewards: perSequence(result.rewards),
    coefficients: perSequence(result.coefficients),
    gradient: perRow(result.gradLogits, vocab),
    ...(result.rowScale && { rowScale: perRow(result.rowScale, 1) }),
  };
}

const times = (list, factor) => list.map((array) => array.map((x) => x * factor));

function requireShare(misses, what, actual, expected) {
  for (const [key, arrays] of Object.entries(expected)) {
    misses.require(
      arrays.length === actual[key].length &&
        arrays.every((array, i) => sameBits(array, actual[key][i])),
      () => `${what}: ${key} differ in their bits`,
    );
  }
}

export async function independence({ subject, misses, scale, progress }) {
  const prepare = onDevice(subject.cuda);
  const cases = scale.independent.flatMap((vocab) => dtypes.map((dtype) => ({ vocab, dtype })));
  for (const [done, { vocab, dtype }] of cases.entries()) {
    const batch = randomBatch({
      peaked: true,
      seed: vocab + dtype.length,
      sequences: 2 * pairs,
      tokens: 5,
      vocab,
      dtype,
    });
    const others = randomBatch({
      peaked: true,
      seed: vocab + 1,
      sequences: 2 * pairs,
      tokens: 5,
      vocab,
      dtype,
    });
    const nan = dtype === 'float32' ? NaN : 0x7fff;
    for (const [method, ...settings] of objectives) {
      const objective = subject.dirAlignLoss(method, ...settings);
      for (const gradient of ['dense', 'factored']) {
        const what = `V = ${vocab}, ${dtype}, ${method}, ${gradient}`;
        const take = (name, given, options = {}) => {
          const prepared = prepare(given, { gradient, place: 'out', ...options });
          const { result, problems } = call(objective, prepared);
          for (const problem of problems) misses.require(false, `${what}, ${name}: ${problem}`);
          given.labels.forEach((label, row) => {
            if (label !== -100) return;
            const line = result.gradLogits.subarray(row * vocab, (row + 1) * vocab);
            misses.require(
              line.every((x) => Object.is(x, 0)),
              () => `${what}, ${name}: the gradient of row ${row}, which is ignored, is not 0`,
            );
          });
          return result;
        };
        const base = take('all', batch);
        for (const index of [0, pairs - 1]) {
          const own = share(base, batch, index);
          const pair = pairOf(batch, index);

          // In other company, at another place and another alignment.
          const place = pairs - 1 - index;
          const mixed = Array.from({ length: pairs }, (_, i) =>
            i === place ? pair : pairOf(others, i),
          );
          const company = together(mixed);
          const among = take('in other company', company, { shift: 1 });
          requireShare(
            misses,
            `${what}, pair ${index} in other company`,
            share(among, company, place),
            own,
          );

          // Behind padding, of NaN and of numbers.
          for (const filler of [nan, dtype === 'float32' ? 3.5 : 0x3c00]) {
            const wide = padded(company, filler);
            const result = take('padded', wide, { shift: 3 });
            requireShare(
              misses,
              `${what}, pair ${index} with rows of ${filler} behind`,
              share(result, wide, place),
              own,
            );
          }

          // Alone: no mean over four, so that coefficients are four times as large.
          const alone = share(take('alone', pair, { shift: 1 }), pair, 0);
          const scaled = { ...alone, coefficients: times(alone.coefficients, 1 / pairs) };
          if (gradient === 'factored') scaled.rowScale = times(alone.rowScale, 1 / pairs);
          // A dense gradient is rounded after the scaling; where it is subnormal, the bits need not
          // agree.
          const { gradient: rows, ...numbers } = own;
          requireShare(
            misses,
            `${what}, pair ${index} alone`,
            scaled,
            gradient === 'factored' ? own : numbers,
          );
          misses.require(
            rows.length === alone.gradient.length,
            `${what}, pair ${index} alone: rows of the gradient`,
          );
        }
        // Packed: the ignored rows are gone.
        const { batch: dense, rows } = packed(batch);
        const result = take('packed', dense, { shift: 1 });
        for (const key of ['losses', 'logps', 'counts', 'rewards', 'coefficients'])
          misses.require(
            sameBits(result[key], base[key]),
            `${what}, packed: ${key} differ in their bits`,
          );
        const same = rows.every((row, i) =>
          sameBits(
            result.gradLogits.subarray(i * vocab, (i + 1) * vocab),
            base.gradLogits.subarray(row * vocab, (row + 1) * vocab),
          ),
        );
        misses.require(same, `${what}, packed: the gradient differs in its bits`);
      }
    }
    await progress((done + 1) / cases.length);
  }
}
