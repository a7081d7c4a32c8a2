// The documentation: its code runs, its formulas are the library's, its lists are complete.
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import type { DefaultTheme } from 'vitepress';
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest';
import { parse as parseYaml } from 'yaml';
import { evaluate, parseFormula, rewrite, toTex } from '../../docs/.vitepress/formula.js';
import { brokenLinks } from '../../docs/.vitepress/links.js';
import { modules } from '../../docs/.vitepress/modules.js';
import { repositoryUrl, sourceUrl, withAbsoluteLinks } from '../../docs/.vitepress/repository.js';
import { sidebar } from '../../docs/.vitepress/sidebar.js';
import {
  bestTable,
  commands,
  formulaOf,
  generatedPages,
  gridsTable,
} from '../../docs/.vitepress/pages.js';
import { whyNot } from '../../ts/device/status.js';
import { dirAlignLoss, methods, presets, type Method, type MethodInfo } from '../../ts/index.js';
import { isLikelihood } from '../../ts/catalogue.js';
import {
  compose,
  runnable,
  snippetsOf,
  typeErrors,
  type Snippet,
} from '../../docs/.vitepress/snippets.js';
import { at, generator } from '../support/numbers.js';

const root = fileURLToPath(new URL('../..', import.meta.url));
const inRoot = (...names: string[]): string => path.join(root, ...names);
const read = (file: string): string => fs.readFileSync(inRoot(file), 'utf8');

/** Pages that are written by hand, from the root. */
const written = [
  'README.md',
  ...fs
    .readdirSync(inRoot('docs'))
    .filter((file) => file.endsWith('.md'))
    .map((file) => `docs/${file}`),
];
const pages = new Map<string, string>([
  ...written.map((file) => [file, read(file)] as const),
  ...[...generatedPages()].map(([file, text]) => [`docs/${file}`, text] as const),
]);
const snippets = new Map([...pages].map(([page, text]) => [page, snippetsOf(page, text)]));
const all = [...snippets.values()].flat();

const workplace = inRoot('build/docs-snippets');
const cwd = process.cwd();
beforeAll(() => {
  fs.rmSync(workplace, { recursive: true, force: true });
  fs.mkdirSync(workplace, { recursive: true });
});
afterAll(() => {
  process.chdir(cwd);
  for (const folder of folders) fs.rmSync(folder, { recursive: true });
});

const folders: string[] = [];
function newFolder(): string {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'diralign-docs-'));
  folders.push(folder);
  return folder;
}

describe('code blocks', () => {
  const fileOf = ({ place, language }: Snippet): string =>
    path.join(workplace, `${place.replace(/[/:.]/g, '-')}.${language === 'js' ? 'mjs' : language}`);
  const modulesOf = (language: string): Snippet[] =>
    all.filter((snippet) => snippet.language === language);

  function write(snippet: Snippet): string {
    const page = snippets.get(snippet.place.replace(/:\d+$/, '')) ?? [];
    const file = fileOf(snippet);
    const { before, code } = compose(snippet, page, inRoot('tests/docs/preludes'), workplace);
    fs.writeFileSync(file, `${before}${code}\nexport {};\n`);
    return file;
  }

  test('there are some, and those that do not run say why', () => {
    const languages = new Set(all.map(({ language }) => language));
    expect([...languages].sort()).toEqual(
      ['dockerfile', 'js', 'json', 'py', 'sh', 'text', 'ts', 'yaml'].filter((each) =>
        languages.has(each),
      ),
    );
    expect(
      all.filter(({ language, notRun }) => runnable.has(language) && notRun === undefined).length,
    ).toBeGreaterThan(30);
    expect(all.filter(({ notRun }) => notRun?.length === 0)).toEqual([]);
  });

  test.each([
    ['<!-- example wth: a -->\n\n```ts\n```', 'neither'],
    ['<!-- example with: a -->\n\ntext\n\n```ts\n```', 'no block follows'],
    ['```ts\n```\n<!-- example with: a -->', 'no block follows'],
    ['<!-- example output -->\n```text\n```', 'no block above'],
    ['```ts\nconst a = 1;', 'does not end'],
  ])('a comment that means nothing is refused: %j', (text, message) => {
    expect(() => snippetsOf('page.md', text)).toThrow(message);
  });

  test("every block compiles in a reader's strict project, what is not run included", () => {
    expect(typeErrors([...modulesOf('ts'), ...modulesOf('js')].map(write))).toEqual([]);
  });

  describe('modules run', () => {
    const modules = [...modulesOf('ts'), ...modulesOf('js')];
    test.each(modules.filter(({ notRun }) => notRun === undefined))('$place', async (snippet) => {
      const lines: string[] = [];
      vi.spyOn(console, 'log').mockImplementation(
        (...values: unknown[]) => void lines.push(values.map(String).join(' ')),
      );
      process.chdir(newFolder());
      vi.resetModules(); // a prelude is run for each snippet
      await import(/* @vite-ignore */ pathToFileURL(write(snippet)).href);
      const above = snippet.preludes.includes('above') ? outputAbove(snippet) : '';
      if (snippet.output !== undefined) expect(lines.join('\n')).toBe(above + snippet.output);
    });
    afterEach(() => {
      vi.restoreAllMocks();
    });
  });

  /** What the blocks print that a block goes on from. */
  function outputAbove({ place, language }: Snippet): string {
    const page = snippets.get(place.replace(/:\d+$/, '')) ?? [];
    return page
      .slice(
        0,
        page.findIndex((each) => each.place === place),
      )
      .filter((each) => each.language === language && each.output !== undefined)
      .map(({ output }) => `${output ?? ''}\n`)
      .join('');
  }

  test.each(modulesOf('sh').filter(({ notRun }) => notRun === undefined))(
    'sh runs: $place',
    (snippet) => {
      const { status, stdout, stderr } = runShell(snippet);
      expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
      if (snippet.output !== undefined) expect(stdout.trim()).toBe(snippet.output);
    },
  );

  test('the workflow is one, and uploads what its command writes', () => {
    const [block, ...others] = all.filter(
      ({ place, language }) => place.startsWith('docs/ci.md') && language === 'yaml',
    );
    expect(others).toEqual([]);
    const workflow = parseYaml(block?.code ?? '') as {
      readonly on: object;
      readonly jobs: {
        readonly verify: {
          readonly 'runs-on': string;
          readonly steps: readonly Record<string, unknown>[];
        };
      };
    };
    expect(Object.keys(workflow.on)).toContain('pull_request');
    const { steps, 'runs-on': machine } = workflow.jobs.verify;
    expect(machine).toBe('ubuntu-latest');
    const commandLines = steps
      .map(({ run }) => run)
      .filter((run) => typeof run === 'string' && run.startsWith('npx'));
    expect(commandLines).toContain('npx diralign verify --junit diralign-verify.xml');
    // That it makes this report is shown by tests/cli/cli.test.ts.
    const upload = steps.at(-1)?.with as { readonly path: string };
    expect(upload.path).toBe('diralign-verify.xml');
  });
});

/**
 * In a folder of its own, with an `npx` that runs this package's program; `diralign verify` is kept
 * to one method, for time.
 */
function runShell({ code, preludes }: Pick<Snippet, 'code' | 'preludes'>) {
  const folder = newFolder();
  const tools = path.join(folder, '.tools');
  fs.mkdirSync(tools);
  const program = (name: string, lines: string): void => {
    fs.writeFileSync(path.join(tools, name), `#!/bin/sh\n${lines}\n`, { mode: 0o755 });
  };
  // What changes a machine is not run by a test; its block has to say so.
  for (const name of ['npm', 'sudo', 'apt-get'])
    program(name, `echo "${name}: mark the block 'not run'" >&2; exit 1`);
  program(
    'npx',
    `[ "$1" = diralign ] || { echo "npx: $1 is not of this package" >&2; exit 1; }
shift
case "$*" in *--method*) ;; verify*) set -- "$@" --method sft ;; esac
exec ${JSON.stringify(process.execPath)} ${JSON.stringify(inRoot('dist/cli/main.js'))} "$@"`,
  );
  const before = preludes.map((name) => read(`tests/docs/preludes/${name}.sh`));
  const env = {
    ...process.env,
    ROOT: root,
    PATH: `${tools}:${process.env.PATH ?? ''}`,
    NO_COLOR: '1',
  };
  const { status, stdout, stderr } = spawnSync(
    'bash',
    ['--norc', '-euc', [...before, code].join('\n')],
    {
      cwd: folder,
      env,
      encoding: 'utf8',
    },
  );
  return { status, stdout, stderr, folder };
}
describe('formulas', () => {
  const [beta, pairs] = [0.3, 3];
  const random = generator(7);
  const uniform = (low: number, high: number): number => low + (high - low) * random();

  /** Options that are not their defaults where a formula has them. */
  const options: Readonly<Partial<Record<Method, Readonly<Record<string, number>>>>> = {
    simpo: { gamma: 0.7 },
    orpo: { lambda: 0.6 },
    asft: { lambda: 0.6 },
    cal_dpo: { calibrationWeight: 0.4 },
    robust: { labelSmoothing: 0.2 },
    exo_pair: { labelSmoothing: 0.1 },
    aot: { labelSmoothing: 0.1 },
    aot_unpaired: { labelSmoothing: 0.1 },
    discopop: { tau: 0.3 },
    alphapo: { gamma: 0.2, alpha: 0.4 },
    r_dpo: { alpha: 0.02 },
    dpop: { penalty: 5 },
    kto: { desirableWeight: 1.3, undesirableWeight: 0.6 },
    apo_zero_unpaired: { desirableWeight: 1.3, undesirableWeight: 0.6 },
    bco: { desirableWeight: 1.3, undesirableWeight: 0.6 },
    info_nca: { rewardTemperature: 0.5 },
    nca_listwise: { rewardTemperature: 0.5 },
  };

  /** Values of the symbols for pair i, from the definitions in docs/methods.md. */
  function symbolsOf(
    info: MethodInfo,
    batch: ReturnType<typeof batchOf>,
    i: number,
  ): Record<string, number | number[]> {
    const { logps, reference, counts } = batch;
    const side = (s: number) => {
      const [S, R, L] = [at(logps, s), at(reference, s), at(counts, s)];
      const per = info.normalize ? L : 1;
      const a = S / per;
      return { S, R, L, r: (S - R) / per, a, o: a - Math.log(1 - Math.exp(a)) };
    };
    if (info.arity !== 'pair' && !isLikelihood(info)) return unpairedSymbols(info, batch, i);
    const values: Record<string, number> = { beta, ...options[info.name] };
    for (const [index, s] of [['w', i] as const, ['l', pairs + i] as const]) {
      for (const [name, value] of Object.entries(side(s))) values[`${name}_${index}`] = value;
    }
    if ('labelSmoothing' in values) values.eps = values.labelSmoothing;
    if (info.name === 'dpo')
      [values.s_w, values.s_l] = [values.r_w as number, values.r_l as number];
    values.u = beta * ((values.r_w as number) - (values.r_l as number));
    values.D_i = rankDifference(info, batch, i);
    return values;
  }

  const [desirable, kl, shift] = [[true, false, true, true, false, false], 0.3, -0.4] as const;
  const [ranks, rewards] = [
    [2, 0, 1, 5, 4, 6],
    [1, 0.5, 2, -1, 0, 3],
  ] as const;
  /** Three groups, of one, two and three candidates. */
  const groups = Int32Array.of(0, 1, 3, 6);

  /** What a method takes of these. */
  function fieldsOf({ arity, fields }: MethodInfo): object {
    return {
      ...(arity === 'group' && { groups }),
      ...(fields.desirable && { desirable }),
      ...(fields.kl && { kl }),
      ...(fields.shift && { shift }),
      ...(fields.ranks && { ranks }),
      ...(fields.rewards && { rewards }),
    };
  }

  /** Of sequence i, or of group i. */
  function unpairedSymbols(
    info: MethodInfo,
    { logps, reference }: ReturnType<typeof batchOf>,
    i: number,
  ): Record<string, number | number[]> {
    const r = logps.map((logp, s) => logp - at(reference, s));
    if (info.arity === 'single') {
      const { desirableWeight: dW = 1, undesirableWeight: uW = 1 } = options[info.name] ?? {};
      return { beta, dW, uW, z: kl, shift, d: Number(desirable[i]), r: at(r, i) };
    }
    const { rewardTemperature = 1 } = options[info.name] ?? {};
    const sequences = Array.from(logps.keys()).slice(at(groups, i), at(groups, i + 1));
    if (info.fields.ranks) sequences.sort((a, b) => at(ranks, a) - at(ranks, b));
    const weights = sequences.map((s) => Math.exp(at(rewards, s) / rewardTemperature));
    const total = weights.reduce((a, b) => a + b, 0);
    return {
      K: sequences.length,
      u: sequences.map((s) => beta * at(r, s)),
      y: weights.map((weight) => weight / total),
    };
  }

  function rankDifference(
    { name }: MethodInfo,
    { logps, reference }: ReturnType<typeof batchOf>,
    i: number,
  ): number {
    const sorted = (value: (pair: number) => number): number[] =>
      Array.from({ length: pairs }, (_, pair) => value(pair)).sort((a, b) => a - b);
    const margin = (x: Float64Array) => (pair: number) => at(x, pair) - at(x, pairs + pair);
    const ratio = (from: number) => (pair: number) =>
      at(logps, from + pair) - at(reference, from + pair);
    const [upper, lower] =
      name === 'aot'
        ? [sorted(margin(logps)), sorted(margin(reference))]
        : [sorted(ratio(0)), sorted(ratio(pairs))];
    return at(upper, i) - at(lower, i);
  }

  function batchOf() {
    const counts = Int32Array.from({ length: 2 * pairs }, () => Math.floor(uniform(4, 12)));
    const logps = Float64Array.from(counts, (count) => -count * uniform(0.3, 2));
    const reference = logps.map((logp) => logp + uniform(-3, 3));
    return { counts, logps, reference };
  }

  test.each(methods())('$name, as the site shows it, is the loss', (info) => {
    const batch = batchOf();
    const settings = { method: info.name, beta, ...options[info.name] };
    const { losses } = dirAlignLoss(settings).fromLogps({ ...batch, ...fieldsOf(info) });
    const expected = Array.from(losses.subarray(0, pairs));
    expect(Math.max(...expected.map(Math.abs))).toBeGreaterThan(0.05);
    const formula = formulaOf(info);
    expected.forEach((loss, i) => {
      const value = evaluate(formula, symbolsOf(info, batch, i));
      expect(Math.abs(value - loss)).toBeLessThanOrEqual(1e-10 * Math.max(1, Math.abs(loss)));
    });
  });

  test('the TeX is that of the formula', () => {
    const tex = (text: string): string => toTex(rewrite(parseFormula(text)));
    expect(tex('sp(-beta (s_w - s_l))')).toBe(
      '-\\log \\sigma\\left(\\beta\\,\\left(s_{w}-s_{l}\\right)\\right)',
    );
    expect(tex('(r_w - r_l - 1 / (2 beta))^2')).toBe(
      '\\left(r_{w}-r_{l}-\\frac{1}{2\\,\\beta}\\right)^{2}',
    );
    expect(tex('sp(x) - (a - b) / 2')).toBe('-\\log \\sigma\\left(-x\\right)-\\frac{a-b}{2}');
    expect(tex('a exp(-u), u = b c')).toBe('a\\,e^{-u}, \\qquad u = b\\,c');
  });

  test.each(['sp(x', 'a +', 'a, b', '(a, b) c', 'a ? b', '', 'a )'])("'%s' is refused", (text) => {
    expect(() => parseFormula(text)).toThrow();
  });
});

describe('lists', () => {
  test('every code of DirAlignError has its section, and no other', () => {
    const codes = [...read('ts/errors.ts').matchAll(/^ {2}\| '(ERR_\w+)'/gm)].map(
      ([, code]) => code,
    );
    const sections = [...read('docs/troubleshooting.md').matchAll(/^### (ERR_\w+)$/gm)].map(
      ([, code]) => code,
    );
    expect(codes.length).toBeGreaterThanOrEqual(10);
    expect(sections).toEqual(codes);
  });

  test('every reason why CUDA is off has its row', () => {
    const status = {
      compiled: true,
      architectures: '',
      ptx: '',
      runtime: 13000,
      driver: 13000,
      error: 0,
      errorText: '',
      devices: 1,
    };
    const reasons = [
      whyNot({ ...status, compiled: false }, undefined),
      whyNot({ ...status, driver: 0 }, undefined),
      whyNot({ ...status, driver: 12040, error: 35 }, undefined),
      whyNot({ ...status, devices: 0 }, undefined),
    ];
    const firstCells = [...read('docs/troubleshooting.md').matchAll(/^\| ([^|]*?) *\|/gm)].map(
      ([, cell]) => cell as string,
    );
    for (const reason of reasons)
      expect(firstCells.some((cell) => cell.length > 20 && reason?.startsWith(cell))).toBe(true);
  });

  test('every message about the addon is one that the loader has', () => {
    const loader = ['load', 'find', 'why-not-loaded']
      .map((name) => read(`ts/native/${name}.ts`))
      .join('\n')
      .replace(/['`] \+\s+['`]/g, '');
    const page = read('docs/troubleshooting.md');
    for (const phrase of [
      'There is no prebuilt binary for',
      'and this system has',
      'It was built for glibc and this system has musl',
      'It was built for musl (Alpine) and this system has glibc',
      'macOS does not trust the file',
      'It is damaged, or made for another system',
      'was built from other sources than this package',
      'diralign was bundled without its native addon',
      'Node was started with --no-addons',
      "Node's permission model (--permission) allows no addons",
      "Node's permission model forbids",
      'Deno was started without --allow-ffi',
      ...['DIRALIGN_ADDON', 'DIRALIGN_PREBUILD'],
    ]) {
      expect([phrase, loader.includes(phrase), page.includes(phrase)]).toEqual([
        phrase,
        true,
        true,
      ]);
    }
  });

  test('every command of the program is on the page', () => {
    const { stdout } = spawnSync(process.execPath, [inRoot('dist/cli/main.js'), '--help'], {
      encoding: 'utf8',
    });
    const [, list = ''] = /Commands\n([\s\S]*?)\n\n/.exec(stdout) ?? [];
    const names = [...list.matchAll(/^ {2}(\w+)/gm)].map(([, name]) => name);
    expect(names.length).toBeGreaterThanOrEqual(7);
    expect(commands.map(({ name }) => name)).toEqual(names);
  });

  test('the tables of presets are the presets', () => {
    const cells = (line: string): string[] =>
      line
        .split('|')
        .map((cell) => cell.trim())
        .slice(1, -1);
    const row = (text: string, method: string): string[] =>
      cells(text.split('\n').find((line) => line.includes(`\`${method}\``)) ?? '');
    for (const [method, grid] of Object.entries(presets.grids)) {
      expect(row(gridsTable(), method)[1]?.split(', ').map(Number)).toEqual(grid);
      const best = Object.values(presets.best).map((setup) => setup[method as Method]);
      const shown = row(bestTable(), method)
        .slice(1)
        .map((cell) => /^(\S+)\s\((\S+)\)$/.exec(cell)?.slice(1).map(Number));
      expect(shown).toEqual(best.map((setting) => setting && [setting.beta, setting.learningRate]));
    }
  });

  test('every page is in the sidebar once, and no two entries have one name', () => {
    const entries = (items: readonly DefaultTheme.SidebarItem[]): DefaultTheme.SidebarItem[] =>
      items.flatMap((item) => [item, ...entries(item.items ?? [])]);
    const all = entries(sidebar());
    const names = all.map(({ text }) => text);
    expect(names.filter((name, i) => names.indexOf(name) !== i)).toEqual([]);
    const links = all.flatMap(({ link }) => link ?? []).filter((link) => link !== '/api/');
    const files = [...pages.keys()].filter((file) => /^docs\/(methods\/)?[^/]+$/.test(file));
    expect(links.map((link) => `docs${link === '/' ? '/index' : link}.md`).sort()).toEqual(
      files.sort(),
    );
  });

  test('every method and every module has its page', () => {
    const methodPages = [...generatedPages().keys()].filter((file) => file.startsWith('methods/'));
    expect(methodPages).toEqual(methods().map(({ name }) => `methods/${name}.md`));
    expect(modules().map(({ name }) => name)).toContain('diralign/data');
    for (const { source } of modules())
      expect([source, fs.existsSync(inRoot(source))]).toEqual([source, true]);
  });
});

describe('links of the package page', () => {
  const raw = `${repositoryUrl.replace('github.com', 'raw.githubusercontent.com')}/HEAD`;

  test.each([
    ['[a](docs/data.md)', `[a](${sourceUrl('docs/data.md')})`],
    [
      '[a](docs/data.md#x) [b](LICENSE)',
      `[a](${sourceUrl('docs/data.md#x')}) [b](${sourceUrl('LICENSE')})`,
    ],
    ['![a](docs/figures/dpo.svg)', `![a](${raw}/docs/figures/dpo.svg)`],
    [
      '[![a](docs/figures/dpo.svg)](docs/methods.md)',
      `[![a](${raw}/docs/figures/dpo.svg)](${sourceUrl('docs/methods.md')})`,
    ],
    ['[a](#limits) [b](https://arxiv.org)', '[a](#limits) [b](https://arxiv.org)'],
    ['```ts\n[a](docs/data.md)\n```', '```ts\n[a](docs/data.md)\n```'],
  ])('%j', (markdown, expected) => {
    expect(withAbsoluteLinks(markdown)).toBe(expected);
  });

  test('a link to nothing is refused', () => {
    expect(() => withAbsoluteLinks('[a](docs/dta.md)')).toThrow('there is no docs/dta.md');
  });

  test('every link of the README is an address or an anchor', () => {
    const links = [...withAbsoluteLinks(read('README.md')).matchAll(/\]\(([^)]*)\)/g)].map(
      ([, href]) => href as string,
    );
    expect(links.length).toBeGreaterThan(5);
    expect(links.filter((href) => !/^(https:\/\/|#)/.test(href))).toEqual([]);
  });
});

describe('links of a built site', () => {
  /** A site of two pages, the first with this in its body. */
  function site(body: string): string {
    const folder = newFolder();
    const page = (content: string): string =>
      `<!doctype html><html><head><title>t</title></head><body>${content}</body></html>`;
    fs.writeFileSync(path.join(folder, 'index.html'), page(body));
    fs.mkdirSync(path.join(folder, 'methods'));
    fs.writeFileSync(
      path.join(folder, 'methods/dpo.html'),
      page('<h2 id="curve">Curve</h2><a href="../../">up</a>'),
    );
    return folder;
  }

  test.each([
    '<a href="/methods/dpo">a</a>',
    '<a href="methods/dpo.html#curve">a</a>',
    '<h2 id="a b"></h2><a href="#a%20b">a</a>',
    '<a href="https://arxiv.org/abs/2502.01237">a</a>',
    '<img src="data:image/png;base64,AAAA">',
  ])('%s is right', (body) => {
    expect(brokenLinks(site(body))).toEqual([]);
  });

  test.each([
    ['<a href="/methods/ipo">a</a>', 'index.html: /methods/ipo leads nowhere'],
    ['<a href="/methods/">a</a>', 'index.html: /methods/ leads nowhere'],
    ['<a href="methods/dpo#curves">a</a>', 'index.html: methods/dpo#curves has no such anchor'],
    ['<a href="#top">a</a>', 'index.html: #top has no such anchor'],
    [
      '<a href="http://arxiv.org">a</a>',
      'index.html: http://arxiv.org is no address of another site',
    ],
    ['<a href="https://">a</a>', 'index.html: https:// is no address of another site'],
    ['<img src="/figure.svg">', 'index.html: /figure.svg is not there'],
    [
      '<script src="https://cdn.example/x.js"></script>',
      'index.html: loads https://cdn.example/x.js from another host',
    ],
    [
      '<link rel="stylesheet" href="//fonts.example/f.css">',
      'index.html: loads //fonts.example/f.css from another host',
    ],
  ])('%s is wrong', (body, line) => {
    expect(brokenLinks(site(body))).toEqual([line]);
  });

  test('a folder without pages is not a site', () => {
    expect(() => brokenLinks(newFolder())).toThrow('there is no page');
  });
});
