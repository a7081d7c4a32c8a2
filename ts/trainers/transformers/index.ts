/** `diralign/transformers`: log-probabilities by models of transformers.js and onnxruntime. */
import { checkArray } from '../../batch/arrays.js';
import { rangeError, typeError } from '../../errors.js';
import { checkObject, describe, readProperties } from '../../given.js';
import { checkNumber } from '../../interval.js';
import { sequenceLogps } from '../../logps.js';
import type { SequenceLogps } from '../../loss/results.js';
import { forwardOf, logitsOf } from './model.js';
import { partOf, readSequences } from './rows.js';
import type {
  OnnxSession,
  ScoredRows,
  ScoreOptions,
  TensorConstructor,
  TransformersModel,
} from './types.js';

export type * from './types.js';
export type { SequenceLogps } from '../../loss/results.js';

const optionNames = ['Tensor', 'batchSize', 'policy', 'tolerance'] as const;

interface Settings {
  readonly Tensor: TensorConstructor<unknown>;
  readonly batchSize: number;
  readonly policy: SequenceLogps | undefined;
  readonly tolerance: number;
}

function readPolicy(given: unknown, sequences: number): SequenceLogps {
  checkObject('policy', given, 'ERR_DIRALIGN_REFERENCE', '{ logps, counts }');
  const { logps, counts } = given as Readonly<Record<string, unknown>>;
  const policy = {
    logps: checkArray('policy.logps', logps, ['Float64Array'], 'ERR_DIRALIGN_REFERENCE').slice(),
    counts: checkArray('policy.counts', counts, ['Int32Array'], 'ERR_DIRALIGN_REFERENCE').slice(),
  };
  for (const [name, { length }] of Object.entries(policy)) {
    if (length === sequences) continue;
    throw rangeError(
      'ERR_DIRALIGN_REFERENCE',
      `policy.${name}: length ${length}; expected ${sequences}, one per sequence of the batch`,
    );
  }
  return policy;
}

function readOptions(options: unknown, sequences: number): Settings {
  checkObject('options', options, 'ERR_DIRALIGN_OPTION', '{ Tensor }');
  const { Tensor, batchSize, policy, tolerance } = readProperties('options', options, optionNames);
  if (typeof Tensor !== 'function') {
    throw typeError(
      'ERR_DIRALIGN_OPTION',
      `Tensor: expected the class of onnxruntime or of transformers.js, not ${describe(Tensor)}`,
    );
  }
  if (tolerance !== undefined && policy === undefined) {
    throw typeError('ERR_DIRALIGN_OPTION', 'tolerance: needs a policy to compare with');
  }
  const most = batchSize === undefined ? 8 : checkNumber('batchSize', batchSize, { min: 1 });
  if (!Number.isInteger(most))
    throw rangeError('ERR_DIRALIGN_OPTION', `batchSize: ${most} is not a whole number`);
  return {
    Tensor: Tensor as TensorConstructor<unknown>,
    batchSize: most,
    policy: policy === undefined ? undefined : readPolicy(policy, sequences),
    tolerance: tolerance === undefined ? 0.01 : checkNumber('tolerance', tolerance, { min: 0 }),
  };
}

/** @throws DirAlignError where the runtime and the policy do not say the same of a sequence */
function checkAgreement(found: SequenceLogps, { policy, tolerance }: Settings): void {
  policy?.logps.forEach((theirs, i) => {
    const [count, ours] = [found.counts[i] as number, found.logps[i] as number];
    if (policy.counts[i] !== count) {
      throw rangeError(
        'ERR_DIRALIGN_REFERENCE',
        `policy.counts: ${policy.counts[i]} at index ${i}; expected ${count}, ` +
          'the scored rows of that sequence: it is of another batch',
      );
    }
    const difference = Math.abs(ours - theirs) / Math.max(1, count);
    // Written so that a NaN is refused.
    if (difference <= tolerance) return;
    throw rangeError(
      'ERR_DIRALIGN_REFERENCE',
      `policy: gives sequence ${i} a log-probability of ${theirs}, this runtime ${ours}: ` +
        `${difference} a token, more than ${tolerance}. They differ in weights, ` +
        'precision (a quantised file?) or tokens; have the runtime that trains the policy ' +
        'compute the reference',
    );
  });
}

/**
 * Log-probability of each sequence, summed over its scored rows, by a model that only infers: for
 * evaluation, implicit rewards, and a reference of the same weights as the policy.
 *
 *     const model = await AutoModelForCausalLM.from_pretrained(name, { dtype: 'fp32' });
 *     const { logps: reference } = await scoreSequences(model, pairs, { Tensor });
 *
 * The model gets `batchSize` sequences at a time, padded on the right to the longest of them, with
 * their `attention_mask`; a session also gets `position_ids` where it has them. The kernel that
 * sums the logits is that of {@link sequenceLogps}.
 *
 * The loss compares policy and reference number by number. Where another runtime, another precision
 * or another tokenizer made the reference, margins are off from the first step on. Pass what the
 * untrained policy gives as `policy`, and such a difference is refused.
 *
 * @param model an `InferenceSession` of onnxruntime, or a causal language model of transformers.js
 * @param batch what `collatePairs`, `collateUnpaired` or `collateGroups` returns, padded or packed
 * @returns in the order of the batch's sequences
 * @throws DirAlignError (as a rejection) with code ERR_DIRALIGN_OPTION for another kind of model or
 *   options, and for inputs or outputs that no decoder without a cache has; ERR_DIRALIGN_LABEL and
 *   ERR_DIRALIGN_SHAPE for a batch that no collator returns, and ids outside the vocabulary;
 *   ERR_DIRALIGN_SHAPE and ERR_DIRALIGN_DTYPE for other logits than float32 or float16 of every
 *   row; ERR_DIRALIGN_REFERENCE where `policy` differs. What the model throws, it rejects with.
 */
export async function scoreSequences(
  model: OnnxSession | TransformersModel,
  batch: ScoredRows,
  options: ScoreOptions,
): Promise<SequenceLogps> {
  const sequences = readSequences(batch);
  const count = sequences.spans.length;
  const settings = readOptions(options, count);
  const forward = forwardOf(model, settings.Tensor);
  const found = { logps: new Float64Array(count), counts: new Int32Array(count) };
  for (let first = 0; first < count; first += settings.batchSize) {
    const part = partOf(sequences, first, first + settings.batchSize);
    const { data: logits, dtype, shape } = await logitsOf(await forward(part), part);
    const { labels } = part;
    const scored = sequenceLogps({ logits, dtype, shape, labels }, { backend: 'cpu' });
    found.logps.set(scored.logps, first);
    found.counts.set(scored.counts, first);
  }
  checkAgreement(found, settings);
  return found;
}
