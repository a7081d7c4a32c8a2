/** Weighted sums of losses, over one reduction of the logits and one gradient. */
import { typeError } from './errors.js';
import { checkObject, describe, isArray, readElements, readProperties } from './given.js';
import { checkNumber } from './interval.js';
import type { LossTerm } from './loss/results.js';
import { mixtureOf, type MixtureTerm } from './mixture.js';
import { mixtureBehind, withCalls, type ObjectiveCalls } from './objective.js';

/** A loss of a mixture, and what multiplies it. */
export interface WeightedObjective {
  /** Finite, at least 0. */
  readonly weight: number;
  /** What `dirAlignLoss` returned; of a mixture, its losses are taken one by one. */
  readonly objective: ObjectiveCalls;
}

/** What {@link mixLosses} returns. */
export type Mix = ObjectiveCalls & {
  /** The losses with their weights, in their order; `terms` of a result has their values. */
  readonly terms: readonly Omit<LossTerm, 'loss'>[];
};

/** More losses than this are a mistake. */
const mostTerms = 64;

/**
 * An objective whose loss is the weighted sum of others of one arity. Every call takes the batch
 * that all of them together need, reduces its logits once and makes one gradient. In a result,
 * `losses` are the weighted sums by unit, `rewards` those of the first loss, `terms` the parts, and
 * metrics that would clash have the name of their method in front (`dpo/rewards/chosen`). `sft`
 * beside other losses is the likelihood of the chosen (of unpaired methods: of the desirable), with
 * its own `sftReduction`.
 *
 * @throws DirAlignError with code ERR_DIRALIGN_OPTION
 *
 * @example
 * const mpo = mixLosses([
 *   { weight: 0.8, objective: dirAlignLoss('dpo', 0.1) },
 *   { weight: 0.2, objective: dirAlignLoss('bco_pair', 0.1) },
 *   { weight: 1, objective: dirAlignLoss('sft', 1, true, { sftReduction: 'mean' }) },
 * ]);
 */
export function mixLosses(terms: readonly WeightedObjective[]): Mix {
  const given = readElements(terms, mostTerms + 1);
  if (!isArray(given) || given.length === 0 || given.length > mostTerms)
    throw typeError(
      'ERR_DIRALIGN_OPTION',
      `terms: expected an array of 1 to ${mostTerms} objects with weight and objective, ` +
        `not ${isArray(given) ? `${given.length}` : describe(terms)}`,
    );
  const mixture = mixtureOf(given.flatMap(checkTerm), true);
  const own = mixture.terms.map(({ weight, settings }) =>
    Object.freeze({ method: settings.info.name, weight }),
  );
  const mix = withCalls(mixture, { terms: Object.freeze(own) });
  return mix as Mix;
}

function checkTerm(value: unknown, i: number): MixtureTerm[] {
  checkObject(`terms[${i}]`, value, 'ERR_DIRALIGN_OPTION', 'an object with weight and objective');
  const { weight, objective } = readProperties(`terms[${i}]`, value, ['weight', 'objective']);
  if (typeof weight !== 'number')
    throw typeError('ERR_DIRALIGN_OPTION', `terms[${i}].weight: ${describe(weight)} is no number`);
  checkNumber(`terms[${i}].weight`, weight, { min: 0 });
  const behind = mixtureBehind(objective);
  if (!behind)
    throw typeError(
      'ERR_DIRALIGN_OPTION',
      `terms[${i}].objective: expected what dirAlignLoss returned, not ${describe(objective)}`,
    );
  return behind.terms.map((term) => ({ ...term, weight: weight * term.weight }));
}
