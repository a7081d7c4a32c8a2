// Curves, their figure, and `diralign plot`. The numbers are held to the reference and to
// differences, not to the code that made them.
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { inflateSync } from 'node:zlib';
import { Resvg as RealResvg } from '@resvg/resvg-js';
import { afterAll, describe, expect, test, vi } from 'vitest';
import { CommandError, type Command } from '../../ts/cli/command.js';
import { lossCommand } from '../../ts/cli/loss.js';
import { plotCommand } from '../../ts/cli/plot.js';
import { toPng } from '../../ts/cli/png.js';
import { dirAlignLoss, methods, type Method, type Objective } from '../../ts/index.js';
import {
  defaultAxes,
  drawCurves,
  fieldsOf,
  type Curve,
  type Series,
} from '../../ts/plot/curves.js';
import { plot } from '../../ts/plot/figure.js';
import { labelsOf } from '../../ts/plot/labels.js';
import { gallery, galleryMarkdown } from '../../ts/plot/gallery.js';
import { toSvg } from '../../ts/plot/svg.js';
import { dark, light, type Theme } from '../../ts/plot/theme.js';
import { escapeMarkup } from '../../ts/text/markup.js';
import { ticks } from '../../ts/plot/ticks.js';
import { referenceFromLogps, type ReferenceConfig } from '../../ts/verification/reference.js';
import { parseXml, type Element } from '../support/xml.js';

const root = fileURLToPath(new URL('../..', import.meta.url));
/** A machine may have no fonts of its own. */
const font = fileURLToPath(import.meta.resolve('dejavu-fonts-ttf/ttf/DejaVuSans.ttf'));
const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'diralign-plot-'));
afterAll(() => {
  fs.rmSync(folder, { recursive: true });
});

type Options = Omit<ReferenceConfig, 'method'>;

function seriesOf(method: Method, options: Options = {}): Series {
  const info = methods().find(({ name }) => name === method);
  if (!info) throw new Error(method);
  const settings = { method, ...(method !== 'sft' && { beta: 0.1 }), ...options };
  const objective = dirAlignLoss(
    settings as { method: Method; beta: number },
  ) as unknown as Objective;
  return { info, objective, usesReference: info.reference && options.referenceFree !== true };
}

/** The settings of an objective, as the reference takes them. */
function configOf({ objective, info }: Series): ReferenceConfig {
  const settings = objective as unknown as Readonly<Record<string, unknown>>;
  const names = ['method', 'beta', 'normalize', ...Object.keys(info.options)];
  const entries = names.map((name) => [name, settings[name]] as const);
  // The other divergences have no alpha.
  const kept = entries.filter(
    ([name]) => name !== 'alpha' || info.name !== 'dpo' || settings.divergence === 'alpha',
  );
  return Object.fromEntries(kept) as unknown as ReferenceConfig;
}

/** A pair at two positions, by the reference. */
function referenceAt(curve: Curve, values: readonly number[]) {
  const { series, counts, perToken, reference } = curve;
  const scale = (b: number): number => (perToken ? (counts[b] as number) : 1);
  return referenceFromLogps(configOf(series), {
    ...fieldsOf(series.info),
    logps: Float64Array.from(values, (value, b) => (value + (reference ?? 0)) * scale(b)),
    counts: Int32Array.from(values, (_, b) => counts[b] as number),
    ...(reference !== undefined && {
      reference: Float64Array.from(values, (_, b) => reference * scale(b)),
    }),
  });
}

function positionsOf({ chosen, rejected }: Curve, i: number): number[] {
  return rejected ? [chosen[i] as number, rejected[i] as number] : [chosen[i] as number];
}

const variants: [Method, Options][] = [
  ...methods().map(({ name }): [Method, Options] => [name, {}]),
  ...methods().map(({ name, normalize }): [Method, Options] => [name, { normalize: !normalize }]),
  ['dpo', { divergence: 'forward_kl' }],
  ['dpo', { divergence: 'js', labelSmoothing: 0.2 }],
  ['dpo', { divergence: 'alpha', alpha: 0.7, normalize: true }],
  ['dpo', { referenceFree: true, sftWeight: 0.5 }],
  ['simpo', { beta: 2.5, gamma: 1.4, sftWeight: 0.3 }],
  ['orpo', { beta: 1, sftWeight: 1, sftReduction: 'token', lambda: 0.2 }],
  ['apo_zero', { sftWeight: 0.5, sftReduction: 'token' }],
];
const curvesOf = (method: Method, options: Options): Curve[] =>
  [
    undefined,
    'chosen' as const,
    ...(method === 'sft' ? [] : (['margin', 'rejected'] as const)),
  ].flatMap((over) =>
    drawCurves([seriesOf(method, options)], { over, counts: [12, 7], points: 21 }).flatMap(
      ({ curves }) => curves,
    ),
  );

describe('curves', () => {
  test.each(variants)(
    '%s %j: every point is that of fromLogps, and of the reference',
    (method, options) => {
      for (const curve of curvesOf(method, options)) {
        const { x, loss, gradChosen, gradRejected, perToken, counts, reference, series } = curve;
        expect(x.length).toBe(21);
        let [error, highest] = [0, -Infinity];
        const scale = (b: number): number => (perToken ? (counts[b] as number) : 1);
        for (let i = 0; i < x.length; i++) {
          const at = positionsOf(curve, i);
          const own = series.objective.fromLogps({
            ...fieldsOf(series.info),
            logps: Float64Array.from(at, (value, b) => (value + (reference ?? 0)) * scale(b)),
            counts: Int32Array.from(at, (_, b) => counts[b] as number),
            ...(reference !== undefined && {
              reference: Float64Array.from(at, (_, b) => reference * scale(b)),
            }),
          });
          const grads = [gradChosen[i], ...(gradRejected ? [gradRejected[i]] : [])];
          expect([loss[i], ...grads]).toEqual([
            own.loss,
            ...Array.from(own.gradLogps, (g, b) => g * scale(b)),
          ]);
          const wanted = referenceAt(curve, at);
          error = Math.max(
            error,
            Math.abs((loss[i] as number) - wanted.loss) / Math.max(Math.abs(wanted.loss), 1e-3),
          );
          highest = Math.max(highest, ...at.map((value) => value + (reference ?? 0)));
        }
        expect(error).toBeLessThan(1e-9);
        // Policies are never above probability 1.
        expect(highest).toBeLessThanOrEqual(1e-12 * Math.abs(reference ?? 0));
      }
    },
  );

  test.each(variants)('%s %j: the derivatives are the slopes of the loss', (method, options) => {
    const series = seriesOf(method, options);
    for (const over of method === 'sft'
      ? (['chosen'] as const)
      : (['margin', 'chosen', 'rejected'] as const)) {
      const [group] = drawCurves([series], {
        over,
        counts: [12, 7],
        points: method === 'discopop' ? 4001 : 801,
      });
      const [curve] = group?.curves ?? [];
      if (!curve) throw new Error('no curve');
      const { x, loss, gradChosen, gradRejected } = curve;
      const slope = (i: number): number => {
        const [w, l] = [gradChosen[i] as number, gradRejected?.[i] ?? NaN];
        return over === 'margin' ? (w - l) / 2 : over === 'chosen' ? w : l;
      };
      const step = ((x.at(-1) as number) - (x[0] as number)) / (x.length - 1);
      const largest = x.reduce((most, _, i) => Math.max(most, Math.abs(slope(i))), 1e-6);
      let [kinks, worst] = [0, 0];
      for (let i = 1; i < x.length - 1; i++) {
        const difference = ((loss[i + 1] as number) - (loss[i - 1] as number)) / (2 * step);
        // The slope within the step is bent by its second difference.
        const bend = Math.abs(slope(i + 1) - 2 * slope(i) + slope(i - 1));
        if (bend > 0.05 * largest) kinks++;
        else worst = Math.max(worst, Math.abs(difference - slope(i)) / (bend + 1e-5 * largest));
      }
      expect(worst).toBeLessThan(1);
      // hinge and dpop have one; its neighbours see it, too.
      expect(kinks).toBeLessThanOrEqual(['hinge', 'dpop'].includes(method) ? 3 : 0);
    }
  });

  test('each derivative is that of its own sequence', () => {
    for (const method of ['dpop', 'orpo', 'asft', 'nca', 'alphapo', 'r_dpo'] as const) {
      for (const { curves } of drawCurves([seriesOf(method)], {
        over: 'margin',
        counts: [12, 7],
        points: 10,
      })) {
        for (const curve of curves) {
          for (let i = 0; i < curve.x.length; i++) {
            const at = positionsOf(curve, i);
            const h = 1e-5 * Math.max(1, ...at.map(Math.abs));
            const slope = (b: number): number => {
              const moved = (by: number): number =>
                referenceAt(
                  curve,
                  at.map((value, j) => (j === b ? value + by : value)),
                ).loss;
              return (moved(h) - moved(-h)) / (2 * h);
            };
            const size =
              Math.abs(curve.gradChosen[i] as number) +
              Math.abs(curve.gradRejected?.[i] ?? NaN) +
              1e-4;
            expect(Math.abs(slope(0) - (curve.gradChosen[i] as number)) / size).toBeLessThan(1e-4);
            expect(Math.abs(slope(1) - (curve.gradRejected?.[i] ?? NaN)) / size).toBeLessThan(1e-4);
          }
        }
      }
    }
  });

  test('axes: the margin of pairs, both scores, the chosen; symmetric points with a 0', () => {
    for (const info of methods()) {
      const wanted = {
        pairwise: ['margin'],
        pointwise: ['chosen', 'rejected'],
        listwise: ['margin'],
        likelihood: ['chosen'],
      }[info.ranking];
      expect(defaultAxes(seriesOf(info.name))).toEqual(wanted);
    }
    const [group] = drawCurves([seriesOf('dpo')]);
    expect(group).toMatchObject({ over: 'margin', perToken: false, range: [-50, 50] });
    const [curve] = group?.curves ?? [];
    expect(curve?.x[100]).toBe(0);
    expect(curve?.loss[100]).toBe(Math.LN2);
    expect(Array.from(curve?.x ?? [], (x) => 0 - x).reverse()).toEqual(Array.from(curve?.x ?? []));
  });

  test('what has no meaning is refused', () => {
    expect(() => drawCurves([seriesOf('sft')], { over: 'margin' })).toThrow(
      /^over: 'sft' has no margin; expected 'chosen'$/,
    );
    expect(() => drawCurves([seriesOf('orpo')], { range: [-5, 5], at: -1 })).toThrow(
      expect.objectContaining({ code: 'ERR_DIRALIGN_OPTION' }) as Error,
    );
    expect(() => drawCurves([seriesOf('asft')], { range: [-5, 1] })).toThrow(
      /^range: 'asft' is drawn over log-probabilities/,
    );
  });
});

test('ticks: round, ascending, within the ends or around them', () => {
  expect(ticks(0, 1, 4, true)).toMatchObject({
    values: [0, 0.2, 0.4, 0.6, 0.8, 1],
    labels: ['0', '0.2', '0.4', '0.6', '0.8', '1.0'],
  });
  expect(ticks(-7, 12, 4, false)).toMatchObject({
    from: -7,
    to: 12,
    labels: ['\u22125', '0', '5', '10'],
  });
  expect(ticks(-7, 12, 4, true)).toMatchObject({ from: -10, to: 15 });
  expect(ticks(0, 3e-5, 3, true).labels).toEqual(['0', '1e\u22125', '2e\u22125', '3e\u22125']);
  expect(ticks(2, 2, 4, true)).toMatchObject({ from: 1, to: 3 });
  expect(ticks(0, 0, 4, true)).toMatchObject({ from: -1, to: 1 });
  for (const [from, to] of [
    [1e-12, 3e-12],
    [-4e7, 9e8],
    [0.1, 0.30000000000000004],
    [99.5, 100.25],
  ] as const) {
    const { values, labels, ...ends } = ticks(from, to, 4, true);
    expect(ends.from).toBeLessThanOrEqual(from);
    expect(ends.to).toBeGreaterThanOrEqual(to * (1 - 1e-9));
    expect(values.length).toBeGreaterThan(2);
    expect(values.length).toBeLessThan(9);
    expect(labels.map((label) => Number(label.replaceAll('\u2212', '-')))).toEqual(values);
  }
});

const all = (element: Element, name: string): Element[] => [
  ...(element.name === name ? [element] : []),
  ...element.children.flatMap((child) => all(child, name)),
];
const linesOf = (svg: Element): Element[] =>
  all(svg, 'path').filter(
    (line) => line.children.length > 0 && line.attributes.class?.startsWith('da-line'),
  );

describe('figures', () => {
  test.each(methods().map(({ name }) => name))(
    '%s: as many lines as curves, all within the figure',
    (name) => {
      const { svg, groups } = plot([
        seriesOf(name),
        ...(name === 'sft' ? [] : [seriesOf(name, { beta: 0.3 })]),
      ]);
      const document = parseXml(svg);
      expect(document.attributes.xmlns).toBe('http://www.w3.org/2000/svg');
      const [, , width, height] = (document.attributes.viewBox ?? '').split(' ').map(Number) as [
        number,
        number,
        number,
        number,
      ];
      const drawn = groups.flatMap(({ over, curves }) =>
        curves.map(() => (over === 'margin' ? 3 : 2)),
      );
      const lines = linesOf(document);
      expect(lines.length).toBe(drawn.reduce<number>((sum, panels) => sum + panels, 0));
      for (const line of lines) {
        const numbers = (line.attributes.d ?? '').split(/[ML ]/).filter(Boolean).map(Number);
        expect(numbers.length).toBeGreaterThanOrEqual(4);
        numbers.forEach((number, i) => {
          expect(number).toBeGreaterThan(0);
          expect(number).toBeLessThan(i % 2 === 0 ? width : height);
        });
      }
      for (const { attributes } of all(document, 'text')) {
        expect(Number(attributes.y)).toBeLessThan(height);
      }
      expect(all(document, 'title')[0]?.text).toBe(`${name}: loss and derivatives`);
    },
  );

  test('a line passes through the points of its curve, however few are left of it', () => {
    const { svg, groups } = plot([seriesOf('dpo')]);
    const [line] = linesOf(parseXml(svg));
    const points = (line?.attributes.d ?? '')
      .slice(1)
      .split('L')
      .map((point) => point.split(' ').map(Number) as [number, number]);
    const curve = groups[0]?.curves[0];
    if (!curve) throw new Error('no curve');
    expect(points.length).toBeLessThan(60);
    const [[left], [right]] = [points[0], points.at(-1)] as [[number, number], [number, number]];
    // The panel's scale from two points: the loss is ln 2 in the middle, and its first value at the
    // left.
    const at = (x: number): number => {
      const i = points.findIndex(([end]) => end >= x);
      const [[x0, y0], [x1, y1]] = [points[Math.max(0, i - 1)], points[i]] as [
        [number, number],
        [number, number],
      ];
      return x1 === x0 ? y1 : y0 + ((x - x0) / (x1 - x0)) * (y1 - y0);
    };
    const perPixel =
      ((curve.loss[0] as number) - (curve.loss[200] as number)) / (at(right) - at(left));
    curve.loss.forEach((loss, i) => {
      const y = at(left + ((right - left) * i) / 200);
      expect(Math.abs((curve.loss[0] as number) - perPixel * (y - at(left)) - loss)).toBeLessThan(
        0.2 * perPixel,
      );
    });
  });

  test('the same bytes again', () => {
    const series = (): Series[] => methods().map(({ name }) => seriesOf(name));
    expect(plot(series()).svg).toBe(plot(series()).svg);
  });

  test('values that are not finite break a line and nothing else', () => {
    const y = [1, 2, NaN, 3, Infinity, 4, 5];
    const panel = {
      title: 'a < b & "c"\u0007',
      lines: [{ x: [0, 1, 2, 3, 4, 5, 6], y, index: 0 }],
    };
    const figure = {
      title: 't',
      subtitle: '',
      blocks: [{ legend: ['one'], rows: [{ axis: 'x', range: [0, 6] as const, panels: [panel] }] }],
    };
    const document = parseXml(toSvg(figure));
    expect(linesOf(document)[0]?.attributes.d?.match(/M/g)?.length).toBe(3);
    expect(all(document, 'text').map(({ text }) => text)).toContain('a < b & "c"\ufffd');
    const empty = toSvg({
      ...figure,
      blocks: [
        {
          legend: [],
          rows: [
            {
              axis: 'x',
              range: [0, 6],
              panels: [{ title: '', lines: [{ x: [0], y: [NaN], index: 0 }] }],
            },
          ],
        },
      ],
    });
    expect(empty).not.toMatch(/NaN|Infinity/);
    expect(escapeMarkup('<&>"')).toBe('&lt;&amp;&gt;&quot;');
  });

  test('labels: what differs in the legend, what is common in the subtitle', () => {
    expect(labelsOf([seriesOf('dpo'), seriesOf('dpo', { beta: 0.5 })])).toEqual({
      common: '',
      labels: ['beta 0.1', 'beta 0.5'],
    });
    expect(labelsOf([seriesOf('dpo'), seriesOf('simpo')])).toEqual({
      common: 'beta 0.1, gamma 0.5 (simpo)',
      labels: ['dpo', 'simpo'],
    });
    expect(
      labelsOf([seriesOf('dpo'), seriesOf('dpo', { divergence: 'alpha', alpha: 0.7 })]),
    ).toEqual({
      common: 'beta 0.1',
      labels: ['divergence reverse_kl', 'divergence alpha, alpha 0.7'],
    });
    expect(labelsOf([seriesOf('dpo'), seriesOf('dpo', { divergence: 'alpha' })]).labels).toEqual([
      'divergence reverse_kl',
      'divergence alpha, alpha 0.5',
    ]);
    expect(
      labelsOf([seriesOf('dpo'), seriesOf('robust'), seriesOf('robust', { labelSmoothing: 0.3 })])
        .labels,
    ).toEqual(['dpo', 'robust, labelSmoothing 0.1', 'robust, labelSmoothing 0.3']);
    expect(labelsOf([seriesOf('robust')]).common).toBe('beta 0.1, labelSmoothing 0.1');
    expect(labelsOf([seriesOf('dpo', { normalize: true })]).common).toBe('beta 0.1, normalize');
  });

  test('more lines than colours: a part for each method', () => {
    const series = methods().map(({ name }) => seriesOf(name));
    const heads = (svg: string): string[] =>
      all(parseXml(svg), 'text')
        .filter(({ attributes }) => attributes.class?.includes('da-head'))
        .map(({ text }) => /^\w+(?=: )/.exec(text)?.[0] ?? '')
        .filter(Boolean);
    expect(heads(plot(series).svg)).toEqual(methods().map(({ name }) => name));
    expect(heads(plot(series.slice(0, 3)).svg)).toEqual([]);
    expect(heads(plot(series.slice(0, 3), { facets: true }).svg)).toEqual(['sft', 'dpo', 'ipo']);
  });

  const linear = (colour: string): readonly number[] =>
    [1, 3, 5].map((i) => {
      const c = Number.parseInt(colour.slice(i, i + 2), 16) / 255;
      return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
    });
  const times = (matrix: readonly (readonly number[])[], vector: readonly number[]): number[] =>
    matrix.map((row) => row.reduce((sum, value, i) => sum + value * (vector[i] as number), 0));

  test('any two lines differ, for readers without one kind of cone, too', () => {
    // Machado, Oliveira and Fernandes 2009, severity 1: of linear RGB.
    const sights = [
      [
        [1, 0, 0],
        [0, 1, 0],
        [0, 0, 1],
      ],
      [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
      ],
      [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.01182, 0.04294, 0.968881],
      ],
      [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.3039],
      ],
    ];
    const toXyz = [
      [0.4124564, 0.3575761, 0.1804375],
      [0.2126729, 0.7151522, 0.072175],
      [0.0193339, 0.119192, 0.9503041],
    ];
    const lab = (rgb: readonly number[]): readonly number[] => {
      const white = [0.95047, 1, 1.08883];
      const [x, y, z] = times(toXyz, rgb).map((value, i) => {
        const t = value / (white[i] as number);
        return t > 216 / 24389 ? Math.cbrt(t) : ((24389 / 27) * t + 16) / 116;
      }) as [number, number, number];
      return [116 * y - 16, 500 * (x - y), 200 * (y - z)];
    };
    expect(lab(linear('#ffffff'))[0]).toBeCloseTo(100, 3);
    for (const { lines } of [light, dark]) {
      for (const sight of sights) {
        const seen = lines.map((line) =>
          lab(times(sight, linear(line)).map((c) => Math.min(1, Math.max(0, c)))),
        );
        const distances = seen.flatMap((a, i) =>
          seen.slice(0, i).map((b) => Math.hypot(...a.map((value, k) => value - (b[k] as number)))),
        );
        expect(distances.length).toBe(15);
        expect(Math.min(...distances)).toBeGreaterThan(35);
      }
    }
  });

  test('lines stand out from their page by 3:1 and words by 4.5:1, in light and dark', () => {
    const luminance = (colour: string): number =>
      times([[0.2126, 0.7152, 0.0722]], linear(colour))[0] as number;
    const contrast = (a: string, b: string): number => {
      const [high, low] = [luminance(a), luminance(b)].sort((x, y) => y - x) as [number, number];
      return (high + 0.05) / (low + 0.05);
    };
    expect(contrast('#ffffff', '#000000')).toBeCloseTo(21, 5);
    const check = ({ page, ink, soft, lines }: Theme): void => {
      for (const line of lines) expect(contrast(line, page)).toBeGreaterThanOrEqual(3);
      for (const word of [ink, soft]) expect(contrast(word, page)).toBeGreaterThanOrEqual(4.5);
    };
    check(light);
    check(dark);
    expect(light.lines.length).toBe(dark.lines.length);
  });
});

test('docs/figures and their list are up to date, and small', () => {
  const figures = gallery();
  const files = fs.readdirSync(path.join(root, 'docs/figures')).sort();
  expect(files).toEqual(figures.map(({ name }) => `${name}.svg`).sort());
  let bytes = 0;
  for (const { name, svg } of figures) {
    const file = fs.readFileSync(path.join(root, 'docs/figures', `${name}.svg`), 'utf8');
    expect(file === svg, `docs/figures/${name}.svg: run npm run figures`).toBe(true);
    bytes += Buffer.byteLength(svg);
  }
  expect(bytes).toBeLessThan(300_000);
  for (const { name } of methods()) expect(files).toContain(`${name}.svg`);
  const page = fs.readFileSync(path.join(root, 'docs/methods.md'), 'utf8');
  expect(page).toContain(`<!-- figures -->\n\n${galleryMarkdown(figures)}\n\n<!-- /figures -->`);
});

interface PlotJson {
  readonly title: string;
  readonly leftOut: readonly string[];
  readonly out?: string;
  readonly curves: readonly {
    readonly method: string;
    readonly beta: number;
    readonly over: string;
    readonly unit: string;
    readonly options: Readonly<Record<string, unknown>>;
    readonly counts: readonly number[];
    readonly at: number;
    readonly x: readonly number[];
    readonly loss: readonly number[];
    readonly gradChosen: readonly number[];
  }[];
}

async function output(...args: string[]): Promise<string> {
  const written: string[] = [];
  const spy = vi.spyOn(process.stdout, 'write').mockImplementation((chunk) => {
    written.push(String(chunk));
    return true;
  });
  try {
    expect(await plotCommand.run(args.flatMap((arg) => arg.split(' ')))).toBe(0);
  } finally {
    spy.mockRestore();
  }
  return written.join('');
}
const json = async (...args: string[]): Promise<PlotJson> =>
  JSON.parse(await output(...args, '--json')) as PlotJson;

/** The message with which a command refuses. */
async function refusal(command: Command, args: string[]): Promise<string> {
  try {
    await Promise.resolve().then(() => command.run(args));
  } catch (error) {
    return (error as Error).message;
  }
  throw new Error(`not refused: ${args.join(' ')}`);
}

describe('diralign plot', () => {
  test('a curve for every combination of settings that a method has', async () => {
    const args = [
      'dpo,simpo',
      '--beta',
      '0.1,0.5',
      '--labelSmoothing',
      '0,0.2',
      '--gamma',
      '1',
      '--points',
      '3',
    ];
    const { curves } = await json(...args);
    expect(
      curves.map(({ method, beta, options }) => [
        method,
        beta,
        options.labelSmoothing,
        options.gamma,
      ]),
    ).toEqual([
      ['dpo', 0.1, 0, undefined],
      ['dpo', 0.1, 0.2, undefined],
      ['dpo', 0.5, 0, undefined],
      ['dpo', 0.5, 0.2, undefined],
      ['simpo', 0.1, 0, 1],
      ['simpo', 0.1, 0.2, 1],
      ['simpo', 0.5, 0, 1],
      ['simpo', 0.5, 0.2, 1],
    ]);
    expect(curves.map(({ unit }) => unit)).toEqual([
      ...Array<string>(4).fill('nats'),
      ...Array<string>(4).fill('nats per token'),
    ]);
  });

  test('axis, range, lengths and the score that is held are as asked', async () => {
    const { curves } = await json(
      'apo_down --beta 1 --over chosen --range -4,2 --at -1 --tokens 9,5 --points 3',
    );
    expect(curves).toMatchObject([{ over: 'chosen', x: [-4, -1, 2], at: -1, counts: [9, 5] }]);
    const sg = (x: number): number => 1 / (1 + Math.exp(-x));
    [-4, -1, 2].forEach((w, i) => {
      expect(curves[0]?.loss[i]).toBeCloseTo(sg(w) + 1 - sg(w + 1), 12);
    });
  });

  test('all: what has no such axis is left out, and said', async () => {
    expect((await json('--over', 'rejected', '--points', '3')).leftOut).toEqual(['sft']);
    expect(await output('all', '--over', 'margin', '--points', '3')).toContain(
      'chosen sequences only: sft.',
    );
  });

  test('--out: the same bytes in a file or standard output; without it a summary', async () => {
    const file = path.join(folder, 'dpo.svg');
    const summary = await output('dpo', '--beta', '0.1,0.5', '--out', file);
    expect(summary).toMatch(/^objective .*\ndpo, beta 0\.1 +margin .*\ndpo, beta 0\.5 +margin /);
    expect(summary).toMatch(/wrote .*dpo\.svg, 2 curves, \d+ kB\n$/);
    expect(fs.readFileSync(file, 'utf8')).toBe(
      await output('dpo', '--beta', '0.1,0.5', '--out', '-'),
    );
    expect(parseXml(fs.readFileSync(file, 'utf8')).name).toBe('svg');
    expect(await output('dpo', '--points', '3')).toContain(
      'Nothing was written; --out FILE.svg or FILE.png draws the figure.',
    );
    expect((await json('dpo', '--points', '3', '--out', file)).out).toBe(file);
    expect(
      await refusal(plotCommand, ['dpo', '--out', path.join(folder, 'none', 'x.svg')]),
    ).toMatch(/^--out: \S+x\.svg cannot be written: ENOENT/);
  });

  test.each([
    [['nothing']],
    [['dpo,ipoo']],
    [['dpo', '--beta', 'x']],
    [['dpo', '--beta', '-1']],
    [['dpo', '--beta', '0']],
    [['ipo', '--label-smoothing', '0.1']],
    [['dpo', '--label-smoothing', '1.5']],
    [['dpo', '--divergence', 'klr']],
    [['dpo', '--alpha', '0.3']],
    [['dpo', '--normalize', '--no-normalize']],
    [['dpo', '--bta', '1']],
    [['dpo', '--beta']],
  ])('%j is refused as by loss', async ([method = '', ...args]) => {
    const wanted = await refusal(lossCommand, ['--method', method, ...args]);
    expect(await refusal(plotCommand, [method, ...args])).toBe(wanted);
  });

  test.each([
    [['sft', '--over', 'margin'], /^--over: sft has no margin/],
    [
      ['dpo', '--over', 'margn'],
      /^--over: 'margn' is not one of margin, chosen, rejected; did you mean 'margin'\?$/,
    ],
    [['dpo', '--range', '5'], /^--range: '5' is not two numbers/],
    [['dpo', '--range', '5,1'], /^--range: '5,1' does not go from/],
    [['dpo', '--range', '1,Infinity'], /^--range: '1,Infinity' does not go from/],
    [['dpo', '--range', '-1e308,1e308'], /^--range: '-1e308,1e308' is wider than a number can be/],
    [['dpo', '--y-range', '5,1'], /^--y-range: '5,1' does not go from/],
    [['dpo', '--log', '--y-range', '0,1'], /^--y-range: '0,1' begins below what --log can draw/],
    [['dpo', '--beta', '1', '--preset', 'tldr-llama-3.2-3b'], /exclude each other/],
    [['dpo', '--at', 'Infinity'], /^--at: 'Infinity' is not a finite number$/],
    [
      ['orpo', '--at', '0'],
      /^range: 'orpo' is drawn over log-probabilities here, which would reach/,
    ],
    [['dpo', '--tokens', '5'], /^--tokens: '5' is not two numbers of tokens/],
    [['dpo', '--tokens', '5,0'], /^--tokens: '0' is not a whole number from 1 to 2147483647$/],
    [['dpo', '--points', '1'], /^--points: '1' is not a whole number from 2 to 100000$/],
    [['dpo', '--out', 'x.pdf'], /^--out: 'x\.pdf' is neither - nor/],
    [['dpo', '--out', 'x.svg', '--scale', '3'], /^--scale: is for PNG/],
    [['dpo', '--font', 'x.ttf'], /^--font: is for PNG/],
    [['dpo', '--out', 'x.png', '--scale', '0'], /^--scale: '0' is not a number from 0\.1 to 20/],
    [['dpo', '--out', 'x.png', '--font', 'package.json'], /^--font: 'package\.json' is not a font/],
    [['dpo', '--out', '-', '--json'], /^--out - and --json exclude each other/],
    [['dpo', 'ipo'], /^'ipo' is one argument too many for plot$/],
  ] as const)('%j is refused', async (args, message) => {
    expect(await refusal(plotCommand, [...args])).toMatch(message);
  });

  /** Marks of the first vertical axis, from below, and the heights of the first line's points. */
  async function lossPanel(
    ...args: string[]
  ): Promise<{ marks: string[]; title: string; legend: string; heights: number[] }> {
    const svg = await output(...args, '--out', '-');
    const marks = [
      ...(/text-anchor="end">(.*?)<\/g>/.exec(svg)?.[1]?.matchAll(/>([^<]*)<\/text>/g) ?? []),
    ].map(([, mark]) => mark ?? '');
    const title = /class="da-ink" [^>]*>(loss[^<]*)</.exec(svg)?.[1] ?? '';
    const path_ = /class="da-line da-c0" d="(M[^"]*)"><title>/.exec(svg)?.[1] ?? '';
    const heights = path_
      .split(/[ML]/)
      .filter(Boolean)
      .map((point) => Number(point.split(' ')[1]));
    return { marks, title, legend: /<desc>(.*)<\/desc>/.exec(svg)?.[1] ?? '', heights };
  }

  test('--y-range: the axis of the loss is as asked, and nothing is drawn outside', async () => {
    const { marks } = await lossPanel('hinge --beta 1 --range -10,10 --y-range 0,4');
    expect(marks).toEqual(['0', '1', '2', '3', '4']);
    const svg = await output('hinge', '--beta', '1', '--y-range', '0,4', '--out', '-');
    // The lines are in an element that draws nothing outside of its box.
    expect(parseXml(svg).name).toBe('svg');
    expect(svg).toMatch(
      /<svg x="\S+" y="\S+" width="\S+" height="150" [^>]*>\n<path class="da-line/,
    );
  });

  test('--log: equal factors are equal steps', async () => {
    // The loss is sp(-x), which is exp(-x) to one part in a thousand from 7 on: a straight line.
    const { marks, heights } = await lossPanel('dpo --beta 1 --range 7,21 --points 15 --log');
    // exp(-7) is 9.1e-4 and exp(-21) is 7.6e-10: seven decades, and 14 nats of them, of ln 10 nats
    // each, between the ends of the line.
    expect(marks).toEqual(['1e\u22129', '1e\u22127', '1e\u22125', '0.001']);
    const [first = NaN] = heights;
    expect(((heights.at(-1) ?? NaN) - first) / 150).toBeCloseTo(14 / Math.LN10 / 7, 2);
  });

  test.each([
    // Fewer than two powers of ten lie within: marks as on a linear scale.
    ['2,5', ['2', '3', '4', '5']],
    ['0.01,1000', ['0.1', '10', '1000']],
    // Ends that no power of ten beyond them is a number for.
    ['1e-320,1.5e308', ['1e\u2212320', '1e\u2212163', '1e\u22126', '1e151', '1e308']],
  ])('--log --y-range %s has marks within the range', async (range, expected) => {
    expect((await lossPanel('dpo', '--beta', '1', '--log', '--y-range', range)).marks).toEqual(
      expected,
    );
  });

  test('lines that one axis would flatten are over their greatest value, as is said', async () => {
    const args = ['dpo,cal_dpo', '--beta', '0.1', '--over', 'margin', '--range', '-20,20'];
    const apart = await lossPanel(...args);
    expect(apart).toMatchObject({
      title: 'loss, relative',
      marks: ['0', '0.2', '0.4', '0.6', '0.8', '1.0'],
    });
    // At -20: sp(2) and 0.1 sigmoid(2) of dpo; of cal_dpo sp(20) and 1, and the squares of 15,
    // twice, and their slope.
    expect(apart.legend).toMatch(
      /dpo \(loss \u00d7 2\.127, \u2202loss \/ \u2202chosen \u00d7 0\.08808, .*cal_dpo \(/,
    );
    expect(apart.legend).toContain(
      'cal_dpo (loss \u00d7 470, \u2202loss / \u2202chosen \u00d7 31, ',
    );
    expect(Math.max(...apart.heights) - Math.min(...apart.heights)).toBeCloseTo(
      150 * (1 - 0.1269 / 2.127),
      0,
    );
    const near = await lossPanel('dpo,hinge', '--beta', '0.1');
    expect(near.title).toBe('loss');
    expect(near.legend).not.toContain('\u00d7');
    expect((await lossPanel(...args, '--y-range', '0,9')).title).toBe('loss');
  });

  test('--help has examples, and they work', async () => {
    const examples = plotCommand.usage
      .split('\n')
      .filter((line) => /^ {2}diralign plot .*(--out|--json)/.test(line));
    expect(examples.length).toBeGreaterThan(4);
    for (const [i, example] of examples.entries()) {
      const args = example.replace(/\|.*/, '').trim().split(/ +/).slice(2);
      const inFolder = args.map((arg) =>
        /\.(svg|png)$/.test(arg) ? path.join(folder, `${i}${path.extname(arg)}`) : arg,
      );
      await output(
        ...inFolder,
        ...(inFolder.some((arg) => arg.endsWith('.png')) ? ['--font', font] : []),
      );
    }
  });
});

describe('PNG', () => {
  /**
   * Width and height of a file by its header, and its pixels by a decoder of our own: 8-bit RGBA,
   * as the renderer writes it.
   */
  function decode(png: Buffer): {
    readonly width: number;
    readonly height: number;
    readonly pixel: (x: number, y: number) => Buffer;
  } {
    expect(png.subarray(0, 8)).toEqual(
      Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]),
    );
    const chunks: Buffer[] = [];
    for (let at = 8; at < png.length; at += 12 + png.readUInt32BE(at)) {
      if (png.toString('latin1', at + 4, at + 8) === 'IDAT')
        chunks.push(png.subarray(at + 8, at + 8 + png.readUInt32BE(at)));
    }
    const [width, height] = [png.readUInt32BE(16), png.readUInt32BE(20)];
    expect([...png.subarray(24, 29)]).toEqual([8, 6, 0, 0, 0]);
    const rows = inflateSync(Buffer.concat(chunks));
    const stride = 4 * width;
    const pixels = Buffer.alloc(stride * height);
    for (let y = 0; y < height; y++) {
      const filter = rows[y * (stride + 1)];
      for (let i = 0; i < stride; i++) {
        const left = i < 4 ? 0 : (pixels[y * stride + i - 4] as number);
        const above = y === 0 ? 0 : (pixels[(y - 1) * stride + i] as number);
        const corner = i < 4 || y === 0 ? 0 : (pixels[(y - 1) * stride + i - 4] as number);
        const guess = left + above - corner;
        const [a, b, c] = [
          Math.abs(guess - left),
          Math.abs(guess - above),
          Math.abs(guess - corner),
        ];
        const paeth = a <= b && a <= c ? left : b <= c ? above : corner;
        const predicted = [0, left, above, (left + above) >> 1, paeth][filter as number] as number;
        pixels[y * stride + i] = (rows[y * (stride + 1) + 1 + i] as number) + predicted;
      }
    }
    return {
      width,
      height,
      pixel: (x, y) => pixels.subarray(y * stride + 4 * x, y * stride + 4 * x + 4),
    };
  }

  const sizeOf = (svg: string): number[] =>
    /viewBox="0 0 (\S+) (\S+)"/.exec(svg)?.slice(1).map(Number) as number[];
  const rgba = (hex: string): number[] =>
    [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16)).concat(255);

  test.each([undefined, '1', '1.5'])(
    'the figure in its size, --scale %s, with its page, its lines and its words',
    async (scale) => {
      const [svgFile, pngFile] = [
        path.join(folder, 'same.svg'),
        path.join(folder, `scale-${scale}.png`),
      ];
      const args = ['dpo', '--beta', '0.1,0.5'];
      await output(...args, '--out', svgFile);
      expect(
        await output(
          ...args,
          '--out',
          pngFile,
          '--font',
          font,
          ...(scale === undefined ? [] : ['--scale', scale]),
        ),
      ).toContain('wrote ');
      const svg = fs.readFileSync(svgFile, 'utf8');
      const { width, height, pixel } = decode(fs.readFileSync(pngFile));
      const times = Number(scale ?? 2);
      const [svgWidth, svgHeight] = sizeOf(svg) as [number, number];
      expect(Math.abs(width - times * svgWidth)).toBeLessThanOrEqual(1);
      expect(Math.abs(height - times * svgHeight)).toBeLessThanOrEqual(1);
      expect([...pixel(0, 0)]).toEqual([255, 255, 255, 255]);
      const seen = (colour: string, x0: number, y0: number, x1: number, y1: number): number => {
        const wanted = rgba(colour);
        const near = (found: Buffer): boolean =>
          wanted.every((value, i) => Math.abs(value - (found[i] as number)) < 40);
        let count = 0;
        for (let y = Math.floor(y0 * times); y < y1 * times; y++) {
          for (let x = Math.floor(x0 * times); x < x1 * times; x++) if (near(pixel(x, y))) count++;
        }
        return count / times ** 2;
      };
      for (const colour of light.lines.slice(0, 2))
        expect(seen(colour, 60, 60, svgWidth, svgHeight)).toBeGreaterThan(100);
      // The title is written there, and nothing else; without a font it would be white.
      expect(seen(light.ink, 18, 18, 400, 38)).toBeGreaterThan(100);
      expect(seen(light.ink, 500, 18, svgWidth, 38)).toBe(0);
    },
  );

  test('without the renderer, and without a font, an error says what to do', async () => {
    const { svg } = plot([seriesOf('dpo')]);
    const missing = toPng(svg, { scale: 2 }, () =>
      Promise.reject(new Error("Cannot find package '@resvg/resvg-js'")),
    );
    await expect(missing).rejects.toThrow(
      /PNG is drawn by @resvg\/resvg-js.*npm install @resvg\/resvg-js/,
    );
    await expect(missing).rejects.toBeInstanceOf(CommandError);
    // As on a machine without fonts: the renderer is kept from the system's.
    class Resvg extends RealResvg {
      constructor(...[source, options]: ConstructorParameters<typeof RealResvg>) {
        super(source, { ...options, font: { loadSystemFonts: false } });
      }
    }
    const bare = toPng(svg, { scale: 2 }, () => Promise.resolve({ Resvg }));
    await expect(bare).rejects.toThrow(/no fonts.*--font FILE/);
    expect(fs.existsSync(path.join(folder, 'bad.png'))).toBe(false);
    await expect(
      output('dpo', '--out', path.join(folder, 'bad.png'), '--font', 'package.json'),
    ).rejects.toThrow(/^--font:/);
    expect(fs.existsSync(path.join(folder, 'bad.png'))).toBe(false);
  });
});
