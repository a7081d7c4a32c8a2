/** The report: one file that asks nothing of any host. */
import type { Finding, Outcome, Section, Table } from '../study.js';

/** How a report came to be. */
export interface Provenance {
  readonly command: string;
  readonly scale: string;
  readonly date: string;
  readonly diralign: string;
  readonly node: string;
  readonly processor: string;
  readonly workers: number;
  /** Of the run that wrote the report, in words. */
  readonly duration: string;
  /** Of all tasks behind it, in words. */
  readonly computation: string;
  readonly tasks: number;
  readonly seeds: string;
}

/** A section with its charts drawn. */
export interface DrawnSection {
  readonly section: Section;
  readonly drawings: readonly string[];
}

const entities: Readonly<Record<string, string>> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' };

export function escapeHtml(text: string): string {
  return text.replace(/[&<>"]/g, (character) => entities[character] as string);
}

const style = `
:root { color-scheme: light dark; --page: #fff; --ink: #1c2430; --soft: #556070; --line: #dde2e9; --band: #f5f7fa;
  --yes: #0a7a50; --no: #b3261e; --maybe: #8a5a00; --link: #1a56c4 }
@media (prefers-color-scheme: dark) { :root { --page: #14181e; --ink: #e6eaf0; --soft: #a3aebd; --line: #2f3742; --band: #1b2129;
  --yes: #4fd39b; --no: #ff8a80; --maybe: #f0b429; --link: #8ab4ff } }
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 62rem; padding: 1.5rem 1rem 4rem; background: var(--page); color: var(--ink);
  font: 16px/1.55 system-ui, sans-serif; overflow-wrap: break-word }
p, h1, .findings { max-width: 46rem }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .5rem }
h2 { font-size: 1.3rem; line-height: 1.25; margin: 3rem 0 .5rem; padding-top: 1rem; border-top: 1px solid var(--line) }
a { color: var(--link) }
.wide { overflow-x: auto; margin: 1rem 0 }
.wide svg { display: block; color: var(--ink); height: auto; max-width: max(100%, 28rem) }
figure { margin: 1.5rem 0 }
figure .wide { margin: .5rem 0 }
figcaption { color: var(--soft); font-size: .9rem; max-width: 46rem }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums }
th, td { padding: .3rem .9rem .3rem 0; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line) }
th { font-weight: 600; vertical-align: bottom }
figure td:first-child { min-width: 7rem }
.number { text-align: right; white-space: nowrap }
.findings { list-style: none; padding: 0 }
.findings li { background: var(--band); border-left: 4px solid var(--soft); padding: .6rem .9rem; margin: .5rem 0 }
.findings p { margin: .2rem 0 }
.findings .outcome { margin-right: .6em }
.outcome { font-weight: 600; white-space: nowrap }
.reproduced { border-color: var(--yes) !important } .reproduced .outcome { color: var(--yes) }
.not-reproduced { border-color: var(--no) !important } .not-reproduced .outcome { color: var(--no) }
.unclear { border-color: var(--maybe) !important } .unclear .outcome { color: var(--maybe) }
.evidence { color: var(--soft); font-size: .95rem }
dl { display: grid; grid-template-columns: minmax(7rem, auto) 1fr; gap: .2rem 1rem } dt { color: var(--soft) } dd { margin: 0 }
code { font-size: .9em; background: var(--band); padding: .1em .3em }
@media (max-width: 30rem) { dl { grid-template-columns: 1fr } dd { margin-bottom: .5rem } }
`;

export function reportHtml(
  title: string,
  introduction: readonly string[],
  sections: readonly DrawnSection[],
  from: Provenance,
): string {
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8" />
<meta name="viewport" content="width=device-width, initial-scale=1" />
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'" />
<title>${escapeHtml(title)}</title>
<style>${style}</style>
</head>
<body>
<main>
<h1>${escapeHtml(title)}</h1>
${introduction.map(paragraph).join('\n')}
${summary(sections.map(({ section }) => section))}
${sections.map(sectionHtml).join('\n')}
${provenance(from)}
</main>
</body>
</html>
`;
}

/** Text with its addresses as links. */
function paragraph(text: string): string {
  const linked = escapeHtml(text).replace(/https:\/\/[^\s)]*[^\s).,;]/g, (address) => `<a href="${address}">${address}</a>`);
  return `<p>${linked}</p>`;
}

function summary(sections: readonly Section[]): string {
  const all = sections.flatMap(({ findings }) => findings);
  const count = (outcome: Outcome): number => all.filter((finding) => finding.outcome === outcome).length;
  return `<h2 id="summary">Summary</h2>
<p>Claims put to the test: ${all.length}. Reproduced: ${count('reproduced')}. Not reproduced: ${count('not reproduced')}. Unclear: ${count('unclear')}.</p>
<div class="wide"><table>
<thead><tr><th>part</th><th>claim</th><th>outcome</th></tr></thead>
<tbody>
${sections.flatMap(summaryRows).join('\n')}
</tbody>
</table></div>`;
}

/** The section is named once, before its first finding. */
function summaryRows({ id, title, findings }: Section): readonly string[] {
  const section = `<td rowspan="${findings.length}"><a href="#${escapeHtml(id)}">${escapeHtml(title)}</a></td>`;
  return findings.map(
    ({ claim, outcome }, i) =>
      `<tr class="${classOf(outcome)}">${i === 0 ? section : ''}<td>${escapeHtml(claim)}</td><td class="outcome">${outcome}</td></tr>`,
  );
}

function classOf(outcome: Outcome): string {
  return outcome.replace(' ', '-');
}

function sectionHtml({ section, drawings }: DrawnSection): string {
  const { id, title, text, findings, tables, charts } = section;
  const figures = charts.map(({ caption }, i) => figure(caption, inline(drawings[i] as string, caption)));
  return `<section>
<h2 id="${escapeHtml(id)}">${escapeHtml(title)}</h2>
${text.map(paragraph).join('\n')}
${findings.length > 0 ? `<ul class="findings">\n${findings.map(findingHtml).join('\n')}\n</ul>` : ''}
${figures.join('\n')}
${tables.map(tableHtml).join('\n')}
</section>`;
}

function figure(caption: string, content: string): string {
  return `<figure><figcaption>${escapeHtml(caption)}</figcaption><div class="wide">${content}</div></figure>`;
}

/** In HTML an `svg` needs no namespaces, and a reader who does not see it has the caption. */
function inline(svg: string, caption: string): string {
  const bare = svg.replace(/ xmlns(:xlink)?="[^"]*"/g, '');
  return bare.replace(/^<svg/, `<svg role="img" aria-label="${escapeHtml(caption)}"`);
}

function findingHtml({ claim, outcome, evidence }: Finding): string {
  return `<li class="${classOf(outcome)}">
<p><span class="outcome">${outcome}</span>${escapeHtml(claim)}</p>
<p class="evidence">${escapeHtml(evidence)}</p>
</li>`;
}

function tableHtml({ caption, columns, rows }: Table): string {
  const numeric = columns.map((_, column) => rows.length > 0 && rows.every((row) => isNumeric(row[column])));
  const cell = (tag: 'th' | 'td', value: string | number, column: number): string =>
    `<${tag}${numeric[column] ? ' class="number"' : ''}>${escapeHtml(String(value))}</${tag}>`;
  const table = `<table>
<thead><tr>${columns.map((name, column) => cell('th', name, column)).join('')}</tr></thead>
<tbody>
${rows.map((row) => `<tr>${row.map((value, column) => cell('td', value, column)).join('')}</tr>`).join('\n')}
</tbody>
</table>`;
  return figure(caption, table);
}

/** A number, or one in text: with a sign, an interval or a unit. */
function isNumeric(value: string | number | undefined): boolean {
  return typeof value === 'number' || /^([+−-]?\d[\d.,e±%\s+−-]*)?$/.test(value ?? '');
}

function provenance(from: Provenance): string {
  const entries: readonly (readonly [string, string])[] = [
    ['made again by', from.command],
    ['scale', from.scale],
    ['seeds', from.seeds],
    ['written', from.date],
    ['diralign', from.diralign],
    ['Node', from.node],
    ['processor', `${from.processor}, ${from.workers} ${from.workers === 1 ? 'process' : 'processes'}`],
    ['this run took', from.duration],
    ['computation', `${from.tasks} tasks, ${from.computation} of one process; results of earlier runs are not computed again`],
  ];
  const list = entries.map(
    ([name, value]) =>
      `<dt>${name}</dt><dd>${name === 'made again by' ? `<code>${escapeHtml(value)}</code>` : escapeHtml(value)}</dd>`,
  );
  return `<section>
<h2 id="provenance">How this was made</h2>
<dl>
${list.join('\n')}
</dl>
</section>`;
}
