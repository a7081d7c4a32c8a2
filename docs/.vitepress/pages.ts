/**
 * The parts of the site that are made from the sources when it is built, so that nobody types them
 * a second time.
 */
import fs from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import {
  methods,
  presets,
  type Method,
  type MethodInfo,
  type OptionInfo,
  type PresetSetup,
} from '../../ts/index.js';
import { isLikelihood, type FieldInfo } from '../../ts/catalogue.js';
import { benchCommand } from '../../ts/cli/bench.js';
import { buildCommand } from '../../ts/cli/build.js';
import type { Command } from '../../ts/cli/command.js';
import { lengthOf } from '../../ts/cli/field-help.js';
import { infoCommand } from '../../ts/cli/info.js';
import { lossCommand } from '../../ts/cli/loss.js';
import { methodsCommand } from '../../ts/cli/methods.js';
import { plotCommand } from '../../ts/cli/plot.js';
import { verifyCommand } from '../../ts/cli/verify.js';
import { contract } from '../../ts/contract.generated.js';
import { unitName } from '../../ts/units.js';
import { namesIn, parseFormula, rewrite, toTex, type Formula } from './formula.js';

const docs = fileURLToPath(new URL('..', import.meta.url));

const table = (head: readonly string[], rows: readonly (readonly string[])[]): string =>
  [head, head.map(() => '---'), ...rows].map((cells) => `| ${cells.join(' | ')} |`).join('\n');

/** 1e-6, and not JavaScript's 0.000001. */
const numeral = (value: number): string => (value < 1e-4 ? value.toExponential() : String(value));
const numerals = (values: readonly number[]): string => values.map(numeral).join(', ');

const code = (text: string | number): string => `\`${text}\``;

/** Methods whose description is prose: what their $D_i$ is. */
const prose: Readonly<Partial<Record<Method, string>>> = {
  aot:
    'the i-th smallest margin of the policy, $S_w - S_l$, less the i-th smallest of the ' +
    'reference, $R_w - R_l$, in the batch',
  aot_unpaired:
    'the i-th smallest log-ratio of a chosen sequence, less the i-th smallest of a ' +
    'rejected one, in the batch',
};

/** The loss of a pair as the site shows it. */
export function formulaOf({ name, formula }: MethodInfo): Formula {
  const text = prose[name] === undefined ? formula : '(1 - eps) sp(-beta D_i) + eps sp(beta D_i)';
  return rewrite(parseFormula(text));
}

/**
 * Symbols of the formulas: what each means, and by which others. In the order in which a page
 * explains them.
 */
const symbols: Readonly<
  Record<string, { readonly meaning: string; readonly by?: readonly string[] }>
> = {
  u: { meaning: '$u = \\beta\\,(r_w - r_l)$', by: ['r'] },
  d: { meaning: '$d$: 1 of a desirable sequence, 0 of another' },
  dW: { meaning: '$d_W$, $u_W$: `desirableWeight`, `undesirableWeight`' },
  z: { meaning: '$z$: the `kl` of the batch, of which no derivative is taken' },
  shift: { meaning: '`shift`: that of the batch' },
  y: { meaning: '$y$: the softmax of `rewards / rewardTemperature` within the group' },
  K: { meaning: '$K$: candidates of the group' },
  s: {
    meaning:
      '$s$: the score; $r$ by default, and for each `divergence` what [Methods](../methods.md) has',
    by: ['r'],
  },
  o: { meaning: '$o = a - \\log(1 - e^a)$, the log-odds', by: ['a'] },
  r: {
    meaning: '$r = S - R$, the log-ratio to the reference; $r = (S - R) / L$ with `normalize`',
    by: ['S', 'R', 'L'],
  },
  a: {
    meaning: '$a = S / L$, the mean log-probability; $a = S$ without `normalize`',
    by: ['S', 'L'],
  },
  D: { meaning: '' },
  S: {
    meaning: '$S$: log-probability of a sequence under the policy, summed over its scored tokens',
  },
  R: { meaning: '$R$: the same under the reference' },
  L: { meaning: '$L$: scored tokens of a sequence' },
  eps: { meaning: '$\\varepsilon$: `labelSmoothing`' },
};

function notation(info: MethodInfo): string {
  const formula = formulaOf(info);
  const used = new Set<string>();
  const ofGroup = info.arity === 'group';
  const use = (name: string): void => {
    if (used.has(name)) return;
    used.add(name);
    // `s` of alphapo is defined in its formula.
    if (!formula.definitions.has(name)) symbols[name]?.by?.forEach(use);
  };
  for (const name of namesIn(formula)) use(name.split('_')[0] as string);
  const lines = Object.entries(symbols)
    .filter(([name]) => used.has(name) && !formula.definitions.has(name))
    .map(([name, { meaning }]) =>
      name === 'D'
        ? `$D_i$: ${prose[info.name] ?? ''}`
        : name === 'u' && ofGroup
          ? '$u_k = \\beta\\,r_k$ of the k-th candidate' +
            (info.fields.ranks ? ', in the order of `ranks`, best first' : '')
          : meaning,
    );
  if (info.arity === 'pair' || isLikelihood(info))
    lines.push('$w$, $l$: of the chosen and of the rejected sequence');
  if (toTex(formula).includes('\\sigma')) lines.push('$\\sigma$: the logistic function');
  if ('labelSmoothing' in info.options && !used.has('eps')) {
    lines.push(
      'with `labelSmoothing` $\\varepsilon$, $-\\log\\sigma(x)$ becomes ' +
        '$-(1-\\varepsilon)\\log\\sigma(x)-\\varepsilon\\log\\sigma(-x)$',
    );
  }
  return lines.map((line) => `- ${line}`).join('\n');
}

function range({ min, above, max, below, values }: Partial<OptionInfo>): string {
  if (values) return values.map((value) => code(`'${value}'`)).join(', ');
  const ends = [
    min === undefined ? undefined : `at least ${min}`,
    above === undefined ? undefined : `above ${above}`,
    max === undefined ? undefined : `at most ${max}`,
    below === undefined ? undefined : `below ${below}`,
  ].filter((end) => end !== undefined);
  return ends.join(', ');
}

function optionsTable({ options }: MethodInfo): string {
  const rows = Object.entries(options).map(([name, option]) => {
    const standard =
      typeof option.default === 'string' ? `'${option.default}'` : String(option.default);
    return [code(name), option.meaning, code(standard), range(option)];
  });
  return table(['option', 'meaning', 'default', 'values'], rows);
}

/** What a batch may carry for the method. */
function fieldsTable({ arity, fields }: MethodInfo): string {
  const groups = [
    '`groups`',
    'groups + 1 offsets',
    'where each group begins among the sequences',
    'needed',
  ];
  const rows = contract.fields.flatMap((field) => {
    const own: FieldInfo | undefined = fields[field.name];
    if (own === undefined) return [];
    const values = [range(own), own.needed ? 'needed' : ''].filter(Boolean).join('; ');
    return [[code(field.name), lengthOf(field), field.meaning, values]];
  });
  return table(
    ['field', 'length', 'meaning', 'values'],
    arity === 'group' ? [groups, ...rows] : rows,
  );
}

/** What data and model a preset is of. */
const setupNames: Readonly<Record<PresetSetup, string>> = {
  'tldr-llama-3.2-3b': 'TL;DR, Llama 3.2 3B',
  'ultrafeedback-llama-3.2-3b': 'UltraFeedback, Llama 3.2 3B',
  'ultrafeedback-llama-3.1-8b': 'UltraFeedback, Llama 3.1 8B',
  'ultrafeedback-mistral-7b': 'UltraFeedback, Mistral 7B',
  'math-qwen2.5-7b': 'math, Qwen2.5 7B',
  'math-qwen2.5-14b': 'math, Qwen2.5 14B',
};
const setups = Object.keys(setupNames) as PresetSetup[];

function settingsOf({ name }: MethodInfo): string {
  const grid = presets.grids[name];
  if (grid === undefined) return '';
  const rows = setups.flatMap((setup) => {
    const best = presets.best[setup][name];
    return best === undefined
      ? []
      : [[setupNames[setup], code(setup), numeral(best.beta), numeral(best.learningRate)]];
  });
  return `## Settings of the paper

Tried with Llama models: beta ${numerals(grid)}. Best, by data and model ([presets](../beta.md),
arXiv 2502.01237 v3):

${table(['setup', 'in `presets.best`', 'beta', 'learning rate'], rows)}

`;
}

/** The call that builds the loss, with a beta of the paper where it has one. */
function callOf({ name, beta }: MethodInfo): string {
  if (!beta) return `dirAlignLoss('${name}')`;
  const best = presets.best['ultrafeedback-llama-3.1-8b'][name];
  return `dirAlignLoss('${name}', ${best?.beta ?? 0.1})`;
}

/**
 * As docs/methods.md has it, where `npm run figures` writes it; to draw a figure takes the addon,
 * to build the site does not.
 */
function captionOf(name: string): string {
  const page = fs.readFileSync(path.join(docs, 'methods.md'), 'utf8');
  const caption = new RegExp(`!\\[(.*)\\]\\(figures/${name}\\.svg\\)`).exec(page)?.[1];
  if (caption === undefined)
    throw new Error(`docs/methods.md has no figure of ${name}; npm run figures makes it`);
  return caption;
}

/** docs/methods/NAME.md */
export function methodPage(info: MethodInfo): string {
  const { name } = info;
  const facts = [
    ['ranks', info.score],
    ['ranking', info.batchCoupled ? `${info.ranking}, coupled over the batch` : info.ranking],
    ['needs a reference', info.reference ? 'yes, unless `referenceFree`' : 'no'],
    ['`normalize` originally', code(String(info.normalize))],
    ['family', info.family === 'paper' ? 'in arXiv 2502.01237' : 'wider'],
    ['source', info.source],
  ];
  const before =
    'sftWeight' in info.options ? ', before the likelihood term that `sftWeight` adds' : '';
  return `# ${name}

Loss of a ${unitName(info)}${before}:

$$
${toTex(formulaOf(info))}
$$

${notation(info)}

${table(['', code(name)], facts)}

\`\`\`ts
import { dirAlignLoss } from 'diralign';

const loss = ${callOf(info)};
\`\`\`

## Curve

![${captionOf(name)}](../figures/${name}.svg)

An axis is a log-ratio, or a log-probability where there is no reference, in nats, or in nats per
token where the method is normalised by default; derivatives are by the same.

## Options

${optionsTable(info)}

## Fields of a batch

${fieldsTable(info)}

More about each, and the transforms of logits that all take: [Fields of a batch](../fields.md).

${settingsOf(info)}All methods, the notation, and where sources disagree: [Methods](../methods.md).
`;
}

/** Which methods rank which score in which way. */
export function relationsTable(): string {
  const ranked = methods().filter(({ ranking }) => ranking !== 'likelihood');
  const scores = [...new Set(ranked.map(({ score }) => score))];
  const named = (score: string, ranking: string): string =>
    ranked
      .filter((info) => info.score === score && info.ranking === ranking)
      .map(({ name }) => `[${code(name)}](./methods/${name}.md)`)
      .join(', ');
  const rankings = ['pairwise', 'pointwise', 'listwise'];
  const rows = scores.map((score) => [score, ...rankings.map((ranking) => named(score, ranking))]);
  return table(['score', ...rankings], rows);
}

/** The grids of the paper, by method. */
export function gridsTable(): string {
  const rows = Object.entries(presets.grids).map(([name, grid]) => [
    `[${code(name)}](./methods/${name}.md)`,
    numerals(grid),
  ]);
  return table(['method', 'beta tried'], rows);
}

/** The best settings of the paper: a row for each method, a column for each setup. */
export function bestTable(): string {
  const named = Object.keys(presets.grids) as Method[];
  const rows = named.map((name) => [
    code(name),
    ...setups.map((setup) => {
      const best = presets.best[setup][name];
      return best === undefined ? '' : `${numeral(best.beta)}\u00a0(${numeral(best.learningRate)})`;
    }),
  ]);
  return table(['beta (learning rate)', ...setups.map((setup) => setupNames[setup])], rows);
}

/** What was the same in all runs of the paper. */
export function recipeTable(): string {
  const { recipe } = presets;
  return table(
    ['', 'in `presets.recipe`', ''],
    [
      ['optimiser', code('optimizer'), `${recipe.optimizer}, betas ${numerals(recipe.adamBetas)}`],
      ['batch', code('batchSize'), String(recipe.batchSize)],
      ['schedule', code('schedule'), `${recipe.schedule}, warm-up ${recipe.warmupRatio}`],
      ['most gradient norm', code('maxGradNorm'), String(recipe.maxGradNorm)],
      ['epochs', code('epochs'), String(recipe.epochs)],
      ['learning rate of SFT', code('sftLearningRate'), numeral(recipe.sftLearningRate)],
      [
        'learning rates tried after SFT',
        code('alignmentLearningRates'),
        numerals(recipe.alignmentLearningRates),
      ],
      [
        'learning rates tried from the base model',
        code('baseLearningRates'),
        numerals(recipe.baseLearningRates),
      ],
      [
        'most tokens',
        code('maxTokens'),
        `${recipe.maxTokens.tldr} (TL;DR), ${recipe.maxTokens.ultrafeedback} (UltraFeedback)`,
      ],
    ],
  );
}

export const commands: readonly Command[] = [
  lossCommand,
  verifyCommand,
  benchCommand,
  plotCommand,
  methodsCommand,
  infoCommand,
  buildCommand,
];

/** What `--help` of each command prints. */
export function commandSections(): string {
  return commands
    .map(
      ({ name, summary, usage }) =>
        `## diralign ${name}\n\n${summary}\n\n\`\`\`text\n${usage}\n\`\`\``,
    )
    .join('\n\n');
}

/** Every generated file, by its path in docs/. */
export function generatedPages(): ReadonlyMap<string, string> {
  return new Map([
    ['generated/relations.md', relationsTable()],
    ['generated/grids.md', gridsTable()],
    ['generated/best.md', bestTable()],
    ['generated/recipe.md', recipeTable()],
    ['generated/commands.md', commandSections()],
    ...methods().map((info) => [`methods/${info.name}.md`, methodPage(info)] as const),
  ]);
}

/** Writes the generated files, and removes what is left there of others. */
export function writePages(): void {
  for (const folder of ['generated', 'methods'])
    fs.rmSync(path.join(docs, folder), { recursive: true, force: true });
  for (const [file, content] of generatedPages()) {
    fs.mkdirSync(path.dirname(path.join(docs, file)), { recursive: true });
    fs.writeFileSync(path.join(docs, file), content);
  }
}
