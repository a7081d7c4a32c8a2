// `cuda`, and calls on data on a device: what it says of the machine, what it refuses, and memory,
// streams and events.
import { describe, expect, test } from 'vitest';
import { cuda, dirAlignLoss, sequenceLogps, tokenLogps } from '../../ts/index.js';
import type { DeviceTensor, LossResult, RunOptions } from '../../ts/index.js';
import { whyNot } from '../../ts/device/status.js';
import { native, type CudaStatus } from '../../ts/native/interface.js';
import { dtypes, randomBatch } from '../support/batches.js';
import { lossBound } from '../support/bounds.js';
import { Copy, takeGradient, type DeviceBatch } from '../support/device.js';
import { expectDevice } from '../support/expect-device.js';
import { underflowingRows } from '../support/far.js';
import { present, sameBits } from '../support/numbers.js';
import { expectRefusal, thrownBy, titled, type Kind, type Words } from '../support/refusal.js';

const dpo = dirAlignLoss('dpo', 0.1);
/** For arguments that the type checker refuses. */
const anyDpo = dpo as unknown as (batch: unknown, run?: unknown) => LossResult;
const small = () => randomBatch({ seed: 3, sequences: 4, tokens: 3, vocab: 11 });

/** More of it may be free than before: the backend gives back what it kept. */
const freeMemory = (): number => present(cuda.devices()[0]).freeMemory;

expectDevice();

describe('why CUDA cannot be used', () => {
  const fine: CudaStatus = {
    compiled: true,
    architectures: '75,90',
    ptx: '90',
    runtime: 13000,
    driver: 13000,
    error: 0,
    errorText: '',
    devices: 1,
  };
  const cases: [string, Partial<CudaStatus>, readonly RegExp[]][] = [
    [
      'not compiled in',
      { compiled: false, runtime: 0, driver: 0, devices: 0 },
      [/this build contains no CUDA kernels/],
    ],
    // CUDA gives the same error for these two.
    ['no driver', { driver: 0, error: 35, devices: 0 }, [/no NVIDIA driver is installed/]],
    [
      'an old driver',
      { driver: 12040, error: 35, devices: 0 },
      [/supports CUDA 12\.4/, /needs 13\.0/, /update.*R580 or newer/],
    ],
    ['no device', { error: 100, devices: 0 }, [/driver is installed/, /no device is visible/]],
    ['none counted', { devices: 0 }, [/no device is visible/]],
    [
      'another error',
      { error: 803, errorText: 'system has unsupported display driver', devices: 0 },
      [/803/, /unsupported display/],
    ],
  ];
  test.each(cases)('%s', (_, change, words) => {
    const reason = whyNot({ ...fine, ...change }, undefined);
    for (const word of words) expect(reason).toMatch(word);
  });

  test('each has words of its own, and nothing is wrong where nothing is', () => {
    expect(new Set(cases.map(([, change]) => whyNot({ ...fine, ...change }, undefined))).size).toBe(
      cases.length - 1,
    );
    expect(whyNot(fine, undefined)).toBeUndefined();
    expect(whyNot({ ...fine, error: 100, devices: 0 }, '')).toMatch("CUDA_VISIBLE_DEVICES is ''");
  });
});

test('what it says of itself', () => {
  expect(Object.isFrozen(cuda)).toBe(true);
  expect(cuda.available).toBe(cuda.reason === undefined);
  expect(cuda.devices().length > 0).toBe(cuda.available);
  // Of an output layer on a device: CUDA's own reason comes first.
  if (!cuda.available) expect(cuda.hiddenReason).toBe(cuda.reason);
  if (!cuda.available) expect(cuda.reason).toMatch(/\S/);
});

describe.runIf(!cuda.available)('without a device', () => {
  const { reason = '' } = cuda;
  const calls: [string, () => unknown][] = [
    ['alloc', () => cuda.alloc(8)],
    ['tensor', () => cuda.tensor({ ptr: 256n, dtype: 'float32' })],
    ['stream', () => cuda.stream()],
    ['event', () => cuda.event()],
    [
      'synchronize',
      () => {
        cuda.synchronize();
      },
    ],
    ['pin', () => cuda.pin(new Float32Array(4))],
    ["backend: 'cuda'", () => dpo(small(), { backend: 'cuda' })],
    ["sequenceLogps, backend: 'cuda'", () => sequenceLogps(small(), { backend: 'cuda' })],
    ["tokenLogps, backend: 'cuda'", () => tokenLogps(small(), { backend: 'cuda' })],
    ['an address as logits', () => anyDpo({ ...small(), logits: { ptr: 256n, dtype: 'float32' } })],
  ];
  test.each(calls)('%s is refused, with the reason', (_, call) => {
    const error = thrownBy(call);
    expect(error).toMatchObject({ code: 'ERR_DIRALIGN_BACKEND' });
    expect(error).toBeInstanceOf(TypeError);
    expect(error.message).toContain(reason);
  });

  test('the asynchronous call refuses by its promise', async () => {
    await expect(dpo.async(small(), { backend: 'cuda' })).rejects.toMatchObject({
      code: 'ERR_DIRALIGN_BACKEND',
    });
  });

  test("'auto' and 'cpu' compute", () => {
    expect(dpo(small(), { backend: 'auto' }).backend).toBe('cpu');
    expect(dpo(small(), { backend: 'cpu' }).backend).toBe('cpu');
  });
});

describe.runIf(cuda.available)('devices', () => {
  test('what is known of them', () => {
    cuda.devices().forEach((device, index) => {
      expect(Object.isFrozen(device)).toBe(true);
      expect(device).toMatchObject({ index });
      expect(device.name).toMatch(/\S/);
      expect(device.uuid).toMatch(/^GPU-/);
      expect(device.computeCapability).toMatch(/^\d+\.\d$/);
      expect(device.multiprocessors).toBeGreaterThan(0);
      expect(device.memory).toBeGreaterThan(0);
      expect(device.freeMemory).toBeLessThanOrEqual(device.memory);
    });
  });

  test('one that is not there', () => {
    const { length } = cuda.devices();
    for (const device of [length, -1, 0.5, NaN]) {
      expectRefusal(
        () => cuda.alloc(8, { device }),
        'RangeError DEVICE',
        `device | ${device} | ${length}`,
      );
      expectRefusal(() => cuda.stream({ device }), 'RangeError DEVICE', 'device');
      expectRefusal(() => cuda.event({ device }), 'RangeError DEVICE', 'device');
      expectRefusal(
        () => cuda.tensor({ ptr: 256n, dtype: 'float32', device }),
        'RangeError DEVICE',
        'device',
      );
    }
    expectRefusal(
      () => cuda.alloc(8, { device: '0' as never }),
      'TypeError DEVICE',
      "device | '0'",
    );
  });
});

describe.runIf(cuda.available)('buffers', () => {
  const arrays: ArrayBufferView[] = [
    Int8Array.of(-1, 2, 3),
    Uint8ClampedArray.of(1, 255),
    Int16Array.of(-3, 4),
    Uint16Array.of(5, 0xffff),
    Int32Array.of(-7),
    Uint32Array.of(1, 2, 3),
    Float32Array.of(1.5, NaN, -0),
    Float64Array.of(Math.PI, -Infinity),
    BigInt64Array.of(-1n, 2n ** 62n),
    new DataView(Uint8Array.of(9, 8, 7, 6, 5).buffer, 1, 3),
    new Float32Array(new SharedArrayBuffer(16)).fill(0.25),
    new Uint8Array(0),
  ];
  test.each(arrays.map((array) => [array[Symbol.toStringTag as never] as string, array] as const))(
    'copies of a %s',
    (_, array) => {
      using buffer = cuda.alloc(array.byteLength + 8);
      buffer.fill(0x5a);
      buffer.copyFrom(array, { offset: 4 });
      const all = new Uint8Array(buffer.byteLength);
      buffer.copyTo(all);
      expect(sameBits(all.subarray(4, 4 + array.byteLength), array)).toBe(true);
      expect([...all.subarray(0, 4), ...all.subarray(4 + array.byteLength)]).toEqual(
        Array(8).fill(0x5a),
      );
      const back = new Uint8Array(array.byteLength);
      buffer.copyTo(back, { offset: 4 });
      expect(sameBits(back, array)).toBe(true);
    },
  );

  test('large copies, asynchronously', async () => {
    // More than one stage, and an odd rest.
    const source = Uint32Array.from({ length: 2 ** 21 + 5 }, (_, i) => i * 2654435761);
    using buffer = cuda.alloc(source.byteLength);
    const target = new Uint32Array(source.length);
    await buffer.copyFromAsync(source);
    await buffer.copyToAsync(target);
    expect(sameBits(source, target)).toBe(true);
    const [a, b] = [new Uint32Array(source.length - 3), new Uint32Array(7)];
    await Promise.all([buffer.copyToAsync(a, { offset: 12 }), buffer.copyToAsync(b)]);
    expect(sameBits(a, source.subarray(3))).toBe(true);
    expect(sameBits(b, source.subarray(0, 7))).toBe(true);
  });

  test('between buffers and tensors', () => {
    using from = cuda.alloc(64);
    using to = cuda.alloc(96);
    from.copyFrom(Uint8Array.from({ length: 64 }, (_, i) => i));
    to.fill(0xff);
    to.copyFrom(from, { offset: 16 });
    to.tensor('float32', { offset: 4 }).copyFrom(from.tensor('float32', { offset: 60 }));
    const bytes = new Uint8Array(96);
    to.copyTo(bytes);
    expect([...bytes.subarray(0, 16)]).toEqual([
      255, 255, 255, 255, 60, 61, 62, 63, 255, 255, 255, 255, 255, 255, 255, 255,
    ]);
    expect([...bytes.subarray(16, 80)]).toEqual(Array.from({ length: 64 }, (_, i) => i));
    expect([...bytes.subarray(80)]).toEqual(Array(16).fill(255));
    expectRefusal(
      () => {
        from.copyFrom(to);
      },
      'RangeError SHAPE',
      '64 | 96',
    );
  });

  test('a part is filled', () => {
    using buffer = cuda.alloc(10);
    buffer.fill(1);
    buffer.fill(2, { offset: 3, byteLength: 4 });
    buffer.fill(3, { offset: 9 });
    const bytes = new Uint8Array(10);
    buffer.copyTo(bytes);
    expect([...bytes]).toEqual([1, 1, 1, 2, 2, 2, 2, 1, 1, 3]);
  });

  test('an empty one', () => {
    using empty = cuda.alloc(0);
    expect(empty.byteLength).toBe(0);
    expect(empty.ptr).not.toBe(0n);
    empty.copyFrom(new Float32Array(0));
    expectRefusal(
      () => {
        empty.copyFrom(Uint8Array.of(1));
      },
      'RangeError SHAPE',
      '0 bytes | 1',
    );
  });

  test('what is refused', async () => {
    using buffer = cuda.alloc(16);
    const refused: [() => unknown, Kind, Words][] = [
      [() => cuda.alloc(-1), 'RangeError SHAPE', 'bytes | -1'],
      [() => cuda.alloc(1.5), 'RangeError SHAPE', 'bytes | 1.5'],
      [() => cuda.alloc('16' as never), 'TypeError SHAPE', "bytes | '16'"],
      [() => cuda.alloc(16, null as never), 'TypeError OPTION', 'options | null'],
      [() => cuda.alloc(16, { stream: 'x' as never }), 'TypeError DEVICE', "stream | 'x'"],
      // The stream of whichever thread asks.
      [() => cuda.alloc(16, { stream: 2n }), 'RangeError DEVICE', 'stream | cudaStreamPerThread'],
      [
        () => cuda.tensor({ ptr: 4096n, dtype: 'float32', stream: 2n }),
        'RangeError DEVICE',
        'stream | cudaStreamPerThread',
      ],
      [
        () => {
          cuda.synchronize({ stream: 2n });
        },
        'RangeError DEVICE',
        'stream | cudaStreamPerThread',
      ],
      [() => cuda.alloc(16, { stream: -1n }), 'RangeError DEVICE', 'stream | -1'],
      [() => cuda.alloc(16, { stream: 2n ** 64n }), 'RangeError DEVICE', 'stream | 64 bits'],
      [
        () => {
          buffer.copyFrom(new Uint8Array(17));
        },
        'RangeError SHAPE',
        'buffer | 16 | 17',
      ],
      [
        () => {
          buffer.copyTo(new Float64Array(2), { offset: 1 });
        },
        'RangeError SHAPE',
        'buffer | 16 | byte 1',
      ],
      [
        () => {
          buffer.copyFrom(new Uint8Array(1), { offset: -1 });
        },
        'RangeError SHAPE',
        'offset | -1',
      ],
      [
        () => {
          buffer.copyFrom([1] as never);
        },
        'TypeError DTYPE',
        'source | Array',
      ],
      [
        () => {
          buffer.copyTo(null as never);
        },
        'TypeError DTYPE',
        'target | null',
      ],
      [
        () => {
          buffer.copyTo(new Uint8Array(1), 4 as never);
        },
        'TypeError OPTION',
        'options | 4',
      ],
      [
        () => {
          buffer.fill(256);
        },
        'RangeError OPTION',
        'byte | 256',
      ],
      [
        () => {
          buffer.fill(0, { offset: 8, byteLength: 9 });
        },
        'RangeError SHAPE',
        '16 | 9',
      ],
      [() => buffer.tensor('float64' as never), 'TypeError DTYPE', 'dtype | float64'],
      [() => buffer.tensor('float32', { offset: 17 }), 'RangeError SHAPE', '16 | 17'],
      [() => cuda.tensor({ ptr: 0n, dtype: 'float32' }), 'RangeError DEVICE', 'ptr'],
      [() => cuda.tensor({ ptr: '1' as never, dtype: 'float32' }), 'TypeError DEVICE', "ptr | '1'"],
      [
        () => cuda.tensor({ ptr: 2n ** 70n, dtype: 'float32' }),
        'RangeError DEVICE',
        'ptr | 64 bits',
      ],
      [
        () => cuda.tensor({ ptr: 258n, dtype: 'float32' }),
        'RangeError DEVICE',
        'ptr | 0x102 | aligned',
      ],
      [() => cuda.tensor({ ptr: 257n, dtype: 'bfloat16' }), 'RangeError DEVICE', 'ptr | aligned'],
      [() => cuda.tensor({ ptr: 256n, dtype: 'f32' as never }), 'TypeError DTYPE', 'dtype | f32'],
      [
        () => cuda.tensor({ ptr: 256n, dtype: 'float32', byteLength: -4 }),
        'RangeError SHAPE',
        'byteLength | -4',
      ],
      [() => cuda.tensor(null as never), 'TypeError OPTION', 'null'],
      [() => cuda.pin([1] as never), 'TypeError DTYPE', 'array | Array'],
      [() => cuda.pin(new Float32Array(0)), 'RangeError SHAPE', 'array'],
    ];
    for (const [action, kind, words] of refused) expectRefusal(action, kind, words);
    await expect(buffer.copyFromAsync(new Uint8Array(17))).rejects.toMatchObject({
      code: 'ERR_DIRALIGN_SHAPE',
    });
    await expect(buffer.copyToAsync({} as never)).rejects.toMatchObject({
      code: 'ERR_DIRALIGN_DTYPE',
    });
    const gone = new Uint8Array(8);
    structuredClone(gone.buffer, { transfer: [gone.buffer] });
    expectRefusal(
      () => {
        buffer.copyFrom(gone);
      },
      'TypeError SHAPE',
      'detached',
    );
  });

  test('once disposed of, it is refused everywhere, and its memory is free', () => {
    const before = freeMemory();
    const buffer = cuda.alloc(2 ** 24);
    const tensor = buffer.tensor('float32');
    expect(freeMemory()).toBeLessThanOrEqual(before - 2 ** 24);
    expect([buffer.disposed, tensor.disposed]).toEqual([false, false]);
    tensor.dispose(); // it owns nothing
    expect(buffer.disposed).toBe(false);
    buffer.dispose();
    buffer.dispose();
    expect([buffer.disposed, tensor.disposed]).toEqual([true, true]);
    expect(freeMemory()).toBeGreaterThanOrEqual(before);
    const batch = small();
    for (const action of [
      () => {
        buffer.copyFrom(new Uint8Array(1));
      },
      () => {
        buffer.copyTo(new Uint8Array(1));
      },
      () => {
        buffer.fill(0);
      },
      () => buffer.tensor('float32'),
      () => {
        tensor.copyTo(new Uint8Array(1));
      },
      () => dpo({ ...batch, logits: tensor }),
      () => sequenceLogps({ ...batch, logits: tensor }),
      () => {
        using copy = new Copy(batch.logits);
        dpo({ ...batch, logits: copy.tensor }, { out: tensor });
      },
    ])
      expectRefusal(action, 'TypeError DEVICE', 'DeviceBuffer | disposed');
  });

  test('`using` disposes', () => {
    let kept;
    {
      using buffer = cuda.alloc(8);
      kept = buffer;
    }
    expect(kept.disposed).toBe(true);
  });

  test('one that is disposed of while it is copied lives until that is done', async () => {
    const source = new Uint8Array(2 ** 23).map((_, i) => i % 251);
    const buffer = cuda.alloc(source.byteLength);
    const target = new Uint8Array(source.length);
    buffer.copyFrom(source);
    const pending = buffer.copyToAsync(target);
    buffer.dispose();
    expect(buffer.disposed).toBe(true);
    await pending;
    expect(sameBits(source, target)).toBe(true);
  });

  test('more memory than there is: an error with the code of CUDA, and the next call works', () => {
    const { memory } = present(cuda.devices()[0]);
    const error = thrownBy(() => cuda.alloc(4 * memory));
    expect(error).toMatchObject({ code: 'ERR_DIRALIGN_DEVICE', name: 'DirAlignError' });
    expect(error.message).toMatch(/allocating \d+ bytes on device 0.*out of memory/);
    expect(error.cause).toMatchObject({ name: 'cudaErrorMemoryAllocation', code: 2 });
    using buffer = cuda.alloc(8);
    buffer.copyFrom(Float64Array.of(1));
  });
});

describe.runIf(cuda.available)('streams and events', () => {
  test('order between streams, and time', () => {
    using first = cuda.stream();
    using second = cuda.stream();
    expect(first.handle).not.toBe(second.handle);
    using buffer = cuda.alloc(2 ** 22, { stream: first });
    expect(buffer.stream).toBe(first.handle);
    using begin = cuda.event({ timing: true });
    using end = cuda.event({ timing: true });
    expect(begin.ended).toBe(true); // nothing was recorded
    const before = performance.now();
    expect(first.record(begin)).toBe(begin);
    buffer.fill(7);
    first.record(end);
    second.wait(end);
    const bytes = new Uint8Array(16);
    buffer.copyTo(bytes, { stream: second });
    expect([...bytes]).toEqual(Array(16).fill(7));
    end.synchronize();
    expect([begin.ended, end.ended]).toEqual([true, true]);
    // Within what passed here meanwhile, by a clock that is not the device's.
    expect(end.millisecondsSince(begin)).toBeGreaterThan(0);
    expect(end.millisecondsSince(begin)).toBeLessThan(1.01 * (performance.now() - before) + 0.1);
    using untimed = second.record();
    second.synchronize();
    expect(untimed.ended).toBe(true);
    expectRefusal(() => untimed.millisecondsSince(begin), 'TypeError DEVICE', 'timing');
    cuda.synchronize();
    cuda.synchronize({ stream: first });
    cuda.synchronize({ device: 0, stream: second.handle });
  });

  test('handles go wherever streams go', () => {
    using stream = cuda.stream();
    using buffer = cuda.alloc(8, { stream: stream.handle });
    expect(buffer.stream).toBe(stream.handle);
    buffer.copyFrom(Float64Array.of(3), { stream: 0n });
    const tensor = buffer.tensor('float32', { stream });
    expect(tensor).toMatchObject({
      ptr: buffer.ptr,
      dtype: 'float32',
      device: 0,
      stream: stream.handle,
      byteLength: 8,
    });
    expect(Object.isFrozen(tensor)).toBe(true);
    using event = cuda.event().record(stream.handle);
    stream.wait(event.handle);
    stream.synchronize();
  });

  test('disposed of, they are refused; so are those of another device', () => {
    const stream = cuda.stream();
    using buffer = cuda.alloc(8, { stream });
    stream.dispose();
    expectRefusal(() => cuda.alloc(8, { stream }), 'TypeError DEVICE', 'stream | disposed');
    expectRefusal(
      () => {
        buffer.copyFrom(new Uint8Array(8));
      },
      'TypeError DEVICE',
      'stream | disposed',
    );
    expectRefusal(
      () => {
        stream.synchronize();
      },
      'TypeError DEVICE',
      'CudaStream | disposed',
    );
    const event = cuda.event();
    event.dispose();
    expectRefusal(() => event.ended, 'TypeError DEVICE', 'CudaEvent | disposed');
    if (cuda.devices().length < 2) return;
    using other = cuda.stream({ device: 1 });
    expectRefusal(
      () => cuda.alloc(8, { stream: other }),
      'RangeError DEVICE',
      'stream | device 1 | device 0',
    );
  });
});

describe.runIf(cuda.available)('page-locked arrays', () => {
  test('are copied, and used by calls', async () => {
    const batch = randomBatch({ seed: 9, sequences: 4, tokens: 8, vocab: 1000 });
    const expected = dpo(batch, { backend: 'cuda' });
    using pinned = cuda.pin(batch.logits);
    expect(pinned.array).toBe(batch.logits);
    using buffer = cuda.alloc(batch.logits.byteLength);
    buffer.copyFrom(batch.logits);
    const back = batch.logits.slice();
    buffer.copyTo(back);
    expect(sameBits(back, batch.logits)).toBe(true);
    const result = dpo(batch, { backend: 'cuda' });
    expect(result.losses).toEqual(expected.losses);
    const pending = dpo.async(batch, { backend: 'cuda', inPlace: true });
    pinned.dispose(); // when that is through
    expect(sameBits(present((await pending).gradLogits), present(expected.gradLogits))).toBe(true);
    // It can be page-locked again, and not twice.
    using again = cuda.pin(batch.logits);
    expect(again.disposed).toBe(false);
    const error = thrownBy(() => cuda.pin(batch.logits));
    expect(error).toMatchObject({ code: 'ERR_DIRALIGN_DEVICE' });
    expect(error.cause).toMatchObject({ name: 'cudaErrorHostMemoryAlreadyRegistered', code: 712 });
  });
});

describe.runIf(cuda.available)('calls on device data', () => {
  /** The call that the refused ones differ from, and what must not have been written by them. */
  function good() {
    const batch = small();
    const logits = new Copy(batch.logits);
    const out = new Copy(batch.logits.slice().fill(7));
    return { batch, logits, out, onDevice: { ...batch, logits: logits.tensor } as DeviceBatch };
  }
  type Good = ReturnType<typeof good>;
  const foreign = (tensor: DeviceTensor, change: Partial<Parameters<typeof cuda.tensor>[0]>) =>
    cuda.tensor({ ptr: tensor.ptr, dtype: tensor.dtype, ...change });
  const bytes = 4 * 12 * 11;

  test.each(dtypes)('%s: backend, types, and where the gradient is', (dtype) => {
    const batch = randomBatch({ seed: 5, sequences: 4, tokens: 6, vocab: 37, dtype });
    using copy = new Copy(batch.logits, dtype);
    const { shape, labels, reference } = batch;
    const onDevice = { logits: copy.tensor, shape, labels, reference };
    const expected = dpo(batch);
    const dense = dpo(onDevice);
    expect(dense.backend).toBe('cuda');
    expect(dpo({ ...onDevice, dtype }, { backend: 'cuda' }).losses).toEqual(dense.losses);
    expect(Math.abs(dense.loss - expected.loss)).toBeLessThanOrEqual(lossBound(expected.loss));
    expect(dense.counts).toEqual(expected.counts);
    const gradient = present(dense.gradLogits);
    expect(gradient).toMatchObject({
      dtype,
      device: 0,
      stream: 0n,
      byteLength: batch.logits.byteLength,
    });
    expect(gradient.ptr).not.toBe(copy.tensor.ptr);
    gradient.dispose();
    expect(gradient.disposed).toBe(true);
    expect(dpo(onDevice, { gradient: 'none' })).not.toHaveProperty('gradLogits');
    const factored = dpo(onDevice, { gradient: 'factored', inPlace: true });
    expect(factored.gradLogits).toBe(copy.tensor);
    expect(factored.rowScale).toBeInstanceOf(Float32Array);
  });

  const refused: [(g: Good) => [unknown, unknown?], Kind, Words][] = [
    [
      (g) => [g.onDevice, { backend: 'cpu' }],
      'TypeError BACKEND',
      "backend | 'cpu' | device memory",
    ],
    [(g) => [{ ...g.onDevice, dtype: 'float16' }], 'TypeError DTYPE', 'dtype | float16 | float32'],
    [
      (g) => [{ ...g.batch, logits: { ptr: g.logits.tensor.ptr, dtype: 'float32' } }],
      'TypeError DTYPE',
      'logits | cuda.tensor',
    ],
    [
      (g) => [{ ...g.batch, logits: g.logits.buffer }],
      'TypeError DTYPE',
      'logits | DeviceBuffer | cuda.tensor',
    ],
    [
      (g) => [{ ...g.batch, logits: foreign(g.logits.tensor, { byteLength: bytes - 4 }) }],
      'RangeError SHAPE',
      `logits | ${bytes - 4} | ${bytes}`,
    ],
    [
      (g) => [
        { ...g.batch, logits: foreign(g.logits.tensor, { ptr: g.logits.tensor.ptr + 260n }) },
      ],
      'RangeError DEVICE',
      'logits | end of its allocation',
    ],
    [
      (g) => [{ ...g.batch, logits: foreign(g.logits.tensor, { ptr: 0x10000n }) }],
      'RangeError DEVICE',
      'logits | 0x10000 | CUDA',
    ],
    [
      (g) => [{ ...g.onDevice, sftLabels: g.batch.labels }, { gradient: 'factored' }],
      'TypeError OPTION',
      'sftLabels',
    ],
    [
      (g) => [
        { ...g.onDevice, labels: g.batch.labels.map((l, i) => (i === 11 ? 11 : l)) },
        { out: g.out.tensor },
      ],
      'RangeError LABEL',
      'labels[11] | 11',
    ],
    [
      (g) => [
        { ...g.onDevice, labels: g.batch.labels.map((l, i) => (i === 11 ? 11 : l)) },
        { inPlace: true },
      ],
      'RangeError LABEL',
      'labels[11] | 11',
    ],
    [(g) => [{ ...g.onDevice, shape: [4, 3] }], 'TypeError SHAPE', 'offsets'],
    [
      (g) => [{ ...g.onDevice, shape: [4, 3, 12] }],
      'RangeError SHAPE',
      `logits | ${bytes} | ${4 * 12 * 12}`,
    ],
    [
      (g) => [g.onDevice, { out: new Float32Array(132) }],
      'TypeError DTYPE',
      'out | DeviceTensor | Float32Array',
    ],
    [
      (g) => [g.batch, { out: g.out.tensor }],
      'TypeError DTYPE',
      'out | DeviceTensor | Float32Array',
    ],
    [
      (g) => [g.onDevice, { out: foreign(g.out.tensor, { dtype: 'bfloat16' }) }],
      'TypeError DTYPE',
      'out | dtype | bfloat16 | float32',
    ],
    [
      (g) => [g.onDevice, { out: foreign(g.out.tensor, { stream: 3n }) }],
      'TypeError DEVICE',
      'out | stream | 3 | 0',
    ],
    [
      (g) => [g.onDevice, { out: foreign(g.out.tensor, { byteLength: bytes - 4 }) }],
      'RangeError SHAPE',
      `out | ${bytes - 4}`,
    ],
    [
      (g) => [g.onDevice, { out: foreign(g.out.tensor, { ptr: 0x10000n }) }],
      'RangeError DEVICE',
      'out | 0x10000',
    ],
    [
      (g) => [g.onDevice, { out: g.logits.tensor }],
      'RangeError SHAPE',
      'out | overlaps logits | inPlace',
    ],
    [
      (g) => [
        g.onDevice,
        { out: foreign(g.logits.tensor, { ptr: g.logits.tensor.ptr + BigInt(bytes - 300) }) },
      ],
      'RangeError SHAPE',
      'out',
    ],
    [
      (g) => [g.onDevice, { out: g.out.tensor, inPlace: true }],
      'TypeError OPTION',
      'out | inPlace',
    ],
  ];
  test.each(titled(refused))('refused: %s', async (_, change, kind, words) => {
    const g = good();
    using logits = g.logits;
    using out = g.out;
    const free = freeMemory();
    const [batch, run] = change(g);
    expectRefusal(() => anyDpo(batch, run), kind, words);
    await expect(
      dpo.async(batch as DeviceBatch, run as RunOptions<DeviceTensor>),
    ).rejects.toMatchObject({ code: `ERR_DIRALIGN_${kind.split(' ')[1]}` });
    expect(sameBits(logits.read(), g.batch.logits)).toBe(true);
    expect(out.read().every((x) => x === 7)).toBe(true);
    // Nothing was allocated, or it was freed.
    expect(freeMemory()).toBeGreaterThanOrEqual(free);
    expect(dpo(g.onDevice, { inPlace: true }).metrics).toMatchObject({ nonfinite: 0 });
  });

  test('a signal that fails after the call: nobody gets the gradient, which is freed', async () => {
    const g = good();
    using logits = g.logits;
    using out = g.out;
    expect([logits, out].every(({ buffer }) => !buffer.disposed)).toBe(true);
    const broken = new Error('removeEventListener');
    const signal = Object.assign(new EventTarget(), {
      ...{ aborted: false, reason: undefined },
      removeEventListener: () => {
        throw broken;
      },
    });
    const free = freeMemory();
    await expect(dpo.async(g.onDevice, { signal: signal as unknown as AbortSignal })).rejects.toBe(
      broken,
    );
    expect(freeMemory()).toBeGreaterThanOrEqual(free);
  });

  test('memory of another device', () => {
    if (cuda.devices().length < 2) return;
    const batch = small();
    using other = cuda.alloc(batch.logits.byteLength, { device: 1 });
    using copy = new Copy(batch.logits);
    other.copyFrom(batch.logits);
    const lied = cuda.tensor({ ptr: other.ptr, dtype: 'float32' });
    expectRefusal(
      () => dpo({ ...batch, logits: lied }),
      'RangeError DEVICE',
      'logits | device 1 | device 0',
    );
    const out = other.tensor('float32');
    expectRefusal(
      () => dpo({ ...batch, logits: copy.tensor }, { out }),
      'TypeError DEVICE',
      'out | device | 1 | 0',
    );
    // Where it is, it is computed.
    const there = dpo({ ...batch, logits: out });
    const here = dpo({ ...batch, logits: copy.tensor });
    expect(there.losses).toEqual(here.losses);
    expect(there.gradLogits.device).toBe(1);
    expect(
      sameBits(
        takeGradient(there.gradLogits, batch.logits),
        takeGradient(here.gradLogits, batch.logits),
      ),
    ).toBe(true);
  });

  test('an address in page-locked memory of the host', () => {
    const batch = small();
    const bytes = new Uint8Array(batch.logits.buffer);
    const address = native().cuda.pin(bytes);
    try {
      const tensor = cuda.tensor({ ptr: address, dtype: 'float32' });
      expectRefusal(
        () => dpo({ ...batch, logits: tensor }),
        'RangeError DEVICE',
        'logits | host | device 0',
      );
    } finally {
      native().cuda.unpin(address);
    }
  });

  test('memory that was freed by its owner', () => {
    const batch = small();
    const copy = new Copy(batch.logits);
    copy.dispose();
    expectRefusal(
      () => dpo({ ...batch, logits: copy.tensor }),
      'RangeError DEVICE',
      'logits | freed',
    );
  });

  test('a tensor that is longer than the batch: what is behind it stays', () => {
    const batch = small();
    using buffer = cuda.alloc(bytes + 64);
    buffer.fill(0xab);
    buffer.copyFrom(batch.logits);
    const tensor = buffer.tensor('float32');
    const { gradLogits } = dpo({ ...batch, logits: tensor });
    expect(gradLogits.byteLength).toBe(bytes);
    const expected = takeGradient(gradLogits, batch.logits);
    dpo({ ...batch, logits: tensor }, { inPlace: true });
    const all = new Uint8Array(bytes + 64);
    buffer.copyTo(all);
    expect(sameBits(all.subarray(0, bytes), expected)).toBe(true);
    expect(all.subarray(bytes).every((byte) => byte === 0xab)).toBe(true);
    // Foreign memory of unknown length ends with the last vocabulary.
    buffer.copyFrom(batch.logits);
    dpo(
      { ...batch, logits: cuda.tensor({ ptr: buffer.ptr, dtype: 'float32' }) },
      { inPlace: true },
    );
    buffer.copyTo(all);
    expect(sameBits(all.subarray(0, bytes), expected)).toBe(true);
    expect(all.subarray(bytes).every((byte) => byte === 0xab)).toBe(true);
  });

  test('on a stream, behind work that is still enqueued there', async () => {
    const batch = randomBatch({ seed: 7, sequences: 4, tokens: 20, vocab: 501 });
    using stream = cuda.stream();
    using plain = new Copy(batch.logits);
    using source = cuda.alloc(batch.logits.byteLength, { stream });
    source.copyFrom(batch.logits);
    using buffer = cuda.alloc(batch.logits.byteLength, { stream });
    const expected = dpo({ ...batch, logits: plain.tensor });
    const gradient = takeGradient(expected.gradLogits, batch.logits);
    const logits = buffer.tensor('float32');
    buffer.fill(0xff);
    buffer.copyFrom(source);
    const result = dpo({ ...batch, logits }, { inPlace: true });
    expect(result.losses).toEqual(expected.losses);
    // Three calls in a row, none waited for; the gradient of the one is the logits of the next.
    buffer.copyFrom(source);
    const first = dpo.async({ ...batch, logits }, { gradient: 'none' });
    const second = dpo.async({ ...batch, logits }, { inPlace: true });
    const third = dpo.async({ ...batch, logits }, { gradient: 'none' });
    expect((await first).losses).toEqual(expected.losses);
    expect((await second).losses).toEqual(expected.losses);
    buffer.copyFrom(gradient);
    expect((await third).losses).toEqual(dpo({ ...batch, logits }, { gradient: 'none' }).losses);
    expect((await third).losses).not.toEqual(expected.losses);
  });

  test('asynchronously: a fresh gradient, which outlives the buffers', async () => {
    const batch = randomBatch({ seed: 8, sequences: 4, tokens: 5, vocab: 64 });
    const copy = new Copy(batch.logits);
    const expected = takeGradient(dpo({ ...batch, logits: copy.tensor }).gradLogits, batch.logits);
    const buffer = cuda.alloc(batch.logits.byteLength);
    buffer.copyFrom(batch.logits);
    const pending = dpo.async({ ...batch, logits: buffer.tensor('float32') });
    buffer.dispose();
    const { gradLogits } = await pending;
    expect(sameBits(takeGradient(gradLogits, batch.logits), expected)).toBe(true);
    copy.dispose();
  });

  test('aborted: rejected once the work has ended, and its gradient is freed', async () => {
    const batch = randomBatch({ seed: 8, sequences: 4, tokens: 5, vocab: 640 });
    using copy = new Copy(batch.logits);
    const onDevice = { ...batch, logits: copy.tensor };
    const { loss } = dpo(onDevice, { gradient: 'none' });
    const free = freeMemory();
    const reason = new Error('changed my mind');
    await expect(dpo.async(onDevice, { signal: AbortSignal.abort(reason) })).rejects.toMatchObject({
      code: 'ERR_DIRALIGN_ABORTED',
      cause: reason,
    });
    const controller = new AbortController();
    const pending = dpo.async(onDevice, { signal: controller.signal });
    controller.abort(reason);
    await expect(pending).rejects.toMatchObject({ code: 'ERR_DIRALIGN_ABORTED', cause: reason });
    expect(freeMemory()).toBeGreaterThanOrEqual(free);
    expect((await dpo.async(onDevice, { gradient: 'none' })).loss).toBe(loss);
  });

  test('NaN, infinities and what is beside the rows', () => {
    const batch = randomBatch({ seed: 11, sequences: 4, tokens: 4, vocab: 19 });
    const [rows, vocab] = [16, 19];
    const labels = Int32Array.from({ length: rows }, (_, row) =>
      row % 4 === 0 ? -100 : row % vocab,
    );
    const logits = batch.logits.slice() as Float32Array;
    for (let row = 0; row < rows; row += 4) logits.fill(NaN, row * vocab, (row + 1) * vocab);
    logits[1 * vocab + 3] = -Infinity;
    logits[6 * vocab + 2] = NaN; // in sequence 1, which is the chosen one of pair 1
    using copy = new Copy(logits as Float32Array<ArrayBuffer>);
    const { losses, metrics, gradLogits } = dpo({ ...batch, labels, logits: copy.tensor });
    expect(losses[0]).toSatisfy(Number.isFinite);
    expect(losses[1]).toBeNaN();
    expect(metrics.nonfinite).toBe(1);
    const gradient = takeGradient(gradLogits, logits as Float32Array<ArrayBuffer>);
    for (let row = 0; row < rows; row += 4)
      expect(gradient.subarray(row * vocab, (row + 1) * vocab).every((x) => Object.is(x, 0))).toBe(
        true,
      );
  });

  test('no rows at all', () => {
    using buffer = cuda.alloc(0);
    const labels = new Int32Array(0);
    const { losses, gradLogits } = dpo({
      logits: buffer.tensor('float32'),
      shape: [2, 0, 5],
      labels,
      reference: new Float64Array(2),
    });
    expect([...losses]).toEqual([Math.LN2]);
    gradLogits.dispose();
    expect(
      sequenceLogps({ logits: buffer.tensor('float32'), shape: [0, 5, 5], labels }).logps,
    ).toHaveLength(0);
  });
});

describe.runIf(cuda.available)('host arrays', () => {
  test.each(dtypes)("%s: 'auto' is the CPU, 'cuda' is not", async (dtype) => {
    const batch = randomBatch({ seed: 4, sequences: 6, tokens: 7, vocab: 129, dtype });
    expect(dpo(batch).backend).toBe('cpu');
    const expected = dpo(batch);
    const staged = dpo(batch, { backend: 'cuda' });
    expect(staged.backend).toBe('cuda');
    expect(Math.abs(staged.loss - expected.loss)).toBeLessThanOrEqual(lossBound(expected.loss));
    const later = await dpo.async(batch, { backend: 'cuda' });
    expect(later.losses).toEqual(staged.losses);
    expect(sameBits(present(later.gradLogits), present(staged.gradLogits))).toBe(true);
  });

  test.each(dtypes)('%s: rows that underflow are counted, wherever they lie', (dtype) => {
    const batch = randomBatch({ seed: 5, sequences: 6, tokens: 8, vocab: 6, scale: 3, dtype });
    const small = dirAlignLoss('dpo', 12 * (dtype === 'float16' ? 2 ** -14 : 2 ** -126));
    const staged = small(batch, { backend: 'cuda' });
    const expected = underflowingRows(batch, staged);
    expect(expected).toBeGreaterThan(2);
    expect(staged.metrics.underflow).toBe(expected);
    expect(small(batch, { backend: 'cuda', gradient: 'factored' }).metrics.underflow).toBe(0);
    using copy = new Copy(batch.logits, dtype);
    const { gradLogits, metrics } = small({ ...batch, logits: copy.tensor });
    expect(metrics.underflow).toBe(expected);
    gradLogits.dispose();
  });

  test('more rows than a launch takes', () => {
    const batch = { ...small(), shape: [2, 2 ** 29, 2] } as const;
    expectRefusal(
      () => dpo(batch, { backend: 'cuda' }),
      'RangeError SHAPE',
      '1073741824 rows | split the batch',
    );
  });

  test('a wrong label: nothing is written', () => {
    const batch = small();
    const labels = batch.labels.map((label, i) => (i === 11 ? -5 : label));
    const before = batch.logits.slice();
    expectRefusal(
      () => dpo({ ...batch, labels }, { backend: 'cuda', inPlace: true }),
      'RangeError LABEL',
      'labels',
    );
    expect(sameBits(batch.logits, before)).toBe(true);
  });
});
