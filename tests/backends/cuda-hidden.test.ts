// `fromHidden` on a device, on tensors there and on host arrays that travel there: the reference
// cases, and a slice of what the suites of the CPU go through. Few and small: the emulation is
// slow.
import { execFileSync } from 'node:child_process';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { cuda, dirAlignLoss, sequenceLogps, tokenLogps } from '../../ts/index.js';
import type {
  DeviceTensor,
  HiddenBatch,
  HiddenLossResult,
  HiddenRunOptions,
  WithReference,
} from '../../ts/index.js';
import type { ReferenceConfig } from '../../ts/verification/reference.js';
import { Tally } from '../../ts/verification/verification.js';
import { prepareHidden } from '../../ts/verification/hidden.js';
import { dtypes, objectiveOf } from '../support/batches.js';
import { Misses } from '../support/bounds.js';
import { compilePackage, type Compiled } from '../support/compiled.js';
import { Copy, takeGradient, type Elements } from '../support/device.js';
import { expectDevice } from '../support/expect-device.js';
import {
  checkLayerCase,
  checkStages,
  gradients,
  layerBatch,
  loadLayerCases,
  randomHidden,
  sameGradients,
  sameValues,
  type HostHidden,
} from '../support/hidden.js';
import { present, sameBits } from '../support/numbers.js';
import { expectRefusal, type Kind, type Words, thrownBy } from '../support/refusal.js';

expectDevice();

const dpoConfig: ReferenceConfig = { method: 'dpo', beta: 0.1 };
const dpo = dirAlignLoss('dpo', 0.1);

type HostResult = HiddenLossResult<Elements>;

/** A batch in the memory of the device, between bytes that nobody may touch. */
class OnDevice implements Disposable {
  readonly copies: readonly Copy[];
  readonly batch: HiddenBatch<DeviceTensor> & WithReference;
  readonly #host: HostHidden;

  constructor(host: HostHidden, shift = 0) {
    const { hidden, weight, bias, dtype = 'float32' } = host;
    this.#host = host;
    this.copies = [hidden, weight, ...(bias ? [bias] : [])].map(
      (array) => new Copy(array, dtype, { shift }),
    );
    const [h, w, b] = this.copies.map((copy) => copy.tensor);
    const { shape, labels, reference, sftLabels } = host;
    const rows = { shape, labels, reference, ...(sftLabels && { sftLabels }) };
    this.batch = { ...rows, hidden: present(h), weight: present(w), ...(b && { bias: b }) };
  }

  /** Fails where an input was written. */
  check(): void {
    const { hidden, weight, bias } = this.#host;
    const inputs = [hidden, weight, ...(bias ? [bias] : [])];
    this.copies.forEach((copy, i) => {
      if (!sameBits(copy.read(), present(inputs[i]))) throw new Error('an input was written');
    });
  }
  [Symbol.dispose](): void {
    for (const copy of this.copies) copy.dispose();
  }
}

function onHost(result: HiddenLossResult<DeviceTensor>, host: HostHidden): HostResult {
  const { gradHidden, gradWeight, gradBias, ...values } = result;
  return {
    ...values,
    ...(gradHidden && { gradHidden: takeGradient(gradHidden, host.hidden) }),
    ...(gradWeight && {
      gradWeight: takeGradient(gradWeight, new Float32Array(host.weight.length)),
    }),
    ...(gradBias && {
      gradBias: takeGradient(gradBias, new Float32Array(present(host.bias).length)),
    }),
  };
}

type Run = Pick<HiddenRunOptions, 'memory' | 'gradient'>;
const ways = [
  [
    'in device memory',
    (config: ReferenceConfig, host: HostHidden, run: Run = {}): HostResult => {
      const device = new OnDevice(host, 1);
      try {
        const result = onHost(objectiveOf(config).fromHidden(device.batch, run), host);
        device.check();
        return result;
      } finally {
        device[Symbol.dispose]();
      }
    },
  ],
  [
    'in host arrays',
    (config: ReferenceConfig, host: HostHidden, run: Run = {}): HostResult =>
      objectiveOf(config).fromHidden(host, { ...run, backend: 'cuda' }),
  ],
] as const;

/** The least that a call takes on a device, by its own word. */
function leastMemory(compute: (run: Run) => unknown): number {
  const error = thrownBy(() => compute({ memory: 1 })) as Error;
  expectRefusal(error, 'RangeError OPTION', ['memory', '1 bytes', /at least \d+/]);
  return Number(/at least (\d+)/.exec(error.message)?.[1]);
}

describe.runIf(cuda.available).each(ways)('%s', (_, compute) => {
  const check = (
    what: string,
    config: ReferenceConfig,
    host: HostHidden,
    run: Run,
    prepared = prepareHidden(host),
  ): HostResult => {
    const result = compute(config, host, run);
    const tally = new Tally();
    checkStages(tally, config, prepared, result);
    expect(tally.misses.map((miss) => ({ of: what, ...miss }))).toEqual([]);
    expect(result.backend).toBe('cuda');
    expect(result.memory).toBeLessThanOrEqual(run.memory ?? 2 ** 31);
    return result;
  };

  test('can be computed', () => {
    expect(cuda.hiddenReason).toBeUndefined();
  });

  const cases = loadLayerCases();
  test.each(cases.map((c) => [c.id, c] as const))('reference case %s', (id, c) => {
    const host = layerBatch(c);
    const result = check(id, c.call, host, {});
    const misses = new Misses();
    checkLayerCase(misses, id, c, result);
    expect(misses.list).toEqual([]);
  });

  const shapes = [
    { vocab: 1, size: 1, tokens: 2 },
    { vocab: 7, size: 3, tokens: 5 },
    { vocab: 33, size: 17, tokens: 9 },
    { vocab: 513, size: 5, tokens: 3 },
  ];
  test.each(dtypes.flatMap((dtype) => shapes.map((shape) => ({ dtype, ...shape }))))(
    '$dtype, vocab $vocab, size $size, tokens $tokens, with any memory',
    ({ dtype, ...shape }) => {
      const host = randomHidden({
        seed: 61,
        sequences: 4,
        dtype: dtype,
        bias: shape.size !== 3,
        ...shape,
      });
      const prepared = prepareHidden(host);
      for (const config of [dpoConfig, { method: 'asft', beta: 0.5, sftWeight: 0.5 }] as const) {
        const whole = check('whole', config, host, {}, prepared);
        const least = leastMemory((run) => compute(config, host, run));
        expectRefusal(
          () => compute(config, host, { memory: least - 1 }),
          'RangeError OPTION',
          `${least}`,
        );
        for (const memory of [
          least,
          least + 8 * shape.vocab * 3,
          least + 8 * shape.vocab * shape.tokens,
        ]) {
          sameValues(
            check(`memory ${memory}`, config, host, { memory }, prepared),
            whole,
            `memory ${memory}`,
          );
        }
      }
    },
  );

  test('batch-coupled, and with labels of the prompt', () => {
    const host = randomHidden({ seed: 62, sequences: 6, tokens: 4, vocab: 13, size: 6 });
    const least = leastMemory((run) => compute(dpoConfig, host, run));
    for (const memory of [least, 2 ** 28]) {
      check('aot', { method: 'aot', beta: 0.4 }, host, { memory });
      check('sft', { method: 'sft' }, host, { memory });
      const sftLabels = host.labels.map((label, row) =>
        label !== -100 && row % 4 < 2 ? row % 13 : label,
      );
      check(
        'sftLabels',
        { method: 'dpo', beta: 0.4, sftWeight: 0.5 },
        { ...host, sftLabels },
        { memory },
      );
    }
    const none = compute(dpoConfig, host, { gradient: 'none' });
    sameValues(none, compute(dpoConfig, host), 'none');
    for (const name of gradients) expect(Object.keys(none)).not.toContain(name);
  });

  test('empty and ignored sequences, and numbers that are none', () => {
    const host = randomHidden({ seed: 63, sequences: 4, tokens: 3, vocab: 13, size: 6 });
    const labels = host.labels.slice().fill(-100, 0, 3);
    check('an empty sequence', dpoConfig, { ...host, labels }, {});
    const ignored = compute(dpoConfig, { ...host, labels: labels.slice().fill(-100) });
    expect(ignored.loss).toBe(Math.LN2);
    for (const name of gradients)
      expect(
        present(ignored[name]).every((x) => Object.is(x, 0)),
        name,
      ).toBe(true);

    const hidden = host.hidden.slice();
    const row = host.labels.findIndex((label) => label !== -100);
    hidden[row * 6] = NaN;
    const [clean, result] = [compute(dpoConfig, host), compute(dpoConfig, { ...host, hidden })];
    const other = row < 3 ? 1 : 0;
    expect(result.metrics.nonfinite).toBe(1);
    expect(result.losses[1 - other]).toBeNaN();
    expect(result.losses[other]).toBe(clean.losses[other]);
    for (const b of [other, other + 2]) {
      const part = ({ gradHidden }: HostResult) => present(gradHidden).slice(b * 18, b * 18 + 18);
      expect(sameBits(part(result), part(clean))).toBe(true);
    }
  });
});

describe.runIf(cuda.available)('device memory', () => {
  const host = randomHidden({ seed: 64, sequences: 4, tokens: 5, vocab: 31, size: 6 });

  test('at once, off the event loop, and its log-probabilities: the same bits', async () => {
    const device = new OnDevice(host);
    const expected = onHost(dpo.fromHidden(device.batch), host);
    const later = onHost(await dpo.fromHidden.async(device.batch), host);
    sameValues(later, expected, 'async');
    sameGradients(later, expected, 'async');
    for (const options of [{}, { memory: 2 ** 24 }]) {
      expect(sameBits(sequenceLogps(device.batch, options).logps, expected.logps)).toBe(true);
      expect(
        sameBits(sequenceLogps(host, { ...options, backend: 'cuda' }).logps, expected.logps),
      ).toBe(true);
      const onDevice = tokenLogps(device.batch, options);
      const staged = tokenLogps(host, { ...options, backend: 'cuda' });
      for (const key of ['logps', 'logsumexp', 'entropy'] as const)
        expect(sameBits(onDevice[key], staged[key])).toBe(true);
    }
    const { loss } = dpo.fromHidden(
      { ...device.batch, reference: sequenceLogps(device.batch).logps },
      { gradient: 'none' },
    );
    expect(loss).toBe(Math.LN2);
    device[Symbol.dispose]();
  });

  test('into buffers, added to them, and left out', () => {
    const device = new OnDevice(host);
    const expected = onHost(dpo.fromHidden(device.batch), host);
    const hidden = new Copy(new Float32Array(host.hidden.length).fill(NaN));
    const weight = new Copy(new Float32Array(host.weight.length).fill(NaN));
    const out = { gradHidden: hidden.tensor, gradWeight: weight.tensor, gradBias: false };
    const result = dpo.fromHidden(device.batch, { out });
    expect(result.gradHidden).toBe(out.gradHidden);
    expect(result.gradWeight).toBe(out.gradWeight);
    expect(Object.keys(result)).not.toContain('gradBias');
    expect(sameBits(hidden.read(), present(expected.gradHidden))).toBe(true);
    expect(sameBits(weight.read(), present(expected.gradWeight))).toBe(true);
    dpo.fromHidden(device.batch, { out, accumulate: ['gradWeight'] });
    expect(sameBits(hidden.read(), present(expected.gradHidden))).toBe(true);
    const misses = new Misses();
    const largest = present(expected.gradWeight).reduce((x, y) => Math.max(x, Math.abs(y)), 0);
    misses.each(
      'gradWeight',
      weight.read(),
      present(expected.gradWeight).map((x) => 2 * x),
      () => 1e-6 * largest,
    );
    expect(misses.list).toEqual([]);
    for (const one of [device, hidden, weight]) one[Symbol.dispose]();
  });

  test('what does not fit is refused, and nothing is written', () => {
    const device = new OnDevice(host);
    const { batch } = device;
    const stream = cuda.stream();
    const halves = new Copy(new Uint16Array(host.weight.length), 'float16');
    const elsewhere = new Copy(host.weight as Float32Array<ArrayBuffer>, 'float32', { stream });
    const shorter = new Copy((host.weight as Float32Array<ArrayBuffer>).slice(1));
    const unknown = cuda.tensor({ ptr: batch.weight.ptr, dtype: 'float32' });
    const call = dpo.fromHidden as unknown as (batch: unknown, run?: unknown) => unknown;
    const refused: [unknown, unknown, Kind, Words][] = [
      [
        { ...batch, weight: host.weight },
        {},
        'TypeError DTYPE',
        'weight | DeviceTensor | Float32Array',
      ],
      [{ ...batch, bias: host.bias }, {}, 'TypeError DTYPE', 'bias | DeviceTensor'],
      [
        { ...host, weight: batch.weight },
        {},
        'TypeError DTYPE',
        'weight | expected an array | hidden',
      ],
      [{ ...batch, weight: halves.tensor }, {}, 'TypeError DTYPE', 'weight | float16 | float32'],
      [{ ...batch, dtype: 'float16' }, {}, 'TypeError DTYPE', 'dtype | float16 | float32'],
      [{ ...batch, weight: elsewhere.tensor }, {}, 'TypeError DEVICE', 'weight | stream'],
      [{ ...batch, weight: shorter.tensor }, {}, 'RangeError SHAPE', 'weight | 185 | 31'],
      [
        { ...batch, weight: shorter.tensor, hiddenSize: 6 },
        {},
        'RangeError SHAPE',
        'weight | 740 | 744',
      ],
      [{ ...batch, weight: unknown }, {}, 'TypeError SHAPE', 'hiddenSize | not known'],
      [batch, { backend: 'cpu' }, 'TypeError BACKEND', "'cpu' | hidden | device memory"],
      [
        batch,
        { out: { gradWeight: new Float32Array(186) } },
        'TypeError DTYPE',
        'out.gradWeight | DeviceTensor',
      ],
      [
        batch,
        { out: { gradWeight: halves.tensor } },
        'TypeError DTYPE',
        'out.gradWeight | float16 | float32',
      ],
      [
        batch,
        { out: { gradWeight: elsewhere.tensor } },
        'TypeError DEVICE',
        'out.gradWeight | stream',
      ],
      [
        batch,
        { out: { gradWeight: shorter.tensor } },
        'RangeError SHAPE',
        'out.gradWeight | 740 | 744',
      ],
      [
        batch,
        { out: { gradWeight: batch.weight } },
        'RangeError SHAPE',
        'out.gradWeight | overlaps weight',
      ],
      [
        batch,
        { out: { gradHidden: batch.hidden } },
        'RangeError SHAPE',
        'out.gradHidden | overlaps hidden',
      ],
      [{ ...batch, labels: new Int32Array(20).fill(31) }, {}, 'RangeError LABEL', 'labels[0] | 31'],
      [
        host,
        { backend: 'cuda', out: { gradWeight: batch.weight } },
        'TypeError DTYPE',
        'out.gradWeight | expected an array',
      ],
    ];
    for (const [given, run, kind, words] of refused) {
      expectRefusal(() => call(given, run), kind, words);
    }
    device.check();
    // By its size, an address is enough.
    const { loss } = dpo.fromHidden(
      { ...batch, weight: unknown, hiddenSize: 6 },
      { gradient: 'none' },
    );
    expect(loss).toBe(dpo.fromHidden(batch, { gradient: 'none' }).loss);
    for (const one of [device, halves, elsewhere, shorter]) one[Symbol.dispose]();
    stream.dispose();
  });

  test('a call keeps the memory it uses, and an aborted one says so', async () => {
    // Memory of ours, which a call can keep; what belongs to others it cannot.
    const buffers = [host.hidden, host.weight, present(host.bias)].map((array) => {
      const buffer = cuda.alloc(array.byteLength);
      buffer.copyFrom(array);
      return buffer;
    });
    const [hidden, weight, bias] = buffers.map((buffer) => buffer.tensor('float32')) as [
      DeviceTensor,
      DeviceTensor,
      DeviceTensor,
    ];
    const batch = { ...host, hidden, weight, bias };
    const { loss } = dpo.fromHidden(batch, { gradient: 'none' });
    const controller = new AbortController();
    const pending = dpo.fromHidden.async(batch, { gradient: 'none' });
    const aborted = dpo.fromHidden.async(batch, { signal: controller.signal });
    controller.abort('enough');
    for (const buffer of buffers) buffer.dispose();
    const [computed, refused] = await Promise.allSettled([pending, aborted]);
    expect(computed).toMatchObject({ status: 'fulfilled', value: { loss } });
    expect(refused).toMatchObject({
      status: 'rejected',
      reason: { code: 'ERR_DIRALIGN_ABORTED', cause: 'enough' },
    });
    expectRefusal(() => dpo.fromHidden(batch), 'TypeError DEVICE', 'hidden | disposed');
  });
});

describe.runIf(cuda.available)('without cuBLASLt', () => {
  let compiled: Compiled;
  beforeAll(() => {
    compiled = compilePackage();
  });
  afterAll(() => {
    compiled.remove();
  });

  test('refused with the reason; logits and the CPU do not need it', () => {
    const source = `
      const { cuda, dirAlignLoss } = await import(process.argv[1]);
      const dpo = dirAlignLoss('dpo', 0.1);
      const reference = Float64Array.of(-1, -1);
      const rows = { shape: [2, 1, 2], labels: Int32Array.of(0, 1), reference };
      const layer = { hidden: new Float32Array(6), weight: new Float32Array(6), ...rows };
      let refused;
      try {
        dpo.fromHidden(layer, { backend: 'cuda' });
      } catch ({ code, message }) {
        refused = { code, message };
      }
      const logits = dpo({ logits: new Float32Array(4), ...rows }, { backend: 'cuda' }).backend;
      const { available, hiddenReason: reason } = cuda;
      const cpu = dpo.fromHidden(layer).backend;
      console.log(JSON.stringify({ available, reason, refused, logits, cpu }));`;
    const output = execFileSync(
      process.execPath,
      ['--input-type=module', '-e', source, compiled.url],
      {
        env: { ...process.env, DIRALIGN_CUBLASLT: '/nowhere' },
        encoding: 'utf8',
      },
    );
    const report = JSON.parse(output) as {
      readonly reason: string;
      readonly refused: { readonly message: string };
    };
    expect(report).toMatchObject({
      available: true,
      refused: { code: 'ERR_DIRALIGN_BACKEND' },
      logits: 'cuda',
      cpu: 'cpu',
    });
    expect(report.reason).toMatch(/cuBLASLt.*\/nowhere/);
    expect(report.refused.message).toContain(report.reason);
  });
});
