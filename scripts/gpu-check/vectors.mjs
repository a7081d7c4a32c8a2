// The reference cases of tests/fixtures/vectors through every public way onto the device.
import { checkGradient, encode, gradientBound, logpBound, lossBound, Tally } from '../../dist/verification.js';
import { packed } from './batches.mjs';
import { onDevice, onDeviceAsync, requireSame, Resident, sameBits, staged } from './device.mjs';

const isSft = (c) => c.call.method === 'sft';
const sequencesOf = (c) => (isSft(c) ? 1 : 2) * c.input.B;

function batchOf(c) {
  const { T, V, logits, labels, nllLabels, reference } = c.input;
  const n = sequencesOf(c);
  return {
    logits: logits.slice(0, n * T * V),
    shape: [n, T, V],
    labels: labels.slice(0, n * T),
    reference: reference.slice(0, n),
    // `sft` has one set of labels.
    ...(nllLabels && !isSft(c) && { sftLabels: nllLabels.slice(0, n * T) }),
  };
}

/** What the checks of `diralign verify` want to know, from a case: the gradient is the sum of its terms' coefficient * residual. */
function termsOf(c) {
  const { labels, nllLabels, residual, nllResidual, B } = c.input;
  const n = sequencesOf(c);
  const own = Float64Array.from({ length: n }, (_, b) => c.dseq?.[b] ?? 0);
  const likelihood = Float64Array.from({ length: n }, (_, b) => (b < B ? c.dnll : 0));
  if (nllLabels) {
    return [
      { labels, residual, coefficients: own },
      { labels: nllLabels, residual: nllResidual, coefficients: likelihood },
    ];
  }
  return [{ labels, residual, coefficients: own.map((x, b) => x + likelihood[b]) }];
}

/** The coefficient that a result reports leaves the likelihood term out; that of a case has it in where it averages over sequences. */
function reported(c, b) {
  const { call, dseq, dnll, input } = c;
  if (isSft(c)) return dseq[b] + dnll;
  const { sftWeight = 0, sftReduction = 'sequence', normalize } = call;
  if (b >= input.B || sftReduction !== 'sequence') return dseq[b];
  return dseq[b] + sftWeight / input.B / (normalize === true ? input.counts[b] : 1);
}

function checkNumbers(misses, c, result) {
  const { input, id, call } = c;
  const n = sequencesOf(c);
  const bounds = Array.from({ length: n }, (_, b) => logpBound(input.logps[b], input.counts[b]));
  misses.near(`${id} loss`, result.loss, c.loss, lossBound(c.loss));
  if (c.losses) misses.each(`${id} losses`, result.losses, c.losses, lossBound);
  misses.each(`${id} logps`, result.logps, input.logps.subarray(0, n), (_, b) => bounds[b]);
  misses.require(sameBits(result.counts, input.counts.slice(0, n)), `${id} counts`);
  if (c.rewards && !isSft(c)) {
    const divisor = (b) => (call.normalize === true ? Math.max(1, input.counts[b]) : 1);
    misses.each(`${id} rewards`, result.rewards, c.rewards, (_, b) => (call.beta * bounds[b]) / divisor(b));
  }
  if (!c.dseq) return;
  const coefficients = Array.from({ length: n }, (_, b) => reported(c, b));
  misses.each(`${id} coefficients`, result.coefficients, coefficients, (x, b) =>
    gradientBound(Math.max(Math.abs(x), Math.abs(c.dseq[b])), 0),
  );
}

/** Element by element, against the case's own gradient where it has one, and against coefficient * residual. */
function checkAll(misses, c, batch, result) {
  checkNumbers(misses, c, result);
  const terms = termsOf(c);
  const { T, V } = c.input;
  const per = T * V;
  const scale = (i) =>
    terms.reduce((sum, { coefficients, residual }) => sum + Math.abs(coefficients[Math.floor(i / per)] * residual[i]), 0);
  let largest = 0;
  for (let i = 0; i < batch.logits.length; i++) largest = Math.max(largest, scale(i));
  const tally = new Tally();
  checkGradient(tally, { batch }, { terms, largest }, result.gradLogits, result.rowScale);
  misses.checked += batch.logits.length;
  misses.worst = Math.max(misses.worst, ...Object.values(tally.worst));
  for (const miss of tally.misses) misses.require(false, `${c.id}: ${miss.what}: ${miss.actual}, expected ${miss.expected}`);
  misses.require(tally.count === 0, `${c.id}: ${tally.count} elements out of bounds`);
  if (!c.gradient || result.rowScale || batch.logits instanceof Uint16Array) return;
  for (let i = 0; i < batch.logits.length; i++)
    misses.near(() => `${c.id} gradient [${i}]`, result.gradLogits[i], c.gradient[i], gradientBound(scale(i), largest));
}

/** Rows further apart, the elements between them NaN. */
function strided(batch, rowStride) {
  const vocab = batch.shape[2];
  const rows = batch.labels.length;
  const filler = batch.logits instanceof Float32Array ? NaN : 0x7fff;
  const logits = new batch.logits.constructor(rows * rowStride).fill(filler);
  for (let row = 0; row < rows; row++) logits.set(batch.logits.subarray(row * vocab, (row + 1) * vocab), row * rowStride);
  return { ...batch, logits, rowStride };
}

/** The columns of a strided array that are logits; what lies between the rows must be 0 in a gradient. */
function unstrided(misses, what, array, vocab, rowStride) {
  const rows = array.length / rowStride;
  const result = new array.constructor(rows * vocab);
  for (let row = 0; row < rows; row++) {
    const line = array.subarray(row * rowStride, (row + 1) * rowStride);
    result.set(line.subarray(0, vocab), row * vocab);
    misses.require(
      line.subarray(vocab).every((x) => Object.is(x, 0)),
      () => `${what}: behind row ${row}, the padding of the gradient is not 0`,
    );
  }
  return result;
}

async function checkCase(subject, misses, c, batch, stream) {
  const objective = subject.dirAlignLoss(c.call);
  const take = (name, { result, problems }) => {
    for (const problem of problems) misses.require(false, `${c.id}, ${name}: ${problem}`);
    return result;
  };
  const device = (name, given, options) => take(name, onDevice(subject, objective, given, options));

  const dense = device('dense', batch, { place: 'fresh' });
  checkAll(misses, c, batch, dense);
  const same = (name, result) => requireSame(misses, `${c.id}, ${name}`, result, dense);
  same('out', device('out', batch, { place: 'out', shift: 1, exact: true }));
  same('in place', device('in place', batch, { place: 'inPlace', shift: 3 }));
  requireSame(misses, `${c.id}, loss only`, device('loss only', batch, { gradient: 'none', shift: 2 }), dense, {
    gradient: false,
  });
  same('async', take('async', await onDeviceAsync(subject, objective, batch, { place: 'out', stream })));

  const vocab = c.input.V;
  for (const [rowStride, options] of [
    [vocab + 1, { place: 'out' }],
    [vocab + 24, { place: 'inPlace', shift: 1 }],
  ]) {
    const name = `rowStride ${rowStride}`;
    const result = device(name, strided(batch, rowStride), options);
    same(name, { ...result, gradLogits: unstrided(misses, `${c.id}, ${name}`, result.gradLogits, vocab, rowStride) });
  }

  if (!batch.sftLabels) {
    const factored = device('factored', batch, { gradient: 'factored', place: 'out', shift: 1 });
    checkAll(misses, c, batch, factored);
    // Not to the bit: a gradient over its logits may be formed in another order than one beside them.
    const again = [
      ['factored in place', device('factored in place', batch, { gradient: 'factored', place: 'inPlace', shift: 3 })],
      ['factored, fresh', device('factored, fresh', batch, { gradient: 'factored', place: 'fresh' })],
      ['factored, staged', take('factored, staged', staged(objective, batch, { gradient: 'factored', place: 'inPlace' }))],
    ];
    for (const [name, result] of again) {
      requireSame(misses, `${c.id}, ${name}`, result, factored, { gradient: false });
      checkAll(misses, c, batch, result);
    }

    const { batch: rowsOnly, rows } = packed(batch);
    const result = device('packed', rowsOnly, { place: 'out', shift: 1 });
    const { gradLogits, ...numbers } = result;
    requireSame(misses, `${c.id}, packed`, numbers, { ...dense, gradLogits: undefined });
    const picked = new gradLogits.constructor(gradLogits.length);
    rows.forEach((row, i) => picked.set(dense.gradLogits.subarray(row * vocab, (row + 1) * vocab), i * vocab));
    misses.require(sameBits(gradLogits, picked), () => `${c.id}, packed: the gradient differs in its bits`);
  }
  for (const place of ['fresh', 'out', 'inPlace']) same(`staged, ${place}`, take('staged', staged(objective, batch, { place })));
  requireSame(misses, `${c.id}, staged, loss only`, take('staged', staged(objective, batch, { gradient: 'none' })), dense, {
    gradient: false,
  });
}

/** Certainty and empty sequences: there is no number to reach, but everything is finite. */
function checkFinite(subject, misses, c, batch) {
  for (const gradient of ['dense', 'factored']) {
    if (gradient === 'factored' && batch.sftLabels) continue;
    const { result } = onDevice(subject, subject.dirAlignLoss(c.call), batch, { gradient, place: 'out', shift: 1 });
    misses.require(Number.isFinite(result.loss), `${c.id}: loss ${result.loss}`);
    for (const key of ['losses', 'coefficients', 'gradLogits'])
      misses.require(Array.from(result[key]).every(Number.isFinite), () => `${c.id}, ${gradient}: ${key} are not finite`);
  }
}

export async function vectors({ subject, misses, scale, progress, note, loadVectors }) {
  const stream = subject.cuda.stream();
  const all = [...loadVectors()].flatMap(([, cases]) => cases);
  // One by one through the list, so that a step meets every method and input.
  const chosen = all.filter((_, i) => i % scale.vectorStep === 0);
  if (chosen.length < all.length) note(`${chosen.length} of ${all.length} cases`);
  else note(`${all.length} cases`);
  const inputs = new Set();
  for (const [i, c] of chosen.entries()) {
    const batch = batchOf(c);
    if (c.robustnessOnly) checkFinite(subject, misses, c, batch);
    else {
      await checkCase(subject, misses, c, batch, stream);
      const { dtypeExact } = c.input;
      if (dtypeExact !== 'f32') {
        const dtype = dtypeExact === 'f16' ? 'float16' : 'bfloat16';
        await checkCase(
          subject,
          misses,
          c,
          { ...batch, dtype, logits: Uint16Array.from(batch.logits, (x) => encode(x, dtype)) },
          stream,
        );
      }
    }
    if (!inputs.has(c.input)) checkLogps(subject, misses, c.input);
    inputs.add(c.input);
    await progress((i + 1) / chosen.length);
  }
  stream.dispose();
}

function checkLogps({ cuda, sequenceLogps, tokenLogps }, misses, input) {
  const { name, B, T, V, logits, labels } = input;
  const batch = { shape: [2 * B, T, V], labels };
  const resident = new Resident(cuda, logits, 'float32', { shift: 1 });
  for (const given of [resident.tensor, logits]) {
    const options = { backend: 'cuda' };
    const { logps, counts } = sequenceLogps({ ...batch, logits: given }, options);
    misses.each(`${name} sequenceLogps`, logps, input.logps, (x, b) => logpBound(x, input.counts[b]));
    misses.require(sameBits(counts, input.counts), `${name} sequenceLogps: counts`);
    const tokens = tokenLogps({ ...batch, logits: given }, options).logps;
    const sums = Array.from(logps, (_, b) => tokens.subarray(b * T, (b + 1) * T).reduce((x, y) => x + y, 0));
    misses.each(`${name} sums of tokenLogps`, sums, logps, (x) => 1e-14 * Math.abs(x));
  }
  resident.dispose();
}
