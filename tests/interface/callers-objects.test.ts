// What callers' objects can do while a call looks at them: answer differently at each reading, lie
// about themselves, take their memory away, share it. None of it may crash the process, write
// elsewhere, or change a number without a word.
import vm from 'node:vm';
import { Worker } from 'node:worker_threads';
import { describe, expect, test } from 'vitest';
import { collatePairs } from '../../ts/data/index.js';
import { DirAlignError, dirAlignLoss, sequenceLogps } from '../../ts/index.js';
import { arrayNames, doors, type Door, type Given } from '../support/doors.js';
import { sameBits } from '../support/numbers.js';
import { arraysIn, detached, resizable } from '../support/refusal.js';

const foreign = vm.createContext({});
const realm = (expression: string): unknown => vm.runInContext(expression, foreign);

/** The error of a call, at once or later; undefined where there is none. */
async function errorOf(call: () => unknown): Promise<unknown> {
  try {
    await call();
    return undefined;
  } catch (error) {
    return error;
  }
}
async function expectRefused(call: () => unknown, code?: string): Promise<void> {
  const error = await errorOf(call);
  expect(error).toBeInstanceOf(DirAlignError);
  if (code !== undefined) expect(error).toMatchObject({ code: `ERR_DIRALIGN_${code}` });
}

type View = Float32Array | Float64Array | Int32Array;
const each = (change: (view: View, name: string) => unknown) => (batch: Given) =>
  Object.fromEntries(
    Object.entries(batch).map(([name, value]) => [
      name,
      ArrayBuffer.isView(value) ? change(value as View, name) : value,
    ]),
  );
const kindOf = (view: View): string => Object.prototype.toString.call(view).slice(8, -1);

class Matrix extends Float32Array {
  constructor(rows: number, columns: number) {
    super(rows * columns);
  }
  static get [Symbol.species](): never {
    throw new Error('asked for a species');
  }
}

/** Batches that are the same, whatever they look like. */
const disguises: Record<string, (batch: Given) => unknown> = {
  'getters of a class, each good for one reading': (batch) => {
    const prototype = {};
    for (const [name, value] of Object.entries(batch)) {
      let reads = 0;
      const get = (): unknown => {
        if (reads++ > 0) throw new Error(`${name} was read twice`);
        return value;
      };
      Object.defineProperty(prototype, name, { get });
    }
    return Object.create(prototype) as unknown;
  },
  'a Proxy that answers once': (batch) => {
    const read = new Set<PropertyKey>();
    return new Proxy(batch, {
      get: (target, name) => {
        if (read.has(name)) throw new Error(`${String(name)} was read twice`);
        read.add(name);
        return Reflect.get(target, name) as unknown;
      },
    });
  },
  'a Proxy of nothing': (batch) =>
    new Proxy({}, { get: (_, name) => Reflect.get(batch, name) as unknown }),
  'no prototype': (batch) => Object.assign(Object.create(null) as Given, batch),
  'arrays of another realm': each((view) => {
    const other = realm(kindOf(view)) as new (length: number) => View;
    const copy = new other(view.length);
    copy.set(view);
    return copy;
  }),
  'a lying length': each((view) => Object.defineProperty(view.slice(), 'length', { value: 1 })),
  'a lying tag': each((view) =>
    Object.defineProperty(view.slice(), Symbol.toStringTag, { value: 'Uint8Array' }),
  ),
  'a lying buffer and class': each((view) =>
    Object.defineProperties(view.slice(), {
      buffer: { value: new ArrayBuffer(1) },
      byteLength: { value: 1 },
      byteOffset: { value: 1 },
      constructor: { value: Array },
      BYTES_PER_ELEMENT: { value: 8 },
      [Symbol.iterator]: { value: () => [7][Symbol.iterator]() },
    }),
  ),
  'no prototype on the arrays': each(
    (view) => Object.setPrototypeOf(view.slice(), null) as unknown,
  ),
  'a class of rows and columns': each((view) => {
    if (!(view instanceof Float32Array)) return view;
    const matrix = new Matrix(view.length, 1);
    matrix.set(view);
    return matrix;
  }),
  'shared memory': each((view) => {
    const shared = new (view.constructor as Float32ArrayConstructor)(
      new SharedArrayBuffer(view.byteLength),
    );
    shared.set(view);
    return shared;
  }),
  'a shape with getters': (batch) => {
    if (!Array.isArray(batch.shape)) return batch;
    const sizes = batch.shape as number[];
    const shape = sizes.map(() => 0);
    sizes.forEach((size, i) => {
      let reads = 0;
      Object.defineProperty(shape, i, { get: () => (reads++ === 0 ? size : 1e9) });
    });
    return { ...batch, shape };
  },
};

describe.each(doors)('$name', ({ name: own, batch, call, gradients, options }: Door) => {
  test.each(Object.entries(disguises))('%s changes nothing', async (_, disguise) => {
    const expected = (await call(batch())) as Given;
    const found = (await call(disguise(batch()))) as Given;
    expect(Object.keys(found)).toEqual(Object.keys(expected));
    arraysIn(found).forEach(([array], i) => {
      expect(sameBits(array, arraysIn(expected)[i]?.[0] as ArrayBufferView)).toBe(true);
    });
    expect(found.loss).toBe(expected.loss);
  });

  test.each(Object.entries(disguises))(
    '%s: results are plain arrays of this realm',
    async (_, disguise) => {
      const found = (await call(disguise(batch()))) as Given;
      for (const name of gradients)
        expect(Object.getPrototypeOf(found[name])).toBe(Float32Array.prototype);
    },
  );

  test('too short an array is refused, whatever length it claims', async () => {
    for (const name of arrayNames(batch())) {
      const given = batch();
      const { length } = given[name] as View;
      const short = (given[name] as View).slice(0, 1);
      given[name] = Object.defineProperty(short, 'length', { value: length });
      await expectRefused(() => call(given));
    }
  });

  test('a getter that detaches another array: refused, or the numbers from before', async () => {
    const names = Object.keys(batch());
    for (const victim of arrayNames(batch())) {
      for (const name of names.filter((one) => one !== victim)) {
        const given = batch();
        const { [name]: value } = given;
        const get = (): unknown => {
          if ((given[victim] as View).length > 0) detached(given[victim] as View);
          return value;
        };
        await expectRefused(
          () => call(Object.defineProperty(given, name, { get, enumerable: true })),
          'SHAPE',
        );
      }
    }
  });

  test('what a getter throws passes through', async () => {
    const thrown = new Error('mine');
    const get = (): never => {
      throw thrown;
    };
    for (const name of Object.keys(batch())) {
      expect(
        await errorOf(() => call(Object.defineProperty(batch(), name, { get, enumerable: true }))),
      ).toBe(thrown);
    }
  });

  test('resizable and growable memory is refused, of any realm', async () => {
    const local = (bytes: number): ArrayBufferLike => resizable(bytes);
    const other = (bytes: number): ArrayBufferLike =>
      realm(`new ArrayBuffer(${bytes}, { maxByteLength: ${2 * bytes} })`) as ArrayBuffer;
    const growable = (bytes: number): ArrayBufferLike =>
      realm(
        `new SharedArrayBuffer(${bytes}, { maxByteLength: ${2 * bytes} })`,
      ) as SharedArrayBuffer;
    for (const make of [local, other, growable]) {
      for (const name of arrayNames(batch())) {
        const given = batch();
        const view = given[name] as View;
        given[name] = new (view.constructor as Float32ArrayConstructor)(
          make(view.byteLength) as ArrayBuffer,
        );
        await expectRefused(() => call(given), 'SHAPE');
      }
    }
  });

  /** Values that are hard to print. */
  const oddities: unknown[] = [
    ...[
      Symbol('x'),
      10n,
      () => 1,
      NaN,
      -1,
      2 ** 53,
      '',
      'x'.repeat(1e5),
      null,
      true,
      [],
      [1n, Symbol('y')],
    ],
    Object.create(null),
    { constructor: { name: Symbol('z') } },
    new Proxy({}, {}),
    new Proxy([], {}),
    Object.defineProperty({}, 'constructor', {
      get: () => {
        throw new Error('no name');
      },
    }),
    new DataView(new ArrayBuffer(8)),
    new Uint8Array(4),
  ];
  test('no value in place of another fails while it is refused', async () => {
    for (const name of Object.keys(batch())) {
      for (const oddity of oddities) {
        const error = await errorOf(() => call({ ...batch(), [name]: oddity }));
        if (error !== undefined) expect(error).toBeInstanceOf(DirAlignError);
      }
    }
    for (const oddity of oddities.slice(0, -2)) await expectRefused(() => call(oddity));
    for (const name of options) {
      for (const oddity of oddities) {
        const error = await errorOf(() => call(batch(), { [name]: oddity }));
        if (error !== undefined) expect(error).toBeInstanceOf(DirAlignError);
      }
    }
    if (options.length === 0) return;
    for (const oddity of oddities.filter((one) => typeof one !== 'object' || one === null)) {
      await expectRefused(() => call(batch(), oddity), 'OPTION');
    }
  });

  test.skipIf(own.startsWith('derivatives'))(
    'a property that no batch has is refused, with the one that was meant',
    async () => {
      for (const [wrong, right] of Object.entries({
        ref_erence: 'reference',
        Reference: 'reference',
        refrence: 'reference',
      })) {
        await expect(
          errorOf(() => call({ ...batch(), [wrong]: undefined })),
        ).resolves.toMatchObject({
          code: 'ERR_DIRALIGN_SHAPE',
          message: expect.stringContaining(`did you mean '${right}'?`) as string,
        });
      }
      await expectRefused(() => call({ ...batch(), softcap: 30 }), 'SHAPE');
    },
  );
});

describe('memory that is shared', () => {
  const dpo = dirAlignLoss('dpo', 0.1);
  const [S, T, V] = [2, 8, 16];
  const shared = (values: ArrayLike<number>): SharedArrayBuffer => {
    const buffer = new SharedArrayBuffer(4 * values.length);
    new Int32Array(buffer).set(values);
    return buffer;
  };
  const batch = (): Given => ({
    logits: new Float32Array(S * T * V),
    shape: [S, T, V],
    labels: new Int32Array(S * T).fill(1),
    reference: Float64Array.of(-1, -2),
  });

  test('two buffers over one piece of memory overlap', async () => {
    const buffer = new SharedArrayBuffer(4 * S * T * V);
    const labels = new Int32Array(buffer, 0, S * T);
    const out = new Float32Array(structuredClone(buffer));
    expect(out.buffer).not.toBe(buffer);
    await expectRefused(() => dpo({ ...batch(), labels } as never, { out: out as never }), 'SHAPE');
    expect(new Int32Array(buffer).every((word) => word === 0)).toBe(true);
  });

  test('logits that are to be overwritten share nothing with the rest', async () => {
    const buffer = new ArrayBuffer(4 * S * T * V);
    const logits = new Float32Array(buffer);
    const labels = new Int32Array(buffer, 0, S * T);
    await expectRefused(
      () => dpo({ ...batch(), logits, labels } as never, { inPlace: true }),
      'SHAPE',
    );
    expect(dpo({ ...batch(), logits, labels } as never, { gradient: 'none' }).loss).toBeGreaterThan(
      0,
    );
  });

  test('another thread writes labels and offsets: every row and label is checked', async () => {
    const rows = S * T;
    const labels = shared(new Int32Array(rows).fill(5));
    const offsets = shared([0, T, rows]);
    const source = `
      const { workerData: { labels, offsets } } = require('node:worker_threads');
      const [l, o] = [new Int32Array(labels), new Int32Array(offsets)];
      for (let i = 0; ; i = (i + 1) % l.length) {
        l[i] = 0x7fffffff; o[1] = 1 << 23; l[i] = 5; o[1] = ${T};
      }`;
    const worker = new Worker(source, { eval: true, workerData: { labels, offsets } });
    await new Promise((resolve) => worker.once('online', resolve));
    try {
      for (let i = 0; i < 20_000; i++) {
        const given = {
          ...batch(),
          shape: [rows, V],
          labels: new Int32Array(labels),
          offsets: new Int32Array(offsets),
        };
        const error = await errorOf(() => dpo(given as never, { gradient: 'none' }));
        if (error === undefined) continue;
        expect(error).toBeInstanceOf(DirAlignError);
        const { message } = error as Error;
        expect(message).toMatch(/^labels\[\d+\]: 2147483647 is|^offsets: (decreases|goes)/);
        expect(Number(/\[(\d+)\]/.exec(message)?.[1] ?? 0)).toBeLessThan(rows);
      }
    } finally {
      await worker.terminate();
    }
  });
});

describe('sizes that no array stands for', () => {
  const simpo = dirAlignLoss('simpo', 1);
  const none = { labels: new Int32Array(0) };
  const empty = { logits: new Float32Array(0), ...none };
  const layer = { hidden: new Float32Array(0), weight: new Float32Array(5), ...none };
  for (const sequences of [2 ** 17, 2 ** 31, 2 ** 40, 2 ** 53 - 2]) {
    test(`${sequences} sequences of no tokens are refused before memory is asked for`, async () => {
      const shape = [sequences, 0, 5] as const;
      const before = process.memoryUsage().arrayBuffers;
      await expectRefused(() => simpo({ ...empty, shape }), 'SHAPE');
      await expectRefused(() => simpo.async({ ...empty, shape }), 'SHAPE');
      await expectRefused(() => simpo.fromHidden({ ...layer, shape }), 'SHAPE');
      await expectRefused(() => sequenceLogps({ ...empty, shape }), 'SHAPE');
      expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(2 ** 20);
    });
  }

  test('a few are an edge: every pair is empty', () => {
    const { metrics, logps } = simpo({ ...empty, shape: [4, 0, 5] });
    expect(metrics.empty_sequences).toBe(2);
    expect([...logps]).toEqual([0, 0, 0, 0]);
  });

  test('rows beyond what numbers count exactly', async () => {
    await expectRefused(() => simpo({ ...empty, shape: [2 ** 40, 2 ** 40, 5] }), 'SHAPE');
    await expectRefused(
      () => simpo({ ...empty, shape: [2, 2 ** 52, 2 ** 31 - 1], rowStride: 2 ** 53 - 1 }),
      'SHAPE',
    );
  });
});

describe('Object.prototype', () => {
  /** What programs, or attackers, have put there; every name that is looked up somewhere. */
  const additions: Given = {
    ...{
      threads: 4,
      gradient: 'none',
      inPlace: true,
      out: new Float32Array(1),
      backend: 'cuda',
      memory: 1,
      accumulate: true,
      gradientScale: 2,
      metrics: ['entropy'],
    },
    ...{
      reference: 'none',
      sftLabels: 1,
      offsets: new Int32Array(9),
      rowStride: 1,
      ignoreIndex: 0,
      dtype: 'float16',
    },
    ...{
      hiddenSize: 1,
      hidden: 1,
      bias: 1,
      weight: 1,
      layer: 1,
      layerGradients: 1,
      rowScale: 1,
      gradLogits: 1,
    },
    ...{
      min: 5,
      max: -5,
      above: 9,
      below: -9,
      get: 1,
      set: 1,
      writable: true,
      labelSmoothing: 0.4,
      alpha: 2,
      gamma: 9,
    },
    ...{
      method: 'sft',
      beta: 9,
      normalize: true,
      sftWeight: 3,
      divergence: 'js',
      tau: 5,
      anything: 1,
    },
    ...{
      weights: Float64Array.of(0, 0),
      margins: [9, 9],
      denominator: 9,
      tokenWeights: new Float64Array(12),
      logitScale: 9,
      logitSoftcap: 9,
      temperature: 9,
      kl: 9,
      groups: Int32Array.of(0, 4),
    },
    ...{
      rows: new Float64Array(12),
      sequences: new Float64Array(4),
      entropy: new Float64Array(12),
      forward: {},
      collision: true,
      objective: 1,
    },
    ...{
      signal: AbortSignal.abort(),
      parallel: 1,
      buffers: 1,
      shard: 1,
      columnGrid: 1,
      window: 1,
    },
    ...{
      desirable: [1],
      preferences: [9],
      ranks: [1],
      rewards: [1],
      shift: 9,
      targets: [9],
      sftDenominator: 9,
    },
  };

  function polluted<T>(action: () => T): T {
    Object.assign(Object.prototype, additions);
    try {
      return action();
    } finally {
      for (const name of Object.keys(additions)) Reflect.deleteProperty(Object.prototype, name);
    }
  }

  test.each(doors.filter(({ name }) => !name.includes('async')))(
    '$name: nothing enumerable there changes a call',
    (door) => {
      const expected = door.call(door.batch(), {});
      const given = door.batch();
      expect(polluted(() => door.call(given, {}))).toEqual(expected);
    },
  );

  test('nor the building of an objective', () => {
    const settings = (objective: object): unknown => Object.fromEntries(Object.entries(objective));
    const positional = (): object => dirAlignLoss('dpo', 0.1, false, { divergence: 'alpha' });
    const named = (): object => dirAlignLoss({ method: 'dpo', beta: 0.1 });
    const alpha = (): object => dirAlignLoss('r_dpo', 0.1, false, { alpha: 0.5 });
    for (const build of [positional, named, alpha]) {
      const found = polluted(build);
      expect(JSON.stringify(settings(found))).toEqual(JSON.stringify(settings(build())));
    }
  });
});

test('what collatePairs returns is a batch, with logits', () => {
  const pairs = [{ prompt: [1, 2], chosen: [3], rejected: [4, 1] }];
  for (const layout of ['padded', 'packed'] as const) {
    const rows = collatePairs(pairs, { layout, pad: 0 });
    const shape = 'tokens' in rows ? [rows.sequences, rows.tokens, 5] : [rows.rows, 5];
    const logits = new Float32Array(shape.reduce((a, b) => a * b));
    expect(dirAlignLoss('simpo', 2)({ ...rows, shape, logits }).loss).toBeGreaterThan(0);
  }
});

test('objectives: options of any kind: a DirAlignError, which has the nearest name', async () => {
  const nothing: unknown = Object.create(null);
  for (const odd of [
    nothing,
    Symbol('x'),
    1n,
    [],
    () => 1,
    { constructor: { name: Symbol('x') } },
  ]) {
    await expectRefused(() => dirAlignLoss(odd as never, 1), 'OPTION');
    await expectRefused(() => dirAlignLoss('dpo', odd as never), 'OPTION');
    await expectRefused(() => dirAlignLoss('dpo', 1, odd as never), 'OPTION');
    await expectRefused(
      () => dirAlignLoss('dpo', 1, false, { labelSmoothing: odd as never }),
      'OPTION',
    );
    await expectRefused(
      () => dirAlignLoss('dpo', 1, false, { divergence: odd as never }),
      'OPTION',
    );
  }
  expect(() => dirAlignLoss('dpo', 1, false, { label_smoothing: 0.1 } as never)).toThrow(
    /did you mean 'labelSmoothing'\?/,
  );
  expect(() => dirAlignLoss('sim-po' as never, 1)).toThrow(/did you mean 'simpo'\?/);
});
