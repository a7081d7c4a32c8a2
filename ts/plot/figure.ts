import {
  drawCurves,
  type Axis,
  type Curve,
  type CurveGroup,
  type CurveOptions,
  type Series,
} from './curves.js';
import { labelsOf, methodsOf } from './labels.js';
import type { Line, Panel } from './panel.js';
import { toSvg, type Block, type PanelRow } from './svg.js';
import { light } from './theme.js';

const signed = (value: number): string =>
  String(Number(value.toPrecision(4))).replace('-', '\u2212');

/** What an axis measures, in which unit, and where the other sequence is held. */
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
    return (
      `margin: ${what} of the chosen \u2212 that of the rejected (${unit}); ` +
      `their middle at ${held.join(' or ')}`
    );
  const other = over === 'chosen' ? 'rejected' : 'chosen';
  const alone = curves.every(({ rejected }) => rejected === undefined);
  return (
    `${what} of the ${over} ` +
    `(${unit})${alone ? '' : `; that of the ${other} at ${held.join(' or ')}`}`
  );
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
