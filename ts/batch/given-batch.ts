/** The properties of a batch, each read once, and which kind of batch it is. */
import { fieldNames, transformNames } from './fields.js';
import { typeError } from '../errors.js';
import { checkObject, readElements, readProperties } from '../given.js';
import type { HiddenBatch, Logits, LogitsBatch } from './types.js';

const batchKeys = [
  'logits',
  'rowStride',
  'hidden',
  'weight',
  'bias',
  'hiddenSize',
  'dtype',
  'shape',
  'offsets',
  'labels',
  'ignoreIndex',
  'reference',
  'sftLabels',
  'shard',
  ...fieldNames,
  'groups',
  ...transformNames,
] as const;

/** What `collatePairs` returns beside labels and offsets. */
const collated: ReadonlySet<string> = new Set([
  'sequences',
  'tokens',
  'rows',
  'inputIds',
  'attentionMask',
  'positionIds',
  'truncated',
  'madeIdentical',
]);

const ofLayers = ['hidden', 'weight', 'bias', 'hiddenSize'] as const;

const ofLogits = ['logits', 'rowStride'] as const;

/** A batch of either kind, each property read once. What the properties hold is not checked yet. */
export type GivenBatch = Readonly<Record<(typeof batchKeys)[number], unknown>>;

/** @throws DirAlignError for what is no object, or has properties that no batch has */
export function readBatch(
  batch: unknown,
  expected = 'an object with logits, shape and labels',
): GivenBatch {
  checkObject('batch', batch, 'ERR_DIRALIGN_SHAPE', expected);
  const given = readProperties('batch', batch, batchKeys, 'ERR_DIRALIGN_SHAPE', collated);
  given.shape = readElements(given.shape, 4); // as many as tell that there are too many
  return given;
}

/** Whether a batch is one of hidden states, in a call that takes either kind. */
export function isHidden(batch: GivenBatch): boolean {
  return batch.logits === undefined && ofLayers.some((name) => batch[name] !== undefined);
}

/** @throws DirAlignError where it has properties of hidden states */
export function asLogitsBatch(batch: GivenBatch): LogitsBatch<Logits> {
  const other = ofLayers.find((name) => batch[name] !== undefined);
  if (other !== undefined) {
    const advice = 'a batch of hidden states goes to fromHidden';
    throw typeError('ERR_DIRALIGN_SHAPE', `${other}: a batch of logits has none; ${advice}`);
  }
  return batch as unknown as LogitsBatch<Logits>;
}

/** @throws DirAlignError where it has properties of logits */
export function asHiddenBatch(batch: GivenBatch): HiddenBatch<Logits> {
  const other = ofLogits.find((name) => batch[name] !== undefined);
  if (other !== undefined) {
    const why =
      other === 'logits'
        ? 'a batch of hidden states has none; they are what is never made'
        : 'hidden states have none; rows of hidden and weight follow one another without gaps';
    throw typeError('ERR_DIRALIGN_SHAPE', `${other}: ${why}`);
  }
  return batch as unknown as HiddenBatch<Logits>;
}
