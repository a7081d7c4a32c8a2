import type { Method } from '../catalogue.js';
import type { Objective } from '../objective.js';
import {
  drawCurves,
  type Axis,
  type Curve,
  type CurveGroup,
  type CurveOptions,
  type Series,
} from './curves.js';
import { light, toSvg, type Block, type Line, type Panel, type PanelRow } from './svg.js';

type Value = number | string | boolean;

/** `value` of a setting, as a figure says it. */
function say(name: string, value: Value): string {
  if (typeof value === 'boolean') return value ? name : `no ${name}`;
  return `${name} ${typeof value === 'string' ? value : String(value).replace('-', '\u2212')}`;
}

/**
 * Options worth a word: not what they are by default, or in the formula; the alpha of the
 * divergence that has one.
 */
function told({ info, objective }: Series): ReadonlyMap<string, Value> {
  const settings = objective as unknown as Readonly<Record<string, Value>>;
  const words = info.formula.split(/\W+/).map((word) => (word === 'eps' ? 'labelSmoothing' : word));
  const names = Object.keys(info.options).filter(
    (name) =>
      settings[name] !== info.options[name]?.default ||
      words.includes(name) ||
      (name === 'alpha' && settings.divergence === 'alpha'),
  );
  const entries = names.map((name): [string, Value] => [name, settings[name] as Value]);
  if (objective.normalize !== info.normalize) entries.push(['normalize', objective.normalize]);
  return new Map(entries);
}

/** Methods by the order in which they come. */
export function methodsOf(all: readonly Series[]): Method[] {
  return [...new Set(all.map(({ info }) => info.name))];
}

/** Settings that all have, and what tells them apart. */
export interface Labels {
  readonly common: string;
  readonly labels: readonly string[];
}

export function labelsOf(all: readonly Series[]): Labels {
  const manyMethods = methodsOf(all).length > 1;
  const settings = all.map((series) => {
    const { objective } = series;
    return new Map<string, Value>([
      ...(objective.beta === undefined ? [] : [['beta', objective.beta] as const]),
      ...told(series),
    ]);
  });
  const names = [...new Set(settings.flatMap((map) => [...map.keys()]))];
  const common: string[] = [];
  const apart = new Set<string>();
  for (const name of names) {
    // The word itself may be left out where it is the default, and still be one of several values.
    const having = all.filter(
      ({ info }) => name === 'beta' || name === 'normalize' || Object.hasOwn(info.options, name),
    );
    const values = having.map(
      ({ objective }) => (objective as unknown as Readonly<Record<string, Value>>)[name],
    );
    const tellers = all.filter((_, i) => settings[i]?.has(name));
    const given = values.filter((value) => value !== undefined);
    const owners = methodsOf(tellers);
    // Of one divergence among several, for instance.
    const isPartial = tellers.length < all.filter(({ info }) => owners.includes(info.name)).length;
    if (new Set(given).size > 1 || isPartial) apart.add(name);
    else if (given[0] !== undefined) {
      const whose =
        name === 'beta' || owners.length === methodsOf(all).length ? '' : ` (${owners.join(', ')})`;
      common.push(say(name, given[0]) + whose);
    }
  }
  const varies = ({ info, objective }: Series, name: string): boolean => {
    const valueOf = (of: Objective): Value | undefined =>
      (of as unknown as Readonly<Record<string, Value>>)[name];
    return all.some(
      (other) => other.info === info && valueOf(other.objective) !== valueOf(objective),
    );
  };
  const labels = all.map((series, i) => {
    const own = settings[i] as Map<string, Value>;
    const words = [...apart]
      // A default only where the same method has other values beside it; an alpha has a meaning
      // only where it is told.
      .filter(
        (name) =>
          own.has(name) ||
          (varies(series, name) && !(name === 'alpha' && series.info.name === 'dpo')),
      )
      .map((name) =>
        say(
          name,
          own.get(name) ??
            (series.objective as unknown as Readonly<Record<string, Value>>)[name] ??
            '',
        ),
      );
    return [...(manyMethods || words.length === 0 ? [series.info.name] : []), ...words].join(', ');
  });
  return { common: common.join(', '), labels };
}

const signed = (value: number): string =>
  String(Number(value.toPrecision(4))).replace('-', '\u2212');

/** What an axis measures, in which unit, and where that is held which does not move. */
export function axisTitle({ over, perToken, curves }: CurveGroup): string {
  const unit = perToken ? 'nats per token' : 'nats';
  const long = { 'log-ratio': 'log-ratio', 'log-prob': 'log-probability' } as const;
  const quantities = [...new Set(curves.map(({ quantity }) => quantity))];
  const what = quantities.map((quantity) => long[quantity]).join(' or ');
  const held = quantities.map((quantity) => {
    const at = signed(curves.find((curve) => curve.quantity === quantity)?.at ?? NaN);
    return quantities.length > 1 ? `${at} (${long[quantity]})` : at;
  });
  if (over === 'margin')
    return `margin: ${what} of the chosen \u2212 that of the rejected (${unit}); their middle at ${held.join(' or ')}`;
  const other = over === 'chosen' ? 'rejected' : 'chosen';
  const alone = curves.every(({ rejected }) => rejected === undefined);
  return `${what} of the ${over} (${unit})${alone ? '' : `; that of the ${other} at ${held.join(' or ')}`}`;
}

/**
 * How many times one line of a panel may be higher than another before their axis shows the higher
 * one alone.
 */
const mostApart = 50;

/** The greatest size of a line's values. */
const greatest = ({ y }: Line): number =>
  Array.from(y).reduce(
    (most, value) => (Number.isFinite(value) ? Math.max(most, Math.abs(value)) : most),
    0,
  );

/**
 * A panel, and what 1 stands for in each of its lines where they are drawn over their greatest
 * values.
 */
interface Drawn {
  readonly panel: Panel;
  readonly units?: { readonly of: string; readonly byLine: ReadonlyMap<number, number> };
}

type Scales = Pick<FigureOptions, 'log' | 'yRange'>;

/**
 * By range or `log` as asked; else over one axis, or each line over its greatest value where one
 * axis would show the highest alone.
 */
function scaled(
  of: string,
  unit: string,
  lines: readonly Line[],
  { log = false, yRange }: Scales,
): Drawn {
  if (log || yRange !== undefined)
    return { panel: { title: `${of}${unit}`, lines, log, range: yRange } };
  const sizes = lines.map(greatest);
  const above = sizes.filter((size) => size > 0);
  if (!(Math.max(...above) > mostApart * Math.min(...above)))
    return { panel: { title: `${of}${unit}`, lines } };
  const relative = lines.map((line, i) => {
    const size = sizes[i] as number;
    return { ...line, y: Array.from(line.y, (value) => (size > 0 ? value / size : value)) };
  });
  const byLine = new Map(lines.map(({ index }, i) => [index, sizes[i] as number]));
  return { panel: { title: `${of}, relative`, lines: relative }, units: { of, byLine } };
}

function panels(
  { over, perToken, curves }: CurveGroup,
  indexOf: (curve: Curve) => number,
  { log, yRange }: Scales,
): Drawn[] {
  const lines = (y: (curve: Curve) => Float64Array | undefined): Line[] =>
    curves.flatMap((curve) => {
      const values = y(curve);
      return values ? [{ x: curve.x, y: values, index: indexOf(curve) }] : [];
    });
  const unit = perToken ? ' (per nat/token)' : ' (per nat)';
  const derivative = (by: string, y: (curve: Curve) => Float64Array | undefined): Drawn => {
    const of = `\u2202loss / \u2202${by}`;
    // A logarithmic scale has no place for what is below 0.
    return log
      ? scaled(
          `|${of}|`,
          unit,
          lines((curve) => y(curve)?.map(Math.abs)),
          { log },
        )
      : scaled(of, unit, lines(y), {});
  };
  return [
    scaled(
      'loss',
      '',
      lines(({ loss }) => loss),
      { log, yRange },
    ),
    ...(over === 'rejected' ? [] : [derivative('chosen', ({ gradChosen }) => gradChosen)]),
    ...(over === 'chosen' ? [] : [derivative('rejected', ({ gradRejected }) => gradRejected)]),
  ];
}

function block(
  series: readonly Series[],
  groups: readonly CurveGroup[],
  legend: readonly string[],
  options: FigureOptions,
  heading?: string,
): Block {
  const rows = groups.map((group) => ({
    group,
    drawn: panels(group, (curve) => series.indexOf(curve.series), options),
  }));
  const units = rows.flatMap(({ drawn }) => drawn.flatMap((each) => each.units ?? []));
  const withUnits = legend.map((label, index) => {
    const own = units.flatMap(({ of, byLine }) =>
      byLine.has(index) ? `${of} \u00d7 ${signed(byLine.get(index) ?? 0)}` : [],
    );
    return own.length === 0 ? label : `${label} (${own.join(', ')})`;
  });
  return {
    heading,
    legend: withUnits,
    rows: rows.map(({ group, drawn }): PanelRow => ({
      ...{ axis: axisTitle(group), range: group.range },
      panels: drawn.map(({ panel }) => panel),
    })),
  };
}

/** Said where an objective depends on the lengths by more than the unit of its axis. */
function tokens(series: readonly Series[], groups: readonly CurveGroup[]): string {
  const depends = ({ info, objective }: Series): boolean =>
    info.formula.includes('L_w') ||
    (objective as unknown as { sftReduction: string }).sftReduction === 'token';
  const counts = groups[0]?.curves[0]?.counts;
  return counts && series.some(depends) ? `${counts[0]} tokens chosen, ${counts[1]} rejected` : '';
}

export interface FigureOptions extends CurveOptions {
  /** A part of the figure for each method; default: where there are more lines than colours. */
  readonly facets?: boolean | undefined;
  /** Ends of the axis of the loss; default: where it ends. */
  readonly yRange?: readonly [from: number, to: number] | undefined;
  /** Losses above 0, and sizes of derivatives, on logarithmic scales. */
  readonly log?: boolean | undefined;
}

export interface Plot {
  readonly title: string;
  readonly groups: readonly CurveGroup[];
  /** The figure as an SVG document. */
  readonly svg: string;
}

const titleOf = (all: readonly Series[], over: Axis | undefined): string => {
  const names = methodsOf(all);
  const what = names.length > 8 ? `${names.length} methods` : names.join(', ');
  return `${what}: loss and derivatives${over === undefined ? '' : ` over the ${over}`}`;
};

/**
 * Objectives in one figure: a row for each meaning of the axis, the loss and its derivatives side
 * by side.
 *
 * @throws DirAlignError as {@link drawCurves} does
 */
export function plot(all: readonly Series[], options: FigureOptions = {}): Plot {
  const names = methodsOf(all);
  const title = titleOf(all, options.over);
  const facets = names.length > 1 && (options.facets ?? all.length > light.lines.length);
  if (!facets) {
    const groups = drawCurves(all, options);
    const { common, labels } = labelsOf(all);
    const formula = names.length === 1 ? (all[0]?.info.formula ?? '') : '';
    const subtitle = [formula, common, tokens(all, groups)].filter(Boolean).join('; ');
    return {
      title,
      groups,
      svg: toSvg({ title, subtitle, blocks: [block(all, groups, labels, options)] }),
    };
  }
  const parts = names.map((name) => {
    const series = all.filter(({ info }) => info.name === name);
    const groups = drawCurves(series, options);
    const { common, labels } = labelsOf(series);
    const heading = [`${name}: ${series[0]?.info.formula ?? ''}`, common, tokens(series, groups)]
      .filter(Boolean)
      .join('; ');
    return { groups, block: block(series, groups, labels, options, heading) };
  });
  return {
    title,
    groups: parts.flatMap(({ groups }) => groups),
    svg: toSvg({ title, subtitle: '', blocks: parts.map((part) => part.block) }),
  };
}
