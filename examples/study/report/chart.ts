/** Charts as SVG text, without a browser. */
import { logger, parse, View, Warn } from 'vega';
import { compile, type Config, type TopLevelSpec } from 'vega-lite';

/**
 * Colours that stand out by 3:1 or more from a white page and from a dark one, as their reader may
 * have either.
 */
const palette = [
  '#3a78e8',
  '#d7790f',
  '#0d9a6c',
  '#b06bd0',
  '#8a7a2f',
  '#e0457b',
  '#2f9bb0',
  '#7c8796',
];
const font = 'system-ui, sans-serif';
const ink = 'currentColor';
const faint = 'rgba(128, 136, 150, 0.3)';

const config: Config = {
  background: 'transparent',
  font,
  range: { category: palette, ordinal: palette },
  view: { stroke: null },
  axis: {
    ...{
      labelColor: ink,
      titleColor: ink,
      domainColor: 'rgb(128, 136, 150)',
      tickColor: 'rgb(128, 136, 150)',
      gridColor: faint,
    },
    ...{
      labelFontSize: 12,
      titleFontSize: 12,
      titleFontWeight: 'normal',
      titlePadding: 8,
      labelLimit: 300,
    },
  },
  legend: {
    ...{
      labelColor: ink,
      titleColor: ink,
      labelFontSize: 12,
      titleFontSize: 12,
      titleFontWeight: 'normal',
      labelLimit: 300,
    },
    ...{ symbolSize: 80 },
  },
  header: {
    labelColor: ink,
    titleColor: ink,
    labelFontSize: 12,
    titleFontSize: 12,
    titleFontWeight: 'normal',
  },
  title: { color: ink, fontSize: 13, fontWeight: 'normal' },
  text: { color: ink, fontSize: 12 },
  rule: { color: ink },
  point: { filled: true, size: 60, opacity: 1 },
  line: { strokeWidth: 2 },
};

/**
 * An `svg` element with its own width and height, in the colour of the text around it.
 *
 * @throws Error if the specification is wrong; what vega-lite and vega only warn of is wrong, and
 *   so is black, which nobody sees on a dark
 *   page: symbols of a legend that has no colour need `symbolFillColor` or `symbolStrokeColor`
 */
export async function drawChart(spec: TopLevelSpec): Promise<string> {
  const complaints: string[] = [];
  const collector = logger(Warn, 'log', (_console, _method, entries) =>
    complaints.push(entries.map(String).join(' ')),
  );
  // vega marks the data it is given.
  const compiled = compile(structuredClone(spec), { config, logger: collector }).spec;
  const view = new View(parse(compiled), { renderer: 'none', logger: collector });
  const svg = await view.toSVG();
  view.finalize();
  if (/(fill|stroke)="(black|#000)/.test(svg)) complaints.push('something is black');
  if (complaints.length > 0)
    throw new Error(`a chart is not as specified: ${complaints.join('; ')}`);
  return svg;
}

/** The same as a file: it has the colours of a light or a dark page itself. */
export function standalone(svg: string): string {
  const style =
    '<style>svg{color:#1c2430}@media (prefers-color-scheme:dark){svg{color:#e6eaf0}}</style>';
  return `${svg.replace(/^<svg[^>]*>/, (open) => open + style)}\n`;
}
