/** Which losses a batch of a file is enough for, and what of it goes to each. */
import { fieldNames, transformNames, type FieldName } from '../batch/fields.js';
import type { LogitsBatch, LogitTransforms } from '../batch/types.js';
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
  if (missing.length > 0)
    return { missing, reason: `the batch has no ${missing.join(' and no ')}` };
  const reason = misfit(losses, batch);
  return reason === undefined ? undefined : { missing, reason };
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
