// The reference cases of tests/fixtures/vectors through every public way onto the device.
import {
  encode,
  gradientBound,
  halfGradientBound,
  logpBound,
} from '../../dist/verification/verification.js';
import { packed } from './batches.mjs';
import { onDevice, onDeviceAsync, requireSame, Resident, sameBits, staged } from './device.mjs';

/** Every number of a result and every element of its gradient, as the tests check them. */
function checkAll({ misses, cases, decodeHalf }, c, batch, result) {
  const { dtype } = batch;
  const { residual, V } = c.input;
  cases.checkNumbers(misses, c, result, 'cuda');
  const gradient = dtype ? decodeHalf(result.gradLogits, dtype) : result.gradLogits;
  if (!result.rowScale) {
    cases.checkGradient(misses, c, gradient, dtype);
    return;
  }
  misses.each(`${c.id} rowScale`, result.rowScale, cases.expectedScales(c), (x) =>
    gradientBound(Math.abs(x), 0),
  );
  // An element of the residual is at most 1.
  misses.each(`${c.id} factored`, gradient, residual.subarray(0, gradient.length), (x) =>
    dtype ? halfGradientBound(x, dtype) : gradientBound(Math.abs(x), 1),
  );
  if (!dtype) cases.checkGradient(misses, c, cases.unfactored(result, gradient, V));
}

/** Rows further apart, the elements between them NaN. */
function strided(batch, rowStride) {
  const vocab = batch.shape[2];
  const rows = batch.labels.length;
  const filler = batch.logits instanceof Float32Array ? NaN : 0x7fff;
  const logits = new batch.logits.constructor(rows * rowStride).fill(filler);
  for (let row = 0; row < rows; row++)
    logits.set(batch.logits.subarray(row * vocab, (row + 1) * vocab), row * rowStride);
  return { ...batch, logits, rowStride };
}

/**
 * The columns of a strided array that are logits; what lies between the rows must be 0 in a
 * gradient.
 */
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

async function checkCase(context, c, batch, stream) {
  const { subject, misses } = context;
  const objective = subject.dirAlignLoss(c.call);
  const take = (name, { result, problems }) => {
    for (const problem of problems) misses.require(false, `${c.id}, ${name}: ${problem}`);
    return result;
  };
  const device = (name, given, options) => take(name, onDevice(subject, objective, given, options));

  const dense = device('dense', batch, { place: 'fresh' });
  checkAll(context, c, batch, dense);
  const same = (name, result) => requireSame(misses, `${c.id}, ${name}`, result, dense);
  same('out', device('out', batch, { place: 'out', shift: 1, exact: true }));
  same('in place', device('in place', batch, { place: 'inPlace', shift: 3 }));
  requireSame(
    misses,
    `${c.id}, loss only`,
    device('loss only', batch, { gradient: 'none', shift: 2 }),
    dense,
    {
      gradient: false,
    },
  );
  same(
    'async',
    take('async', await onDeviceAsync(subject, objective, batch, { place: 'out', stream })),
  );

  const vocab = c.input.V;
  for (const [rowStride, options] of [
    [vocab + 1, { place: 'out' }],
    [vocab + 24, { place: 'inPlace', shift: 1 }],
  ]) {
    const name = `rowStride ${rowStride}`;
    const result = device(name, strided(batch, rowStride), options);
    same(name, {
      ...result,
      gradLogits: unstrided(misses, `${c.id}, ${name}`, result.gradLogits, vocab, rowStride),
    });
  }

  if (!batch.sftLabels) {
    const factored = device('factored', batch, { gradient: 'factored', place: 'out', shift: 1 });
    checkAll(context, c, batch, factored);
    // Not to the bit: a gradient over its logits may be formed in another order than one beside
    // them.
    const again = [
      [
        'factored in place',
        device('factored in place', batch, { gradient: 'factored', place: 'inPlace', shift: 3 }),
      ],
      [
        'factored, fresh',
        device('factored, fresh', batch, { gradient: 'factored', place: 'fresh' }),
      ],
      [
        'factored, staged',
        take(
          'factored, staged',
          staged(objective, batch, { gradient: 'factored', place: 'inPlace' }),
        ),
      ],
    ];
    for (const [name, result] of again) {
      requireSame(misses, `${c.id}, ${name}`, result, factored, { gradient: false });
      checkAll(context, c, batch, result);
    }

    const { batch: rowsOnly, rows } = packed(batch);
    const result = device('packed', rowsOnly, { place: 'out', shift: 1 });
    const { gradLogits, ...numbers } = result;
    requireSame(misses, `${c.id}, packed`, numbers, { ...dense, gradLogits: undefined });
    const picked = new gradLogits.constructor(gradLogits.length);
    rows.forEach((row, i) =>
      picked.set(dense.gradLogits.subarray(row * vocab, (row + 1) * vocab), i * vocab),
    );
    misses.require(
      sameBits(gradLogits, picked),
      () => `${c.id}, packed: the gradient differs in its bits`,
    );
  }
  for (const place of ['fresh', 'out', 'inPlace'])
    same(`staged, ${place}`, take('staged', staged(objective, batch, { place })));
  requireSame(
    misses,
    `${c.id}, staged, loss only`,
    take('staged', staged(objective, batch, { gradient: 'none' })),
    dense,
    {
      gradient: false,
    },
  );
}

/** Certainty and empty sequences: there is no number to reach, but everything is finite. */
function checkFinite(subject, misses, c, batch) {
  for (const gradient of ['dense', 'factored']) {
    if (gradient === 'factored' && batch.sftLabels) continue;
    const { result } = onDevice(subject, subject.dirAlignLoss(c.call), batch, {
      gradient,
      place: 'out',
      shift: 1,
    });
    misses.require(Number.isFinite(result.loss), `${c.id}: loss ${result.loss}`);
    for (const key of ['losses', 'coefficients', 'gradLogits'])
      misses.require(
        Array.from(result[key]).every(Number.isFinite),
        () => `${c.id}, ${gradient}: ${key} are not finite`,
      );
  }
}

export async function vectors(context) {
  const { subject, misses, scale, progress, note, loadVectors, cases } = context;
  const stream = subject.cuda.stream();
  const all = [...loadVectors().values()].flat();
  // One by one through the list, so that a step meets every method and input.
  const chosen = all.filter((_, i) => i % scale.vectorStep === 0);
  note(
    chosen.length < all.length ? `${chosen.length} of ${all.length} cases` : `${all.length} cases`,
  );
  const inputs = new Set();
  for (const [i, c] of chosen.entries()) {
    const batch = cases.makeBatch(c);
    if (c.robustnessOnly) checkFinite(subject, misses, c, batch);
    else {
      await checkCase(context, c, batch, stream);
      const dtype = { f32: undefined, f16: 'float16', bf16: 'bfloat16' }[c.input.dtypeExact];
      if (dtype)
        await checkCase(
          context,
          c,
          { ...batch, dtype, logits: Uint16Array.from(batch.logits, (x) => encode(x, dtype)) },
          stream,
        );
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
    misses.each(`${name} sequenceLogps`, logps, input.logps, (x, b) =>
      logpBound(x, input.counts[b]),
    );
    misses.require(sameBits(counts, input.counts), `${name} sequenceLogps: counts`);
    const tokens = tokenLogps({ ...batch, logits: given }, options).logps;
    const sums = Array.from(logps, (_, b) =>
      tokens.subarray(b * T, (b + 1) * T).reduce((x, y) => x + y, 0),
    );
    misses.each(`${name} sums of tokenLogps`, sums, logps, (x) => 1e-14 * Math.abs(x));
  }
  resident.dispose();
}
