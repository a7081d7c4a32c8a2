/** What a method is to the reference: a function of the log-probabilities of a unit's sequences. */
import { Dual } from './dual.js';
import type { FamilyFields, FieldName, Limit } from './fields.js';
import { at } from './numbers.js';

/** One sequence, as a loss sees it. */
export interface Side {
  /** S, or S / n where the objective normalises. */
  readonly policy: Dual;
  /** R likewise; 0 without a reference. */
  readonly reference: number;
  /** policy - reference, from one subtraction of the sums. */
  readonly ratio: Dual;
  /** log-odds of e^policy; 0 for a sequence without scored tokens. */
  readonly odds: Dual;
  /** n, the number of scored tokens or the sum of their weights. */
  readonly length: number;
  /** S and R, and what they are divided by in the numbers above. */
  readonly sums: readonly [policy: number, reference: number];
  readonly divisor: number;
}

/** Every option of every method. */
export interface Options {
  labelSmoothing: number;
  gamma: number;
  referenceFree: boolean;
  sftWeight: number;
  sftReduction: 'sequence' | 'token' | 'mean';
  lambda: number;
  calibrationWeight: number;
  divergence: 'reverse_kl' | 'forward_kl' | 'js' | 'alpha';
  alpha: number;
  tau: number;
  penalty: number;
  desirableWeight: number;
  undesirableWeight: number;
  rewardTemperature: number;
}

/** The loss of each unit of a batch. */
export type BatchLoss = (sides: readonly Side[], fields: FamilyFields) => readonly Dual[];

/** What is compared with what: see `countUnits`. */
export type Arity = 'pair' | 'single' | 'group';

export interface Method {
  readonly arity: Arity;
  readonly normalize: boolean;
  readonly reference: boolean;
  /** `beta` may be left out, and means nothing. */
  readonly takesNoBeta?: true;
  /** Its units depend on each other, and have no weights of their own. */
  readonly isCoupled?: true;
  /** Options the method has, with their defaults. */
  readonly options: Partial<Options>;
  /** Fields that mean something to it, beside those that do to every method and the needed ones. */
  readonly takes?: readonly FieldName[];
  readonly needs?: readonly FieldName[];
  /** Which `preferences` the formula allows; by default all of [0, 1]. */
  readonly preferences?: Limit;
  /** Undefined where the likelihood term is all there is. */
  readonly loss: ((beta: number, options: Options) => BatchLoss) | undefined;
}

/** Options of methods that may have a likelihood term beside them. */
export const likelihood = { sftWeight: 0, sftReduction: 'sequence' } as const;
/** Options of those that score log-ratios, too. */
export const scored = { ...likelihood, referenceFree: false } as const;

/** Units of so many sequences. */
export function countUnits(arity: Arity, sequences: number, fields: FamilyFields): number {
  if (arity === 'pair') return sequences / 2;
  return arity === 'single' ? sequences : (fields.groups?.length ?? NaN) - 1;
}

/** What the fields say of a pair. */
interface PairFields {
  /** What beta times the difference of the scores has to exceed. */
  readonly margin: number;
  /** Probability that the rejected is the better one, in place of `labelSmoothing`. */
  readonly error: number | undefined;
  /** In place of 1 / (2 beta). */
  readonly target: number | undefined;
}
type PairLoss = (chosen: Side, rejected: Side, fields: PairFields) => Dual;

/** Pairs: the first half of the sequences are the chosen. */
export function pairs(loss: PairLoss): BatchLoss {
  return (sides, { margins, preferences, targets }) => {
    const [chosen, rejected] = halves(sides);
    return chosen.map((side, i) =>
      loss(side, at(rejected, i), {
        margin: margins ? at(margins, i) : 0,
        error: preferences && 1 - at(preferences, i),
        target: targets && at(targets, i),
      }),
    );
  };
}

/** The chosen, and the rejected. */
export function halves(
  sides: readonly Side[],
): [chosen: readonly Side[], rejected: readonly Side[]] {
  const count = sides.length / 2;
  return [sides.slice(0, count), sides.slice(count)];
}

/**
 * An unpaired method: the loss falls (where desirable) or rises with the gain, beta times the score
 * above an anchor.
 */
export function unpaired(
  rising: (gain: Dual) => Dual,
  anchor: (beta: number, fields: FamilyFields) => number,
): NonNullable<Method['loss']> {
  return (beta, { desirableWeight, undesirableWeight }) =>
    (sides, fields) => {
      const { desirable = [] } = fields;
      const from = anchor(beta, fields);
      return sides.map(({ ratio }, b) => {
        const gain = ratio.times(beta).minus(from);
        return desirable[b]
          ? rising(gain.negated()).times(desirableWeight)
          : rising(gain).times(undesirableWeight);
      });
    };
}

/** One sequence of a group. */
export interface Candidate extends Side {
  readonly rank: number;
  readonly reward: number;
}

/** A loss of each group of candidates. */
export function groups(loss: (candidates: readonly Candidate[]) => Dual): BatchLoss {
  return (sides, { groups: offsets = [], ranks = [], rewards = [] }) => {
    const candidates = sides.map((side, b) => ({
      ...side,
      rank: at(ranks, b),
      reward: at(rewards, b),
    }));
    return Array.from({ length: offsets.length - 1 }, (_, g) =>
      loss(candidates.slice(offsets[g], offsets[g + 1])),
    );
  };
}
