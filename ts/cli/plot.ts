import { axes, hasAxis, type Axis, type Curve, type Series } from '../plot/curves.js';
import { labelsOf, plot, type FigureOptions, type Plot } from '../plot/figure.js';
import { toPng, type PngOptions } from './png.js';
import { kebab, number, oneOf, parse, whole } from './arguments.js';
import { ok, UsageError, type Command, type CommandError } from './command.js';
import {
  build,
  optionHelp,
  optionsOf,
  optionTypes,
  readChoice,
  usesReference,
  usualBetas,
} from './choice.js';
import { outcomeOf, statusOf, withOutput, type Output } from './output.js';
import { shortPath } from './package.js';
import { digits, plural, table, wrap, type Cell } from '../text/table.js';
import { paint, print, printJson } from '../text/terminal.js';

const types = {
  beta: 'string',
  preset: 'string',
  normalize: 'boolean',
  noNormalize: 'boolean',
  over: 'string',
  range: 'string',
  at: 'string',
  tokens: 'string',
  points: 'string',
  facets: 'boolean',
  yRange: 'string',
  log: 'boolean',
  out: 'string',
  scale: 'string',
  font: 'string',
  json: 'boolean',
} as const;

type Values = Readonly<Record<string, string | boolean | undefined>>;

/** What was typed with every choice among the values that commas separate. */
function combinations(values: Values, names: readonly string[]): Values[] {
  return names.reduce<Values[]>(
    (all, name) => {
      const given = values[name];
      if (typeof given !== 'string') return all;
      return all.flatMap((each) =>
        given.split(',').map((one) => ({ ...each, [name]: one.trim() })),
      );
    },
    [values],
  );
}

interface Request {
  readonly series: readonly Series[];
  /** Of those, what has no such axis. */
  readonly leftOut: readonly string[];
  readonly options: FigureOptions;
  readonly out: string | undefined;
  /** Where `out` is PNG. */
  readonly png: PngOptions | undefined;
  readonly json: boolean;
}

function pair(option: string, text: string, meaning: string): readonly [string, string] {
  const [first, second, ...rest] = text.split(',');
  if (first === undefined || second === undefined || rest.length > 0) {
    throw new UsageError(`--${option}: '${text}' is not ${meaning}`);
  }
  return [first, second];
}

function readRange(option: 'range' | 'yRange', text: string): readonly [from: number, to: number] {
  const name = kebab(option);
  const [from, to] = pair(name, text, 'two numbers; for instance -10,10').map((one) =>
    number(option, one),
  ) as [number, number];
  if (!(Number.isFinite(from) && Number.isFinite(to) && from < to)) {
    throw new UsageError(
      `--${name}: '${text}' does not go from a number to a greater one; for instance -10,10`,
    );
  }
  if (!Number.isFinite(to - from))
    throw new UsageError(`--${name}: '${text}' is wider than a number can be; for instance -10,10`);
  return [from, to];
}

/** Every method with every combination of the settings, once. */
function readSeries(
  list: string,
  values: Values,
): { readonly all: boolean; readonly series: readonly Series[] } {
  const listed = ['beta', ...Object.keys(optionTypes())];
  const choices = combinations(values, listed).map((each) => readChoice(list, each));
  const series = new Map<string, Series>();
  for (const info of choices[0]?.chosen ?? []) {
    for (const choice of choices) {
      const built = build(info, choice);
      const { objective } = built;
      // What the method does not have makes no difference to it.
      const key = JSON.stringify([
        info.name,
        objective.beta,
        objective.normalize,
        optionsOf(objective),
      ]);
      if (!series.has(key))
        series.set(key, { info, objective, usesReference: usesReference(built) });
    }
  }
  return { all: choices[0]?.all ?? false, series: [...series.values()] };
}

function parseRequest(args: readonly string[]): Request {
  const parsed = parse<Record<string, 'string' | 'boolean'>>(
    'plot',
    args,
    { ...types, ...optionTypes() },
    1,
  );
  const text = (name: keyof typeof types): string | undefined =>
    parsed.values[name] as string | undefined;
  const { all, series } = readSeries(parsed.positionals[0] ?? 'all', parsed.values);
  const over: Axis | undefined =
    text('over') === undefined ? undefined : oneOf('over', text('over') ?? '', axes);
  const drawn = series.filter((each) => over === undefined || hasAxis(each, over));
  const leftOut = [
    ...new Set(series.filter((each) => !drawn.includes(each)).map(({ info }) => info.name)),
  ];
  if (leftOut.length > 0 && !all) {
    throw new UsageError(
      `--over: ${leftOut.join(', ')} has no ${String(over)}, only chosen sequences; use --over chosen`,
    );
  }
  const at = text('at');
  const range = text('range');
  const tokens = text('tokens');
  const points = text('points');
  const out = text('out');
  const json = Boolean(parsed.values.json);
  if (out !== undefined && out !== '-' && !/\.(svg|png)$/.test(out)) {
    throw new UsageError(
      `--out: '${out}' is neither - nor a name that ends with .svg or .png, which are what can be written`,
    );
  }
  if (out === '-' && json)
    throw new UsageError('--out - and --json exclude each other: there is one standard output');
  const log = parsed.values.log === true;
  const yRange = text('yRange');
  const vertical = yRange === undefined ? undefined : readRange('yRange', yRange);
  if (log && vertical && vertical[0] <= 0)
    throw new UsageError(
      `--y-range: '${String(yRange)}' begins below what --log can draw; begin above 0`,
    );
  const held = at === undefined ? undefined : number('at', at);
  if (held !== undefined && !Number.isFinite(held))
    throw new UsageError(`--at: '${String(at)}' is not a finite number`);
  const counts =
    tokens === undefined
      ? undefined
      : pair('tokens', tokens, 'two numbers of tokens; for instance 120,80');
  return {
    series: drawn,
    leftOut,
    options: {
      over,
      range: range === undefined ? undefined : readRange('range', range),
      yRange: vertical,
      log,
      at: held,
      counts: counts && [
        whole('tokens', counts[0], 1, mostTokens),
        whole('tokens', counts[1], 1, mostTokens),
      ],
      points: points === undefined ? undefined : whole('points', points, 2, mostPoints),
      facets: parsed.values.facets === true ? true : undefined,
    },
    out,
    png: readPng(out, text('scale'), text('font')),
    json,
  };
}

/** More than a figure has pixels. */
const mostPoints = 100_000;
/** Counts are 32-bit. */
const mostTokens = 2 ** 31 - 1;

/** Twice as many pixels as an SVG has units: sharp on today's screens. */
const defaultScale = 2;
/** 16800 pixels across. */
const largestScale = 20;

function readPng(
  out: string | undefined,
  scaleText: string | undefined,
  font: string | undefined,
): PngOptions | undefined {
  if (out?.endsWith('.png') !== true) {
    for (const [name, value] of Object.entries({ scale: scaleText, font })) {
      if (value !== undefined) throw new UsageError(`--${name}: is for PNG; give --out FILE.png`);
    }
    return undefined;
  }
  const scale = scaleText === undefined ? defaultScale : number('scale', scaleText);
  if (!(scale >= 0.1 && scale <= largestScale)) {
    throw new UsageError(
      `--scale: '${String(scaleText)}' is not a number from 0.1 to ${largestScale}`,
    );
  }
  return { scale, font };
}

function jsonOf(curve: Curve) {
  const { series, ...data } = curve;
  const { objective } = series;
  return {
    method: objective.method,
    beta: objective.beta,
    normalize: objective.normalize,
    options: optionsOf(objective),
    ...data,
    unit: data.perToken ? 'nats per token' : 'nats',
  };
}

/** A curve as a line of text sees it. */
function sparkline(values: Float64Array): string {
  const finite = values.filter(Number.isFinite);
  const low = finite.reduce((a, b) => Math.min(a, b), Infinity);
  const high = finite.reduce((a, b) => Math.max(a, b), -Infinity);
  const cells = 16;
  return Array.from({ length: cells }, (_, i) => {
    const value = values[Math.round((i * (values.length - 1)) / (cells - 1))] ?? NaN;
    if (!Number.isFinite(value)) return ' ';
    // What differs by rounding is flat.
    const flat = high - low <= 1e-9 * Math.max(Math.abs(low), Math.abs(high));
    const share = flat ? 0 : (value - low) / (high - low);
    return String.fromCodePoint(0x2581 + Math.round(share * 7));
  }).join('');
}

function summary({ groups }: Plot, { series, leftOut, out }: Request): string {
  const { common, labels } = labelsOf(series);
  const manyMethods = new Set(series.map(({ info }) => info.name)).size > 1;
  const rows = groups.flatMap(({ curves }) =>
    curves.map((curve): Cell[] => {
      const { over, perToken, x, loss, gradChosen, gradRejected } = curve;
      const label = labels[series.indexOf(curve.series)] ?? '';
      const middle = (x.length - 1) >> 1;
      const at = (values: Float64Array | undefined, i: number): string =>
        values ? digits(values[i] ?? NaN, 4) : '-';
      return [
        {
          text:
            manyMethods || label === curve.series.info.name
              ? label
              : `${curve.series.info.name}, ${label}`,
          style: 'bold',
        },
        `${over}${perToken ? ' per token' : ''}`,
        at(x, 0),
        at(x, x.length - 1),
        sparkline(loss),
        at(loss, 0),
        at(loss, middle),
        at(loss, x.length - 1),
        at(gradChosen, middle),
        at(gradRejected, middle),
      ];
    }),
  );
  const point = (title: string) => ({ title, align: 'point' as const });
  const columns = [
    ...[{ title: 'objective' }, { title: 'over' }, point('from'), point('to'), { title: 'loss' }],
    ...[
      point('first'),
      point('middle'),
      point('last'),
      point('dloss/dchosen, middle'),
      point('dloss/drejected'),
    ],
  ];
  const notes = [
    common,
    leftOut.length > 0 ? `Left out, for it has chosen sequences only: ${leftOut.join(', ')}.` : '',
    out === undefined ? 'Nothing was written; --out FILE.svg or FILE.png draws the figure.' : '',
  ];
  return [
    table(columns, rows),
    '',
    ...notes.filter(Boolean).map((note) => paint('dim', wrap(note))),
  ]
    .join('\n')
    .trimEnd();
}

async function run(args: string[]): Promise<number> {
  const request = parseRequest(args);
  if (request.out === '-') {
    process.stdout.write(plot(request.series, request.options).svg);
    return ok;
  }
  return await withOutput('out', request.out, (output) => drawAndTell(request, output));
}

async function drawAndTell(request: Request, output: Output | undefined): Promise<number> {
  const { png, json } = request;
  const result = plot(request.series, request.options);
  const file = png === undefined ? Buffer.from(result.svg) : await toPng(result.svg, png);
  const write = (): CommandError | undefined => output?.write(file);
  const curves = result.groups.flatMap((group) => group.curves);
  if (json) {
    const failure = write();
    const { title } = result;
    printJson({
      title,
      curves: curves.map(jsonOf),
      leftOut: request.leftOut,
      ...outcomeOf(output, failure),
    });
    return statusOf('plot', failure);
  }
  print(summary(result, request));
  const failure = write();
  if (output && !failure) {
    const size = `${plural(curves.length, 'curve')}, ${Math.ceil(file.length / 1000)} kB`;
    print(`${paint('green', 'wrote')} ${shortPath(output.file)}, ${size}`);
  }
  return statusOf('plot', failure);
}

export const plotCommand: Command = {
  name: 'plot',
  summary: 'loss and derivatives of methods over the margin or the scores, as SVG or PNG',
  usage: `diralign plot: loss and derivatives of any methods in any settings, as SVG or PNG

${paint('bold', 'Usage')}
  diralign plot [METHOD[,METHOD...]|all] [options]

Pairwise methods over the margin, pointwise ones over each of the two scores. An axis is a
log-ratio to the reference, or a log-probability where the method has no reference: of the whole
sequence in nats, or in nats per token where it is normalised. Derivatives are by the same. Every
point is a pair given to fromLogps. Without METHOD, all.

${paint('bold', 'Options')}
  --beta X[,Y...]      a curve for each; without it the usual one of each method
                       (${usualBetas})
  --preset SETUP       the best betas of a setup of arXiv 2502.01237, such as
                       ultrafeedback-llama-3.1-8b
  --normalize, --no-normalize
                       per scored token or not; without it the method's original setting
  --over AXIS          margin, chosen or rejected, for all methods
  --range A,B          ends of the axis; without it, where the methods bend
  --y-range A,B        ends of the axis of the loss; without it, where it ends
  --log                losses above 0, and sizes of derivatives, on logarithmic scales; without it,
                       curves of which one is more than 50 times as high as another are drawn
                       relative to their greatest value
  --at X               where the sequence stays that does not move; over the margin, the middle of
                       the two (default 0 for log-ratios, below 0 by 0.55 of the range for
                       log-probabilities)
  --tokens W,L         scored tokens of the chosen and the rejected sequence (default 64,64); r_dpo
                       depends on them
  --points N           of each curve (default 201)
  --facets             a part of the figure for each method, as it is with more than six curves
  --out FILE           the figure, a name that ends with .svg or .png; - for SVG on the standard
                       output. Without it, only the summary is printed. PNG needs @resvg/resvg-js
                       beside diralign: npm install @resvg/resvg-js
  --scale X            of PNG: pixels to a unit of the SVG, which is 840 wide (default ${defaultScale})
  --font FILE          of PNG: a TrueType or OpenType file to use instead of the system's fonts
  --json               all points as JSON

${paint('bold', 'Options of the methods')}, also as in the library (--labelSmoothing), or for one: METHOD=X.
Several values with commas, a curve for each.
${optionHelp()}

${paint('bold', 'Examples')}
  diralign plot dpo --beta 0.05,0.1,0.5 --out dpo.svg
  diralign plot dpo,ipo,hinge --beta 0.1 --range -20,40 --out pairwise.svg
  diralign plot apo_zero,nca --beta 0.1 --over margin --out -
  diralign plot dpo --divergence reverse_kl,forward_kl,js --label-smoothing 0,0.1 --out kl.svg
  diralign plot dpo,ipo --range 0,100 --log --out tails.svg
  diralign plot all --out gallery.svg
  diralign plot dpo,simpo --out slides.png --scale 3
  diralign plot simpo --json | jq '.curves[0].loss'`,
  run,
};
