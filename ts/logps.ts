import { allocate } from './batch/arrays.js';
import { checkBackend } from './batch/dtype-and-place.js';
import { asHiddenBatch, asLogitsBatch, isHidden, readBatch } from './batch/given-batch.js';
import { checkHiddenBatch } from './batch/hidden.js';
import { checkLogitsBatch } from './batch/logits.js';
import type { HiddenBatch, Logits, LogitsBatch } from './batch/types.js';
import { typeError } from './errors.js';
import { checkObject, describe, readProperties } from './given.js';
import type { SequenceLogps, TokenLogps } from './loss/results.js';
import { compute } from './native/call.js';
import * as listed from './native/listed.js';
import { native, type BatchRequest, type LayerRequest } from './native/interface.js';

const logpsKeys = ['backend', 'threads', 'memory'] as const;

/** Options of {@link sequenceLogps} and {@link tokenLogps}. */
export interface LogpsOptions {
  /** As in {@link RunOptions}. */
  readonly backend?: 'auto' | 'cpu' | 'cuda' | undefined;
  /** As in {@link RunOptions}. */
  readonly threads?: number | undefined;
  /** Of hidden states: bytes that the workspace may take, as {@link HiddenRunOptions} has it. */
  readonly memory?: number;
}

/** `logits`, or `hidden` and what goes with it. */
type AnyBatch = LogitsBatch<Logits> | HiddenBatch<Logits>;

interface PreparedLogps {
  readonly batch: BatchRequest;
  readonly layer: LayerRequest | undefined;
}

function prepareLogps(given: unknown, givenOptions: unknown): PreparedLogps {
  checkObject('options', givenOptions);
  const options = readProperties('options', givenOptions, logpsKeys) as LogpsOptions;
  const batch = readBatch(given);
  const { threads, memory } = options;
  const backend = checkBackend(options.backend ?? 'auto');
  if (isHidden(batch)) {
    const { base, layer } = checkHiddenBatch(asHiddenBatch(batch), threads, backend, memory);
    return { batch: base, layer };
  }
  if (memory !== undefined) {
    throw typeError(
      'ERR_DIRALIGN_OPTION',
      'memory: logits take no workspace; it is for a batch of hidden states',
    );
  }
  return {
    batch: checkLogitsBatch(asLogitsBatch(batch), threads, backend).request,
    layer: undefined,
  };
}

/**
 * Log-probability of each sequence, summed over its scored rows: how a reference model's numbers
 * are made. The same kernel as training, from logits as from hidden states, so that a policy equal
 * to its reference has margins of exactly 0.
 * @throws DirAlignError before anything is computed
 */
export function sequenceLogps(batch: AnyBatch, options: LogpsOptions = {}): SequenceLogps {
  const prepared = prepareLogps(batch, options);
  const request = {
    ...prepared,
    logps: allocate('logps', 'Float64Array', prepared.batch.sequences),
  };
  compute(request, () => native().sequenceLogps(listed.sequenceLogps(request)));
  return { logps: request.logps, counts: request.batch.counts };
}

/** Options of {@link tokenLogps}. */
export interface TokenLogpsOptions<Asked extends boolean = boolean> extends LogpsOptions {
  /** Whether `logCollision` is wanted, on the CPU a second pass over each row; default false. */
  readonly collision?: Asked | undefined;
}

/**
 * Per row: log-probability of the label, logsumexp of the logits, entropy of the softmax in nats;
 * with `collision` also the log of the sum of squared probabilities. All 0 on ignored rows.
 * @throws DirAlignError before anything is computed
 */
export function tokenLogps<Asked extends boolean = false>(
  batch: AnyBatch,
  options: TokenLogpsOptions<Asked> = {},
): TokenLogps<Asked> {
  checkObject('options', options);
  const { collision = false, ...rest } = readProperties('options', options, [
    'collision',
    ...logpsKeys,
  ]);
  if (typeof collision !== 'boolean')
    throw typeError('ERR_DIRALIGN_OPTION', `collision: ${describe(collision)} is not a boolean`);
  const prepared = prepareLogps(batch, rest);
  const { rows } = prepared.batch;
  const request = {
    ...prepared,
    logps: allocate('logps', 'Float64Array', rows),
    logsumexp: allocate('logsumexp', 'Float64Array', rows),
    entropy: allocate('entropy', 'Float64Array', rows),
    collision: collision ? allocate('logCollision', 'Float64Array', rows) : undefined,
  };
  compute(request, () => native().tokenLogps(listed.tokenLogps(request)));
  const { logps, logsumexp, entropy } = request;
  return {
    logps,
    logsumexp,
    entropy,
    ...(request.collision && { logCollision: request.collision }),
  } as TokenLogps<Asked>;
}
