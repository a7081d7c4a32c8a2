// Twists: what is done to a fine call to find out whether the package stands it.
import { methods } from '../../ts/index.js';
import type { Random } from '../support/numbers.js';
import type { Call } from './call.js';

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

/** Whether the numbers of an array matter to the call. */
export function isRead({ plan }: Call, key: string): boolean {
  const { method, referenceFree, sftWeight = 0 } = plan.config;
  if (key === 'sftLabels') return sftWeight > 0;
  if (key !== 'reference') return true;
  const needsReference = methods().find(({ name }) => name === method)?.reference === true;
  return plan.door !== 'tokens' && needsReference && referenceFree !== true;
}
