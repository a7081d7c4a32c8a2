import { methods, type MethodInfo } from '../catalogue.js';
import { dirAlignLoss, type Objective } from '../objective.js';
import { native } from '../native.js';
import { presets, type PresetSetup } from '../presets.js';
import { readBatch, writeSafetensors } from '../safetensors.js';
import type { GradientMode, LogitsArray, LogitsBatch, LossResult, RunOptions } from '../types.js';
import { decoder } from '../verification.js';
import { kebab, number, oneOf, parse, whole } from './arguments.js';
import { CommandError, ok, UsageError, type Command } from './command.js';
import { methodNamed } from './methods.js';
import { exampleFile, shortPath } from './package.js';
import { digits, plural, table, type Cell } from '../text/table.js';
import { paint, print, printJson } from '../text/terminal.js';

/** The setup whose best betas are taken where the user gives none: the largest model with a chat data set. */
export const setup: PresetSetup = 'ultrafeedback-llama-3.1-8b';
export const plainBeta = 0.1;

/** Every option of any method, by its name in the library. */
function methodOptions(): Map<string, 'number' | 'string' | 'boolean'> {
  const options = methods().flatMap((info) => Object.entries(info.options));
  return new Map(options.map(([name, option]) => [name, typeof option.default as 'number' | 'string' | 'boolean']));
}

const types = {
  method: 'string',
  beta: 'string',
  normalize: 'boolean',
  noNormalize: 'boolean',
  gradient: 'string',
  threads: 'string',
  ignoreIndex: 'string',
  out: 'string',
  json: 'boolean',
} as const;

/** What is to be computed, as `loss` and `plot` are told. */
export interface Choice {
  readonly chosen: readonly MethodInfo[];
  /** `all` was asked for, or nothing: what cannot be had is left out, not refused. */
  readonly all: boolean;
  /** Undefined: the best known for the method. */
  readonly beta: number | undefined;
  /** Undefined: the method's default. */
  readonly normalize: boolean | undefined;
  /** Those of any method, by their names in the library. */
  readonly options: Readonly<Record<string, number | string | boolean>>;
}

interface Request extends Choice {
  readonly file: string;
  /** No FILE was given. */
  readonly isExample: boolean;
  readonly gradient: GradientMode;
  readonly threads: number | undefined;
  readonly ignoreIndex: number | undefined;
  readonly out: string | undefined;
  readonly json: boolean;
}

/** The options of the methods as the parser takes them. */
export function optionTypes(): Record<string, 'string' | 'boolean'> {
  return Object.fromEntries([...methodOptions()].map(([name, type]) => [name, type === 'boolean' ? 'boolean' : 'string']));
}

/**
 * @param list names with commas between them, or `all`.
 * @param values what was typed: `beta`, `normalize`, `noNormalize` and the options of the methods.
 * @throws UsageError for names and numbers that are none, and for options that none of the methods has.
 */
export function readChoice(list: string, values: Readonly<Record<string, string | boolean | undefined>>): Choice {
  const options: Record<string, number | string | boolean> = {};
  for (const [name, type] of methodOptions()) {
    const given = values[name];
    if (given !== undefined) options[name] = type === 'number' ? number(name, String(given)) : given;
  }
  const names = list.split(',').map((name) => name.trim());
  const all = names.includes('all');
  const chosen = all ? methods() : names.map(methodNamed);
  for (const name of Object.keys(options)) {
    // For several methods, an option goes to those that have it.
    if (!chosen.some((info) => Object.hasOwn(info.options, name))) {
      const known = Object.keys(chosen[0]?.options ?? {}).map((option) => `--${kebab(option)}`);
      throw new UsageError(`--${kebab(name)}: ${names.join(', ')} has no such option; it has ${known.join(', ')}`);
    }
  }
  if (values.normalize && values.noNormalize) throw new UsageError('--normalize and --no-normalize exclude each other');
  return {
    chosen,
    all,
    beta: values.beta === undefined ? undefined : number('beta', String(values.beta)),
    normalize: values.normalize ? true : values.noNormalize ? false : undefined,
    options,
  };
}

function parseRequest(args: readonly string[]): Request {
  const { values, positionals } = parse<Record<string, 'string' | 'boolean'>>('loss', args, { ...types, ...optionTypes() }, 1);
  const text = (name: string): string | undefined => values[name] as string | undefined;
  const choice = readChoice(text('method') ?? 'all', values);
  const threads = text('threads');
  const ignoreIndex = text('ignoreIndex');
  const request: Request = {
    ...choice,
    file: positionals[0] ?? exampleFile,
    isExample: positionals.length === 0,
    gradient: oneOf('gradient', text('gradient') ?? 'dense', ['none', 'dense', 'factored']),
    threads: threads === undefined ? undefined : whole('threads', threads, 1),
    ignoreIndex: ignoreIndex === undefined ? undefined : number('ignoreIndex', ignoreIndex),
    out: text('out'),
    json: Boolean(values.json),
  };
  if (request.out !== undefined) {
    if (choice.chosen.length !== 1) throw new UsageError('--out: takes the gradient of one method; name it with --method');
    if (request.gradient === 'none') throw new UsageError('--out: there is nothing to write with --gradient none; leave it out');
  }
  return request;
}

export type BetaSource = 'given' | 'best' | 'plain';

export interface Built {
  readonly info: MethodInfo;
  readonly objective: Objective;
  readonly betaSource: BetaSource | undefined;
}

/** The objective of a method with what the command line says. @throws DirAlignError where it has no meaning. */
export function build(info: MethodInfo, request: Choice): Built {
  const best = presets.best[setup][info.name]?.beta;
  const betaSource: BetaSource = request.beta !== undefined ? 'given' : best !== undefined ? 'best' : 'plain';
  const options = Object.fromEntries(Object.entries(request.options).filter(([name]) => Object.hasOwn(info.options, name)));
  // Not every divergence has an alpha; only dirAlignLoss knows which combinations have a meaning.
  const objective = dirAlignLoss({
    method: info.name,
    beta: request.beta ?? best ?? plainBeta,
    ...(request.normalize !== undefined && { normalize: request.normalize }),
    ...options,
  } as { method: 'dpo'; beta: number }) as unknown as Objective;
  return { info, objective, betaSource: info.name === 'sft' ? undefined : betaSource };
}

export function usesReference({ info, objective }: Built): boolean {
  return info.reference && !(objective as unknown as { referenceFree: boolean }).referenceFree;
}

interface Outcome extends Built {
  readonly result: LossResult;
  /** Euclidean norm of dLoss/dlogits. */
  readonly gradientNorm: number | undefined;
  readonly milliseconds: number;
}

function compute(built: Built, batch: LogitsBatch, run: RunOptions): Outcome {
  // One set of labels is all that `sft` has.
  const { sftLabels, ...withoutSftLabels } = batch;
  const start = performance.now();
  const result = built.objective(built.info.name === 'sft' && sftLabels ? withoutSftLabels : batch, run);
  const milliseconds = performance.now() - start;
  return { ...built, result, milliseconds, gradientNorm: result.gradLogits && norm(result, batch) };
}

function norm({ gradLogits, rowScale }: LossResult, { shape, dtype }: LogitsBatch): number {
  const vocab = shape.at(-1) ?? 1;
  const values = gradLogits as Float32Array | Uint16Array;
  const decode = decoder(dtype ?? 'float32');
  const scored = rowScale ?? new Float32Array(values.length / vocab).fill(1);
  let sum = 0;
  for (const [row, scale] of scored.entries()) {
    let rowSum = 0;
    for (let i = row * vocab; i < (row + 1) * vocab; i++) rowSum += decode(values[i] ?? NaN) ** 2;
    sum += scale * scale * rowSum;
  }
  return Math.sqrt(sum);
}

/** Sequences, rows and the like of a batch, as the first line of the output tells them. */
function describe(batch: LogitsBatch, scored: number) {
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

const settingNames = new Set(['method', 'beta', 'normalize', 'async', 'fromLogps', 'fromHidden']);

/** The options of an objective; those the user did not give are worth showing only where they do something. */
export function optionsOf(objective: Objective): Record<string, number | string | boolean> {
  const entries = Object.entries(objective as unknown as Record<string, unknown>).filter(([name]) => !settingNames.has(name));
  return Object.fromEntries(entries) as Record<string, number | string | boolean>;
}

function jsonOf({ objective, betaSource, result, gradientNorm }: Outcome) {
  const { loss, losses, logps, counts, rewards, coefficients, metrics } = result;
  const source = betaSource === 'best' ? setup : betaSource === 'plain' ? 'default' : betaSource;
  return {
    method: objective.method,
    beta: objective.beta,
    betaSource: source,
    normalize: objective.normalize,
    options: optionsOf(objective),
    ...{ loss, losses, metrics, gradientNorm, logps, counts, rewards, coefficients },
  };
}

const betaNotes: Readonly<Record<BetaSource, string>> = {
  given: '',
  best: `the best of the paper's ${setup} setup; --beta sets another`,
  plain: 'a common choice; --beta sets another',
};

function showOne(outcome: Outcome, scoredTokens: string): string {
  const { info, objective, betaSource, result, gradientNorm } = outcome;
  const settings = [...Object.entries(optionsOf(objective))].filter(([name, value]) => value !== info.options[name]?.default);
  const beta = objective.beta === undefined ? '' : `beta ${String(objective.beta)}`;
  const note = betaSource === undefined || betaSource === 'given' ? '' : paint('dim', `  (${betaNotes[betaSource]})`);
  const chosen = [beta, objective.normalize ? 'normalised' : 'not normalised', ...settings.map(([k, v]) => `${k} ${String(v)}`)];
  const metrics = Object.entries(result.metrics).filter(
    ([name, value]) => value !== 0 || !['nonfinite', 'empty_sequences'].includes(name),
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
    `${chosen.filter(Boolean).join(', ')}${note}`,
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
        indices.map((i) => [String(i), value(losses, i), String(counts[i]), value(logps, i), value(coefficients, i)]),
      );
  const rest = losses.length - shown;
  return rest > 0
    ? `${text}\n${paint('dim', `and ${plural(rest, paired ? 'more pair' : 'more sequence')}; --json has all`)}`
    : text;
}

function showMany(outcomes: readonly Outcome[], skipped: readonly string[], mode: GradientMode, request: Request): string {
  const marks: Readonly<Record<BetaSource, string>> = { given: '', best: '*', plain: '' };
  const metric = (outcome: Outcome, name: string): string => {
    const value = outcome.result.metrics[name];
    return value === undefined ? '-' : digits(value, name === 'rewards/accuracies' ? 3 : 5);
  };
  const rows = outcomes.map((outcome): Cell[] => [
    { text: outcome.info.name, style: 'bold' },
    outcome.objective.beta === undefined ? '-' : `${String(outcome.objective.beta)}${marks[outcome.betaSource ?? 'given']}`,
    outcome.objective.normalize ? 'yes' : '-',
    { text: digits(outcome.result.loss), style: 'bold' },
    metric(outcome, 'rewards/accuracies'),
    metric(outcome, 'rewards/margins'),
    metric(outcome, 'rewards/chosen'),
    metric(outcome, 'rewards/rejected'),
    ...(outcome.gradientNorm === undefined ? [] : [digits(outcome.gradientNorm, 5)]),
  ]);
  const titles = ['beta', 'normalised', 'loss', 'accuracy', 'margin', 'reward chosen', 'rejected'];
  const columns = [
    { title: 'method' },
    ...titles.map((title) => ({ title, align: title === 'normalised' ? ('left' as const) : ('point' as const) })),
    ...(mode === 'none' ? [] : [{ title: 'gradient norm', align: 'point' as const }]),
  ];
  const notes: string[] = [];
  if (outcomes.some(({ betaSource }) => betaSource === 'best')) {
    notes.push(`* the best beta of the paper's ${setup} setup; ${plainBeta} where it has none. --beta sets one for all.`);
  } else if (request.beta === undefined) notes.push(`beta ${plainBeta} where none is given; --beta sets another.`);
  if (outcomes.some(({ info }) => info.name === 'sft')) notes.push('sft takes every sequence as chosen.');
  const some = Object.keys(request.options).filter((name) => !outcomes.every(({ info }) => Object.hasOwn(info.options, name)));
  for (const name of some) {
    const having = outcomes.filter(({ info }) => Object.hasOwn(info.options, name)).map(({ info }) => info.name);
    notes.push(`${name} goes to ${having.join(', ')}.`);
  }
  if (skipped.length > 0)
    notes.push(`Left out, for the batch has no reference: ${skipped.join(', ')}. --reference-free includes them.`);
  if (outcomes.some(({ result }) => (result.metrics.nonfinite ?? 0) > 0)) {
    notes.push('Some scored rows hold NaN or infinite logits; the losses per pair of --json tell which.');
  }
  return [table(columns, rows), '', ...notes.map((note) => paint('dim', note))].join('\n');
}

function run(args: string[]): Promise<number> {
  const request = parseRequest(args);
  const built = request.chosen.map((info) => build(info, request));
  const read = readBatch(request.file);
  const batch: LogitsBatch = request.ignoreIndex === undefined ? read : { ...read, ignoreIndex: request.ignoreIndex };
  const file = shortPath(request.file);

  const lacking = batch.reference ? [] : built.filter(usesReference);
  const [first] = lacking;
  if (first && !(request.all && lacking.length < built.length)) {
    throw new CommandError(
      `reference: '${first.info.name}' needs the reference model's log-probability of each sequence; add a tensor "reference" to ${file} or pass --reference-free`,
    );
  }
  const { gradient, threads } = request;
  // The logits of a single method are not needed again: their array takes the gradient. Of several, one array takes them all.
  const possible = built.filter((candidate) => !lacking.includes(candidate));
  const single = possible.length === 1;
  const target = gradient === 'none' ? {} : single ? { inPlace: true } : { out: alike(batch.logits) };
  const runOptions: RunOptions = { gradient, ...target, ...(threads !== undefined && { threads }) };
  // Loaded before the clock starts.
  const { isa, threads: available } = native().cpuInfo();
  const outcomes = possible.map((candidate) => compute(candidate, batch, runOptions));
  const milliseconds = outcomes.reduce((sum, outcome) => sum + outcome.milliseconds, 0);

  const [outcome] = outcomes;
  if (!outcome) throw new CommandError('no method is left to compute');
  if (request.out !== undefined) writeGradient(request.out, outcome, batch, gradient);

  const scored = outcome.result.counts.reduce((total, count) => total + count, 0);
  const about = describe(batch, scored);
  if (request.json) {
    printJson({
      file: request.file,
      batch: about,
      backend: outcome.result.backend,
      gradient,
      results: outcomes.map(jsonOf),
      skipped: lacking.map(({ info }) => ({ method: info.name, reason: 'the batch has no reference' })),
      ...(request.out !== undefined && { out: request.out }),
    });
    return Promise.resolve(ok);
  }
  const count = about.sequences % 2 === 0 ? plural(about.sequences / 2, 'pair') : plural(about.sequences, 'sequence');
  const tokens = `${scored.toLocaleString('en')} scored tokens of ${about.rows.toLocaleString('en')}`;
  const layout = `vocabulary ${about.vocab.toLocaleString('en')}, ${about.dtype}${about.packed ? ', packed' : ''}`;
  const hint = request.isExample ? paint('dim', '  the example that comes with diralign') : '';
  const effort = `${milliseconds < 10 ? milliseconds.toFixed(2) : milliseconds.toFixed(0)} ms on the ${outcome.result.backend} backend (${isa}), ${plural(threads ?? available, 'thread')}${gradient === 'none' ? '' : `, ${gradient} gradient`}`;
  print(`${file}${hint}\n${count}, ${tokens}, ${layout}\n`);
  if (single) print(showOne(outcome, effort));
  else
    print(
      `${showMany(
        outcomes,
        lacking.map(({ info }) => info.name),
        gradient,
        request,
      )}\n${paint('dim', effort)}`,
    );
  if (request.out !== undefined) print(`${paint('green', 'wrote')} ${shortPath(request.out)}`);
  return Promise.resolve(ok);
}

function alike(logits: LogitsArray): LogitsArray {
  return logits instanceof Float32Array ? new Float32Array(logits.length) : new Uint16Array(logits.length);
}

function writeGradient(path: string, { objective, result }: Outcome, batch: LogitsBatch, gradient: GradientMode): void {
  const { shape, dtype = 'float32', offsets } = batch;
  const { gradLogits, rowScale, loss } = result;
  if (!gradLogits) return;
  const dtypes = { float32: 'F32', float16: 'F16', bfloat16: 'BF16' } as const;
  const settings = { method: objective.method, beta: objective.beta, normalize: objective.normalize, ...optionsOf(objective) };
  writeSafetensors(
    path,
    {
      gradLogits: { dtype: dtypes[dtype], shape, data: gradLogits },
      ...(rowScale && {
        rowScale: { dtype: 'F32' as const, shape: offsets ? shape.slice(0, 1) : shape.slice(0, 2), data: rowScale },
      }),
    },
    { objective: JSON.stringify(settings), gradient, loss: String(loss) },
  );
}

/** Options with the same meaning, and whose they are. */
export function optionHelp(): string {
  const seen = new Map<string, { name: string; meaning: string; owners: MethodInfo[] }>();
  for (const info of methods()) {
    for (const [name, { meaning }] of Object.entries(info.options)) {
      const key = `${name} ${meaning}`;
      const entry = seen.get(key) ?? { name, meaning, owners: [] };
      entry.owners.push(info);
      seen.set(key, entry);
    }
  }
  const whose = (owners: readonly MethodInfo[]): string => {
    if (owners.length >= methods().length - 1) return owners.length === methods().length ? 'all' : 'all but sft';
    if (owners.length > 8) return 'those with a reference';
    return owners.map(({ name }) => name).join(', ');
  };
  return [...seen.values()]
    .sort((a, b) => b.owners.length - a.owners.length)
    .map(({ name, meaning, owners }) => `  --${kebab(name).padEnd(19)} ${meaning} (${whose(owners)})`)
    .join('\n');
}

export const lossCommand: Command = {
  name: 'loss',
  summary: 'loss, metrics and gradient of a batch in a safetensors file, by one method or all',
  usage: `diralign loss: loss, metrics and gradient of a batch of preference pairs

${paint('bold', 'Usage')}
  diralign loss [FILE.safetensors] [--method NAME[,NAME...]|all] [options]

Without FILE, the example that comes with the package. Without --method, all.

${paint('bold', 'Tensors of FILE')}
  logits      [sequences, tokens, vocab] F32, F16 or BF16; or packed, [rows, vocab]
  labels      one per row, I32 or I64: row t of the logits scores label t; -100 where a row is not scored
  reference   one per sequence, F64 or F32: log-probability under the reference model, where the method needs it
  offsets     packed only: sequences + 1 row numbers, I32 or I64
  sft_labels  labels of the likelihood term, where they differ
The first half of the sequences are the chosen, the second half the rejected.

${paint('bold', 'Options')}
  --method NAME        a method of 'diralign methods', several with commas, or all (default)
  --beta X             temperature; without it the best of the paper's ${setup} setup, else ${plainBeta}
  --normalize, --no-normalize
                       per scored token or not; without it the method's original setting
  --gradient MODE      dense (default), factored or none
  --out FILE           write the gradient: gradLogits, in the dtype and shape of the logits, and rowScale if factored
  --threads N          at most so many; the result does not depend on it
  --ignore-index N     label of rows that are not scored (default -100)
  --json               everything as JSON, numbers per pair and per sequence included

${paint('bold', 'Options of the methods')}, also as in the library (--labelSmoothing)
${optionHelp()}

${paint('bold', 'Examples')}
  diralign loss
  diralign loss batch.safetensors --method dpo --beta 0.1
  diralign loss batch.safetensors --method simpo,orpo --sft-weight 0.2
  diralign loss batch.safetensors --method dpo --beta 0.1 --gradient factored --out gradient.safetensors
  diralign loss --method all --json | jq '.results[] | [.method, .loss]'`,
  run,
};
