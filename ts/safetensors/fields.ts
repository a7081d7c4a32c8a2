/** What a batch carries besides its rows and the reference, in tensors of the same names. */
import { fieldNames, transformNames } from '../batch/fields.js';
import type { BatchFields, LogitTransforms } from '../batch/types.js';
import { contract } from '../contract.generated.js';
import type { BatchTensors, NamedTensor } from './tensors.js';

type Fields = BatchFields & LogitTransforms;

const baseline = ['kl.logps', 'kl.reference'] as const;

/** Tensors that are fields, by the library's names. */
export const fieldTensors: readonly string[] = [
  ...fieldNames,
  'groups',
  ...transformNames,
  ...baseline,
];

/** Sizes of a batch that fields have, too. */
export interface BatchSizes {
  readonly sequences: number;
  /** Shape of the labels. */
  readonly rows: readonly number[];
}

/**
 * Fields of the batch. Which of them a loss takes, and whether their numbers are right, is for the
 * loss to say; `weights` may be those of pairs, of sequences or of groups.
 *
 * @throws DirAlignError with code ERR_DIRALIGN_FILE for a tensor of another dtype or shape
 */
export function readFields(tensors: BatchTensors, { sequences, rows }: BatchSizes): Fields {
  const fields: Record<string, unknown> = {};
  const groups = groupsOf(tensors, sequences);
  if (groups) fields.groups = groups;
  const units = [sequences, ...(sequences % 2 === 0 ? [sequences / 2] : [])];
  if (groups) units.push(groups.length - 1);
  const shapes = { unit: units.map((count) => [count]), sequence: [[sequences]], row: [rows] };
  for (const { name, per, kind } of contract.fields) {
    const tensor = tensors.find(name);
    if (tensor === undefined) continue;
    if (per !== 'batch') tensors.shaped(tensor, ...shapes[per]);
    const read = per === 'batch' ? 'scalar' : readers[kind];
    fields[name] = tensors[read](tensor);
  }
  for (const name of transformNames) {
    const tensor = tensors.find(name);
    if (tensor) fields[name] = tensors.scalar(tensor);
  }
  const mismatched = baselineOf(tensors);
  if (mismatched) fields.kl = mismatched;
  return fields;
}

const readers = { number: 'floats', flag: 'flags', rank: 'int32' } as const;

/** Offsets that rise from 0 to all sequences. */
function groupsOf(tensors: BatchTensors, sequences: number): Int32Array | undefined {
  const tensor = tensors.find('groups');
  if (tensor === undefined) return undefined;
  const groups = tensors.int32(tensor);
  tensors.shaped(tensor, [groups.length]);
  const rising = groups.every((first, g) => g === 0 || first > (groups[g - 1] as number));
  if (groups.length < 2 || groups[0] !== 0 || !rising || groups.at(-1) !== sequences)
    throw tensors.defect(
      tensor.name,
      `expected offsets over the sequences, each above the one before, from 0 to ${sequences}.`,
    );
  return groups;
}

/** KTO's baseline as the log-probabilities of mismatched completions. */
function baselineOf(tensors: BatchTensors): BatchFields['kl'] {
  const [logps, reference] = baseline.map((name) => tensors.find(name));
  const one = logps ?? reference;
  if (one === undefined) return undefined;
  const scalar = tensors.find('kl');
  if (scalar) throw tensors.defect(scalar.name, `there is "${one.name}", too.`);
  const [a, b] = [logps, reference].map((tensor, i) => tensor ?? tensors.needed(baseline[i] ?? ''));
  const [policy, other] = [a as NamedTensor, b as NamedTensor];
  const count = tensors.floats(policy).length;
  tensors.shaped(policy, [count]);
  tensors.shaped(other, [count]);
  return { logps: tensors.floats(policy), reference: tensors.floats(other) };
}
