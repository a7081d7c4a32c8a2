/** The outcome of `diralign loss`, as tables and as JSON. */
import type { LogitsBatch } from '../batch/types.js';
import type { GradientMode } from '../loss/options.js';
import type { LossResult } from '../loss/results.js';
import { digits, plural, table, wrap, type Cell } from '../text/table.js';
import { paint } from '../text/terminal.js';
import { optionsOf, usualBetas, type BetaSource, type Built, type Choice } from './choice.js';

export interface Outcome extends Built {
  readonly result: LossResult;
  /** Euclidean norm of dLoss/dlogits. */
  readonly gradientNorm: number | undefined;
  readonly milliseconds: number;
}

/** Sequences, rows and the like of a batch, as the first line of the output tells them. */
export function describe(batch: LogitsBatch, scored: number) {
  const { shape, offsets, labels, dtype = 'float32' } = batch;
  const sequences = offsets ? offsets.length - 1 : shape[0];
  return {
    sequences,
    rows: labels.length,
    scoredRows: scored,
    vocab: shape.at(-1) ?? 0,
    dtype,
    shape,
    packed: offsets !== undefined,
  };
}

export function jsonOf({ objective, betaSource, result, gradientNorm }: Outcome) {
  const { loss, losses, logps, counts, rewards, coefficients, metrics } = result;
  return {
    method: objective.method,
    beta: objective.beta,
    betaSource,
    normalize: objective.normalize,
    options: optionsOf(objective),
    ...{ loss, losses, metrics, gradientNorm, logps, counts, rewards, coefficients },
  };
}

/** Where a beta that was not given comes from, and how to have another. */
function betaNote(source: BetaSource | undefined): string {
  if (source === undefined || source === 'given') return '';
  return source === 'usual'
    ? 'its usual one; --beta sets another, --preset one of the paper'
    : `the best of the paper's ${source} setup; --beta sets another`;
}

export function showOne(outcome: Outcome, scoredTokens: string): string {
  const { info, objective, betaSource, result, gradientNorm } = outcome;
  const settings = [...Object.entries(optionsOf(objective))].filter(
    ([name, value]) => value !== info.options[name]?.default,
  );
  const beta = objective.beta === undefined ? '' : `beta ${String(objective.beta)}`;
  const note = betaNote(betaSource);
  const chosen = [
    beta,
    objective.normalize ? 'normalised' : 'not normalised',
    ...settings.map(([k, v]) => `${k} ${String(v)}`),
  ];
  const metrics = Object.entries(result.metrics).filter(
    ([name, value]) => value !== 0 || !['nonfinite', 'empty_sequences', 'underflow'].includes(name),
  );
  const rows: [Cell, Cell][] = [
    [
      { text: 'loss', style: 'bold' },
      { text: digits(result.loss), style: 'bold' },
    ],
    ...metrics.map(([name, value]): [string, string] => [name, digits(value)]),
  ];
  if (gradientNorm !== undefined) rows.push(['gradient norm', digits(gradientNorm)]);
  return [
    `${paint('bold', info.name)}  ${info.formula}`,
    `${chosen.filter(Boolean).join(', ')}${note === '' ? '' : paint('dim', `  (${note})`)}`,
    '',
    table([{ title: '' }, { title: '', align: 'point' }], rows).replace(/^\n/, ''),
    '',
    showSequences(outcome),
    '',
    paint('dim', scoredTokens),
  ].join('\n');
}

/** More than fit a screen are for --json. */
const mostPairs = 16;

function showSequences({ info, result }: Outcome): string {
  const { losses, logps, counts, rewards, coefficients } = result;
  const paired = info.name !== 'sft';
  const shown = Math.min(mostPairs, losses.length);
  const value = (array: ArrayLike<number>, i: number): string => digits(array[i] ?? NaN, 5);
  const indices = Array.from({ length: shown }, (_, i) => i);
  const number = (title: string) => ({ title, align: 'point' as const });
  const text = paired
    ? table(
        [
          { title: info.batchCoupled ? 'rank / pair' : 'pair', align: 'right' },
          number('loss'),
          { title: 'tokens', align: 'right' },
          number('logp chosen'),
          number('logp rejected'),
          number('reward margin'),
          number('dloss/dlogp chosen'),
          number('rejected'),
        ],
        indices.map((i) => {
          const l = i + losses.length;
          const margin = (rewards[i] ?? NaN) - (rewards[l] ?? NaN);
          return [
            String(i),
            value(losses, i),
            `${String(counts[i])}/${String(counts[l])}`,
            value(logps, i),
            value(logps, l),
            digits(margin, 5),
            value(coefficients, i),
            value(coefficients, l),
          ];
        }),
      )
    : table(
        [
          { title: 'sequence', align: 'right' },
          number('loss'),
          { title: 'tokens', align: 'right' },
          number('logp'),
          number('dloss/dlogp'),
        ],
        indices.map((i) => [
          String(i),
          value(losses, i),
          String(counts[i]),
          value(logps, i),
          value(coefficients, i),
        ]),
      );
  const rest = losses.length - shown;
  return rest > 0
    ? `${text}\n${paint('dim', `and ${plural(rest, paired ? 'more pair' : 'more sequence')}; --json has all`)}`
    : text;
}

export function showMany(
  outcomes: readonly Outcome[],
  skipped: readonly string[],
  mode: GradientMode,
  request: Choice,
): string {
  const metric = (outcome: Outcome, name: string): string => {
    const value = (outcome.result.metrics as Readonly<Record<string, number | undefined>>)[name];
    return value === undefined ? '-' : digits(value, name === 'rewards/accuracies' ? 3 : 4);
  };
  const rows = outcomes.map((outcome): Cell[] => [
    { text: outcome.info.name, style: 'bold' },
    outcome.objective.beta === undefined
      ? '-'
      : `${String(outcome.objective.beta)}${request.preset !== undefined && outcome.betaSource !== 'usual' ? '*' : ''}`,
    outcome.objective.normalize ? 'yes' : '-',
    { text: digits(outcome.result.loss), style: 'bold' },
    metric(outcome, 'rewards/accuracies'),
    metric(outcome, 'rewards/margins'),
    metric(outcome, 'rewards/chosen'),
    metric(outcome, 'rewards/rejected'),
    ...(outcome.gradientNorm === undefined ? [] : [digits(outcome.gradientNorm, 4)]),
  ]);
  const titles = ['beta', 'per token', 'loss', 'accuracy', 'margin', 'chosen', 'rejected'];
  const columns = [
    { title: 'method' },
    ...titles.map((title) => ({
      title,
      align: title === 'per token' ? ('left' as const) : ('point' as const),
    })),
    ...(mode === 'none' ? [] : [{ title: 'gradient', align: 'point' as const }]),
  ];
  const notes = ['margin, chosen, rejected: mean rewards; gradient: its Euclidean norm.'];
  if (request.preset !== undefined)
    notes.push(
      `* the best beta of the paper's ${request.preset} setup; the usual one where it has none.`,
    );
  else if (request.beta === undefined) {
    notes.push(
      `beta: the usual one of each method (${usualBetas}); --beta sets one for all, --preset those of the paper.`,
    );
  }
  if (outcomes.some(({ info }) => info.name === 'sft'))
    notes.push('sft takes every sequence as chosen.');
  const optional = new Set(
    [...request.options.values()].flatMap((options) => Object.keys(options)),
  );
  for (const name of optional) {
    const having = outcomes
      .filter(({ info }) => Object.hasOwn(request.options.get(info.name) ?? {}, name))
      .map(({ info }) => info.name);
    if (having.length < outcomes.length) notes.push(`${name} goes to ${having.join(', ')}.`);
  }
  if (skipped.length > 0)
    notes.push(
      `Left out, for the batch has no reference: ${skipped.join(', ')}. --reference-free includes them.`,
    );
  if (outcomes.some(({ result }) => result.metrics.nonfinite > 0)) {
    notes.push(
      'Some scored rows hold NaN or infinite logits; the losses per pair of --json tell which.',
    );
  }
  return [table(columns, rows), '', ...notes.map((note) => paint('dim', wrap(note)))].join('\n');
}
