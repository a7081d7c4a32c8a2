/** The report: one file that asks nothing of any host. */
import { htmlPage, inlineSvg } from '../../../ts/plot/page.js';
import { escapeMarkup } from '../../../ts/text/markup.js';
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

const style = `
:root { --band: #f5f7fa; --yes: #0a7a50; --no: #b3261e; --maybe: #8a5a00; --link: #1a56c4 }
@media (prefers-color-scheme: dark) {
  :root { --band: #1b2129; --yes: #4fd39b; --no: #ff8a80; --maybe: #f0b429; --link: #8ab4ff }
}
p, h1, .findings { max-width: 46rem }
h2 { margin-top: 3rem; padding-top: 1rem; border-top: 1px solid var(--line) }
a { color: var(--link) }
.wide svg { color: var(--ink); max-width: max(100%, 28rem) }
figure { margin: 1.5rem 0 }
figure .wide { margin: .5rem 0 }
figcaption { color: var(--soft); font-size: .9rem; max-width: 46rem }
figure td:first-child { min-width: 7rem }
.number { text-align: right; white-space: nowrap }
.findings { list-style: none; padding: 0 }
.findings li { background: var(--band); border-left: 4px solid var(--soft); padding: .6rem .9rem;
  margin: .5rem 0 }
.findings p { margin: .2rem 0 }
.findings .outcome { margin-right: .6em }
.outcome { font-weight: 600; white-space: nowrap }
.reproduced { border-color: var(--yes) !important } .reproduced .outcome { color: var(--yes) }
.not-reproduced { border-color: var(--no) !important } .not-reproduced .outcome { color: var(--no) }
.unclear { border-color: var(--maybe) !important } .unclear .outcome { color: var(--maybe) }
.evidence { color: var(--soft); font-size: .95rem }
dl { display: grid; grid-template-columns: minmax(7rem, auto) 1fr; gap: .2rem 1rem }
dt { color: var(--soft) } dd { margin: 0 }
code { font-size: .9em; background: var(--band); padding: .1em .3em }
@media (max-width: 30rem) { dl { grid-template-columns: 1fr } dd { margin-bottom: .5rem } }
`;

export function reportHtml(
  title: string,
  introduction: readonly string[],
  sections: readonly DrawnSection[],
  from: Provenance,
): string {
  const parts = [
    ...introduction.map(paragraph),
    summary(sections.map(({ section }) => section)),
    ...sections.map(sectionHtml),
    provenance(from),
  ];
  return htmlPage(title, style, parts.join('\n'));
}

/** Text with its addresses as links. */
function paragraph(text: string): string {
  const linked = escapeMarkup(text).replace(
    /https:\/\/[^\s)]*[^\s).,;]/g,
    (address) => `<a href="${address}">${address}</a>`,
  );
  return `<p>${linked}</p>`;
}

function summary(sections: readonly Section[]): string {
  const all = sections.flatMap(({ findings }) => findings);
  const count = (outcome: Outcome): number =>
    all.filter((finding) => finding.outcome === outcome).length;
  const counts =
    `Claims put to the test: ${all.length}. Reproduced: ${count('reproduced')}. ` +
    `Not reproduced: ${count('not reproduced')}. Unclear: ${count('unclear')}.`;
  return `<h2 id="summary">Summary</h2>
<p>${counts}</p>
<div class="wide"><table>
<thead><tr><th>part</th><th>claim</th><th>outcome</th></tr></thead>
<tbody>
${sections.flatMap(summaryRows).join('\n')}
</tbody>
</table></div>`;
}

/** The section is named once, before its first finding. */
function summaryRows({ id, title, findings }: Section): readonly string[] {
  const section =
    `<td rowspan="${findings.length}">` +
    `<a href="#${escapeMarkup(id)}">${escapeMarkup(title)}</a></td>`;
  return findings.map(
    ({ claim, outcome }, i) =>
      `<tr class="${classOf(outcome)}">${i === 0 ? section : ''}` +
      `<td>${escapeMarkup(claim)}</td><td class="outcome">${outcome}</td></tr>`,
  );
}

function classOf(outcome: Outcome): string {
  return outcome.replace(' ', '-');
}

function sectionHtml({ section, drawings }: DrawnSection): string {
  const { id, title, text, findings, tables, charts } = section;
  const figures = charts.map(({ caption }, i) =>
    figure(caption, inline(drawings[i] as string, caption)),
  );
  const items = findings.map(findingHtml).join('\n');
  const list = items === '' ? '' : `<ul class="findings">\n${items}\n</ul>`;
  return `<section>
<h2 id="${escapeMarkup(id)}">${escapeMarkup(title)}</h2>
${text.map(paragraph).join('\n')}
${list}
${figures.join('\n')}
${tables.map(tableHtml).join('\n')}
</section>`;
}

function figure(caption: string, content: string): string {
  return (
    `<figure><figcaption>${escapeMarkup(caption)}</figcaption>` +
    `<div class="wide">${content}</div></figure>`
  );
}

/** A reader who does not see it has the caption. */
function inline(svg: string, caption: string): string {
  return inlineSvg(svg).replace(/^<svg/, `<svg role="img" aria-label="${escapeMarkup(caption)}"`);
}

function findingHtml({ claim, outcome, evidence }: Finding): string {
  return `<li class="${classOf(outcome)}">
<p><span class="outcome">${outcome}</span>${escapeMarkup(claim)}</p>
<p class="evidence">${escapeMarkup(evidence)}</p>
</li>`;
}

function tableHtml({ caption, columns, rows }: Table): string {
  const numeric = columns.map(
    (_, column) => rows.length > 0 && rows.every((row) => isNumeric(row[column])),
  );
  const cell = (tag: 'th' | 'td', value: string | number, column: number): string =>
    `<${tag}${numeric[column] ? ' class="number"' : ''}>${escapeMarkup(String(value))}</${tag}>`;
  const line = (tag: 'th' | 'td', row: readonly (string | number)[]): string =>
    `<tr>${row.map((value, column) => cell(tag, value, column)).join('')}</tr>`;
  const table = `<table>
<thead>${line('th', columns)}</thead>
<tbody>
${rows.map((row) => line('td', row)).join('\n')}
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
    [
      'processor',
      `${from.processor}, ${from.workers} ${from.workers === 1 ? 'process' : 'processes'}`,
    ],
    ['this run took', from.duration],
    [
      'computation',
      `${from.tasks} tasks, ${from.computation} of one process; ` +
        'results of earlier runs are not computed again',
    ],
  ];
  const list = entries.map(([name, value]) => {
    const text = escapeMarkup(value);
    return `<dt>${name}</dt><dd>${name === 'made again by' ? `<code>${text}</code>` : text}</dd>`;
  });
  return `<section>
<h2 id="provenance">How this was made</h2>
<dl>
${list.join('\n')}
</dl>
</section>`;
}
