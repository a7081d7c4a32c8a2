/** The outcome of `diralign loss`, as tables and as JSON. */
import type { LogitsBatch } from '../batch/types.js';
import type { GradientMode } from '../loss/options.js';
import type { LossResult } from '../loss/results.js';
import { isLikelihood } from '../catalogue.js';
import type { MixtureTerm } from '../mixture.js';
import { recipes, type RecipeName } from '../recipes.js';
import { unitName } from '../units.js';
import { digits, plural, table, wrap, type Cell } from '../text/table.js';
import { paint } from '../text/terminal.js';
import { fieldsIn, lossesOf, sequencesOf } from './batch-fields.js';
import type { LossCommandRequest } from './loss-request.js';
import { showUnits } from './loss-units.js';
import { shortPath } from './package.js';
import { sumOf } from './recipes.js';
import { usualBetas, type BetaSource, type Built, type Choice } from './choice.js';

export interface Outcome extends Built {
  readonly result: LossResult;
  /** Euclidean norm of dLoss/dlogits. */
  readonly gradientNorm: number | undefined;
  readonly milliseconds: number;
}

/** Sequences, rows and the like of a batch, as the first line of the output tells them. */
export function describe(batch: LogitsBatch, { counts }: LossResult) {
  const { shape, offsets, labels, dtype = 'float32', groups } = batch;
  return {
    sequences: sequencesOf(batch),
    ...(groups && { groups: groups.length - 1 }),
    rows: labels.length,
    scoredRows: counts.reduce((total, count) => total + count, 0),
    vocab: shape.at(-1) ?? 0,
    dtype,
    shape,
    packed: offsets !== undefined,
    fields: fieldsIn(batch),
  };
}

/** The file and the sizes of its batch. */
export function headline(
  { file, isExample }: LossCommandRequest,
  about: ReturnType<typeof describe>,
): string {
  const { rows, scoredRows, vocab, dtype, packed } = about;
  const hint = isExample ? paint('dim', '  the example that comes with diralign') : '';
  const tokens = `${scoredRows.toLocaleString('en')} scored tokens of ${rows.toLocaleString('en')}`;
  const layout = `vocabulary ${vocab.toLocaleString('en')}, ${dtype}${packed ? ', packed' : ''}`;
  return `${shortPath(file)}${hint}\n${unitsIn(about)}, ${tokens}, ${layout}\n`;
}

/** What the batch seems to be of: only a loss says what its units are. */
function unitsIn({ sequences, groups, fields }: ReturnType<typeof describe>): string {
  if (groups !== undefined) return `${plural(groups, 'group')} of ${plural(sequences, 'sequence')}`;
  return sequences % 2 === 0 && !fields.includes('desirable')
    ? plural(sequences / 2, 'pair')
    : plural(sequences, 'sequence');
}

/** The time that all took, and where. */
export function effortOf(
  { threads, gradient }: LossCommandRequest,
  outcomes: readonly Outcome[],
  computer: { readonly isa: string; readonly threads: number },
): string {
  const milliseconds = outcomes.reduce((sum, outcome) => sum + outcome.milliseconds, 0);
  const time = milliseconds < 10 ? milliseconds.toFixed(2) : milliseconds.toFixed(0);
  const backend = outcomes[0]?.result.backend ?? 'cpu';
  const mode = gradient === 'none' ? '' : `, ${gradient} gradient`;
  return (
    `${time} ms on the ${backend} backend (${computer.isa}), ` +
    `${plural(threads ?? computer.threads, 'thread')}${mode}`
  );
}

function settingsOf({ settings }: MixtureTerm) {
  const { info, beta, normalize, options } = settings;
  return { method: info.name, beta, normalize, options };
}

/** The settings of what was computed, as JSON and the metadata of a gradient have them. */
export function objectiveOf({ objective, recipe }: Built) {
  const { terms } = lossesOf(objective);
  const [only] = terms;
  const name = recipe === undefined ? {} : { recipe };
  if (only && terms.length === 1) return { ...name, ...settingsOf(only) };
  return {
    ...name,
    terms: terms.map((term) => ({ ...settingsOf(term), weight: term.weight })),
  };
}

export function jsonOf(outcome: Outcome) {
  const { objective, betaSource, result, gradientNorm } = outcome;
  const { loss, losses, logps, counts, rewards, coefficients, metrics, terms } = result;
  const settings = objectiveOf(outcome);
  return {
    ...settings,
    ...('terms' in settings && {
      terms: settings.terms.map((term, i) => ({ ...term, loss: terms?.[i]?.loss })),
    }),
    betaSource,
    unit: unitName(lossesOf(objective)),
    ...{ loss, losses, metrics, gradientNorm, logps, counts, rewards, coefficients },
  };
}

/** Where a beta that was not given comes from, and how to have another. */
function betaNote(source: BetaSource | undefined): string {
  switch (source) {
    case undefined:
    case 'given':
      return '';
    case 'usual':
      return 'its usual one; --beta sets another, --preset one of the paper';
    case 'recipe':
      return "the recipe's; --beta and the options of the methods set others";
    default:
      return `the best of the paper's ${source} setup; --beta sets another`;
  }
}

/** `beta 0.1, not normalised`, and the options that are not their defaults. */
function settingsInWords({ settings }: MixtureTerm): string {
  const { info, beta, normalize, options } = settings;
  const own = Object.entries(options).filter(
    ([name, value]) => value !== info.options[name]?.default,
  );
  return [
    ...(beta === undefined ? [] : [`beta ${beta}`]),
    normalize ? 'normalised' : 'not normalised',
    ...own.map(([name, value]) => `${name} ${String(value)}`),
  ].join(', ');
}

/** What a recipe asks of a batch besides. */
function batchNote(name: RecipeName): string {
  const { batch } = recipes[name];
  return batch === undefined ? '' : `The batch of this recipe has ${batch}.`;
}

export function showOne(outcome: Outcome, batch: LogitsBatch, scoredTokens: string): string {
  const { info, objective, betaSource, recipe, result, gradientNorm } = outcome;
  const { terms } = lossesOf(objective);
  const note = betaNote(betaSource);
  const mixed = terms.length > 1;
  const sum = sumOf(terms.map(({ weight, settings }) => ({ weight, method: settings.info.name })));
  const settings = terms.map((term) =>
    mixed ? `${term.settings.info.name}: ${settingsInWords(term)}` : settingsInWords(term),
  );
  const metrics = Object.entries(result.metrics).filter(
    ([name, value]) => value !== 0 || !['nonfinite', 'empty_sequences', 'underflow'].includes(name),
  );
  const rows: [Cell, Cell][] = [
    [
      { text: 'loss', style: 'bold' },
      { text: digits(result.loss), style: 'bold' },
    ],
    ...(result.terms ?? []).map(({ method, weight, loss }): [string, string] => [
      `${weight} of ${method}`,
      digits(loss),
    ]),
    ...metrics.map(([name, value]): [string, string] => [name, digits(value)]),
  ];
  if (gradientNorm !== undefined) rows.push(['gradient norm', digits(gradientNorm)]);
  const title = recipe ?? info.name;
  const formula = mixed ? sum : recipe === undefined ? info.formula : `${sum}: ${info.formula}`;
  const aside = note === '' ? '' : paint('dim', `${mixed || recipe ? '\n' : '  '}(${note})`);
  return [
    `${paint('bold', title)}  ${formula}`,
    settings.join('\n') + aside,
    ...(recipe && batchNote(recipe) ? [paint('dim', wrap(batchNote(recipe)))] : []),
    '',
    table([{ title: '' }, { title: '', align: 'point' }], rows).replace(/^\n/, ''),
    '',
    showUnits(outcome, batch),
    '',
    paint('dim', scoredTokens),
  ].join('\n');
}

export function showMany(
  outcomes: readonly Outcome[],
  skipped: readonly Skipped[],
  mode: GradientMode,
  request: Choice,
): string {
  const metric = (outcome: Outcome, name: string): string => {
    const value = (outcome.result.metrics as Readonly<Record<string, number | undefined>>)[name];
    return value === undefined ? '-' : digits(value, name === 'rewards/accuracies' ? 3 : 4);
  };
  const isBest = ({ betaSource }: Outcome): boolean =>
    request.preset !== undefined && betaSource !== 'usual';
  const rows = outcomes.map((outcome): Cell[] => {
    const { beta, normalize } = lossesOf(outcome.objective).terms[0]?.settings ?? {};
    return [
      { text: outcome.info.name, style: 'bold' },
      beta === undefined ? '-' : `${beta}${isBest(outcome) ? '*' : ''}`,
      normalize ? 'yes' : '-',
      { text: digits(outcome.result.loss), style: 'bold' },
      metric(outcome, 'rewards/accuracies'),
      metric(outcome, 'rewards/margins'),
      metric(outcome, 'rewards/chosen'),
      metric(outcome, 'rewards/rejected'),
      ...(outcome.gradientNorm === undefined ? [] : [digits(outcome.gradientNorm, 4)]),
    ];
  });
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
      `beta: the usual one of each method (${usualBetas}); --beta sets one for all, ` +
        '--preset those of the paper.',
    );
  }
  for (const { info } of outcomes)
    if (isLikelihood(info)) notes.push(`${info.name} takes every sequence as chosen.`);
  const optional = new Set(
    [...request.options.values()].flatMap((options) => Object.keys(options)),
  );
  for (const name of optional) {
    const having = outcomes
      .filter(({ info }) => Object.hasOwn(request.options.get(info.name) ?? {}, name))
      .map(({ info }) => info.name);
    if (having.length < outcomes.length) notes.push(`${name} goes to ${having.join(', ')}.`);
  }
  notes.push(...leftOut(skipped));
  if (outcomes.some(({ result }) => result.metrics.nonfinite > 0)) {
    notes.push(
      'Some scored rows hold NaN or infinite logits; the losses per pair of --json tell which.',
    );
  }
  return [table(columns, rows), '', ...notes.map((note) => paint('dim', wrap(note)))].join('\n');
}

/** A method that was not computed. */
export interface Skipped {
  readonly method: string;
  readonly reason: string;
}

/** A line for each reason. */
function leftOut(skipped: readonly Skipped[]): string[] {
  return [...new Set(skipped.map(({ reason }) => reason))].map((reason) => {
    const theirs = skipped.filter((each) => each.reason === reason).map(({ method }) => method);
    const remedy = reason.endsWith('no reference') ? ' --reference-free includes them.' : '';
    return `Left out, for ${reason}: ${theirs.join(', ')}.${remedy}`;
  });
}
