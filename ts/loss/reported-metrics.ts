/** Which metrics a call reports: those of its method, and those that it asks for. */
import { metricNames } from '../catalogue.js';
import { typeError } from '../errors.js';
import { describe, isArray, quoted, readElements } from '../given.js';
import type { Metrics, RowMetric } from '../metrics.js';
import type { Settings } from '../settings.js';

/** The bit that asks for each: `metricsAsked` in ts/native/interface.ts. */
const rowMetrics: ReadonlyMap<unknown, number> = new Map<RowMetric, number>([
  ['entropy', 1],
  ['mean_token_accuracy', 2],
  ['logits/chosen', 4],
  ['logits/rejected', 8],
]);

const rowMetricNames = quoted(rowMetrics.keys() as Iterable<RowMetric>);

/** The metrics that `run.metrics` asks for, as the native side takes them. */
export function readAsked(settings: Settings, given: unknown): number {
  if (given === undefined) return 0;
  const names = readElements(given, rowMetrics.size + 1);
  if (!isArray(names)) {
    const message = `metrics: expected an array of names, not ${describe(given)}; there are ${rowMetricNames}`;
    throw typeError('ERR_DIRALIGN_OPTION', message);
  }
  let asked = 0;
  names.forEach((name, i) => {
    const bit = rowMetrics.get(name);
    const wrong =
      bit === undefined
        ? `is not one of ${rowMetricNames}`
        : (asked & bit) !== 0
          ? 'is there already'
          : name === 'logits/rejected' && settings.info.name === 'sft'
            ? "is not for 'sft', which has no rejected sequences"
            : undefined;
    if (wrong !== undefined)
      throw typeError('ERR_DIRALIGN_OPTION', `metrics[${i}]: ${describe(name)} ${wrong}`);
    asked += bit ?? 0;
  });
  return asked;
}

const ofPairs: ReadonlySet<string> = new Set([
  'rewards/accuracies',
  'rewards/margins',
  'ranking_accuracy',
]);

/**
 * The metrics that mean something to the method. Metrics of the rows' logits are there only where
 * they were asked for.
 */
export function readMetrics(settings: Settings, values: Float64Array, asked: number): Metrics {
  const paired = settings.info.name !== 'sft';
  const metrics: Record<string, number> = {};
  metricNames.forEach((name, i) => {
    if (name.startsWith('log_odds') && settings.info.score !== 'log-odds') return;
    if (name === 'nll_loss' && paired && !settings.hasSftTerm) return;
    if (!paired && (name.endsWith('/rejected') || ofPairs.has(name))) return;
    const bit = rowMetrics.get(name);
    if (bit !== undefined && (asked & bit) === 0) return;
    metrics[name] = values[i] as number;
  });
  return metrics as unknown as Metrics;
}
