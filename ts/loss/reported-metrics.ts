/** Which metrics a call reports: those of its losses, and those that it asks for. */
import { isLikelihood, metricNames } from '../catalogue.js';
import { contract } from '../contract.generated.js';
import { typeError } from '../errors.js';
import { describe, isArray, quoted, readElements } from '../given.js';
import type { Metrics, RowMetric } from '../metrics.js';
import type { Mixture } from '../mixture.js';
import type { Settings } from '../settings.js';

/** The bit that asks for each: `metricsAsked` in ts/native/interface.ts. */
const rowMetrics: ReadonlyMap<unknown, number> = new Map<RowMetric, number>(
  contract.rowMetrics.map((name, i) => [name, 1 << i]),
);

const rowMetricNames = quoted(contract.rowMetrics);

/** Whether sequences are rejected: by a pair, or as undesirable. */
function hasRejected({ arity, isLikelihood }: Pick<Mixture, 'arity' | 'isLikelihood'>): boolean {
  return arity !== 'group' && !isLikelihood;
}

/** The metrics that `run.metrics` asks for, as the native side takes them. */
export function readAsked(mixture: Mixture, given: unknown): number {
  if (given === undefined) return 0;
  const names = readElements(given, rowMetrics.size + 1);
  if (!isArray(names)) {
    throw typeError(
      'ERR_DIRALIGN_OPTION',
      `metrics: expected an array of names, not ${describe(given)}; there are ${rowMetricNames}`,
    );
  }
  let asked = 0;
  names.forEach((name, i) => {
    const bit = rowMetrics.get(name);
    const wrong =
      bit === undefined
        ? `is not one of ${rowMetricNames}`
        : (asked & bit) !== 0
          ? 'is there already'
          : name === 'logits/rejected' && !hasRejected(mixture)
            ? `is not for ${mixture.name}, which has no rejected sequences`
            : undefined;
    if (wrong !== undefined)
      throw typeError('ERR_DIRALIGN_OPTION', `metrics[${i}]: ${describe(name)} ${wrong}`);
    asked += bit ?? 0;
  });
  return asked;
}

/** Metrics that are the batch's, whatever is computed of it. */
const ofBatch: ReadonlySet<string> = new Set([
  'logps/chosen',
  'logps/rejected',
  'ranking_accuracy',
  'empty_sequences',
  'underflow',
  'num_tokens',
  'mixed_hardware',
  ...contract.rowMetrics,
]);

/** Whether a metric means something to a loss. */
function has(name: string, { info, hasSftTerm }: Settings, asked: number): boolean {
  const bit = rowMetrics.get(name);
  if (bit !== undefined) return (asked & bit) !== 0;
  const likelihood = isLikelihood(info);
  switch (name) {
    case 'log_odds_chosen':
    case 'log_odds_ratio':
      return info.odds;
    case 'nll_loss':
      return hasSftTerm || likelihood;
    case 'rewards/rejected':
    case 'logps/rejected':
    case 'rewards/margins':
      return !likelihood;
    case 'rewards/accuracies':
      return info.arity !== 'single';
    case 'ranking_accuracy':
      return info.arity === 'pair';
    case 'rewards/mean':
      return info.arity !== 'pair' && !likelihood;
    case 'kl':
      return Object.hasOwn(info.fields, 'kl');
    default:
      return true;
  }
}

/** A metric of a result: the largest of the native side's numbers at these places. */
interface Reported {
  readonly key: string;
  readonly at: readonly number[];
}

/**
 * The metrics that mean something to the losses. Those of several that are not the batch's have the
 * name of their method in front. Metrics of the rows' logits are there only where they were asked
 * for.
 */
function reportedBy({ terms, isLikelihood: alone }: Mixture, asked: number): readonly Reported[] {
  const reported: Reported[] = [];
  metricNames.forEach((name, i) => {
    const theirs = terms
      .map(({ settings }, t) => ({ settings, at: [t * metricNames.length + i] }))
      .filter(({ settings }) => has(name, settings, asked))
      // A likelihood beside others has its term, and nothing else of its own.
      .filter(({ settings }) => alone || !isLikelihood(settings.info) || name === 'nll_loss');
    const [first] = theirs;
    if (!first) return;
    if (name === 'nonfinite') {
      reported.push({ key: name, at: theirs.flatMap(({ at }) => at) });
      return;
    }
    if (theirs.length === 1 || ofBatch.has(name)) {
      reported.push({ key: name, at: first.at });
      return;
    }
    for (const { settings, at } of theirs) {
      const { name: method } = settings.info;
      let key = `${method}/${name}`;
      const isTaken = (other: Reported): boolean => other.key === key;
      for (let n = 2; reported.some(isTaken); n++) key = `${method}.${n}/${name}`;
      reported.push({ key, at });
    }
  });
  return reported;
}

/** By what is asked for: the same for every call of an objective. */
const reportedOf = new WeakMap<Mixture, Map<number, readonly Reported[]>>();

export function readMetrics(mixture: Mixture, values: Float64Array, asked: number): Metrics {
  let known = reportedOf.get(mixture);
  if (!known) reportedOf.set(mixture, (known = new Map<number, readonly Reported[]>()));
  let reported = known.get(asked);
  if (!reported) known.set(asked, (reported = reportedBy(mixture, asked)));
  const metrics: Record<string, number> = {};
  for (const { key, at } of reported) {
    const value =
      at.length === 1
        ? (values[at[0] as number] as number)
        : Math.max(...at.map((place) => values[place] as number));
    // A warning, which calls without one do not carry.
    if (key !== 'mixed_hardware' || value !== 0) metrics[key] = value;
  }
  return metrics as unknown as Metrics;
}
