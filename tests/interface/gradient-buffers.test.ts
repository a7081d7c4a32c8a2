// Gradients in memory that the caller gives back: whose it is when, and that nobody else writes it.
import { setTimeout as sleep } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';
import { describe, expect, expectTypeOf, test } from 'vitest';
import { DirAlignError, dirAlignLoss, GradientBuffers, logpsBackward } from '../../ts/index.js';
import * as holds from '../../ts/device/holds.js';
import { randomBatch } from '../support/batches.js';
import { randomHidden } from '../support/hidden.js';
import { sameBits } from '../support/numbers.js';
import { expectRefusal, thrownBy } from '../support/refusal.js';

const dpo = dirAlignLoss('dpo', 0.1);
const batchOf = (seed: number, tokens = 6, vocab = 97) =>
  randomBatch({ seed, sequences: 4, tokens, vocab });
const batch = batchOf(1);
const layer = randomHidden({ seed: 3, sequences: 4, tokens: 5, vocab: 41, size: 7 });

let marks = 0;
/** Whether other arrays have the memory of this one, told by a number behind what is written. */
function marked({ buffer }: ArrayBufferView): (other: ArrayBufferView) => boolean {
  const mark = ++marks;
  const at = buffer.byteLength - 8;
  new DataView(buffer).setFloat64(at, mark);
  return (other) =>
    other.buffer.byteLength === at + 8 && new DataView(other.buffer).getFloat64(at) === mark;
}

describe('what is lent', () => {
  test('bits are those of a fresh array, however often, in memory of another gradient', () => {
    const buffers = new GradientBuffers();
    for (let step = 0; step < 6; step++) {
      const own = batchOf(10 + step, 3 + (step % 4));
      const { loss, gradLogits } = dpo(own, { buffers });
      const expected = dpo(own);
      expect(loss).toBe(expected.loss);
      expect(gradLogits.length).toBe(own.logits.length);
      expect(sameBits(gradLogits, expected.gradLogits)).toBe(true);
      buffers.release(gradLogits);
    }
  });

  test('memory that was given back, and no other', () => {
    const buffers = new GradientBuffers();
    // Longer than the gradient of the next call, so that its end is left alone.
    const first = dpo(batchOf(2, 7), { buffers }).gradLogits;
    const isFirst = marked(first);
    const second = dpo(batch, { buffers }).gradLogits;
    expect(second.buffer).not.toBe(first.buffer);
    expect(isFirst(second)).toBe(false);
    buffers.release(first);
    const third = dpo(batch, { buffers }).gradLogits;
    expect(isFirst(third)).toBe(true);
    expect(sameBits(second, third)).toBe(true);
  });

  test('no array for a gradient of less than half its size', () => {
    const buffers = new GradientBuffers();
    buffers.release(dpo(batchOf(2, 30), { buffers }).gradLogits);
    const { gradLogits } = dpo(batch, { buffers });
    expect(gradLogits.buffer.byteLength).toBe(gradLogits.byteLength);
  });

  test('of those given back, the last four are kept', () => {
    const buffers = new GradientBuffers();
    const lent = Array.from({ length: 5 }, () => dpo(batchOf(2, 7), { buffers }).gradLogits);
    const were = lent.map(marked);
    buffers.release(...lent);
    const again = Array.from({ length: 5 }, () => dpo(batch, { buffers }).gradLogits);
    const found = were.map((was) => again.some(was));
    expect(found).toEqual([false, true, true, true, true]);
  });

  test('every gradient of every door and dtype; what has its own place stays there', async () => {
    const buffers = new GradientBuffers();
    for (const dtype of ['float32', 'float16', 'bfloat16'] as const) {
      const own = randomBatch({ seed: 4, sequences: 4, tokens: 3, vocab: 33, dtype });
      for (let i = 0; i < 2; i++) {
        const later = await dpo.async(own, { buffers, gradient: 'factored' });
        expect(sameBits(later.gradLogits, dpo(own, { gradient: 'factored' }).gradLogits)).toBe(
          true,
        );
        const rows = new Float64Array(own.labels.length).fill(0.5);
        const backward = logpsBackward(own, { rows }, { buffers });
        expect(sameBits(backward.gradLogits, logpsBackward(own, { rows }).gradLogits)).toBe(true);
        buffers.release(later.gradLogits, backward.gradLogits);
      }
    }
    const expected = dpo.fromHidden(layer);
    const gradHidden = layer.hidden.slice();
    for (let i = 0; i < 2; i++) {
      const found = dpo.fromHidden(layer, { buffers, out: { gradHidden } });
      expect(found.gradHidden).toBe(gradHidden);
      expect(sameBits(found.gradHidden, expected.gradHidden)).toBe(true);
      expect(sameBits(found.gradWeight, expected.gradWeight)).toBe(true);
      expect(sameBits(found.gradBias, expected.gradBias)).toBe(true);
      expect(
        thrownBy(() => {
          buffers.release(gradHidden);
        }),
      ).toBeInstanceOf(DirAlignError);
      buffers.release(found.gradWeight, found.gradBias);
    }
    expect(dpo(batch, { buffers, gradient: 'none' }).loss).toBe(dpo(batch).loss);
  });

  test('nothing by a call that fails', async () => {
    const buffers = new GradientBuffers();
    const first = dpo(batchOf(2, 7), { buffers }).gradLogits;
    const isFirst = marked(first);
    buffers.release(first);
    const wrong = { ...batch, labels: batch.labels.map((label) => (label < 0 ? label : 97)) };
    expect(thrownBy(() => dpo(wrong, { buffers }))).toMatchObject({ code: 'ERR_DIRALIGN_LABEL' });
    await expect(dpo.async(wrong, { buffers })).rejects.toMatchObject({
      code: 'ERR_DIRALIGN_LABEL',
    });
    const signal = AbortSignal.abort();
    await expect(dpo.async(batch, { buffers, signal })).rejects.toMatchObject({
      code: 'ERR_DIRALIGN_ABORTED',
    });
    expect(isFirst(dpo(batch, { buffers }).gradLogits)).toBe(true);
  });
});

describe('what is given back', () => {
  test('is empty, and no call takes it', () => {
    const buffers = new GradientBuffers();
    const { gradLogits } = dpo(batch, { buffers });
    buffers.release(gradLogits);
    expect(gradLogits.length).toBe(0);
    expectRefusal(() => dpo(batch, { out: gradLogits }), 'TypeError SHAPE', [/detached/]);
  });

  test('is given back once, and by those who lent it', () => {
    const [buffers, others] = [new GradientBuffers(), new GradientBuffers()];
    const { gradLogits } = dpo(batch, { buffers });
    expectRefusal(
      () => {
        others.release(gradLogits);
      },
      'TypeError OPTION',
      [/did not lend/],
    );
    expectRefusal(
      () => {
        buffers.release(gradLogits, gradLogits);
      },
      'TypeError OPTION',
      [/before/],
    );
    expect(gradLogits.length).toBe(batch.logits.length);
    buffers.release(gradLogits);
    expectRefusal(
      () => {
        buffers.release(gradLogits);
      },
      'TypeError OPTION',
      [/before/],
    );
    for (const other of [undefined, null, {}, [gradLogits], new DataView(new ArrayBuffer(8))])
      expectRefusal(
        () => {
          buffers.release(other as never);
        },
        'TypeError OPTION',
        [/release: /],
      );
    expectRefusal(
      () => {
        buffers.release(dpo(batch).gradLogits);
      },
      'TypeError OPTION',
      [/release: /],
    );
  });

  test('all or none: what cannot be given back leaves the others lent', () => {
    const buffers = new GradientBuffers();
    const [a, b] = [dpo(batch, { buffers }).gradLogits, dpo(batch, { buffers }).gradLogits];
    expectRefusal(
      () => {
        buffers.release(a, new Float32Array(3));
      },
      'TypeError OPTION',
      [/lend/],
    );
    buffers.release(a, b);
  });

  test('at the end of a scope, unless it was before: no later gradient goes with it', () => {
    const buffers = new GradientBuffers();
    const result = dpo(batch, { buffers });
    const { gradLogits } = result;
    buffers.release(gradLogits);
    const next = dpo(batch, { buffers });
    result[Symbol.dispose]();
    expect(sameBits(next.gradLogits, dpo(batch).gradLogits)).toBe(true);
    next[Symbol.dispose]();
    next[Symbol.dispose]();
    expect(next.gradLogits.length).toBe(0);
    expect(Object.keys(next)).toEqual(Object.keys(dpo(batch)));
    const hidden = dpo.fromHidden(layer, { buffers });
    hidden[Symbol.dispose]();
    expect([hidden.gradHidden.length, hidden.gradWeight.length]).toEqual([0, 0]);
  });

  test('while a call writes it: for others once that has settled', async () => {
    const buffers = new GradientBuffers();
    const large = batchOf(5, 64, 4000);
    const { gradLogits } = dpo(large, { buffers });
    const writing = dpo.async(large, { out: gradLogits });
    buffers.release(gradLogits);
    const other = dpo(large, { buffers });
    expect(other.gradLogits.buffer).not.toBe(gradLogits.buffer);
    expect(gradLogits.length).toBe(large.logits.length);
    const written = await writing;
    expect(written.loss).toBe(other.loss);
    await sleep(0);
    expect(gradLogits.length).toBe(0);
    expectRefusal(
      () => {
        buffers.release(gradLogits);
      },
      'TypeError OPTION',
      [/before/],
    );
  });

  test('while a call reads it, as any of its arrays', async () => {
    const buffers = new GradientBuffers();
    const { gradLogits } = dpo(randomBatch({ seed: 1, sequences: 4, tokens: 1, vocab: 1 }), {
      buffers,
    });
    const reference = gradLogits as Float32Array<ArrayBuffer>;
    reference.fill(-3);
    const own = { ...batchOf(5, 64, 1000), reference };
    const expected = dpo(own).loss;
    const reading = dpo.async(own);
    buffers.release(gradLogits);
    expect((await reading).loss).toBe(expected);
    expect(gradLogits.length).toBe(0);
  });

  test('not what was transferred elsewhere: it stays there', () => {
    const buffers = new GradientBuffers();
    const result = dpo(batch, { buffers });
    const there = structuredClone(result.gradLogits, { transfer: [result.gradLogits.buffer] });
    expectRefusal(
      () => {
        buffers.release(result.gradLogits);
      },
      'TypeError SHAPE',
      [/transferred/],
    );
    result[Symbol.dispose]();
    dpo(batchOf(9), { buffers });
    expect(sameBits(there, dpo(batch).gradLogits)).toBe(true);
  });

  test('not what is page-locked, until it no longer is', () => {
    const buffers = new GradientBuffers();
    const result = dpo(batch, { buffers });
    const held = { what: 'a page lock', free: undefined, disposed: false, uses: 0 };
    const { hold, letGo } = holds;
    hold(result.gradLogits.buffer, held);
    expectRefusal(
      () => {
        buffers.release(result.gradLogits);
      },
      'TypeError OPTION',
      [/page-locked/],
    );
    result[Symbol.dispose]();
    expect(result.gradLogits.length).toBe(batch.logits.length);
    letGo(result.gradLogits.buffer, held);
    buffers.release(result.gradLogits);
  });
});

describe('what is refused', () => {
  test.each([
    ['inPlace', { inPlace: true }],
    ['out', { out: new Float32Array(batch.logits.length) }],
  ])('buffers beside %s', (name, run) => {
    const buffers = new GradientBuffers();
    expectRefusal(() => dpo(batch, { ...run, buffers } as never), 'TypeError OPTION', [
      new RegExp(`buffers: not together with ${name}`),
    ]);
  });

  test('what is none: a copy of one as a worker gets it, a Proxy, an heir', () => {
    const buffers = new GradientBuffers();
    for (const other of [
      structuredClone(buffers),
      new Proxy(buffers, {}),
      Object.create(GradientBuffers.prototype) as object,
      null,
      true,
      new Float32Array(4),
    ])
      for (const call of [dpo, dpo.fromHidden])
        expectRefusal(
          () =>
            (call as (a: object, b: object) => unknown)(call === dpo ? batch : layer, {
              buffers: other,
            }),
          'TypeError OPTION',
          [/buffers: expected GradientBuffers/],
        );
  });
});

test('a worker has buffers of its own, and its thread may have the gradient', async () => {
  const buffers = new GradientBuffers();
  const { gradLogits } = dpo(batch, { buffers });
  const sum = Array.from(gradLogits).reduce((a, b) => a + Math.abs(b), 0);
  const worker = new Worker(
    `const { parentPort, workerData } = require('node:worker_threads');
     parentPort.postMessage(workerData.reduce((a, b) => a + Math.abs(b), 0));`,
    { eval: true, workerData: gradLogits, transferList: [gradLogits.buffer] },
  );
  const found = await new Promise((resolve, reject) => {
    worker.once('message', resolve).once('error', reject);
  });
  expect(found).toBe(sum);
  expectRefusal(
    () => {
      buffers.release(gradLogits);
    },
    'TypeError SHAPE',
    [/transferred/],
  );
});

test('types: a result can be given back where it was lent, and only there', () => {
  const buffers = new GradientBuffers();
  expectTypeOf(dpo(batch, { buffers })).toHaveProperty(Symbol.dispose);
  expectTypeOf(dpo(batch)).not.toHaveProperty(Symbol.dispose);
  expectTypeOf(dpo(batch, { gradient: 'none' })).not.toHaveProperty(Symbol.dispose);
  expectTypeOf(dpo.fromHidden(layer, { buffers })).toHaveProperty(Symbol.dispose);
});
