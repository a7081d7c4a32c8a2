/** What `diralign plot` is asked to draw. */
import { axes, hasAxis, type Series } from '../plot/curves.js';
import type { FigureOptions } from '../plot/figure.js';
import { kebab, number, oneOf, parse, whole } from './arguments.js';
import { build, optionsOf, optionTypes, readChoice, usesReference } from './choice.js';
import { UsageError } from './command.js';
import type { PngOptions } from './png.js';

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

export interface PlotRequest {
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

/** @throws UsageError for what cannot be drawn, or not be written */
export function readRequest(args: readonly string[]): PlotRequest {
  const parsed = parse<Record<string, 'string' | 'boolean'>>(
    'plot',
    args,
    { ...types, ...optionTypes() },
    1,
  );
  const { values } = parsed;
  const text = (name: keyof typeof types): string | undefined => values[name] as string | undefined;
  const { all, series } = readSeries(parsed.positionals[0] ?? 'all', values);
  const axis = text('over');
  const over = axis === undefined ? undefined : oneOf('over', axis, axes);
  const drawn = series.filter((each) => over === undefined || hasAxis(each, over));
  const leftOut = [
    ...new Set(series.filter((each) => !drawn.includes(each)).map(({ info }) => info.name)),
  ];
  if (leftOut.length > 0 && !all) {
    throw new UsageError(
      `--over: ${leftOut.join(', ')} has no ${String(over)}, ` +
        'only chosen sequences; use --over chosen',
    );
  }
  const out = text('out');
  const json = Boolean(values.json);
  checkOut(out, json);
  return {
    series: drawn,
    leftOut,
    options: {
      over,
      ...readFigureOptions(text, values.log === true),
      facets: values.facets === true ? true : undefined,
    },
    out,
    png: readPng(out, text('scale'), text('font')),
    json,
  };
}

function checkOut(out: string | undefined, json: boolean): void {
  if (out !== undefined && out !== '-' && !/\.(svg|png)$/.test(out)) {
    throw new UsageError(
      `--out: '${out}' is neither - nor a name that ends with .svg or .png, ` +
        'which are what can be written',
    );
  }
  if (out === '-' && json)
    throw new UsageError('--out - and --json exclude each other: there is one standard output');
}

function readFigureOptions(
  text: (name: keyof typeof types) => string | undefined,
  log: boolean,
): FigureOptions {
  const vertical = text('yRange');
  const yRange = vertical === undefined ? undefined : readRange('yRange', vertical);
  if (log && yRange && yRange[0] <= 0)
    throw new UsageError(
      `--y-range: '${String(vertical)}' begins below what --log can draw; begin above 0`,
    );
  const held = text('at');
  const at = held === undefined ? undefined : number('at', held);
  if (at !== undefined && !Number.isFinite(at))
    throw new UsageError(`--at: '${String(held)}' is not a finite number`);
  const tokens = text('tokens');
  const counts =
    tokens === undefined
      ? undefined
      : pair('tokens', tokens, 'two numbers of tokens; for instance 120,80');
  const range = text('range');
  const points = text('points');
  return {
    range: range === undefined ? undefined : readRange('range', range),
    yRange,
    log,
    at,
    counts: counts && [
      whole('tokens', counts[0], 1, mostTokens),
      whole('tokens', counts[1], 1, mostTokens),
    ],
    points: points === undefined ? undefined : whole('points', points, 2, mostPoints),
  };
}

/** More than a figure has pixels. */
const mostPoints = 100_000;

/** Counts are 32-bit. */
const mostTokens = 2 ** 31 - 1;

/** Twice as many pixels as an SVG has units: sharp on today's screens. */
export const defaultScale = 2;

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
