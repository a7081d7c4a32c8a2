/** `diralign/tfjs`: the losses as differentiable ops of TensorFlow.js. */
import type { Scalar, Tensor } from '@tensorflow/tfjs-core';
import type { BatchRows, LogitsShape } from '../../batch/types.js';
import type { Method, ReferenceNeed } from '../../catalogue.js';
import { typeError } from '../../errors.js';
import { checkObject, describe, readProperties } from '../../given.js';
import { sequenceLogps as sequenceLogpsOf } from '../../logps.js';
import { checkBuffers } from '../../loss/gradient-buffers.js';
import type { SequenceLogps } from '../../loss/results.js';
import type { ObjectiveCalls } from '../../objective.js';
import { batchKeys, carriedBy, checkObjective, rowsOutline } from '../bindings.js';
import { lossOf } from './differentiable.js';
import { checkFloats, floatsOf, isCopied, labelsOf, referenceOf } from './tensors.js';
import type { TfBatch, TfHiddenRunOptions, TfLoss, TfOutputLayer, TfRunOptions } from './types.js';
export type {
  TfBatch,
  TfHiddenLossResult,
  TfHiddenRunOptions,
  TfLoss,
  TfLossResult,
  TfOutputLayer,
  TfRunOptions,
} from './types.js';

const runKeys = ['onResult', 'threads', 'gradientScale', 'metrics'] as const;

const hiddenRunKeys = [...runKeys, 'memory', 'buffers'] as const;

const layerKeys = ['hidden', 'weight', 'bias'] as const;

/**
 * An objective as a differentiable op of TensorFlow.js.
 *
 * @param objective what `dirAlignLoss` returns.
 * @throws DirAlignError with code ERR_DIRALIGN_OPTION
 *
 * @example
 * const dpo = tfDirAlignLoss(dirAlignLoss('dpo', 0.1));
 * const onResult = ({ metrics }) => log(metrics);
 * optimizer.minimize(() => dpo(model.apply(tokens), { labels, reference }, { onResult }));
 */
export function tfDirAlignLoss<M extends Method, Need extends ReferenceNeed>(
  objective: ObjectiveCalls<M, Need>,
): TfLoss<M, Need> {
  const calls = objective as unknown as ObjectiveCalls;
  checkObjective(calls);
  const fromLogits = (logits: Tensor, given: TfBatch, run: TfRunOptions = {}): Scalar => {
    const { onResult, ...options } = readRun(run, runKeys);
    const batch = readBatch(given);
    checkLogits(logits, batch);
    const rows = rowsOf(batch, logits.shape as unknown as LogitsShape);
    return lossOf([logits], (gradient) => {
      const { gradLogits, ...result } = calls(
        { ...rows, logits: floatsOf(logits) },
        // A copy of the logits is ours to overwrite.
        { ...options, gradient, inPlace: gradient === 'dense' && isCopied(logits) },
      );
      onResult?.(result);
      return { loss: result.loss, gradients: [gradLogits] };
    });
  };
  const fromHidden = (
    layer: TfOutputLayer,
    given: TfBatch,
    run: TfHiddenRunOptions = {},
  ): Scalar => {
    const read = readRun<TfHiddenRunOptions>(run, hiddenRunKeys);
    const { onResult, buffers: wanted, ...options } = read;
    const buffers = checkBuffers(wanted, false);
    const { hidden, weight, bias } = readLayer(layer);
    const batch = readBatch(given);
    checkLayer({ hidden, weight, bias }, batch);
    const rows = rowsOf(batch, [
      ...hidden.shape.slice(0, -1),
      weight.shape[0],
    ] as unknown as LogitsShape);
    return lossOf(bias ? [hidden, weight, bias] : [hidden, weight], (gradient) => {
      const data = {
        hidden: floatsOf(hidden),
        weight: floatsOf(weight),
        bias: bias && floatsOf(bias),
      };
      const own = { ...rows, ...data, hiddenSize: weight.shape[1] as number };
      const lender = isCopied(hidden) ? buffers : undefined;
      const found = calls.fromHidden(own, { ...options, gradient, buffers: lender });
      const { gradHidden, gradWeight, gradBias, ...result } = found;
      const gradients = [gradHidden, gradWeight, ...(bias ? [gradBias] : [])];
      onResult?.(result);
      return {
        loss: result.loss,
        gradients,
        uploaded: () => lender?.release(...(gradients as Float32Array[])),
      };
    });
  };
  return Object.freeze(Object.assign(fromLogits, { fromHidden })) as unknown as TfLoss<M, Need>;
}

/**
 * Log-probability of each sequence, summed over its scored rows, in nats and float64: how a
 * reference model's numbers are made, by the same kernel as training. Logits are those of {@link
 * TfLoss}. The result is in host arrays, and no gradient flows through it.
 * @throws DirAlignError before anything is computed
 *
 * @example
 * const logits = referenceModel.predict(tokens);
 * const { logps: reference } = sequenceLogps(logits, { labels });
 * logits.dispose();
 */
export function sequenceLogps(
  logits: Tensor,
  given: Omit<TfBatch, 'reference' | 'sftLabels'>,
  run: Pick<TfRunOptions, 'threads'> = {},
): SequenceLogps {
  checkObject('run', run);
  const { threads } = readProperties('run', run, ['threads']) as typeof run;
  const batch = readBatch(given);
  checkLogits(logits, batch);
  const rows = rowsOf(batch, logits.shape as unknown as LogitsShape);
  return sequenceLogpsOf({ ...rows, logits: floatsOf(logits) }, { threads });
}

function readRun<Run extends { readonly onResult?: unknown }>(
  given: Run,
  keys: readonly (keyof Run & string)[],
): Run {
  checkObject('run', given);
  const run = readProperties('run', given, keys) as Run;
  const { onResult } = run;
  if (onResult !== undefined && typeof onResult !== 'function') {
    throw typeError(
      'ERR_DIRALIGN_OPTION',
      `run.onResult: expected a function, not ${describe(onResult)}`,
    );
  }
  return run;
}

function readBatch(batch: TfBatch): TfBatch {
  checkObject('batch', batch);
  return readProperties('batch', batch, batchKeys) as unknown as TfBatch;
}

function checkLogits(logits: Tensor, batch: TfBatch): void {
  checkFloats('logits', logits, rowsOutline(batch.offsets !== undefined, 'vocab'));
}

function readLayer(layer: TfOutputLayer): TfOutputLayer {
  checkObject('layer', layer);
  return readProperties('layer', layer, layerKeys) as unknown as TfOutputLayer;
}

function checkLayer({ hidden, weight, bias }: TfOutputLayer, batch: TfBatch): void {
  checkFloats('hidden', hidden, rowsOutline(batch.offsets !== undefined, 'hiddenSize'));
  checkFloats('weight', weight, ['vocab', hidden.shape.at(-1) as number]);
  if (bias !== undefined) checkFloats('bias', bias, [weight.shape[0]]);
}

/** The batch without its logits, in host arrays. */
function rowsOf(batch: TfBatch, shape: LogitsShape): BatchRows {
  const rows = shape.slice(0, -1) as readonly number[];
  const { labels, ignoreIndex, reference, sftLabels, offsets } = batch;
  return {
    ...carriedBy(batch),
    shape,
    offsets,
    ignoreIndex,
    labels: labelsOf('labels', labels, rows),
    sftLabels: sftLabels && labelsOf('sftLabels', sftLabels, rows),
    reference: reference && referenceOf(reference),
  };
}
