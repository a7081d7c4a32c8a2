import { escapeMarkup } from '../text/markup.js';
import { dark, light, type Theme } from './theme.js';

function variables({ page, ink, soft, grid, lines }: Theme): string {
  const colours = lines.map((colour, i) => `--c${i}: ${colour};`).join(' ');
  return `:root { --page: ${page}; --ink: ${ink}; --soft: ${soft}; --line: ${grid}; ${colours} }`;
}

const style = `
:root { color-scheme: light dark }
${variables(light)}
@media (prefers-color-scheme: dark) { ${variables(dark)} }
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 62rem; padding: 1.5rem 1rem 4rem; background: var(--page);
  color: var(--ink); font: 16px/1.55 system-ui, sans-serif; overflow-wrap: break-word }
h1 { font-size: 1.6rem; line-height: 1.2; margin: 0 0 .5rem }
h2 { font-size: 1.25rem; line-height: 1.25; margin: 2.5rem 0 .5rem }
.wide { overflow-x: auto; margin: 1rem 0 }
.wide svg { display: block; height: auto }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums }
th, td { padding: .3rem .9rem .3rem 0; text-align: left; vertical-align: top;
  border-bottom: 1px solid var(--line) }
th { font-weight: 600; vertical-align: bottom }
`;

/**
 * A page that is one file and asks nothing of any host: no scripts, fonts or pictures of others. It
 * has the reader's light or dark scheme; its colours are the variables --page, --ink, --soft,
 * --line, and --c0 and on, those of lines.
 *
 * @param rules what is added to the style that every page has.
 */
export function htmlPage(title: string, rules: string, body: string): string {
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8" />
<meta name="viewport" content="width=device-width, initial-scale=1" />
<meta http-equiv="Content-Security-Policy"
  content="default-src 'none'; style-src 'unsafe-inline'" />
<title>${escapeMarkup(title)}</title>
<style>${style}${rules}</style>
</head>
<body>
<main>
<h1>${escapeMarkup(title)}</h1>
${body}
</main>
</body>
</html>
`;
}

/** A figure for a page: in HTML an `svg` needs no namespaces. */
export function inlineSvg(svg: string): string {
  return svg.replace(/ xmlns(:xlink)?="[^"]*"/g, '').trimEnd();
}
