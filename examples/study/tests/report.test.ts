// The study's report: well-formed, escaped, complete, and asking nothing of any host.
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import type { TopLevelSpec } from 'vega-lite';
import { afterAll, describe, expect, test } from 'vitest';
import { drawChart, standalone } from '../report/chart.js';
import { reportHtml, type Provenance } from '../report/html.js';
import { writeReport } from '../report/write.js';
import type { Section } from '../study.js';
import { parseXml, type Element } from '../../../tests/support/xml.js';

const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'diralign-report-'));
afterAll(() => {
  fs.rmSync(folder, { recursive: true });
});

/** Text that breaks a page where it is not escaped. */
const hostile = `</td><script src="https://example.org/x.js">alert('1')</script> & "quoted" <b>`;

const spec = (label = 'one'): TopLevelSpec => ({
  width: 200,
  height: { step: 20 },
  data: { values: [{ label, value: 1 }] },
  mark: 'point',
  encoding: {
    y: { field: 'label', type: 'nominal', title: label },
    x: { field: 'value', type: 'quantitative' },
  },
});

const section = (id: string, text = id): Section => ({
  id,
  title: text,
  text: [text, 'See https://arxiv.org/abs/2502.01237.'],
  findings: [
    { claim: `${text} holds`, outcome: 'reproduced', evidence: `${text} +0.1` },
    { claim: `${text} does not`, outcome: 'not reproduced', evidence: `${text} -0.1` },
    { claim: `${text} may`, outcome: 'unclear', evidence: `${text} 0` },
  ],
  tables: [
    {
      caption: `table of ${text}`,
      columns: ['name', 'value', 'interval'],
      rows: [
        [text, 1.5, '0.812 ± 0.013'],
        ['SFT', 2, ''],
      ],
    },
  ],
  charts: [{ caption: `chart of ${text}`, spec: spec(text) }],
  data: { values: [1, 2], text },
});

const from: Provenance = {
  command: 'npm run study -- --out "a & b"',
  ...{
    scale: 'quick',
    date: '2030-01-02',
    diralign: '0.1.0',
    node: 'v20.19.0',
    processor: 'A <fast> one',
    workers: 2,
  },
  ...{ duration: '1 min 02 s', computation: '2 min 00 s', tasks: 12, seeds: 'align 1, 2' },
};

async function page(
  sections: readonly Section[],
): Promise<{ html: string; tree: Element; elements: Element[] }> {
  const drawn = await Promise.all(
    sections.map(async (each) => ({
      section: each,
      drawings: await Promise.all(each.charts.map((chart) => drawChart(chart.spec))),
    })),
  );
  const html = reportHtml('A title', ['An introduction'], drawn, from);
  const tree = parseXml(html.replace(/^<!doctype html>\n/, '').trimEnd());
  return { html, tree, elements: flat(tree) };
}

const flat = (element: Element): Element[] => [element, ...element.children.flatMap(flat)];
const textOf = (element: Element): string => element.text + element.children.map(textOf).join('');
const named = (elements: readonly Element[], name: string): Element[] =>
  elements.filter((element) => element.name === name);

describe('the page', () => {
  test('is well-formed and shows whatever text it is given', async () => {
    const { html, elements } = await page([section('first'), section('second', hostile)]);
    expect(html).toMatch(/^<!doctype html>\n<html lang="en">/);
    expect(named(elements, 'script')).toEqual([]);
    const texts = elements.map(({ text }) => text);
    for (const text of [
      hostile,
      `${hostile} holds`,
      `${hostile} +0.1`,
      `table of ${hostile}`,
      `chart of ${hostile}`,
    ])
      expect(texts).toContain(text);
    expect(texts).toContain(from.command);
    for (const text of ['v20.19.0', 'align 1, 2', '1 min 02 s']) expect(texts).toContain(text);
    expect(texts.some((text) => text.includes('A <fast> one'))).toBe(true);
  });

  test('asks nothing of any host', async () => {
    const { html, elements } = await page([section('first'), section('second', hostile)]);
    for (const { name, attributes } of elements) {
      expect([
        'script',
        'link',
        'img',
        'iframe',
        'object',
        'embed',
        'image',
        'use',
        'base',
      ]).not.toContain(name);
      expect(
        Object.keys(attributes).filter((attribute) =>
          /^(src|srcset|action|data|poster|xlink:href|on.*)$/.test(attribute),
        ),
      ).toEqual([]);
      if (name !== 'a')
        expect(JSON.stringify({ ...attributes, 'aria-label': '' })).not.toMatch(/https?:|\/\//);
    }
    for (const style of named(elements, 'style'))
      expect(style.text).not.toMatch(/@import|url\(|https?:/);
    expect(html).toContain(`content="default-src 'none'; style-src 'unsafe-inline'"`);
  });

  test('begins with what came out, and links to the parts', async () => {
    const { elements } = await page([section('first'), section('second')]);
    expect(elements.map(({ text }) => text)).toContain(
      'Claims put to the test: 6. Reproduced: 2. Not reproduced: 2. Unclear: 2.',
    );
    const ids = elements.flatMap(({ attributes }) => attributes.id ?? []);
    expect(new Set(ids).size).toBe(ids.length);
    const links = named(elements, 'a').map(({ attributes }) => attributes.href);
    expect(links).toEqual([
      '#first',
      '#second',
      'https://arxiv.org/abs/2502.01237',
      'https://arxiv.org/abs/2502.01237',
    ]);
    expect(ids).toEqual(expect.arrayContaining(['first', 'second']));
    const rows = elements
      .filter(({ name, attributes }) => name === 'tr' && attributes.class === 'not-reproduced')
      .map(textOf);
    expect(rows).toEqual(['first does notnot reproduced', 'second does notnot reproduced']);
  });

  test('has every cell of its tables, numbers to the right', async () => {
    const { elements } = await page([section('first')]);
    const cells = elements
      .filter(({ name }) => name === 'td')
      .map(({ text, attributes }) => [text, attributes.class]);
    expect(cells.slice(-6)).toEqual([
      ['first', undefined],
      ['1.5', 'number'],
      ['0.812 ± 0.013', 'number'],
      ['SFT', undefined],
      ['2', 'number'],
      ['', 'number'],
    ]);
  });

  test('a section without findings, tables and charts has none', async () => {
    const bare: Section = { ...section('bare'), findings: [], tables: [], charts: [] };
    const { elements } = await page([bare]);
    expect(named(elements, 'figure')).toEqual([]);
    expect(named(elements, 'ul')).toEqual([]);
  });
});

describe('charts', () => {
  test('are drawn with their labels, in the colour of the text around them', async () => {
    const svg = await drawChart(spec('a <label> & more'));
    const elements = flat(parseXml(svg));
    expect(elements.map(({ text }) => text)).toContain('a <label> & more');
    expect(svg).toContain('fill="currentColor"');
    expect(svg).not.toMatch(/fill="(black|#000)/);
  });

  test('as files they are well-formed and have colours for light and dark pages', async () => {
    const svg = standalone(await drawChart(spec()));
    const [root] =
      parseXml(svg.trimEnd()).name === 'svg'
        ? [parseXml(svg.trimEnd())]
        : parseXml(svg.trimEnd()).children;
    expect(root?.attributes.xmlns).toBe('http://www.w3.org/2000/svg');
    expect(root?.children[0]?.name).toBe('style');
    expect(svg).toContain('prefers-color-scheme:dark');
  });

  test.each<[string, TopLevelSpec]>([
    [
      'a legend in black',
      {
        data: { values: [{ label: 'one', kind: 'a', value: 1 }] },
        mark: { type: 'point', filled: true },
        encoding: {
          x: { field: 'value', type: 'quantitative' },
          color: { field: 'kind', type: 'nominal' },
          shape: { field: 'label', type: 'nominal' },
        },
      },
    ],
    ['a mark that there is not', { data: { values: [] }, mark: 'pie' as 'arc' }],
    [
      'a channel that the mark has not',
      {
        ...(spec() as object),
        mark: 'bar',
        encoding: { shape: { field: 'label', type: 'nominal' } },
      } as TopLevelSpec,
    ],
  ])('%s is an error, not a warning', async (_, wrong) => {
    await expect(drawChart(wrong)).rejects.toThrow();
  });
});

describe('what is written', () => {
  test('report, results and a file per chart; figures of an earlier report are gone', async () => {
    const directory = path.join(folder, 'out');
    fs.mkdirSync(path.join(directory, 'figures'), { recursive: true });
    fs.writeFileSync(path.join(directory, 'figures', 'old-1.svg'), '');
    const sections = [section('first'), section('second')];
    const files = await writeReport(directory, sections, from);
    expect(files.map((file) => path.relative(directory, file))).toEqual([
      ...[
        'report.html',
        'results.json',
        'findings.json',
        path.join('figures', 'first-1.svg'),
        path.join('figures', 'second-1.svg'),
      ],
    ]);
    expect(fs.readdirSync(path.join(directory, 'figures'))).toEqual([
      'first-1.svg',
      'second-1.svg',
    ]);
    expect(JSON.parse(fs.readFileSync(path.join(directory, 'results.json'), 'utf8'))).toEqual({
      ...from,
      sections,
    });
    const findings = fs.readFileSync(path.join(directory, 'findings.json'), 'utf8');
    const { id, title, text, findings: claims, tables } = section('first');
    const first = { id, title, text, findings: claims, tables };
    expect(JSON.parse(findings)).toMatchObject({ ...from, sections: [first, { id: 'second' }] });
    expect(findings).not.toMatch(/"(data|charts)":/);
    expect(fs.readFileSync(path.join(directory, 'report.html'), 'utf8')).toContain(
      '<h2 id="second">second</h2>',
    );
  });
});

describe('the page of the documentation', () => {
  test('quotes the intervals that the study found', () => {
    const read = (name: string): string =>
      fs.readFileSync(new URL(`../../../${name}`, import.meta.url), 'utf8');
    const intervals = (text: string): readonly (readonly string[])[] =>
      [...text.matchAll(/(-?\d+\.\d+) ± (\d+\.\d+)/g)].map(([, mean = '', half = '']) => [
        mean,
        half,
      ]);
    const found = fs
      .readdirSync(new URL('../findings/', import.meta.url))
      .flatMap((name) => intervals(read(`examples/study/findings/${name}`)));
    const quoted = intervals(read('docs/study.md'));
    expect(quoted.length).toBeGreaterThan(20);
    const rounded = (text: string, like: string): string =>
      Number(text).toFixed(like.length - like.indexOf('.') - 1);
    const strange = quoted.filter(
      (quote) =>
        !found.some((own) => quote.every((text, i) => rounded(own[i] ?? '', text) === text)),
    );
    expect(strange).toEqual([]);
  });
});
