/** What the calls of a window have computed, and what they divide by. */
import { numbersOf, withNumber, type FieldName } from '../batch/fields.js';
import type { BatchRows } from '../batch/types.js';
import { metricNames, type Method } from '../catalogue.js';
import { typeError } from '../errors.js';
import type { LossTerm } from '../loss/results.js';
import type { Metrics } from '../metrics.js';
import type { Mixture } from '../mixture.js';
import type { BatchRequest, LossOutputs } from '../native/interface.js';
import { unitsOf } from '../units.js';
import type { Communicator } from './communicator.js';
import { addCounts, countRows, noCounts, type BatchCounts } from './count-batch.js';
import type { Groups } from './parallel.js';

/** Who has other micro-batches of a window. */
export interface WindowGroups {
  /** Other units. */
  readonly data?: Communicator | undefined;
  /** The same sequences, other tokens of theirs. */
  readonly sequence?: Communicator | undefined;
}

/** The loss of a window, as one call on all of its micro-batches would give it. */
export interface WindowResult<M extends Method = Method> {
  /** The sum of the calls' losses, over all ranks. */
  readonly loss: number;
  /** Of all units; those of rows' logits, where every call asked for them. */
  readonly metrics: Metrics<M>;
  /** Of `mixLosses`: its losses, in their order. */
  readonly terms?: readonly LossTerm[];
}

/**
 * Micro-batches whose losses and gradients are shares of one loss: each call on one of them has the
 * window in `run.parallel`.
 */
export interface Window<M extends Method = Method> {
  /** Pairs, sequences or groups of all micro-batches of all ranks, which their losses are over. */
  readonly units: number;
  /**
   * Collective, when all calls have ended: loss and metrics of all micro-batches, with the same
   * bits on every rank.
   * @throws DirAlignError with code ERR_DIRALIGN_WINDOW, on every rank, where the calls have seen
   *   other numbers of units or tokens than were announced
   */
  finish(): Promise<WindowResult<M>>;
}

/** Numbers that every rank says of itself. */
export interface Extent {
  readonly units: number;
  readonly tokens: number;
  /** Of a likelihood term. */
  readonly likelyTokens: number;
}

export function extentOf(mixture: Mixture, counts: BatchCounts): Extent {
  const { sequences, groups, tokens, chosenTokens, desirableTokens } = counts;
  const units = mixture.arity === 'group' ? groups : unitsOf(mixture, sequences);
  const ofLikelihood = mixture.arity === 'pair' ? chosenTokens : desirableTokens;
  const isLikely = mixture.hasSftTerm || mixture.isLikelihood;
  return { units, tokens, likelyTokens: isLikely ? ofLikelihood : 0 };
}

/** What metrics are means over. */
interface Sizes {
  readonly units: number;
  readonly sequences: number;
  readonly chosen: number;
  readonly rejected: number;
  /** Units of several sequences. */
  readonly compared: number;
  readonly rows: number;
  readonly chosenRows: number;
}

/** The sequences that metrics call chosen. */
function chosenOf({ arity }: Mixture, batch: BatchRequest): readonly number[] {
  const { sequences, groups, fields } = batch;
  const all = Array.from({ length: sequences }, (_, s) => s);
  if (arity === 'pair') return all.slice(0, sequences / 2);
  const desirable = numbersOf(fields, 'desirable');
  if (arity === 'single') return all.filter((s) => desirable?.[s] !== 0);
  const ranks = numbersOf(fields, 'ranks');
  const rewards = numbersOf(fields, 'rewards') ?? new Float64Array(0);
  return Array.from(groups?.subarray(0, -1) ?? [], (first, g) => {
    // The places of the candidates, best first.
    if (ranks) return first + (ranks[first] as number);
    const own = rewards.subarray(first, groups?.[g + 1]);
    return first + own.indexOf(own.reduce((best, x) => Math.max(best, x), -Infinity));
  });
}

function sizesOf(mixture: Mixture, batch: BatchRequest): Sizes {
  const { sequences, groups, counts } = batch;
  const chosen = chosenOf(mixture, batch);
  const units = unitsOf(mixture, sequences, groups);
  const isSeveral = (g: number): boolean =>
    !groups || (groups[g + 1] as number) - (groups[g] as number) > 1;
  const several = Array.from({ length: units }, (_, u) => u).filter(isSeveral).length;
  return {
    units,
    sequences,
    chosen: chosen.length,
    rejected: sequences - chosen.length,
    compared: mixture.arity === 'single' ? 0 : several,
    rows: counts.reduce((sum, n) => sum + n, 0),
    chosenRows: chosen.reduce((sum, s) => sum + (counts[s] as number), 0),
  };
}

/** How many things a metric is the mean of; undefined: it is a sum. */
function sizeOf(name: (typeof metricNames)[number], n: Sizes): number | undefined {
  switch (name) {
    case 'rewards/chosen':
    case 'logps/chosen':
      return n.chosen;
    case 'rewards/rejected':
    case 'logps/rejected':
      return n.rejected;
    case 'rewards/accuracies':
    case 'rewards/margins':
      return n.compared;
    case 'ranking_accuracy':
    case 'log_odds_chosen':
    case 'log_odds_ratio':
      return n.units;
    case 'rewards/mean':
      return n.sequences;
    case 'entropy':
      return n.rows;
    case 'mean_token_accuracy':
    case 'logits/chosen':
      return n.chosenRows;
    case 'logits/rejected':
      return n.rows - n.chosenRows;
    default:
      return undefined;
  }
}

/** Fields that a batch has one number of, which all calls of a window have in common. */
export const baselineNames = ['kl', 'shift'] as const satisfies readonly FieldName[];

/** Every bit: any metric of rows. */
export const allAsked = 0xff;

/** The window of a rank, from its opening to its end. */
export class OpenWindow {
  #seen: BatchCounts = noCounts;
  /** Metrics of rows that all calls asked for. */
  asked = allAsked;
  /** NaN: of no call yet. */
  readonly baselines = new Float64Array(baselineNames.length).fill(NaN);
  /** Of each loss of the mixture: shares of its value. */
  readonly values: Float64Array;
  /** Of each loss, metric by metric: sums, and how many things they are of. */
  readonly sums: Float64Array;
  readonly sizes: Float64Array;
  isFinished = false;
  /** Whether ranks of a call compute with different instructions. */
  isMixed = false;

  constructor(
    readonly mixture: Mixture,
    /** Of which `vocab` is none. */
    readonly groups: Groups,
    readonly announced: Extent,
    readonly whole: Extent,
  ) {
    const { length } = mixture.terms;
    this.values = new Float64Array(length);
    this.sums = new Float64Array(length * metricNames.length);
    this.sizes = new Float64Array(length * metricNames.length);
  }

  /**
   * Gives a batch the divisors of the window.
   * @throws DirAlignError for what belongs to no window, or to another one
   */
  enter(mixture: Mixture, given: BatchRows, batch: BatchRequest): void {
    const refuse = (what: string, why: string): never => {
      throw typeError('ERR_DIRALIGN_OPTION', `${what}: ${why}`);
    };
    if (mixture !== this.mixture)
      refuse('parallel.window', `is one of ${this.mixture.name}, with settings of its own`);
    for (const name of ['denominator', 'sftDenominator'] as const)
      if (given[name] !== undefined) refuse(name, 'not in a window, which divides by what it has');
    if (typeof given.kl === 'object')
      refuse('kl', "in a window give a number: its baseline is that of all ranks' completions");
    baselineNames.forEach((name, i) => {
      const own = numbersOf(batch.fields, name)?.[0] ?? 0;
      const known = this.baselines[i] as number;
      if (!Number.isNaN(known) && known !== own)
        refuse(name, `${own}, but earlier calls of the window had ${known}`);
      this.baselines[i] = own;
    });
    const { units, likelyTokens } = this.whole;
    // Where nothing was announced nothing is divided: finish() refuses what came after all.
    batch.fields = withNumber(batch.fields, 'denominator', Math.max(1, units));
    batch.fields = withNumber(batch.fields, 'sftDenominator', likelyTokens);
  }

  /** What a call has computed. */
  add(batch: BatchRequest, outputs: LossOutputs, asked: number): void {
    this.#seen = addCounts(this.#seen, countRows(batch));
    this.asked &= asked;
    outputs.values.forEach((value, term) => {
      this.values[term] = (this.values[term] as number) + value;
    });
    const sizes = sizesOf(this.mixture, batch);
    this.isMixed ||= outputs.metrics[metricNames.indexOf('mixed_hardware')] === 1;
    outputs.metrics.forEach((value, place) => {
      const size = sizeOf(metricNames[place % metricNames.length] as never, sizes);
      if (size === 0) return; // a mean of nothing
      this.sums[place] = (this.sums[place] as number) + value * (size ?? 1);
      this.sizes[place] = (this.sizes[place] as number) + (size ?? 0);
    });
  }

  /** Of the calls that have ended. */
  get seen(): Extent {
    return extentOf(this.mixture, this.#seen);
  }
}

/** From sums to metrics, of one loss after another. */
export function meansOf(
  { arity }: Mixture,
  sums: Float64Array,
  sizes: Float64Array,
  ofAll: { readonly kl: number; readonly mixed_hardware: number },
): Float64Array {
  const metrics = sums.map((sum, i) => sum / (sizes[i] === 0 ? 1 : (sizes[i] as number)));
  for (let from = 0; from < metrics.length; from += metricNames.length) {
    const place = (name: (typeof metricNames)[number]): number => from + metricNames.indexOf(name);
    for (const name of ['kl', 'mixed_hardware'] as const) metrics[place(name)] = ofAll[name];
    if (arity === 'pair') continue;
    const [chosen, rejected] = [place('rewards/chosen'), place('rewards/rejected')];
    const both = sizes[chosen] !== 0 && sizes[rejected] !== 0;
    const margin = (metrics[chosen] as number) - (metrics[rejected] as number);
    metrics[place('rewards/margins')] = both ? margin : 0;
  }
  return metrics;
}

const windows = new WeakMap<object, OpenWindow>();

/** Its state; undefined for what is no window. */
export function windowBehind(value: unknown): OpenWindow | undefined {
  return typeof value === 'object' && value !== null ? windows.get(value) : undefined;
}

/** Makes what a caller has of it. */
export function publish(window: OpenWindow, finish: () => Promise<WindowResult>): Window {
  const own = Object.freeze({ units: window.whole.units, finish });
  windows.set(own, window);
  return own;
}
