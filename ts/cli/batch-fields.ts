/** Which losses a batch of a file is enough for, and what of it goes to each. */
import { fieldNames, transformNames, type FieldName } from '../batch/fields.js';
import type { LogitsBatch, LogitTransforms } from '../batch/types.js';
import { within } from '../interval.js';
import type { Mixture } from '../mixture.js';
import { mixtureBehind, type ObjectiveCalls } from '../objective.js';
import { areUnits, unitName, unitsOf } from '../units.js';
import { plural } from '../text/table.js';

type Field = FieldName | 'groups' | keyof LogitTransforms;
const transforms: readonly Field[] = transformNames;
const fields: readonly Field[] = [...fieldNames, 'groups', ...transforms];

/** The losses of an objective. */
export function lossesOf(objective: ObjectiveCalls): Mixture {
  return mixtureBehind(objective) as Mixture;
}

/** The names of the fields that a batch has. */
export function fieldsIn(batch: LogitsBatch): readonly Field[] {
  return fields.filter((name) => batch[name] !== undefined);
}

export function sequencesOf({ shape, offsets }: Pick<LogitsBatch, 'shape' | 'offsets'>): number {
  return offsets ? offsets.length - 1 : shape[0];
}

/** The batch without the fields that mean nothing to the objective. */
export function batchFor(objective: ObjectiveCalls, batch: LogitsBatch): LogitsBatch {
  const { arity, fields: taken } = lossesOf(objective);
  const without = fieldsIn(batch).filter((name) =>
    name === 'groups'
      ? arity !== 'group'
      : !transforms.includes(name) && !Object.hasOwn(taken, name),
  );
  return { ...batch, ...Object.fromEntries(without.map((name) => [name, undefined])) };
}

/** What an objective misses in a batch. */
export interface Lack {
  /** The tensors that are not there. */
  readonly missing: readonly (Field | 'reference')[];
  /** In words, which begin with 'the batch'. */
  readonly reason: string;
  readonly code: 'ERR_DIRALIGN_OPTION' | 'ERR_DIRALIGN_SHAPE';
}

/** Why an objective cannot be computed of this batch. */
export function lackOf(objective: ObjectiveCalls, batch: LogitsBatch): Lack | undefined {
  const losses = lossesOf(objective);
  const needed: (Field | 'reference')[] = [
    ...(losses.usesReference ? (['reference'] as const) : []),
    ...(losses.arity === 'group' ? (['groups'] as const) : []),
    ...fieldNames.filter((name) => losses.fields[name]?.needed),
  ];
  const missing = needed.filter((name) => batch[name] === undefined);
  const option = 'ERR_DIRALIGN_OPTION';
  if (missing.length > 0)
    return { missing, reason: `the batch has no ${missing.join(' and no ')}`, code: option };
  const wrongSize = misfit(losses, batch);
  if (wrongSize !== undefined) return { missing, reason: wrongSize, code: 'ERR_DIRALIGN_SHAPE' };
  const preference = unfitPreference(losses, batch);
  if (preference === undefined) return undefined;
  return { missing, reason: `the batch has a preference of ${preference}`, code: option };
}

/** A probability that other losses take and one of these does not. */
function unfitPreference({ fields }: Mixture, { preferences }: LogitsBatch): number | undefined {
  if (!fields.preferences || !preferences) return undefined;
  const isTaken = within(fields.preferences);
  const isUnfit = (x: number): boolean => x >= 0 && x <= 1 && !isTaken(x);
  return Array.from(preferences).find(isUnfit);
}

/** Sequences that are no units of the losses, or fields of another number of them. */
function misfit(losses: Mixture, batch: LogitsBatch): string | undefined {
  const sequences = sequencesOf(batch);
  if (!areUnits(losses, sequences))
    return `the batch has ${plural(sequences, 'sequence')}, which are no pairs`;
  const units = unitsOf(losses, sequences, batch.groups);
  for (const name of ['weights', 'margins', 'preferences', 'targets'] as const) {
    const values = losses.fields[name] && batch[name];
    if (values && values.length !== units)
      return `the batch has ${values.length} ${name} and ${plural(units, unitName(losses))}`;
  }
  return undefined;
}
