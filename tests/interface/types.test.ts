// What the type checker says (`npx tsc` reads this file): options that mean nothing to a method are
// compile errors, and the type of the logits is that of the gradient. Every line that the checker
// refuses is refused at run time, too.
import { describe, expect, expectTypeOf, test } from 'vitest';
import type { contract } from '../../ts/contract.generated.js';
import {
  cuda,
  DirAlignError,
  dirAlignLoss,
  methods,
  sequenceLogps,
  tokenLogps,
  type DeviceBuffer,
  type DeviceInfo,
  type DeviceTensor,
  type Divergence,
  type HiddenLossResult,
  type LogitsArray,
  type LogitsBatch,
  type LogpsDerivatives,
  type LossResult,
  type Method,
  type MethodOptions,
  type Metrics,
  type Objective,
  type ObjectiveCalls,
  type RowMetric,
  type RunOptions,
  type SequenceLogps,
  type WithReference,
} from '../../ts/index.js';

const refused = (action: () => unknown): void => {
  expect(action).toThrow(DirAlignError);
};

describe('settings that the checker refuses', () => {
  test('methods and betas', () => {
    // @ts-expect-error no such method
    refused(() => dirAlignLoss('dop', 0.1));
    // @ts-expect-error beta is missing
    refused(() => dirAlignLoss('dpo'));
    // @ts-expect-error beta is missing
    refused(() => dirAlignLoss({ method: 'dpo' }));
    // @ts-expect-error beta is a number
    refused(() => dirAlignLoss('dpo', '0.1'));
    // @ts-expect-error normalize is a boolean
    refused(() => dirAlignLoss('dpo', 0.1, 'yes'));
    // @ts-expect-error no such method
    refused(() => dirAlignLoss({ method: 'ppo', beta: 0.1 }));
  });

  test('options of other methods', () => {
    // @ts-expect-error of simpo and alphapo
    refused(() => dirAlignLoss('dpo', 0.1, false, { gamma: 0.5 }));
    // @ts-expect-error of simpo and alphapo
    refused(() => dirAlignLoss({ method: 'dpo', beta: 0.1, gamma: 0.5 }));
    // @ts-expect-error simpo has no reference to do without
    refused(() => dirAlignLoss('simpo', 2, true, { referenceFree: true }));
    // @ts-expect-error an option of dpo
    refused(() => dirAlignLoss('ipo', 0.1, false, { divergence: 'js' }));
    // @ts-expect-error of the smoothed methods
    refused(() => dirAlignLoss('orpo', 0.1, true, { labelSmoothing: 0.1 }));
    // @ts-expect-error of orpo and asft
    refused(() => dirAlignLoss('nca', 0.1, false, { lambda: 1 }));
    // @ts-expect-error an option of cal_dpo
    refused(() => dirAlignLoss('sppo_hard', 0.1, false, { calibrationWeight: 1 }));
    // @ts-expect-error an option of discopop
    refused(() => dirAlignLoss('dpo', 0.1, false, { tau: 0.05 }));
    // @ts-expect-error an option of dpop
    refused(() => dirAlignLoss('dpo', 0.1, false, { penalty: 50 }));
    // @ts-expect-error of dpo, alphapo and r_dpo
    refused(() => dirAlignLoss('simpo', 0.1, true, { alpha: 1 }));
    // @ts-expect-error sft is the likelihood term
    refused(() => dirAlignLoss('sft', undefined, true, { sftWeight: 1 }));
    // @ts-expect-error the name is misspelt
    refused(() => dirAlignLoss('dpo', 0.1, false, { sftweight: 1 }));
  });

  test('values of other kinds', () => {
    // @ts-expect-error it is a number
    refused(() => dirAlignLoss('dpo', 0.1, false, { labelSmoothing: '0.1' }));
    // @ts-expect-error it is one of four
    refused(() => dirAlignLoss('dpo', 0.1, false, { divergence: 'kl' }));
    // @ts-expect-error it is one of three
    refused(() => dirAlignLoss('sft', undefined, true, { sftReduction: 'median' }));
    // @ts-expect-error it is a boolean
    refused(() => dirAlignLoss('dpo', 0.1, false, { referenceFree: 1 }));
  });
});

test('settings that the checker accepts', () => {
  const objectives = [
    dirAlignLoss('sft'),
    dirAlignLoss('sft', 0.1),
    dirAlignLoss({ method: 'sft', sftReduction: 'token' }),
    dirAlignLoss('dpo', 0.1),
    dirAlignLoss('dpo', 0.1, true, {
      labelSmoothing: 0.1,
      referenceFree: true,
      sftWeight: 1,
      sftReduction: 'token',
    }),
    dirAlignLoss('dpo', 0.1, undefined, { divergence: 'alpha', alpha: 0.3 }),
    dirAlignLoss({ method: 'simpo', beta: 2, gamma: 1, labelSmoothing: 0.1 }),
    dirAlignLoss({ method: 'orpo', beta: 0.5, normalize: false, lambda: 0.1, sftWeight: 1 }),
    dirAlignLoss({ method: 'cal_dpo', beta: 0.001, calibrationWeight: 0.5 }),
    dirAlignLoss('discopop', 0.1, false, { tau: 0.1 }),
    dirAlignLoss('alphapo', 2, true, { alpha: 0.1, gamma: 0, labelSmoothing: 0.1 }),
    dirAlignLoss('r_dpo', 0.1, false, { alpha: 0.01 }),
    dirAlignLoss('dpop', 0.1, false, { penalty: 5 }),
  ];
  for (const objective of objectives) expect(objective).toBeTypeOf('function');
  // A method that is known only at run time.
  for (const { name } of methods()) expect(dirAlignLoss(name, 0.1).method).toBe(name);
});

test('types of an objective', () => {
  const dpo = dirAlignLoss('dpo', 0.1);
  expectTypeOf(dpo).toExtend<Objective<'dpo'>>();
  expectTypeOf(dpo.method).toEqualTypeOf<'dpo'>();
  expectTypeOf(dpo.beta).toEqualTypeOf<number>();
  expectTypeOf(dpo.divergence).toEqualTypeOf<Divergence>();
  expectTypeOf(dpo.referenceFree).toEqualTypeOf<boolean>();
  expectTypeOf(dpo.sftReduction).toEqualTypeOf<'sequence' | 'token' | 'mean'>();
  expectTypeOf(dirAlignLoss('sft').beta).toEqualTypeOf<undefined>();
  expectTypeOf<Method>().toExtend<string>();
  expectTypeOf<MethodOptions<'simpo'>>().toHaveProperty('gamma');
  expectTypeOf<MethodOptions<'dpo'>>().not.toHaveProperty('gamma');
  const change = (): void => {
    // @ts-expect-error settings are read-only
    dpo.beta = 1;
  };
  expect(change).toThrow(TypeError);
  // @ts-expect-error simpo has no reference
  expect(dirAlignLoss('simpo', 2).referenceFree).toBeUndefined();
});

test('the gradient has the type of the logits', () => {
  const dpo = dirAlignLoss('dpo', 0.1);
  const labels = Int32Array.of(0, 1);
  const reference = Float64Array.of(-1, -1);
  const single = dpo({ logits: new Float32Array(4), shape: [2, 1, 2], labels, reference });
  expectTypeOf(single).toExtend<LossResult<Float32Array<ArrayBuffer>, 'dense', 'dpo'>>();
  expectTypeOf(single.gradLogits).toEqualTypeOf<Float32Array<ArrayBuffer>>();
  expectTypeOf(single.rowScale).toEqualTypeOf<undefined>();
  expect(single.gradLogits).toBeInstanceOf(Float32Array);
  const half = dpo({
    logits: new Uint16Array(4),
    dtype: 'bfloat16',
    shape: [2, 1, 2],
    labels,
    reference,
  });
  expectTypeOf(half.gradLogits).toEqualTypeOf<Uint16Array<ArrayBuffer>>();
  expect(half.gradLogits).toBeInstanceOf(Uint16Array);

  const batch = { logits: new Float32Array(4), shape: [2, 1, 2], labels, reference };
  const promised = dpo.async(batch);
  expectTypeOf(promised).resolves.toExtend<LossResult<Float32Array, 'dense', 'dpo'>>();
  expect(promised).toBeInstanceOf(Promise);
  // @ts-expect-error out is of the logits' type
  refused(() => dpo<Float32Array>(batch, { out: new Uint16Array(4) }));
  // @ts-expect-error labels are 32-bit integers
  refused(() => dpo({ ...batch, labels: [0, 1] }));
  // @ts-expect-error it is one of three
  refused(() => dpo(batch, { gradient: 'sparse' }));
  // @ts-expect-error no such option
  refused(() => dpo(batch, { inplace: true }));
});

test('logits on a device have their gradient there', () => {
  const dpo = dirAlignLoss('dpo', 0.1);
  const shape = [2, 1, 2];
  const labels = Int32Array.of(0, 1);
  const reference = Float64Array.of(-1, -1);
  const outline = (logits: DeviceTensor, array: Float32Array) => {
    const dense = dpo({ logits, shape, labels, reference });
    expectTypeOf(dense).toExtend<LossResult<DeviceTensor, 'dense', 'dpo'>>();
    expectTypeOf(dense.gradLogits).toEqualTypeOf<DeviceTensor>();
    dense.gradLogits.dispose();
    expectTypeOf(
      dpo.async({ logits, shape, labels, reference }, { inPlace: true }),
    ).resolves.toExtend<LossResult<DeviceTensor, 'dense', 'dpo'>>();
    expectTypeOf(sequenceLogps({ logits, shape, labels })).toEqualTypeOf<SequenceLogps>();
    const batch: LogitsBatch<DeviceTensor> & WithReference = {
      logits,
      dtype: 'float32',
      shape,
      labels,
      reference,
    };
    // @ts-expect-error out is where the logits are
    dpo<DeviceTensor>(batch, { out: array });
    // @ts-expect-error a gradient on a device is no array
    expectTypeOf(dpo(batch).gradLogits.length).toBeNumber();
    // @ts-expect-error an address alone is no tensor
    dpo({ ...batch, logits: { ptr: 1n, dtype: 'float32' } });
    // @ts-expect-error labels are on the host
    dpo({ ...batch, labels: logits });
    // @ts-expect-error a tensor is made by cuda.tensor or buffer.tensor
    logits.ptr = 1n;
  };
  expect(outline).toBeTypeOf('function');
  expectTypeOf<RunOptions<DeviceTensor>['out']>().toEqualTypeOf<DeviceTensor | undefined>();
  expectTypeOf(cuda.devices()).toEqualTypeOf<readonly DeviceInfo[]>();
  expectTypeOf(cuda.reason).toEqualTypeOf<string | undefined>();
  expectTypeOf<typeof cuda.alloc>().returns.toEqualTypeOf<DeviceBuffer>();
  expectTypeOf<DeviceBuffer>().toExtend<Disposable>();
  expectTypeOf<DeviceTensor>().toExtend<Disposable>();
});

test('gradients of hidden states have their type, of the weight float32, in their place', () => {
  const dpo = dirAlignLoss('dpo', 0.1);
  const rows = {
    shape: [2, 1, 2],
    labels: Int32Array.of(0, 1),
    reference: Float64Array.of(-1, -1),
  };
  const single = dpo.fromHidden({
    hidden: new Float32Array(6),
    weight: new Float32Array(6),
    ...rows,
  });
  expectTypeOf(single).toExtend<HiddenLossResult<Float32Array<ArrayBuffer>>>();
  expectTypeOf(single.gradHidden).toEqualTypeOf<Float32Array<ArrayBuffer>>();
  expectTypeOf(single.gradWeight).toEqualTypeOf<Float32Array>();
  expectTypeOf(single.gradBias).toEqualTypeOf<undefined>();
  expectTypeOf(single.memory).toEqualTypeOf<number>();
  expect(single.gradHidden).toBeInstanceOf(Float32Array);
  // @ts-expect-error there are no logits that could have a gradient
  expect(single.gradLogits).toBeUndefined();
  const halfBatch = {
    hidden: new Uint16Array(6),
    weight: new Uint16Array(6),
    dtype: 'bfloat16',
    ...rows,
  } as const;
  const half = dpo.fromHidden(halfBatch, {
    out: { gradWeight: new Float32Array(6), gradHidden: true },
    accumulate: ['gradWeight'],
  });
  expectTypeOf(half.gradHidden).toEqualTypeOf<Uint16Array<ArrayBuffer>>();
  expectTypeOf(half.gradBias).toEqualTypeOf<undefined>();
  expect(half.gradHidden).toBeInstanceOf(Uint16Array);
  expect(half.gradWeight).toBeInstanceOf(Float32Array);

  const batch = { hidden: new Float32Array(6), weight: new Float32Array(6), ...rows };
  const promised = dpo.fromHidden.async(batch, {
    signal: new AbortController().signal,
    memory: 2 ** 24,
  });
  expectTypeOf(promised).resolves.toExtend<HiddenLossResult<Float32Array>>();
  expect(promised).toBeInstanceOf(Promise);
  expectTypeOf(sequenceLogps(batch, { memory: 2 ** 24 })).toEqualTypeOf<SequenceLogps>();
  expectTypeOf(tokenLogps).toBeCallableWith(batch);
  // What was asked for besides is no obstacle.
  const forward = tokenLogps(batch, { collision: true });
  expectTypeOf(forward).toExtend<LogpsDerivatives['forward']>();
  // @ts-expect-error there is no factored gradient of a layer
  refused(() => dpo.fromHidden(batch, { gradient: 'factored' }));
  // @ts-expect-error nor are there logits to overwrite
  refused(() => dpo.fromHidden(batch, { inPlace: true }));
  // @ts-expect-error the gradient of the weight is float32
  refused(() => dpo.fromHidden<Float32Array>(batch, { out: { gradWeight: new Uint16Array(6) } }));
  // @ts-expect-error a gradient has a name
  refused(() => dpo.fromHidden(batch, { out: { gradLogits: true } }));
  // @ts-expect-error it is no buffer's name
  refused(() => dpo.fromHidden(batch, { accumulate: ['weight'] }));
  // @ts-expect-error the weight is needed
  refused(() => dpo.fromHidden({ hidden: new Float32Array(6), ...rows }));

  const outline = (hidden: DeviceTensor, weight: DeviceTensor, array: Float32Array) => {
    const onDevice = dpo.fromHidden(
      { hidden, weight, hiddenSize: 3, ...rows },
      { out: { gradWeight: weight } },
    );
    expectTypeOf(onDevice).toExtend<HiddenLossResult<DeviceTensor>>();
    expectTypeOf(onDevice.gradHidden).toEqualTypeOf<DeviceTensor>();
    expectTypeOf(onDevice.gradWeight).toEqualTypeOf<DeviceTensor>();
    // @ts-expect-error buffers are where the hidden states are
    dpo.fromHidden<DeviceTensor>({ hidden, weight, ...rows }, { out: { gradWeight: array } });
    // @ts-expect-error and so is the weight
    dpo.fromHidden<DeviceTensor>({ hidden, weight: array, ...rows });
  };
  expect(outline).toBeTypeOf('function');
  expectTypeOf(cuda.hiddenReason).toEqualTypeOf<string | undefined>();
});

test('the options say which gradients there are', () => {
  const dpo = dirAlignLoss('dpo', 0.1);
  const rows = {
    shape: [2, 1, 2],
    labels: Int32Array.of(0, 1),
    reference: Float64Array.of(-1, -1),
  };
  const batch = { ...rows, logits: new Float32Array(4) };
  const none = dpo(batch, { gradient: 'none' });
  expectTypeOf(none.gradLogits).toEqualTypeOf<undefined>();
  expect('gradLogits' in none).toBe(false);
  const factored = dpo(batch, { gradient: 'factored', inPlace: true });
  expectTypeOf(factored.gradLogits).toEqualTypeOf<Float32Array<ArrayBuffer>>();
  expectTypeOf(factored.rowScale).toEqualTypeOf<Float32Array<ArrayBuffer>>();
  expect(factored.rowScale).toBeInstanceOf(Float32Array);
  const threaded = dpo(batch, { threads: 1, out: new Float32Array(4) });
  expectTypeOf(threaded.gradLogits).toEqualTypeOf<Float32Array<ArrayBuffer>>();
  // Known at run time only.
  const run: RunOptions = { threads: 1 };
  expectTypeOf(dpo(batch, run).gradLogits).toExtend<LogitsArray | undefined>();
  const mode = threaded.loss > 0 ? 'none' : 'dense';
  expectTypeOf(dpo(batch, { gradient: mode }).gradLogits).toEqualTypeOf<
    Float32Array<ArrayBuffer> | undefined
  >();

  const layer = { ...rows, hidden: new Float32Array(6), weight: new Float32Array(6) };
  const bias = new Float32Array(2);
  const all = dpo.fromHidden({ ...layer, bias });
  expectTypeOf(all.gradBias).toEqualTypeOf<Float32Array>();
  expect(all.gradBias).toBeInstanceOf(Float32Array);
  const frozen = dpo.fromHidden(
    { ...layer, bias },
    { out: { gradWeight: false, gradHidden: new Float32Array(6) } },
  );
  expectTypeOf(frozen.gradWeight).toEqualTypeOf<undefined>();
  expectTypeOf(frozen.gradHidden).toEqualTypeOf<Float32Array<ArrayBuffer>>();
  expectTypeOf(frozen.gradBias).toEqualTypeOf<Float32Array>();
  expect('gradWeight' in frozen).toBe(false);
  const nothing = dpo.fromHidden.async(layer, { gradient: 'none' });
  expectTypeOf(nothing).resolves.toHaveProperty('gradHidden').toEqualTypeOf<undefined>();
  expect(nothing).toBeInstanceOf(Promise);
});

test('metrics have the names of their method', () => {
  const batch = { shape: [2, 1, 2], labels: Int32Array.of(0, 1), logits: new Float32Array(4) };
  const { metrics } = dirAlignLoss('simpo', 2)(batch);
  expectTypeOf(metrics['rewards/accuracies']).toEqualTypeOf<number>();
  expectTypeOf(metrics.nll_loss).toEqualTypeOf<number | undefined>();
  // @ts-expect-error the name is misspelt
  expect(metrics['rewards/accuracy']).toBeUndefined();
  // Simpo has no odds.
  expectTypeOf(metrics.log_odds_ratio).toEqualTypeOf<number | undefined>();
  expectTypeOf(dirAlignLoss('orpo', 1)(batch).metrics.log_odds_ratio).toEqualTypeOf<number>();
  const { metrics: ofSft } = dirAlignLoss('sft')(batch);
  expectTypeOf(ofSft.nll_loss).toEqualTypeOf<number>();
  expectTypeOf(ofSft['rewards/margins']).toEqualTypeOf<number | undefined>();
  for (const { name } of methods().filter(({ reference }) => !reference)) {
    expectTypeOf(dirAlignLoss(name, 1)(batch).metrics['rewards/margins']).toEqualTypeOf<
      number | undefined
    >();
  }
  expectTypeOf(Object.values(metrics)).toEqualTypeOf<number[]>();
  // Every name of the catalogue is a key of some method's metrics.
  type Named = (typeof contract)['metrics'][number];
  expectTypeOf<Exclude<Named, keyof Metrics | RowMetric>>().toEqualTypeOf<never>();
});

test('metrics that are asked for are there, and no others', () => {
  const batch = { shape: [2, 1, 2], labels: Int32Array.of(0, 1), logits: new Float32Array(4) };
  const simpo = dirAlignLoss('simpo', 2);
  const { metrics } = simpo(batch, { metrics: ['entropy', 'logits/chosen'] });
  expectTypeOf(metrics.entropy).toEqualTypeOf<number>();
  expectTypeOf(metrics['logits/chosen']).toEqualTypeOf<number>();
  // @ts-expect-error it was not asked for
  expect(metrics.mean_token_accuracy).toBeUndefined();
  // @ts-expect-error nothing was asked for
  expect(simpo(batch).metrics.entropy).toBeUndefined();
  expectTypeOf(simpo.async(batch, { metrics: ['entropy'] })).resolves.toHaveProperty('metrics');
  const run: RunOptions = { gradient: 'none' };
  expectTypeOf(simpo(batch, run).metrics.entropy).toEqualTypeOf<number | undefined>();
  const { shape, labels } = batch;
  const layer = { shape, labels, hidden: new Float32Array(4), weight: new Float32Array(4) };
  const ofLayer = simpo.fromHidden(layer, { metrics: ['mean_token_accuracy'] }).metrics;
  expectTypeOf(ofLayer.mean_token_accuracy).toEqualTypeOf<number>();
  // @ts-expect-error no such metric
  refused(() => simpo(batch, { metrics: ['entropie'] }));
  const logps = { logps: Float64Array.of(-1, -1), counts: Int32Array.of(1, 1) };
  // @ts-expect-error it has no rows
  refused(() => simpo.fromLogps(logps, { metrics: ['entropy'] }));
});

test('a batch has the reference that its method needs', () => {
  const batch = { shape: [2, 1, 2], labels: Int32Array.of(0, 1), logits: new Float32Array(4) };
  const logps = { logps: Float64Array.of(-1, -2), counts: Int32Array.of(1, 1) };
  const dpo = dirAlignLoss('dpo', 0.1);
  // @ts-expect-error the reference is missing
  refused(() => dpo(batch));
  // @ts-expect-error the reference is missing
  refused(() => dpo.fromLogps(logps));
  // @ts-expect-error the reference is missing
  refused(() => dpo.fromHidden({ ...batch, hidden: batch.logits, weight: batch.logits }));
  expect(dirAlignLoss('dpo', 0.1, false, { referenceFree: true })(batch).loss).toBeGreaterThan(0);
  expect(
    dirAlignLoss({ method: 'dpo', beta: 0.1, referenceFree: true }).fromLogps(logps).loss,
  ).toBeGreaterThan(0);
  expect(dirAlignLoss('simpo', 2)(batch).loss).toBeGreaterThan(0);
  // An objective of any method can be handed on as one.
  const objectives: Objective[] = [dpo, dirAlignLoss('simpo', 2), dirAlignLoss('sft')];
  expect(objectives.map(({ method }) => method)).toEqual(['dpo', 'simpo', 'sft']);
  const calls: ObjectiveCalls = dpo;
  refused(() => calls(batch));
});
