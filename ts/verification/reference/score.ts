/** Objectives of sequence log-probabilities, and their gradients in them. */
import { rangeError } from '../../errors.js';
import type { Resolved } from './config.js';
import { Dual, logOdds } from './dual.js';
import { checkFields, checkValues, type FamilyFields } from './fields.js';
import { type Arity, countUnits, type Side } from './method.js';
import { at, sum } from './numbers.js';
import { Wide } from '../wide.js';

/** Sums over the scored rows of sequences. */
export interface Sums {
  /** S. */
  readonly logps: ArrayLike<number>;
  /** n: the number of rows, or the sum of their weights. */
  readonly counts: ArrayLike<number>;
}

/** The sequences of a batch. */
export interface Sequences extends Sums, FamilyFields {
  readonly reference?: ArrayLike<number> | undefined;
  /** The likelihood term's own sums, where its labels differ from those of the alignment term. */
  readonly likelihood?: Sums | undefined;
}

/** What an objective makes of sequences. */
export interface Scores {
  readonly loss: number;
  /** Per unit, before weights and denominator, the likelihood term included. */
  readonly losses: Float64Array;
  /** Per sequence. */
  readonly rewards: Float64Array;
  /** Per sequence: dLoss/dS, the likelihood term left out. */
  readonly coefficients: Float64Array;
  /** Per sequence: dLoss/dS of the likelihood term, S being the sum over its own labels. */
  readonly likelihood: Float64Array;
}

/** How the units of a batch become its loss: sum of w_u l_u / denominator. */
interface Units {
  readonly count: number;
  readonly weight: (u: number) => number;
  readonly denominator: number;
}

function unitsOf(arity: Arity, sequences: number, fields: FamilyFields): Units {
  const count = countUnits(arity, sequences, fields);
  const { weights, denominator = count } = fields;
  return { count, weight: (u) => (weights ? at(weights, u) : 1), denominator };
}

/** Sum of w_u x_u: a unit of weight 0 is left out, whatever its x is. */
function weighted({ count, weight }: Units, x: (u: number) => number): number {
  return sum(count, (u) => (weight(u) === 0 ? 0 : weight(u) * x(u)));
}

/** n, or 1 where it is 0: nothing is scored there. */
function divisorOf(n: number): number {
  return n === 0 ? 1 : n;
}

interface Likelihood {
  /** Per unit. */
  readonly losses: Float64Array;
  /** Per sequence: d(sum of w_u losses_u / denominator)/dS. */
  readonly slopes: Float64Array;
}

/**
 * The negative log-likelihood of the chosen of pairs, of the desirable of single sequences, or of
 * all of them.
 *
 * 'sequence': -S_b, over n_b where the objective normalises; 'mean': -S_b / n_b. 'token': the sum
 * of w_u (-S_b) over `sftDenominator`, whatever the denominator of the units is; a unit's loss is
 * then the one that makes this of the units: for `sft` a sequence's share, beside an alignment term
 * the same for every unit.
 */
function likelihoodTerm(
  { arity, loss, normalize, options }: Resolved,
  units: Units,
  { logps, counts }: Sums,
  { desirable, sftDenominator }: FamilyFields,
): Likelihood {
  const isScored = (b: number): boolean =>
    arity === 'pair' ? b < units.count : !desirable || Boolean(desirable[b]);
  // A sequence that the term scores has the index of its unit.
  const nll = (b: number): number => (isScored(b) && at(counts, b) !== 0 ? -at(logps, b) : 0);
  const tokens = sum(logps.length, (b) => (isScored(b) ? at(counts, b) : 0));
  const byToken = options.sftReduction === 'token';
  const perToken = options.sftReduction === 'mean' || normalize;
  const divisor = (b: number): number => {
    if (byToken) return (sftDenominator ?? divisorOf(tokens)) / units.denominator;
    return perToken ? divisorOf(at(counts, b)) : 1;
  };
  const losses = Float64Array.from({ length: units.count }, (_, b) => nll(b) / divisor(b));
  if (byToken && loss) {
    const all = weighted(units, () => 1);
    losses.fill(all === 0 ? 0 : weighted(units, (u) => at(losses, u)) / all);
  }
  const slopes = Float64Array.from(logps, (_, b) => {
    const isThere = isScored(b) && at(counts, b) !== 0 && units.weight(b) !== 0;
    return isThere ? -units.weight(b) / (divisor(b) * units.denominator) : 0;
  });
  return { losses, slopes };
}

/** @throws DirAlignError for sequences that do not fit the objective */
function checkSequences({ method, arity, usesReference }: Resolved, batch: Sequences): void {
  const { logps, counts, reference } = batch;
  const sequences = logps.length;
  if (counts.length !== sequences) {
    throw rangeError(
      'ERR_DIRALIGN_SHAPE',
      `counts: ${counts.length} of them; expected ${sequences}, one per sequence.`,
    );
  }
  if (usesReference && reference?.length !== sequences) {
    const given = reference === undefined ? 'missing' : `${reference.length} numbers`;
    throw rangeError(
      'ERR_DIRALIGN_REFERENCE',
      `reference: ${given}; '${method}' needs one per sequence, ${sequences}.`,
    );
  }
  if (arity === 'pair' && sequences % 2 !== 0) {
    throw rangeError(
      'ERR_DIRALIGN_SHAPE',
      `logps: ${sequences} sequences; expected an even number, chosen then rejected.`,
    );
  }
}

/** The sequences as a loss sees them: one that is empty has score 0 that depends on nothing. */
function sidesOf({ normalize, usesReference }: Resolved, batch: Sequences): Side[] {
  const { logps, counts } = batch;
  const reference = usesReference ? batch.reference : undefined;
  return Array.from(logps, (logp, b) => {
    const length = at(counts, b);
    const empty = length === 0;
    const policy = empty ? new Dual(0) : Dual.variable(logp, b);
    const other = empty || !reference ? 0 : at(reference, b);
    const divisor = normalize ? divisorOf(length) : 1;
    const perToken = (x: Dual): Dual => x.map(x.value / divisor, 1 / divisor);
    return {
      policy: perToken(policy),
      reference: other / divisor,
      ratio: perToken(policy.minus(other)),
      odds: empty ? new Dual(0) : logOdds(perToken(policy)),
      length,
      sums: [policy.value, other],
      divisor,
    };
  });
}

/**
 * loss = sum of w_u losses_u / denominator, losses_u = (alignment term)_u + sftWeight
 * (likelihood term)_u.
 *
 * The fields must have been checked by `checkObjectives`.
 */
export function score(settings: Resolved, batch: Sequences): Scores {
  checkSequences(settings, batch);
  const { arity, beta, options, loss } = settings;
  const { logps } = batch;
  const units = unitsOf(arity, logps.length, batch);
  const sides = sidesOf(settings, batch);
  const rewards = Float64Array.from(
    sides,
    ({ sums, divisor }) => (beta * (sums[0] - sums[1])) / divisor,
  );

  const losses = new Float64Array(units.count);
  const slopes = Array.from(logps, () => Wide.of(0));
  for (const [u, term] of loss?.(sides, batch).entries() ?? []) {
    losses[u] = term.value;
    const weight = Wide.of(units.weight(u));
    if (weight.isZero) continue;
    for (const [b, slope] of term.derivatives)
      slopes[b] = at(slopes, b).plus(slope.times(weight).over(Wide.of(units.denominator)));
  }
  const coefficients = Float64Array.from(slopes, ({ number }) => number);

  const likelihood = new Float64Array(logps.length);
  if (options.sftWeight !== 0) {
    const term = likelihoodTerm(settings, units, batch.likelihood ?? batch, batch);
    for (let u = 0; u < units.count; u++)
      losses[u] = at(losses, u) + options.sftWeight * at(term.losses, u);
    // Of the likelihood objective, they are the coefficients.
    const target = loss ? likelihood : coefficients;
    target.set(term.slopes.map((slope) => options.sftWeight * slope));
  }
  const value = weighted(units, (u) => at(losses, u)) / units.denominator;
  return { loss: value, losses, rewards, coefficients, likelihood };
}

/** @throws DirAlignError for fields that are missing, wrong, or not those of the objectives */
export function checkObjectives(
  objectives: readonly Resolved[],
  batch: Sequences,
  rows: number,
): void {
  checkFields(objectives, batch);
  const sequence = batch.logps.length;
  const unit = countUnits(at(objectives, 0).arity, sequence, batch);
  checkValues(batch, { batch: 1, row: rows, sequence, unit });
}
