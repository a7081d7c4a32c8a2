import { methods, type Method, type MethodInfo } from '../catalogue.js';
import { dirAlignLoss } from '../objective.js';
import type { Series } from './curves.js';
import { plot, type FigureOptions } from './figure.js';

type Settings = Readonly<Record<string, number | string | boolean>>;

/** A figure of the documentation. */
export interface GalleryFigure {
  /** Of the file, without `.svg`. */
  readonly name: string;
  /** What it shows, as one says it to who cannot see it. */
  readonly caption: string;
  readonly svg: string;
}

function seriesOf(info: MethodInfo, settings: Settings): Series {
  // The catalogue names the method, so its type is not known here.
  const objective = dirAlignLoss({ method: info.name, ...settings } as unknown as {
    method: Method;
    beta: number;
  });
  return {
    info,
    objective: objective,
    usesReference: info.reference && settings.referenceFree !== true,
  };
}

/** Three temperatures that fit what a method multiplies by them. */
function betasOf({ beta, score }: MethodInfo): readonly number[] {
  if (!beta) return [];
  if (score === 'log-odds') return [0.5, 1, 2];
  return score === 'mean log-prob' || score === 'alpha log-prob' ? [1, 2, 5] : [0.05, 0.1, 0.2];
}

const optionsOf: Readonly<Partial<Record<Method, FigureOptions>>> = {
  // It counts scored tokens: with as many on both sides it would look like dpo.
  r_dpo: { counts: [120, 80] },
  // With the other score at 0, its loss is 1 whatever the chosen's is.
  apo_down: { at: -20 },
};

function figureOf(info: MethodInfo): GalleryFigure {
  const betas = betasOf(info);
  const series =
    betas.length === 0 ? [seriesOf(info, {})] : betas.map((beta) => seriesOf(info, { beta }));
  const { svg } = plot(series, optionsOf[info.name]);
  const settings = betas.length === 0 ? '' : `, beta ${betas.join(', ')}`;
  return { name: info.name, caption: `${info.name}, loss and derivatives${settings}`, svg };
}

/** Of several methods or settings. */
const comparisons: readonly {
  readonly name: string;
  readonly caption: string;
  readonly settings: readonly (readonly [method: string, settings: Settings])[];
  readonly options?: FigureOptions;
}[] = [
  {
    name: 'pairwise',
    caption: 'pairwise losses of the log-ratio margin, beta 0.1',
    settings: ['dpo', 'hinge', 'robust', 'exo_pair', 'discopop'].map(
      (method) => [method, { beta: 0.1 }] as const,
    ),
  },
  {
    name: 'pointwise',
    caption: 'pointwise losses over the margin, both scores moving alike, beta 0.1',
    settings: ['apo_zero', 'nca', 'bco_pair', 'apo_down'].map(
      (method) => [method, { beta: 0.1 }] as const,
    ),
    options: { over: 'margin' },
  },
  {
    name: 'divergences',
    caption: 'dpo with each divergence, beta 0.1',
    settings: ['reverse_kl', 'forward_kl', 'js', 'alpha'].map(
      (divergence) => ['dpo', { beta: 0.1, divergence }] as const,
    ),
  },
];

/** The figures of docs/figures, in the order in which docs/methods.md shows them. */
export function gallery(): GalleryFigure[] {
  const all = methods();
  const compared = comparisons.map(({ name, caption, settings, options }): GalleryFigure => {
    const series = settings.map(([method, own]) =>
      seriesOf(all.find((info) => info.name === method) as MethodInfo, own),
    );
    return { name, caption, svg: plot(series, options).svg };
  });
  return [...compared, ...all.map(figureOf)];
}

/** What docs/methods.md has between its marks. */
export function galleryMarkdown(figures: readonly GalleryFigure[]): string {
  return figures.map(({ name, caption }) => `![${caption}](figures/${name}.svg)`).join('\n\n');
}
