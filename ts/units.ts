/**
 * Units: a loss has one value for each. A unit of a method of pairs is a chosen and a rejected
 * sequence; the first half of a batch is the chosen ones. A unit of a method of single sequences is
 * one of them; of a method of groups, consecutive candidates.
 */
import type { MethodInfo } from './catalogue.js';
import { rangeError } from './errors.js';

export type Arity = MethodInfo['arity'];
type WithArity = Pick<MethodInfo, 'arity'>;

/** Whether a unit has a chosen and a rejected sequence. */
export function isPaired({ arity }: WithArity): boolean {
  return arity === 'pair';
}

/** What a unit is, in a word. */
export function unitName({ arity }: WithArity): 'pair' | 'sequence' | 'group' {
  return arity === 'single' ? 'sequence' : arity;
}

/** How many units so many sequences are; `groups`: offsets of a method of groups. */
export function unitsOf({ arity }: WithArity, sequences: number, groups?: Int32Array): number {
  if (arity === 'group') return groups ? groups.length - 1 : 0;
  return arity === 'pair' ? sequences / 2 : sequences;
}

/** Whether so many sequences are one unit or more, without any left over. */
export function areUnits(info: WithArity, sequences: number): boolean {
  return sequences >= 1 && (!isPaired(info) || sequences % 2 === 0);
}

/**
 * @param mayBeNone of a process that others share a batch with.
 * @throws DirAlignError for sequences that are no units of the method
 */
export function checkSequences(info: WithArity, sequences: number, mayBeNone = false): void {
  if (areUnits(info, sequences) || (mayBeNone && sequences === 0)) return;
  const expected = isPaired(info)
    ? 'an even number of at least 2: the chosen, then the rejected'
    : 'at least 1';
  throw rangeError(
    'ERR_DIRALIGN_SHAPE',
    `shape: ${String(sequences)} sequences; expected ${expected}`,
  );
}
