/** Log-probabilities of sequences and of tokens. */
import { checkBackend } from './batch/dtype-and-place.js';
import { asHiddenBatch, asLogitsBatch, isHidden, readBatch } from './batch/given-batch.js';
import { checkHiddenBatch } from './batch/hidden.js';
import { checkLogitsBatch } from './batch/logits.js';
import type { HiddenBatch, Logits, LogitsBatch } from './batch/types.js';
import {
  checkParallel,
  type CheckedParallel,
  type Door,
  type Parallel,
} from './distributed/parallel.js';
import { typeError } from './errors.js';
import { checkObject, define, describe, readProperties } from './given.js';
import { computeLater, computeNow, refuseSignal, type PreparedCall } from './loss/call.js';
import type { SequenceLogps, TokenLogps } from './loss/results.js';
import { filled, resultOf } from './native/filled.js';
import * as requests from './native/requests.js';
import {
  type BadLabel,
  type BatchRequest,
  type Cancel,
  type Done,
  type GradientRequest,
  type LayerRequest,
} from './native/interface.js';

const logpsKeys = ['backend', 'threads', 'memory', 'parallel', 'signal'] as const;

/** Options of {@link sequenceLogps}; `Key`: what of `parallel` the call takes. */
export interface LogpsOptions<Key extends keyof Parallel = 'vocab' | 'sequence' | 'columnGrid'> {
  /** As in {@link RunOptions}. */
  readonly backend?: 'auto' | 'cpu' | 'cuda' | undefined;
  /** As in {@link RunOptions}. */
  readonly threads?: number | undefined;
  /** Of hidden states: bytes that the workspace may take, as {@link HiddenRunOptions} has it. */
  readonly memory?: number;
  /** Who has other columns, or other tokens, of the same sequences. */
  readonly parallel?: Pick<Parallel, Key> | undefined;
  /** `async` only: aborts. */
  readonly signal?: AbortSignal | undefined;
}

/** Options of {@link tokenLogps}. */
export interface TokenLogpsOptions<Asked extends boolean = boolean> extends LogpsOptions<
  'vocab' | 'columnGrid'
> {
  /**
   * Whether `logCollision` is wanted, on the CPU a second pass over each row; default false. Not
   * with `parallel`.
   */
  readonly collision?: Asked | undefined;
}

/** `logits`, or `hidden` and what goes with it. */
type AnyBatch = LogitsBatch<Logits> | HiddenBatch<Logits>;

interface CheckedBatch {
  readonly batch: BatchRequest;
  readonly layer: LayerRequest | undefined;
  readonly memory: readonly (Logits | undefined)[];
}

function checkBatch(
  given: unknown,
  options: LogpsOptions<never>,
  parallel: CheckedParallel,
): CheckedBatch {
  const batch = readBatch(given);
  const { threads, memory } = options;
  const backend = checkBackend(options.backend ?? 'auto');
  if (isHidden(batch)) {
    const own = asHiddenBatch(batch);
    const { base, layer, hidden } = checkHiddenBatch(own, threads, backend, memory, parallel);
    return { batch: base, layer, memory: [hidden, own.weight, own.bias] };
  }
  if (memory !== undefined) {
    throw typeError(
      'ERR_DIRALIGN_OPTION',
      'memory: logits take no workspace; it is for a batch of hidden states',
    );
  }
  const own = checkLogitsBatch(asLogitsBatch(batch), threads, backend, parallel);
  return { batch: own.request, layer: undefined, memory: [own.logits] };
}

const noGradient: GradientRequest = {
  gradientMode: 0,
  gradient: undefined,
  gradientElements: 0,
  gradientIsFresh: false,
  gradientScale: 1,
  rowScale: undefined,
  layerGradients: undefined,
};

/** What a call computes of a batch: how it is started, and its result. */
interface Started<Result> {
  readonly start: (done?: Done) => BadLabel | Cancel | undefined;
  readonly result: () => Result;
}

/** A call of a batch, at once and off the event loop. */
function callsOf<Result, Extra extends string>(
  door: Door,
  extra: readonly Extra[],
  start: (checked: CheckedBatch, options: Record<Extra, unknown>) => Started<Result>,
) {
  const read = (given: unknown) => {
    checkObject('options', given);
    return readProperties('options', given, [...extra, ...logpsKeys]) as LogpsOptions<never> &
      Record<Extra, unknown>;
  };
  type Options = ReturnType<typeof read>;
  const prepare =
    (batch: unknown, options: Options, parallel: CheckedParallel) => (): PreparedCall<Result> => {
      const checked = checkBatch(batch, options, parallel);
      const { layer, memory } = checked;
      const started = start(checked, options);
      return {
        request: { batch: checked.batch, layer, gradients: noGradient, reference: undefined },
        start: started.start as never,
        memory,
        result: started.result,
        discard: () => undefined,
      };
    };
  const call = (batch: unknown, given: unknown = {}): Result => {
    const options = read(given);
    refuseSignal(options.signal, `${door.name}.async`);
    const parallel = checkParallel(options.parallel, false, door);
    return computeNow(prepare(batch, options, parallel), parallel);
  };
  const later = async (batch: unknown, given: unknown = {}): Promise<Result> => {
    const options = read(given);
    const parallel = checkParallel(options.parallel, true, door);
    return computeLater(options.signal, prepare(batch, options, parallel), parallel);
  };
  define(call, 'async', later);
  return Object.freeze(call);
}

/** {@link sequenceLogps}. */
export interface SequenceLogpsCalls {
  /**
   * Log-probability of each sequence, summed over its scored rows: how a reference model's numbers
   * are made. The same kernel as training, from logits as from hidden states, so that a policy
   * equal to its reference has margins of exactly 0.
   * @throws DirAlignError before anything is computed
   */
  (batch: AnyBatch, options?: LogpsOptions): SequenceLogps;
  /** The same, bit for bit, off the event loop. */
  readonly async: (batch: AnyBatch, options?: LogpsOptions) => Promise<SequenceLogps>;
}

/** Log-probability of each sequence: see {@link SequenceLogpsCalls}. */
export const sequenceLogps = callsOf(
  { name: 'sequenceLogps', keys: ['vocab', 'sequence', 'columnGrid'] },
  [],
  ({ batch, layer }): Started<SequenceLogps> => {
    const request = { batch, layer, logps: filled('logps', 'Float64Array', batch.sequences) };
    return {
      start: (done) => requests.sequenceLogps(request, done),
      result: () => ({ logps: resultOf(request.logps), counts: resultOf(batch.counts) }),
    };
  },
) as SequenceLogpsCalls;

/** {@link tokenLogps}. */
export interface TokenLogpsCalls {
  /**
   * Per row: log-probability of the label, logsumexp of the logits, entropy of the softmax in nats;
   * with `collision` also the log of the sum of squared probabilities. All 0 on ignored rows.
   * @throws DirAlignError before anything is computed
   */
  <Asked extends boolean = false>(
    batch: AnyBatch,
    options?: TokenLogpsOptions<Asked>,
  ): TokenLogps<Asked>;
  /** The same, bit for bit, off the event loop. */
  readonly async: <Asked extends boolean = false>(
    batch: AnyBatch,
    options?: TokenLogpsOptions<Asked>,
  ) => Promise<TokenLogps<Asked>>;
}

/** What the logits say of each token: see {@link TokenLogpsCalls}. */
export const tokenLogps = callsOf(
  { name: 'tokenLogps', keys: ['vocab', 'columnGrid'] },
  ['collision'],
  ({ batch, layer }, { collision = false }): Started<TokenLogps<boolean>> => {
    if (typeof collision !== 'boolean')
      throw typeError('ERR_DIRALIGN_OPTION', `collision: ${describe(collision)} is not a boolean`);
    const { rows } = batch;
    const request = {
      batch,
      layer,
      logps: filled('logps', 'Float64Array', rows),
      logsumexp: filled('logsumexp', 'Float64Array', rows),
      entropy: filled('entropy', 'Float64Array', rows),
      collision: collision ? filled('logCollision', 'Float64Array', rows) : undefined,
    };
    return {
      start: (done) => requests.tokenLogps(request, done),
      result: () => {
        const logCollision = request.collision && resultOf(request.collision);
        return {
          logps: resultOf(request.logps),
          logsumexp: resultOf(request.logsumexp),
          entropy: resultOf(request.entropy),
          ...(logCollision && { logCollision }),
        };
      },
    };
  },
) as TokenLogpsCalls;
