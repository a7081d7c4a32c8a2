// Twists: what is done to a fine call to find out whether the package stands it.
import { methods } from '../../ts/index.js';
import { contract } from '../../ts/contract.generated.js';
import { configsOf, isMix } from '../../ts/verification/objectives.js';
import type { Random } from '../support/numbers.js';
import type { Call } from './call.js';
import { lossOf } from './plan.js';

/**
 * What must come of a call: the numbers of the call without the twist, to the bit; a refusal;
 * either of the two; an error that user code threw, or a refusal; anything that is a result or a
 * refusal.
 */
export type Expectation = 'same' | 'refused' | 'same or refused' | 'thrown' | 'any';

export interface Twisted {
  readonly expect: Expectation;
  /** What was done, for reports. */
  readonly what: string;
  /** The call may also end as aborted. */
  readonly mayAbort?: boolean;
}

export interface Twist {
  readonly name: string;
  /** Changes the call; undefined where there is nothing in it to change. */
  apply(call: Call, random: Random): Twisted | undefined;
}

/** What must come of all of them together. */
export function combined(all: readonly Twisted[]): Expectation {
  const changing = all.filter(({ expect }) => expect !== 'same');
  return changing.length === 0
    ? 'same'
    : changing.length === 1
      ? (changing[0]?.expect ?? 'any')
      : 'any';
}

/** An error that only user code can have thrown. */
export function planted(call: Call): Error {
  const error = new Error('thrown by the caller');
  call.planted.add(error);
  return error;
}

/** Arrays of the derivatives that `logpsBackward` takes. */
export const derivativeKeys: ReadonlySet<string> = new Set(['rows', 'sequences', 'entropy']);
/** Arrays that a call copies before it starts: what happens to them later changes nothing. */
export const copiedKeys: ReadonlySet<string> = new Set<string>([
  ...contract.fields.map(({ name }) => name),
  ...derivativeKeys,
  'groups',
]);

/** Whether the numbers of an array matter to the call. */
export function isRead({ plan }: Call, key: string): boolean {
  const loss = lossOf(plan);
  const configs = configsOf(loss);
  if (key === 'sftLabels')
    return configs.some(
      ({ method, sftWeight = 0 }) => sftWeight > 0 || (isMix(loss) && method === 'sft'),
    );
  if (key !== 'reference') return true;
  const { door } = plan;
  return (
    door !== 'tokens' &&
    door !== 'backward' &&
    configs.some(
      ({ method, referenceFree }) =>
        referenceFree !== true && methods().find(({ name }) => name === method)?.reference === true,
    )
  );
}
