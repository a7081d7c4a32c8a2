import type { BatchFields } from '../batch/types.js';
import { isLikelihood, type MethodInfo } from '../catalogue.js';
import { rangeError } from '../errors.js';
import type { Objective } from '../objective.js';
import { middleOfRange, rangeOf } from './ranges.js';

/** What moves along a curve: a chosen and a rejected sequence, apart, or one of them. */
export type Axis = 'margin' | 'chosen' | 'rejected';

export const axes: readonly Axis[] = ['margin', 'chosen', 'rejected'];

/** An objective to draw. */
export interface Series {
  readonly info: MethodInfo;
  readonly objective: Objective;
  /** Whether the objective scores log-ratios to a reference; log-probabilities otherwise. */
  readonly usesReference: boolean;
}

/**
 * One objective along one axis. Positions are log-ratios or log-probabilities, as the objective
 * ranks them: in nats, of whole sequences, or in nats per token where it normalises.
 */
export interface Curve {
  readonly series: Series;
  readonly over: Axis;
  readonly quantity: 'log-ratio' | 'log-prob';
  readonly perToken: boolean;
  /** The position of the sequence that does not move; over the margin, the middle of the two. */
  readonly at: number;
  /** Scored tokens of the chosen and the rejected sequence. */
  readonly counts: readonly [chosen: number, rejected: number];
  /**
   * The reference's log-probability of either sequence, in the unit of the positions; undefined
   * where there is none.
   */
  readonly reference: number | undefined;
  /** Position on the axis, ascending. */
  readonly x: Float64Array;
  /** Position of each sequence, one per point; a single sequence has no rejected one beside it. */
  readonly chosen: Float64Array;
  readonly rejected: Float64Array | undefined;
  /** One per point. */
  readonly loss: Float64Array;
  /** dLoss/dchosen and dLoss/drejected, one per point: per nat, or per nat/token. */
  readonly gradChosen: Float64Array;
  readonly gradRejected: Float64Array | undefined;
}

export interface CurveOptions {
  /** Default: of each objective its own, {@link defaultAxes}. */
  readonly over?: Axis | undefined;
  /** Ends of the axis; default: where the objectives bend. */
  readonly range?: readonly [from: number, to: number] | undefined;
  /**
   * See {@link Curve}; default 0 for log-ratios, 0.55 of the range's greater end below 0 for
   * log-probabilities.
   */
  readonly at?: number | undefined;
  /**
   * Scored tokens of the chosen and the rejected sequence; default 64 each. Few objectives depend
   * on it.
   */
  readonly counts?: readonly [chosen: number, rejected: number] | undefined;
  /** Points of a curve, at least 2; default 201. */
  readonly points?: number | undefined;
}

/** Curves whose axis means the same, with one range. */
export interface CurveGroup {
  readonly over: Axis;
  /** Undefined over the margin, where log-ratios and log-probabilities can meet. */
  readonly quantity: Curve['quantity'] | undefined;
  readonly perToken: boolean;
  readonly range: readonly [from: number, to: number];
  readonly curves: readonly Curve[];
}

/** Whether there is no rejected sequence. */
const isSingle = ({ info }: Series): boolean => isLikelihood(info);
const quantityOf = ({ usesReference }: Series): Curve['quantity'] =>
  usesReference ? 'log-ratio' : 'log-prob';

/** The margin for what depends on it, each sequence for what scores them apart. */
export function defaultAxes(series: Series): readonly Axis[] {
  if (isSingle(series)) return ['chosen'];
  return series.info.ranking === 'pointwise' ? ['chosen', 'rejected'] : ['margin'];
}

/**
 * Whether the objective has what moves along the axis: a likelihood has neither a rejected sequence
 * nor a margin.
 */
export function hasAxis(series: Series, over: Axis): boolean {
  return over === 'chosen' || !isSingle(series);
}

/** The two sequences at a position of an axis. */
function positions(over: Axis, x: number, at: number): readonly [chosen: number, rejected: number] {
  if (over === 'margin') return [at + x / 2, at - x / 2];
  return over === 'chosen' ? [x, at] : [at, x];
}

/** @throws DirAlignError (ERR_DIRALIGN_OPTION) for an axis of log-probabilities above 0 */
function draw(
  series: Series,
  over: Axis,
  [from, to]: readonly [number, number],
  options: CurveOptions,
): Curve {
  const { objective, usesReference } = series;
  const { counts = [64, 64], points = 201 } = options;
  const farthest = Math.max(Math.abs(from), Math.abs(to));
  const at = options.at ?? (usesReference ? 0 : -middleOfRange * farthest);
  // From both ends alike, so that a symmetric range has symmetric points and 0 among them.
  const x = Float64Array.from(
    { length: points },
    (_, i) => (from * (points - 1 - i) + to * i) / (points - 1),
  );
  const ends = [from, to].map((end) => positions(over, end, at)).flat();
  const highest = isSingle(series) ? Math.max(from, to) : Math.max(...ends);
  if (!usesReference && highest > 0) {
    throw rangeError(
      'ERR_DIRALIGN_OPTION',
      `range: '${series.info.name}' is drawn over log-probabilities here, ` +
        `which would reach ${Number(highest.toPrecision(6))}; expected at most 0, ` +
        'by a lower range or at',
    );
  }
  // The policy's log-probabilities stay at or below 0.
  const reference = usesReference ? -Math.max(0, highest) : undefined;
  const chosen = x.map((value) => positions(over, value, at)[0]);
  const rejected = isSingle(series) ? undefined : x.map((value) => positions(over, value, at)[1]);
  const quantity = quantityOf(series);
  const place = { series, over, quantity, perToken: objective.normalize, at, counts, reference };
  const { loss, gradChosen, gradRejected } = compute(objective, chosen, rejected, {
    ...place,
    fields: fieldsOf(series.info),
  });
  return { ...place, x, chosen, loss, rejected, gradChosen, gradRejected };
}

/**
 * The two sequences as a method takes them: a pair, a desirable sequence and another whose losses
 * add up, or a group whose best candidate is the chosen one.
 */
export function fieldsOf({ arity, fields }: MethodInfo): BatchFields {
  return {
    ...(arity === 'group' && { groups: Int32Array.of(0, 2) }),
    ...(fields.desirable && { desirable: [true, false], denominator: 1 }),
    ...(fields.kl && { kl: 0 }),
    ...(fields.ranks && { ranks: [0, 1] }),
    ...(fields.rewards && { rewards: [1, 0] }),
  };
}

/** Loss and derivatives at every point. */
function compute(
  objective: Objective,
  chosen: Float64Array,
  rejected: Float64Array | undefined,
  {
    perToken,
    counts,
    reference,
    fields,
  }: Pick<Curve, 'perToken' | 'counts' | 'reference'> & { readonly fields: BatchFields },
): Pick<Curve, 'loss' | 'gradChosen' | 'gradRejected'> {
  const unit = perToken ? counts : [1, 1];
  const sequences = rejected ? [chosen, rejected] : [chosen];
  const loss = new Float64Array(chosen.length);
  const gradients = sequences.map(() => new Float64Array(chosen.length));
  for (let i = 0; i < chosen.length; i++) {
    // One pair per call: some objectives couple the pairs of a batch.
    const result = objective.fromLogps({
      ...fields,
      logps: Float64Array.from(
        sequences,
        (at, b) => ((at[i] as number) + (reference ?? 0)) * (unit[b] as number),
      ),
      counts: Int32Array.from(sequences, (_, b) => counts[b] as number),
      ...(reference !== undefined && {
        reference: Float64Array.from(sequences, (_, b) => reference * (unit[b] as number)),
      }),
    });
    loss[i] = result.loss;
    for (const [b, gradient] of gradients.entries())
      gradient[i] = (result.gradLogps[b] as number) * (unit[b] as number);
  }
  return { loss, gradChosen: gradients[0] as Float64Array, gradRejected: gradients[1] };
}

/**
 * The curves of any objectives, by what their axes mean. Every point is a pair given to
 * `fromLogps`.
 *
 * @throws DirAlignError (ERR_DIRALIGN_OPTION) for an axis that an objective does not have, or of
 *   log-probabilities above 0.
 */
export function drawCurves(all: readonly Series[], options: CurveOptions = {}): CurveGroup[] {
  const groups = new Map<string, { over: Axis; series: Series[] }>();
  for (const series of all) {
    if (options.over !== undefined && !hasAxis(series, options.over)) {
      throw rangeError(
        'ERR_DIRALIGN_OPTION',
        `over: '${series.info.name}' has no ${options.over}; expected 'chosen'`,
      );
    }
    for (const over of options.over === undefined ? defaultAxes(series) : [options.over]) {
      const quantity = over === 'margin' ? '' : quantityOf(series);
      // The key sorts margins first, then both scores of one kind.
      const key = `${quantity} ${String(series.objective.normalize)} ${axes.indexOf(over)}`;
      const group = groups.get(key) ?? { over, series: [] };
      groups.set(key, group);
      group.series.push(series);
    }
  }
  return [...groups.entries()]
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([, { over, series }]) => {
      const range = options.range ?? rangeOf(over, series);
      const curves = series.map((each) => draw(each, over, range, options));
      const [first] = curves as [Curve];
      return {
        over,
        quantity: over === 'margin' ? undefined : first.quantity,
        perToken: first.perToken,
        range,
        curves,
      };
    });
}
