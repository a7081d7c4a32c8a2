/** `diralign/jax-js`: training steps of jax-js that are split at the logits. */
import type { Array as JaxArray, JsTree } from '@jax-js/jax';
import { checkObjective } from '../bindings.js';
import { typeError } from '../../errors.js';
import { checkObject, describe, readProperties } from '../../given.js';
import type { Method, ReferenceNeed } from '../../catalogue.js';
import { sequenceLogps as sequenceLogpsOf } from '../../logps.js';
import type { ObjectiveCalls } from '../../objective.js';
import { readLater, readNow } from './arrays.js';
import type { SequenceLogps } from '../../loss/results.js';
import { begin, batchOf, callOf } from './step.js';
import type {
  JaxAsyncRunOptions,
  JaxBatch,
  JaxForward,
  JaxLoss,
  JaxLossResult,
  JaxSequenceLogps,
  JaxLogpsBatch,
  JaxLogpsOptions,
} from './types.js';

export type * from './types.js';

const logpsKeys = ['threads', 'memory'] as const;
const runKeys = [...logpsKeys, 'gradient', 'gradientScale', 'metrics', 'buffers'] as const;
const asyncRunKeys = [...runKeys, 'signal'] as const;

/**
 * An objective as a training step of jax-js, which has no custom gradients to make a differentiable
 * op of it.
 *
 * @param objective what `dirAlignLoss` returns.
 * @throws DirAlignError with code ERR_DIRALIGN_OPTION
 *
 * @example
 * const dpo = jaxDirAlignLoss(dirAlignLoss('dpo', 0.1));
 * const { loss, grads } = dpo((params) => forward(params, tokens), params, { labels, reference });
 * params = tree.map((p, g) => p.sub(g.mul(learningRate)), params, grads);
 */
export function jaxDirAlignLoss<M extends Method, Need extends ReferenceNeed>(
  objective: ObjectiveCalls<M, Need>,
): JaxLoss<M, Need> {
  const calls = objective as unknown as ObjectiveCalls;
  checkObjective(calls);
  type Params = JsTree<JaxArray>;
  type Result = JaxLossResult<Params>;
  const now = (
    forward: JaxForward<Params>,
    params: Params,
    batch: JaxBatch,
    given: JaxAsyncRunOptions = {},
  ): Result => {
    const run = readRun(given, runKeys);
    const step = begin(forward, params, batch, run.gradient !== 'none');
    try {
      const call = callOf(step, step.read(readNow(step.arrays())), run);
      return call.from === 'hidden'
        ? call.result(calls.fromHidden(call.batch, call.run))
        : call.result(calls(call.batch, call.run));
    } finally {
      step.pass.dispose();
    }
  };
  const later = async (
    forward: JaxForward<Params>,
    params: Params,
    batch: JaxBatch,
    given: JaxAsyncRunOptions = {},
  ): Promise<Result> => {
    const run = readRun(given, asyncRunKeys);
    const step = begin(forward, params, batch, run.gradient !== 'none');
    try {
      const call = callOf(step, step.read(await readLater(step.arrays())), run);
      return call.from === 'hidden'
        ? call.result(await calls.fromHidden.async(call.batch, call.run))
        : call.result(await calls.async(call.batch, call.run));
    } finally {
      step.pass.dispose();
    }
  };
  return Object.freeze(Object.assign(now, { async: later })) as unknown as JaxLoss<M, Need>;
}

/**
 * Log-probability of each sequence, summed over its scored rows, in nats and float64: how a
 * reference model's numbers are made, by the same kernel as training. The model and its parameters
 * are those of {@link JaxLoss}, and nothing is differentiated.
 *
 * @example
 * const logits = (params) => forward(params, tokens);
 * const { logps: reference } = sequenceLogps(logits, referenceParams, { labels });
 */
export const sequenceLogps: JaxSequenceLogps = Object.freeze(
  Object.assign(logpsNow, { async: logpsLater }),
);

function logpsNow<Params extends JsTree<JaxArray>>(
  forward: JaxForward<Params>,
  params: Params,
  batch: JaxLogpsBatch,
  given: JaxLogpsOptions = {},
): SequenceLogps {
  const run = readLogpsRun(given);
  const step = begin(forward, params, batch, false);
  try {
    return sequenceLogpsOf(batchOf(step, step.read(readNow(step.arrays()))), run);
  } finally {
    step.pass.dispose();
  }
}

async function logpsLater<Params extends JsTree<JaxArray>>(
  forward: JaxForward<Params>,
  params: Params,
  batch: JaxLogpsBatch,
  given: JaxLogpsOptions = {},
): Promise<SequenceLogps> {
  const run = readLogpsRun(given);
  const step = begin(forward, params, batch, false);
  try {
    return sequenceLogpsOf(batchOf(step, step.read(await readLater(step.arrays()))), run);
  } finally {
    step.pass.dispose();
  }
}

function readLogpsRun(run: JaxLogpsOptions): JaxLogpsOptions {
  checkObject('run', run);
  return readProperties('run', run, logpsKeys) as JaxLogpsOptions;
}

function readRun(
  given: JaxAsyncRunOptions,
  keys: typeof runKeys | typeof asyncRunKeys,
): JaxAsyncRunOptions {
  checkObject('run', given);
  const run = readProperties<keyof JaxAsyncRunOptions>('run', given, keys) as JaxAsyncRunOptions;
  const { gradient = 'dense' } = run;
  if (!['dense', 'none'].includes(gradient)) {
    throw typeError(
      'ERR_DIRALIGN_OPTION',
      `run.gradient: ${describe(gradient)} is not one of 'dense', 'none'`,
    );
  }
  return run;
}
