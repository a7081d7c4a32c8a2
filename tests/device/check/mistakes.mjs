// Mistakes are refused with their code before anything is written, failures of the device surface
// as errors, and the process computes on as before.
import { Copy, randomBatch, requireSame, sameBits } from './support.mjs';

export async function mistakes({ subject, misses, device, note }) {
  const { cuda } = subject;
  const dpo = subject.dirAlignLoss('dpo', 0.1);
  const batch = randomBatch({
    peaked: true,
    seed: 11,
    sequences: 4,
    tokens: 3,
    vocab: 1003,
    dtype: 'bfloat16',
  });
  const logits = new Copy(batch.logits, batch.dtype, {}, cuda);
  const good = { ...batch, logits: logits.tensor };
  const expected = dpo(good, { gradient: 'none' });

  const check = async (what, code, work) => {
    let error;
    try {
      await work();
    } catch (caught) {
      error = caught;
    }
    misses.require(error !== undefined, `${what}: no error`);
    if (error) {
      const codes = [code].flat();
      misses.require(
        codes.includes(error.code),
        `${what}: code ${error.code} (${error.message}), expected ${codes.join(' or ')}`,
      );
      misses.require(error.message.length > 10, `${what}: the message says nothing`);
    }
    misses.require(sameBits(logits.read(), batch.logits), `${what}: the logits were written`);
    requireSame(misses, `a good call after: ${what}`, dpo(good, { gradient: 'none' }), expected);
  };
  const at = (ptr, options = {}) =>
    cuda.tensor({ ptr, dtype: batch.dtype, device: device.index, ...options });

  const freed = cuda.alloc(batch.logits.byteLength, { device: device.index });
  const stale = freed.tensor(batch.dtype);
  freed.dispose();
  await check('logits in a freed buffer', 'ERR_DIRALIGN_DEVICE', () =>
    dpo({ ...batch, logits: stale }),
  );
  await check('a freed buffer copied from', 'ERR_DIRALIGN_DEVICE', () =>
    freed.copyTo(new Uint8Array(8)),
  );
  await check('a null pointer', 'ERR_DIRALIGN_DEVICE', () => dpo({ ...batch, logits: at(0n) }));
  await check('a pointer to nowhere', 'ERR_DIRALIGN_DEVICE', () =>
    dpo({ ...batch, logits: at(0x7f0000001000n) }),
  );
  await check('a device that is not there', ['ERR_DIRALIGN_DEVICE', 'ERR_DIRALIGN_OPTION'], () =>
    dpo({
      ...batch,
      logits: cuda.tensor({ ptr: logits.buffer.ptr, dtype: batch.dtype, device: 99 }),
    }),
  );

  const short = cuda.alloc(batch.logits.byteLength - 256, { device: device.index });
  const tooShort = ['ERR_DIRALIGN_SHAPE', 'ERR_DIRALIGN_DEVICE'];
  await check('an allocation too short for the logits', tooShort, () =>
    dpo({ ...batch, logits: short.tensor(batch.dtype) }),
  );
  await check('an allocation too short for the gradient', tooShort, () =>
    dpo(good, { out: short.tensor(batch.dtype) }),
  );
  await check(
    'a copy past the end',
    ['ERR_DIRALIGN_SHAPE', 'ERR_DIRALIGN_OPTION', 'ERR_DIRALIGN_DEVICE'],
    () => short.copyFrom(batch.logits),
  );
  short.dispose();

  const overlapping = new Copy(new Uint16Array(2 * batch.logits.length), batch.dtype, {}, cuda);
  const shifted = at(overlapping.tensor.ptr + 32n, { byteLength: batch.logits.byteLength });
  const whole = at(overlapping.tensor.ptr, { byteLength: batch.logits.byteLength });
  const overlapCodes = ['ERR_DIRALIGN_SHAPE', 'ERR_DIRALIGN_OPTION', 'ERR_DIRALIGN_DEVICE'];
  await check('out over a part of the logits', overlapCodes, () =>
    dpo({ ...batch, logits: whole }, { out: shifted }),
  );
  misses.require(
    overlapping.read().every((x) => x === 0),
    'out over a part of the logits: something was written',
  );
  overlapping.dispose();

  await check(
    'a host array as out',
    ['ERR_DIRALIGN_DTYPE', 'ERR_DIRALIGN_BACKEND', 'ERR_DIRALIGN_OPTION'],
    () => dpo(good, { out: new Uint16Array(batch.logits.length) }),
  );
  await check("device data with backend 'cpu'", 'ERR_DIRALIGN_BACKEND', () =>
    dpo(good, { backend: 'cpu' }),
  );
  await check('another dtype than the tensor', 'ERR_DIRALIGN_DTYPE', () =>
    dpo({ ...good, dtype: 'float16' }),
  );
  const outside = { ...good, labels: batch.labels.map((label, row) => (row === 0 ? 5000 : label)) };
  await check('a label outside the vocabulary', 'ERR_DIRALIGN_LABEL', () => dpo(outside));
  await check('the same, asynchronously', 'ERR_DIRALIGN_LABEL', () => dpo.async(outside));

  const impossible = 4 * device.memory;
  await check('more memory than the card has', 'ERR_DIRALIGN_DEVICE', () =>
    cuda.alloc(impossible, { device: device.index }),
  );
  await check('a gradient when memory is full', 'ERR_DIRALIGN_DEVICE', () =>
    withFullMemory({ cuda, dpo, good, device }),
  );

  const aborted = new AbortController();
  aborted.abort();
  await check('an aborted call', 'ERR_DIRALIGN_ABORTED', () =>
    dpo.async(good, { signal: aborted.signal }),
  );
  if (cuda.devices().length > 1) {
    const elsewhere = new Copy(
      batch.logits,
      batch.dtype,
      {
        device: device.index === 0 ? 1 : 0,
      },
      cuda,
    );
    await check('a pointer of another device', 'ERR_DIRALIGN_DEVICE', () =>
      dpo({ ...batch, logits: at(elsewhere.buffer.ptr, { byteLength: batch.logits.byteLength }) }),
    );
    await check('out on another device', 'ERR_DIRALIGN_DEVICE', () =>
      dpo(good, { out: elsewhere.tensor }),
    );
    elsewhere.dispose();
  } else note('one device: what needs two was left out');
  logits.dispose();
}

/**
 * A call that needs a gradient as large as its logits when nearly everything is taken. The memory
 * is given back before it returns.
 */
function withFullMemory({ cuda, dpo, good, device }) {
  const hoard = [];
  try {
    // Halved until nothing goes any more.
    for (let bytes = device.memory; bytes >= 2 ** 21;) {
      try {
        hoard.push(cuda.alloc(bytes, { device: device.index }));
      } catch (error) {
        if (error.code !== 'ERR_DIRALIGN_DEVICE') throw error;
        bytes = Math.floor(bytes / 2);
      }
    }
    // Rows so far apart that the logits fill the largest piece; what is left is smaller than that.
    const [sequences, tokens, vocab] = good.shape;
    const rowStride = Math.floor(hoard[0].byteLength / (2 * sequences * tokens));
    if (rowStride < vocab) throw new Error(`only ${hoard[0].byteLength} bytes could be allocated`);
    const { gradLogits } = dpo({ ...good, logits: hoard[0].tensor('bfloat16'), rowStride });
    gradLogits.dispose();
  } finally {
    for (const buffer of hoard) buffer.dispose();
  }
}
