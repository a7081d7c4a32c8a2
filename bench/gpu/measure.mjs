// Times of work on a device: by events around the work, and by the clock around the call.
import { interleave, spread, timeOf } from '../../dist/bench/rounds.js';
import { distinctRows, makeBlock, makeLabels } from './data.mjs';
import { elementBytes, floorBytes, modes, shapeOf } from './plan.mjs';

export class Device {
  constructor(subject, device, scale) {
    this.subject = subject;
    this.cuda = subject.cuda;
    this.native = subject.native();
    this.index = device.index;
    this.stream = this.cuda.stream({ device: this.index });
    this.begin = this.cuda.event({ device: this.index, timing: true });
    this.end = this.cuda.event({ device: this.index, timing: true });
    this.dpo = subject.dirAlignLoss('dpo', 0.1);
    this.held = 0;
    // One call of every kind: kernels are loaded on first use, which would count as memory of a
    // call.
    const warm = this.batch({ rows: 64, vocab: 96, dtype: 'bfloat16' });
    for (const mode of modes) this.call(warm, mode, 1)();
    warm.dispose();
    this.freeAtStart = this.free();
    this.yardstick = scale.yardstick;
    this.piece = Math.min(2 ** 24, this.yardstick / 4);
    this.from = this.alloc(this.yardstick);
    this.to = this.alloc(this.yardstick);
    this.from.fill(0x3e, { stream: this.stream });
  }

  free() {
    return this.cuda.devices()[this.index].freeMemory;
  }

  /** Memory comes in pieces of 2 MiB. */
  alloc(bytes) {
    const buffer = this.cuda.alloc(bytes, { device: this.index, stream: this.stream });
    this.held += Math.ceil(bytes / 2 ** 21) * 2 ** 21;
    return buffer;
  }

  release(buffer) {
    this.held -= Math.ceil(buffer.byteLength / 2 ** 21) * 2 ** 21;
    buffer.dispose();
  }

  copy(to, from, bytes, offset = 0) {
    this.native.cuda.copyOnDevice(
      this.index,
      this.stream.handle,
      to.ptr,
      from.ptr + BigInt(offset),
      bytes,
    );
  }

  /**
   * A batch in device memory: the logits, a place that may be overwritten, and one for a gradient.
   */
  batch({ rows, vocab, dtype }) {
    const block = makeBlock(vocab, dtype);
    const { sequences, tokens } = shapeOf(rows);
    const bytes = rows * vocab * elementBytes[dtype];
    const logits = this.alloc(bytes);
    logits.copyFrom(block.logits);
    // Doubled on the device until it is full: rows are a power of two times the distinct ones.
    const { cuda } = this.native;
    for (let filled = block.logits.byteLength; filled < bytes; filled *= 2)
      cuda.copyOnDevice(
        this.index,
        this.stream.handle,
        logits.ptr + BigInt(filled),
        logits.ptr,
        filled,
      );
    this.stream.synchronize();
    const [work, out] = [this.alloc(bytes), this.alloc(bytes)];
    const shape = [sequences, tokens, vocab];
    const given = new Map(
      [1, 0.5].map((fraction) => {
        const labels = makeLabels(block, { sequences, tokens, vocab }, fraction);
        const batch = { logits: logits.tensor(dtype), shape, labels };
        const reference = this.subject
          .sequenceLogps(batch)
          .logps.map((logp, b) => logp + 3 * Math.sin(b));
        return [fraction, { ...batch, reference }];
      }),
    );
    return {
      rows,
      vocab,
      dtype,
      sequences,
      tokens,
      block,
      bytes,
      logits,
      work,
      out,
      given,
      dispose: () => [logits, work, out].forEach((buffer) => this.release(buffer)),
    };
  }

  /**
   * The call of a mode. In place it takes the copy of the logits, which {@link restore} makes anew.
   */
  call(batch, mode, fraction) {
    const given = batch.given.get(fraction);
    if (mode.tokens) return () => this.subject.tokenLogps(given);
    const { own, run } = this.settings(batch, mode, given);
    return () => this.dpo(own, run);
  }

  settings(batch, mode, given) {
    return {
      own: mode.run.inPlace ? { ...given, logits: batch.work.tensor(batch.dtype) } : given,
      run: mode.out ? { ...mode.run, out: batch.out.tensor(batch.dtype) } : mode.run,
    };
  }

  restore(batch, mode) {
    if (mode.run?.inPlace) this.copy(batch.work, batch.logits, batch.bytes);
  }

  /**
   * Enqueues what clears the caches. First a copy that takes long enough for the host to enqueue
   * all that is timed behind it. Then its source is read once more, into one small place: what the
   * copy wrote is pushed out, and its way to memory is not timed with what follows. By the driver's
   * copies: our kernels mark what they read as not worth keeping, and would leave older lines where
   * they are.
   */
  clear() {
    this.copy(this.to, this.from, this.yardstick);
    for (let at = 0; at + this.piece <= this.yardstick / 2; at += this.piece)
      this.copy(this.to, this.from, this.piece, at);
  }

  /** Milliseconds on the device between the first and the last of a call's work. */
  deviceTime(work) {
    this.clear();
    this.native.timeNext(this.begin.handle, this.end.handle);
    work();
    return this.end.millisecondsSince(this.begin);
  }

  /** Milliseconds of a call on an idle device, by the clock. */
  wallTime(work) {
    this.clear();
    this.stream.synchronize();
    return timeOf(work);
  }

  /** Milliseconds of the yardstick. */
  copyTime() {
    this.clear();
    this.begin.record(this.stream);
    this.native.cuda.copyKernel(
      this.index,
      this.stream.handle,
      this.to.ptr,
      this.from.ptr,
      this.yardstick,
    );
    this.end.record(this.stream);
    this.stream.synchronize();
    return this.end.millisecondsSince(this.begin);
  }

  /**
   * How long the host takes to enqueue a call, and for how long the device is kept busy meanwhile,
   * in milliseconds: medians of a few. Only where the first is less are the times of {@link
   * deviceTime} the device's own.
   */
  async hostTime(batch, mode, fraction) {
    const given = batch.given.get(fraction);
    const [enqueue, busy] = [[], []];
    for (let turn = 0; turn < 5; turn++) {
      this.restore(batch, mode);
      this.stream.synchronize();
      this.begin.record(this.stream);
      this.clear();
      this.end.record(this.stream);
      let pending;
      const { own, run } = this.settings(batch, mode, given);
      enqueue.push(timeOf(() => (pending = this.dpo.async(own, run))));
      await pending;
      busy.push(this.end.millisecondsSince(this.begin));
    }
    return { enqueue: spread(enqueue).median, busy: spread(busy).median };
  }

  /** Device memory that a call takes beside its arrays, in bytes. */
  async extraMemory(batch, mode, fraction) {
    const { own, run } = this.settings(batch, mode, batch.given.get(fraction));
    // What the call takes is taken when it is enqueued.
    const pending = this.dpo.async(own, run);
    const free = this.free();
    await pending;
    return Math.max(0, this.freeAtStart - this.held - free);
  }
}

/** Bytes that a batch takes, and room for what calls take. */
export function needed({ rows, vocab, dtype }) {
  return 3 * rows * vocab * elementBytes[dtype] * 1.02;
}

/**
 * All modes of a batch in interleaved rounds with the copy kernel.
 * @returns {Promise<{ copy: object, copyBandwidth: number, entries: object[] }>} times in
 *   milliseconds, bandwidth in bytes per second
 */
export async function measureBatch(device, batch, { rounds, fractions, progress }) {
  const cases = [{ name: 'copy', run: () => device.copyTime() }];
  for (const fraction of fractions) {
    for (const mode of modes) {
      const work = device.call(batch, mode, fraction);
      const prepared = (time) => () => {
        device.restore(batch, mode);
        return time(work);
      };
      cases.push({
        name: `${mode.name}@${fraction}`,
        run: prepared((work) => device.deviceTime(work)),
      });
      cases.push({
        name: `${mode.name}@${fraction} wall`,
        run: prepared((work) => device.wallTime(work)),
      });
    }
  }
  const times = await interleave(cases, rounds, () => undefined, progress);
  const copy = spread(times.get('copy'));
  const copyBandwidth = (2 * device.yardstick) / (copy.median / 1000);
  const { rows, vocab, dtype, sequences, tokens } = batch;
  const entries = [];
  for (const fraction of fractions) {
    const scoredRows = sequences * Math.round(tokens * fraction);
    for (const mode of modes) {
      const entry = {
        dtype,
        rows,
        vocab,
        sequences,
        tokens,
        fraction,
        scoredRows,
        mode: mode.name,
      };
      entry.floorBytes = floorBytes(mode, entry);
      entry.device = spread(times.get(`${mode.name}@${fraction}`));
      entry.wall = spread(times.get(`${mode.name}@${fraction} wall`));
      if (!mode.tokens) {
        device.restore(batch, mode);
        entry.extraBytes = await device.extraMemory(batch, mode, fraction);
      }
      entries.push(entry);
    }
  }
  const host = await device.hostTime(batch, modes.at(-1), 1);
  return { copy, copyBandwidth, host, entries };
}

/** Sum of the magnitudes of the last rows of a gradient, to compare with a peer's. */
export function gradientSum(device, batch, decode) {
  const { vocab, dtype, bytes, out } = batch;
  const rows = new (dtype === 'float32' ? Float32Array : Uint16Array)(distinctRows * vocab);
  out.copyTo(rows, { offset: bytes - rows.byteLength });
  return rows.reduce((sum, x) => sum + Math.abs(decode(x)), 0);
}
