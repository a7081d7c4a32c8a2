// Batches on the device, and results back on the host: how the sections of `gpu:check` call what
// they check.

/**
 * Bytes before and behind the data that nobody may write. A multiple of the alignment of CUDA's
 * allocations.
 */
const guard = 256;
const pattern = 0xa5;

/**
 * A host array in device memory, `shift` elements past an aligned address. With guards around it
 * unless `exact`: then the allocation ends where the data does, which is what a memory checker
 * needs to see an access behind it.
 */
export class Resident {
  constructor(cuda, array, dtype, { shift = 0, exact = false, stream, device = 0 } = {}) {
    this.cuda = cuda;
    this.array = array;
    this.exact = exact;
    const lead = shift * array.BYTES_PER_ELEMENT;
    this.begin = exact ? lead : guard + lead;
    this.buffer = cuda.alloc(this.begin + array.byteLength + (exact ? 0 : guard), { device });
    this.buffer.fill(pattern);
    this.write(array);
    const { byteLength } = array;
    this.tensor = cuda.tensor({
      ptr: this.buffer.ptr + BigInt(this.begin),
      dtype,
      device,
      byteLength,
      ...(stream !== undefined && { stream }),
    });
  }

  write(array) {
    if (array.byteLength > 0) this.buffer.copyFrom(array, { offset: this.begin });
  }

  read() {
    const copy = new this.array.constructor(this.array.length);
    if (copy.byteLength > 0) this.buffer.copyTo(copy, { offset: this.begin });
    return copy;
  }

  /** Whether what lies around the data is as it was. */
  intact() {
    if (this.exact) return true;
    const bytes = new Uint8Array(this.buffer.byteLength);
    this.buffer.copyTo(bytes);
    const end = this.begin + this.array.byteLength;
    return (
      bytes.subarray(0, this.begin).every((x) => x === pattern) &&
      bytes.subarray(end).every((x) => x === pattern)
    );
  }

  dispose() {
    this.buffer.dispose();
  }
}

/** Ways to call an objective on a batch of host arrays with the work done on the device. */
export const places = ['fresh', 'out', 'inPlace'];

/** A host copy of a device tensor that the call allocated. */
function download(cuda, tensor, like) {
  const copy = new like.constructor(like.length);
  if (copy.byteLength > 0) tensor.copyTo(copy);
  return copy;
}

/** Options that are not named here are the call's. */
function prepareCall(
  { cuda },
  batch,
  { place = 'fresh', gradient = 'dense', shift = 0, exact = false, stream, ...others } = {},
) {
  const dtype = batch.dtype ?? 'float32';
  const options = { shift, exact, ...(stream && { stream: stream.handle }) };
  const logits = new Resident(cuda, batch.logits, dtype, options);
  // Poisoned: an element that nobody writes shows. The gradient lies at another alignment than the
  // logits.
  const poison = batch.logits.slice().fill(batch.logits instanceof Float32Array ? NaN : 0xffff);
  const separate = place === 'out' && gradient !== 'none';
  const out = separate
    ? new Resident(cuda, poison, dtype, { ...options, shift: shift === 0 ? 0 : shift + 1 })
    : undefined;
  const run = { ...others, gradient };
  if (out) run.out = out.tensor;
  if (place === 'inPlace' && gradient !== 'none') run.inPlace = true;
  return {
    batch: { ...batch, dtype, logits: logits.tensor },
    run,
    finish(result) {
      const problems = [];
      let gradLogits;
      if (gradient === 'none') {
        if ('gradLogits' in result) problems.push('has a gradient that was not asked for');
      } else if (out) {
        if (result.gradLogits !== out.tensor) problems.push('gradLogits is not out');
        gradLogits = out.read();
      } else if (run.inPlace) {
        if (result.gradLogits !== logits.tensor) problems.push('gradLogits is not the logits');
        gradLogits = logits.read();
      } else {
        gradLogits = download(cuda, result.gradLogits, batch.logits);
        result.gradLogits.dispose();
      }
      if (!run.inPlace && !sameBits(logits.read(), batch.logits))
        problems.push('the logits were written');
      if (!logits.intact() || (out && !out.intact()))
        problems.push('memory around the arrays was written');
      if (result.backend !== 'cuda') problems.push(`computed by '${result.backend}'`);
      return { result: gradLogits ? { ...result, gradLogits } : result, problems };
    },
    dispose() {
      logits.dispose();
      out?.dispose();
    },
  };
}

/**
 * The loss of a batch of host arrays, computed on the device; `gradLogits` comes back as a host
 * array. `problems` says what was wrong besides the numbers.
 */
export function onDevice(subject, objective, batch, options) {
  const call = prepareCall(subject, batch, options);
  try {
    return call.finish(objective(call.batch, call.run));
  } finally {
    call.dispose();
  }
}

export async function onDeviceAsync(subject, objective, batch, options) {
  const call = prepareCall(subject, batch, options);
  try {
    return call.finish(await objective.async(call.batch, call.run));
  } finally {
    call.dispose();
  }
}

/** The same with the arrays left on the host: they travel through pinned stages. */
export function staged(objective, batch, { place = 'fresh', gradient = 'dense', ...others } = {}) {
  const own = { ...batch, logits: batch.logits.slice() };
  const run = { ...others, gradient, backend: 'cuda' };
  if (place === 'out' && gradient !== 'none')
    run.out = own.logits.slice().fill(own.logits instanceof Float32Array ? NaN : 0xffff);
  if (place === 'inPlace' && gradient !== 'none') run.inPlace = true;
  const result = objective(own, run);
  const problems = [];
  if (!run.inPlace && !sameBits(own.logits, batch.logits)) problems.push('the logits were written');
  if (run.out && result.gradLogits !== run.out) problems.push('gradLogits is not out');
  if (run.inPlace && result.gradLogits !== own.logits)
    problems.push('gradLogits is not the logits');
  if (result.backend !== 'cuda') problems.push(`computed by '${result.backend}'`);
  return { result, problems };
}

export function sameBits(a, b) {
  if (a.byteLength !== b.byteLength) return false;
  const raw = (view) => Buffer.from(view.buffer, view.byteOffset, view.byteLength);
  return a.byteLength === 0 || raw(a).equals(raw(b));
}

/** Whether two results are the same to the bit; what differs goes to `misses`. */
export function requireSame(misses, what, actual, expected, { gradient = true } = {}) {
  for (const key of [
    'losses',
    'logps',
    'counts',
    'rewards',
    'coefficients',
    ...(expected.rowScale ? ['rowScale'] : []),
  ]) {
    misses.require(
      sameBits(actual[key], expected[key]),
      () => `${what}: ${key} differ in their bits`,
    );
  }
  misses.require(
    Object.is(actual.loss, expected.loss),
    () => `${what}: the loss is ${actual.loss}, not ${expected.loss}`,
  );
  // Of rows whose dense gradient underflows: there is none where no dense gradient is asked for.
  const metrics = ({ metrics: { underflow, ...rest } }) =>
    JSON.stringify(gradient ? { ...rest, underflow } : rest);
  misses.require(metrics(actual) === metrics(expected), () => `${what}: other metrics`);
  if (!gradient || !expected.gradLogits) return;
  misses.require(
    actual.gradLogits !== undefined && sameBits(actual.gradLogits, expected.gradLogits),
    () => `${what}: the gradient differs in its bits`,
  );
}
