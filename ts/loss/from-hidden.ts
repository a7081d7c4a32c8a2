/** The output layer fused with the loss: the call on a batch of hidden states. */
import { checkBackend } from '../batch/dtype-and-place.js';
import { asHiddenBatch, readBatch, type GivenBatch } from '../batch/given-batch.js';
import { checkHiddenBatch } from '../batch/hidden.js';
import type { HiddenBatch, Like, Logits, Needed } from '../batch/types.js';
import type { Method, ReferenceNeed } from '../catalogue.js';
import { checkParallel, type CheckedParallel } from '../distributed/parallel.js';
import { define } from '../given.js';
import type { RowMetric } from '../metrics.js';
import type { Mixture } from '../mixture.js';
import type { BatchRequest, Done, GradientRequest } from '../native/interface.js';
import { computeLater, computeNow, refuseSignal, type PreparedCall } from './call.js';
import type { Computation } from './from-logits.js';
import { makeLent, type GradientBuffers } from './gradient-buffers.js';
import { prepareGradients } from './gradient-output.js';
import { checkHiddenRun, readHiddenRun, type GivenRun } from './hidden-options.js';
import type { Float32Gradient, HiddenGradientMode, HiddenRunOptions } from './options.js';
import type { HiddenLossResult, LayerGradients } from './results.js';
import { checkGradientScale, lossOf, prepareValues } from './values.js';

/**
 * The call of `objective.fromHidden`: a method, for the same reason as the call of an objective.
 */
type HiddenCall<M extends Method, Need extends ReferenceNeed> = {
  /**
   * Loss, metrics and the gradients of hidden states, output weight and bias, computed before it
   * returns. The logits of the batch are never there: they are made a few rows at a time, in a
   * workspace of at most `run.memory` bytes. Values and gradients are those that the logits would
   * give, for every method. Neither prompt rows nor rows without a coefficient take part in a
   * product that they do not need. Device memory is read in the order of its stream, which the call
   * waits for.
   * @throws DirAlignError before anything is written, unless a device fails (ERR_DIRALIGN_DEVICE);
   *   `code` says what is wrong. A `memory` that is too small (ERR_DIRALIGN_OPTION) is told how
   *   many bytes would do.
   *
   * @example
   * const batch = { hidden, weight, shape: [4, 512, 128256], labels, reference };
   * const { loss, gradHidden, gradWeight } = dpo.fromHidden(batch);
   */
  call<
    L extends Logits,
    Bias extends Like<L> | undefined = undefined,
    Mode extends HiddenGradientMode = 'dense',
    OfHidden extends Like<L> | boolean = true,
    OfWeight extends Float32Gradient<L> | boolean = true,
    OfBias extends Float32Gradient<L> | boolean = true,
    const Names extends readonly RowMetric<M>[] = readonly [],
    Lent extends GradientBuffers | undefined = undefined,
  >(
    batch: HiddenBatch<L, Bias> & Needed<Need, M>,
    run?: HiddenRunOptions<L, Mode, OfHidden, OfWeight, OfBias, Names, Lent>,
  ): HiddenLossResult<L, Bias, Mode, OfHidden, OfWeight, OfBias, M, Names, Lent>;
}['call'];

/** `objective.fromHidden`. */
export interface FromHidden<
  M extends Method = Method,
  Need extends ReferenceNeed = ReferenceNeed,
> extends HiddenCall<M, Need> {
  /**
   * The same, bit for bit, off the event loop, on a device, too. The arrays of the batch and of
   * `run.out` belong to the computation until the promise settles; if one is transferred meanwhile,
   * it rejects with code ERR_DIRALIGN_SHAPE. `run.signal` aborts: the promise rejects with code
   * ERR_DIRALIGN_ABORTED once the rows in hand are done, and the buffers of `out` are then
   * incomplete.
   */
  async<
    L extends Logits,
    Bias extends Like<L> | undefined = undefined,
    Mode extends HiddenGradientMode = 'dense',
    OfHidden extends Like<L> | boolean = true,
    OfWeight extends Float32Gradient<L> | boolean = true,
    OfBias extends Float32Gradient<L> | boolean = true,
    const Names extends readonly RowMetric<M>[] = readonly [],
    Lent extends GradientBuffers | undefined = undefined,
  >(
    batch: HiddenBatch<L, Bias> & Needed<Need, M>,
    run?: HiddenRunOptions<L, Mode, OfHidden, OfWeight, OfBias, Names, Lent>,
  ): Promise<HiddenLossResult<L, Bias, Mode, OfHidden, OfWeight, OfBias, M, Names, Lent>>;
}

export function fromHidden(mixture: Mixture): FromHidden {
  const prepare = (
    given: unknown,
    run: GivenRun,
    parallel: CheckedParallel,
  ): PreparedCall<HiddenLossResult<Logits>> =>
    prepareHidden(
      readBatch(given, 'an object with hidden, weight, shape and labels'),
      run,
      (base, batch) => {
        const { window } = parallel;
        const values = prepareValues(mixture, base, batch, 'dense', run.metrics, window);
        return lossOf(mixture, values, window);
      },
      parallel,
    );
  const call = (batch: unknown, run: unknown): HiddenLossResult<Logits> => {
    const options = readHiddenRun(run);
    refuseSignal(options.signal, 'objective.fromHidden.async');
    const parallel = checkParallel(options.parallel, false);
    return computeNow(() => prepare(batch, options, parallel), parallel);
  };
  const later = async (batch: unknown, run: unknown): Promise<HiddenLossResult<Logits>> => {
    const options = readHiddenRun(run);
    const parallel = checkParallel(options.parallel, true);
    return computeLater(options.signal, () => prepare(batch, options, parallel), parallel);
  };
  define(call, 'async', later);
  // The checks give the result the type that follows from the batch.
  return Object.freeze(call) as unknown as FromHidden;
}

/** A result of hidden states, whatever its values are. */
export type OfHidden<Values> = Values &
  LayerGradients<Logits, Logits | undefined, HiddenGradientMode, boolean, boolean, boolean> & {
    readonly memory: number;
  };

/**
 * Refuses what can be refused, except label values and a workspace that is too small: the native
 * side finds those.
 * @param computation of the checked batch and what it is checked from.
 * @param parallel of a call that takes a part of a batch.
 */
export function prepareHidden<Values extends object>(
  given: GivenBatch,
  run: GivenRun,
  computation: (base: BatchRequest, batch: HiddenBatch<Logits>) => Computation<Values>,
  parallel?: CheckedParallel,
): PreparedCall<OfHidden<Values>> {
  const batch = asHiddenBatch(given);
  const options = checkHiddenRun(run, batch.bias !== undefined);
  const gradientScale = checkGradientScale(run.gradientScale);
  const checked = checkHiddenBatch(
    batch,
    run.threads,
    checkBackend(run.backend ?? 'auto'),
    run.memory,
    parallel,
  );
  const { hidden, base, layer } = checked;
  const { start, values, reference } = computation(base, batch);
  const made = prepareGradients(options, hidden, checked, run.buffers);
  const { data, request: asked, loans, discard } = made;
  const gradients: GradientRequest = {
    gradientMode: 0,
    gradient: undefined,
    gradientElements: 0,
    gradientIsFresh: false,
    gradientScale,
    rowScale: undefined,
    layerGradients: {
      hidden: asked.gradHidden,
      weight: asked.gradWeight,
      bias: asked.gradBias,
    },
  };
  const { gradHidden, gradWeight, gradBias } = data;
  return {
    request: { batch: base, reference, layer, gradients },
    start: (done?: Done) => start({ layer, gradients }, done) as never,
    memory: [hidden, batch.weight, batch.bias, gradHidden, gradWeight, gradBias],
    result: () => {
      const result = {
        ...values(),
        ...(gradHidden && { gradHidden }),
        ...(gradWeight && { gradWeight: gradWeight as Float32Gradient<Logits> }),
        ...(gradBias && { gradBias: gradBias as Float32Gradient<Logits> }),
        memory: layer.memoryUsed[0] as number,
      };
      if (run.buffers) makeLent(result, loans);
      return result;
    },
    discard,
  };
}
