/**
 * A call of the loss: checks, the forward pass, what the native call takes of both, and the way
 * back.
 */
import { Array as JaxArray, type JsTree } from '@jax-js/jax';
import { batchKeys, carriedBy, checkShape } from '../bindings.js';
import { typeError } from '../../errors.js';
import { checkObject, describe, readProperties } from '../../given.js';
import type { BatchRows, HiddenBatch, LogitsBatch } from '../../batch/types.js';
import { checkBuffers } from '../../loss/gradient-buffers.js';
import type { HiddenRunOptions, RunOptions } from '../../loss/options.js';
import type { HiddenLossResult, LossResult } from '../../loss/results.js';
import { checkGiven, checkParams } from './arrays.js';
import { runForward, type Elements, type Pass } from './forward.js';
import type { JaxAsyncRunOptions, JaxBatch, JaxForward, JaxLossResult } from './types.js';

type AnyParams = JsTree<JaxArray>;

/** A call after its forward pass, which is to be disposed of. */
export interface Step {
  readonly pass: Pass<AnyParams>;
  readonly differentiate: boolean;
  /** To be consumed by a reader, whose answer goes to `read`. */
  arrays(): JaxArray[];
  read(views: readonly ArrayBufferView[]): Data;
}

/** What was read: the model's output, and the batch in host arrays. */
interface Data {
  readonly elements: Elements;
  readonly rows: BatchRows;
}

/**
 * Refuses what can be refused without numbers; what needs no call of the model, before it is
 * called.
 */
export function begin<Params extends AnyParams>(
  forward: JaxForward<Params>,
  params: Params,
  given: JaxBatch,
  differentiate: boolean,
): Step {
  if (typeof (forward as unknown) !== 'function') {
    throw typeError(
      'ERR_DIRALIGN_OPTION',
      `forward: expected a function of params, not ${describe(forward)}`,
    );
  }
  checkParams(params);
  const batch = readBatch(given);
  const pass = runForward(forward, params, batch.offsets !== undefined, differentiate);
  try {
    checkRows(batch, pass.shape.slice(0, -1));
  } catch (refusal) {
    pass.dispose();
    throw refusal;
  }
  const { labels, sftLabels, reference, offsets, ignoreIndex } = batch;
  const ofBatch = [labels, sftLabels, reference].filter((each) => each instanceof JaxArray);
  return {
    pass,
    differentiate,
    arrays: () => [...ofBatch.map((array) => array.ref), ...pass.arrays()],
    read: (views) => {
      const host = <T>(given: T): Exclude<T, JaxArray> =>
        (given instanceof JaxArray ? views[ofBatch.indexOf(given)] : given) as Exclude<T, JaxArray>;
      return {
        elements: pass.elements(views.slice(ofBatch.length)),
        rows: {
          ...carriedBy(batch),
          shape: pass.shape,
          offsets,
          ignoreIndex,
          labels: host(labels),
          sftLabels: host(sftLabels),
          reference: host(reference),
        },
      };
    },
  };
}

function readBatch(given: JaxBatch): JaxBatch {
  checkObject('batch', given);
  const batch = readProperties('batch', given, batchKeys) as unknown as JaxBatch;
  checkGiven('labels', batch.labels, 'int32', 'ERR_DIRALIGN_LABEL');
  checkGiven('sftLabels', batch.sftLabels, 'int32', 'ERR_DIRALIGN_LABEL');
  checkGiven('reference', batch.reference, 'float32', 'ERR_DIRALIGN_REFERENCE');
  return batch;
}

function checkRows({ labels, sftLabels, reference }: JaxBatch, rows: readonly number[]): void {
  for (const [name, array] of Object.entries({ labels, sftLabels })) {
    if (array instanceof JaxArray)
      checkShape(name, array.shape, rows, 'ERR_DIRALIGN_SHAPE', ', one label per row');
  }
  if (reference instanceof JaxArray)
    checkShape('reference', reference.shape, ['sequences'], 'ERR_DIRALIGN_REFERENCE');
}

/** The batch as the core takes it. */
export function batchOf(
  step: Step,
  data: Data,
): LogitsBatch<Float32Array> | HiddenBatch<Float32Array> {
  const { logits } = data.elements;
  return logits ? { ...data.rows, logits } : hiddenBatch(step, data);
}

function hiddenBatch({ pass }: Step, { rows, elements }: Data): HiddenBatch<Float32Array> {
  const { hidden, weight, bias } = elements as Elements & Record<'hidden' | 'weight', Float32Array>;
  return { ...rows, hidden, weight, bias, hiddenSize: pass.hiddenSize };
}

function without<Values extends object, Key extends keyof Values>(
  values: Values,
  keys: readonly Key[],
): Omit<Values, Key> {
  return Object.fromEntries(
    Object.entries(values).filter(([key]) => !keys.includes(key as Key)),
  ) as Omit<Values, Key>;
}

/** A call of the objective: what it takes, and what becomes of its result. */
type Call =
  | {
      readonly from: 'logits';
      readonly batch: LogitsBatch<Float32Array>;
      readonly run: RunOptions<Float32Array>;
      readonly result: (found: LossResult<Float32Array>) => JaxLossResult<AnyParams>;
    }
  | {
      readonly from: 'hidden';
      readonly batch: HiddenBatch<Float32Array>;
      readonly run: HiddenRunOptions<Float32Array>;
      readonly result: (found: HiddenLossResult<Float32Array>) => JaxLossResult<AnyParams>;
    };

export function callOf(
  step: Step,
  data: Data,
  { threads, gradientScale, metrics, memory, buffers: given, signal }: JaxAsyncRunOptions,
): Call {
  const { pass, differentiate } = step;
  const buffers = checkBuffers(given, false);
  const common = {
    gradient: differentiate ? 'dense' : 'none',
    gradientScale,
    metrics,
    threads,
    signal,
  } as const;
  const withGrads = <Values extends object>(values: Values, gradient: Float32Array | undefined) =>
    ({
      ...values,
      ...(differentiate && gradient && { grads: pass.pullBack(gradient) }),
    }) as Values & {
      readonly grads: AnyParams;
    };
  const { logits } = data.elements;
  if (logits) {
    if (memory !== undefined) {
      throw typeError(
        'ERR_DIRALIGN_OPTION',
        'run.memory: logits take no workspace; it is for a model that returns hidden states',
      );
    }
    return {
      from: 'logits',
      batch: { ...data.rows, logits },
      // What was read is ours to overwrite.
      run: { ...common, inPlace: differentiate },
      result: ({ gradLogits, ...values }) => withGrads(values, gradLogits),
    };
  }
  const room = differentiate ? pass.gradientRoom(buffers) : undefined;
  const { hidden = false, weight = false, bias = false } = room?.parts ?? {};
  return {
    from: 'hidden',
    batch: hiddenBatch(step, data),
    run: {
      ...common,
      memory,
      ...(room && {
        out: {
          gradHidden: hidden,
          gradWeight: weight,
          ...(data.elements.bias && { gradBias: bias }),
        },
      }),
    },
    result: (found) =>
      withGrads(without(found, ['gradHidden', 'gradWeight', 'gradBias']), room?.joined),
  };
}
