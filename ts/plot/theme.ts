/** Colours and lines of figures. */

/** Colours of a page, of what is written and drawn on it, and of the lines. */
export interface Theme {
  readonly page: string;
  readonly ink: string;
  readonly soft: string;
  readonly grid: string;
  readonly zero: string;
  readonly lines: readonly string[];
}

// Searched for: each line stands out from its page by 3:1, and any two differ by 36 in CIELAB or
// more, for readers without one of the three kinds of cone, too.
export const light: Theme = {
  ...{ page: '#ffffff', ink: '#1c2430', soft: '#556070', grid: '#e3e7ed', zero: '#8d97a5' },
  lines: ['#1038ee', '#d7790f', '#00a877', '#ae7dc7', '#663500', '#1c2430'],
};

export const dark: Theme = {
  ...{ page: '#14181e', ink: '#e6eaf0', soft: '#a3aebd', grid: '#2b323d', zero: '#7a8596' },
  lines: ['#8581e9', '#d34400', '#2ddf81', '#b85589', '#f8c500', '#e6eaf0'],
};

/** When the colours begin again. */
const dashes = ['', '7 3', '2 3', '9 3 2 3'];

export function lineClass(index: number): string {
  const dash = dashes[Math.floor(index / light.lines.length) % dashes.length];
  const colour = `class="da-line da-c${index % light.lines.length}"`;
  return dash ? `${colour} stroke-dasharray="${dash}"` : colour;
}

function themeRules({ page, ink, soft, grid, zero, lines }: Theme): string {
  const strokes = lines.map((colour, i) => `.da-c${i}{stroke:${colour}}`).join('');
  return (
    `.da-page{fill:${page}}.da-ink{fill:${ink}}.da-soft{fill:${soft}}` +
    `.da-grid{stroke:${grid}}.da-zero{stroke:${zero}}${strokes}`
  );
}

/**
 * Every class begins with `da-`: in a page that includes the figure, its rules must meet nothing
 * else. Properties are written out, for renderers that do not read the shorthand `font`.
 */
export const style =
  '.da{font-family:system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif;' +
  'font-size:12px}.da-title{font-size:16px;font-weight:600}' +
  '.da-head{font-size:13px;font-weight:600}.da-small{font-size:11px}' +
  '.da-line{fill:none;stroke-width:1.9;stroke-linejoin:round}' +
  `${themeRules(light)}@media (prefers-color-scheme:dark){${themeRules(dark)}}`;
