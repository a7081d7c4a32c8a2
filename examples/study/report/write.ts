/** What a study leaves: report.html, results.json, findings.json and figures/. */
import fs from 'node:fs';
import path from 'node:path';
import type { Section } from '../study.js';
import { drawChart, standalone } from './chart.js';
import { reportHtml, type Provenance } from './html.js';

const title = 'Direct alignment on a small language model';
const introduction = [
  'Claims of "The Differences Between Direct Alignment Algorithms are a Blur" ' +
    '(https://arxiv.org/abs/2502.01237) put to the test on a ' +
    'language model so small that every run takes seconds and every claim can have several ' +
    'seeds. The losses and gradients are diralign’s. ' +
    'What holds here need not hold for large models, nor the other way round.',
  'Intervals are 95 % confidence intervals over seeds, by Student’s t, ' +
    'and comparisons are paired seed by seed. One rule decides every ' +
    'comparison: a claim that A exceeds B is reproduced if the whole interval of A − B lies ' +
    'above 0, not reproduced if none of it does, ' +
    'and unclear otherwise. Intervals are not corrected for how many comparisons there are.',
];

/** What the report says, without the data behind its charts: small enough for a repository. */
const findings = (sections: readonly Section[], from: Provenance): unknown => ({
  ...from,
  sections: sections.map(({ id, title, text, findings, tables }) => ({
    ...{ id, title, text, findings, tables },
  })),
});

/** Paths of what was written, report first. */
export async function writeReport(
  directory: string,
  sections: readonly Section[],
  from: Provenance,
): Promise<readonly string[]> {
  const drawn = await Promise.all(
    sections.map(async (section) => ({
      section,
      drawings: await Promise.all(section.charts.map(({ spec }) => drawChart(spec))),
    })),
  );
  const figures = drawn.flatMap(({ section, drawings }) =>
    drawings.map(
      (svg, i) => [path.join('figures', `${section.id}-${i + 1}.svg`), standalone(svg)] as const,
    ),
  );
  const outputs = [
    ['report.html', reportHtml(title, introduction, drawn, from)],
    ['results.json', `${JSON.stringify({ ...from, sections }, undefined, 1)}\n`],
    ['findings.json', `${JSON.stringify(findings(sections, from), undefined, 1)}\n`],
    ...figures,
  ] as const;
  fs.rmSync(path.join(directory, 'figures'), { recursive: true, force: true });
  fs.mkdirSync(path.join(directory, 'figures'), { recursive: true });
  return outputs.map(([name, content]) => {
    const file = path.join(directory, name);
    fs.writeFileSync(file, content);
    return file;
  });
}
