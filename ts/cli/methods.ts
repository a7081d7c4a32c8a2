import { methods, type FieldInfo, type MethodInfo, type OptionInfo } from '../catalogue.js';
import { contract } from '../contract.generated.js';
import { recipes } from '../recipes.js';
import { unitName } from '../units.js';
import { kebab, parse } from './arguments.js';
import { methodNamed } from './choice.js';
import { ok, UsageError, type Command } from './command.js';
import { fieldLines, lengthOf } from './field-help.js';
import { recipeTable } from './recipes.js';
import { list, table, wrap } from '../text/table.js';
import { paint, print, printJson, screenWidth } from '../text/terminal.js';

/** Options that every method has, or nearly: the overview would repeat them in every row. */
const common = new Set(['referenceFree', 'sftWeight', 'sftReduction']);
/** The same of fields. */
const commonFields = ['weights', 'denominator', 'sftDenominator', 'tokenWeights'] as const;

function overview(): string {
  const rows = methods().map((info) => [
    { text: info.name, style: 'bold' as const },
    unitName(info),
    info.score,
    info.batchCoupled ? `${info.ranking}, over the batch` : info.ranking,
    info.reference ? 'yes' : '-',
    info.normalize ? 'yes' : '-',
    fieldsOf(info)
      .filter(({ needed }) => needed)
      .map(({ name }) => name)
      .join(', '),
    fieldsOf(info)
      .filter(({ name, needed }) => !needed && !(commonFields as readonly string[]).includes(name))
      .map(({ name }) => name)
      .join(', '),
    Object.keys(info.options)
      .filter((name) => !common.has(name))
      .join(', '),
  ]);
  const columns = [
    'method',
    'unit',
    'ranks',
    'ranking',
    'reference',
    'normalised',
    'fields it needs',
    'fields it takes',
    'options of its own',
  ];
  const most = commonFields.map((field) => {
    const without = methods().filter(({ fields }) => fields[field] === undefined);
    return without.length === 0
      ? `${field} (all)`
      : `${field} (all but ${without.map(({ name }) => name).join(', ')})`;
  });
  const fields =
    `Fields that most take: ${most.join('; ')}. ` +
    'All take logitScale, logitSoftcap and temperature.';
  const more =
    'One in detail: diralign methods NAME; losses made of them: diralign methods --recipes';
  return `${table(
    columns.map((title) => ({ title })),
    rows,
  )}

${wrap(fields)}

${paint('dim', more)}`;
}

interface TakenField extends FieldInfo {
  readonly name: string;
}

/** The fields of a batch that a method takes, its groups among them. */
function fieldsOf({ arity, fields }: MethodInfo): TakenField[] {
  const groups = arity === 'group' ? [{ name: 'groups', needed: true }] : [];
  return [...groups, ...Object.entries(fields).map(([name, field]) => ({ name, ...field }))];
}

function fieldList(info: MethodInfo): string {
  const entries = fieldsOf(info).map(({ name, needed, ...interval }) => {
    const field = contract.fields.find((each) => each.name === name);
    const facts = [
      field ? lengthOf(field) : 'groups + 1 offsets',
      field?.kind === 'flag' ? 'true or false' : bounds(interval),
      needed ? 'needed' : '',
    ];
    const meaning = field?.meaning ?? 'where each group begins among the sequences';
    return [name, `${meaning}; ${facts.filter(Boolean).join(', ')}`] as const;
  });
  return fieldLines(entries, screenWidth() - 2);
}

/** The interval of a number, or the words that may stand there. */
function range({ values, default: initial, ...interval }: OptionInfo): string {
  if (values) return values.join(', ');
  if (typeof initial === 'boolean') return 'true, false';
  return bounds(interval) || 'any number';
}

function bounds({ min, above, max, below }: Partial<FieldInfo>): string {
  const ends = [
    min === undefined ? '' : `>= ${min}`,
    above === undefined ? '' : `> ${above}`,
    max === undefined ? '' : `<= ${max}`,
    below === undefined ? '' : `< ${below}`,
  ];
  return ends.filter(Boolean).join(', ');
}

function betaMeaning({ formula }: MethodInfo): string {
  return formula.includes('1 / (2 beta)')
    ? 'sets the target of the score, 1 / (2 beta)'
    : 'temperature on the score';
}

function detail(info: MethodInfo): string {
  const section = (title: string, body: string): string =>
    `\n\n${paint('bold', title)}\n${body.replace(/^(?=.)/gm, '  ')}`;
  const facts = list([
    [`loss of a ${unitName(info)}`, info.formula],
    ['ranks', `${info.score}, ${info.ranking}${info.batchCoupled ? ', over the whole batch' : ''}`],
    ['reference', info.reference ? 'needed, unless --reference-free' : 'not used'],
    [
      'normalize',
      info.normalize ? 'yes by default: per scored token' : 'no by default: whole sequences',
    ],
    ['source', info.source],
  ]);
  const beta = info.beta ? [['--beta', '-', '> 0', betaMeaning(info)]] : [];
  const options = Object.entries(info.options).map(([name, option]) => [
    `--${kebab(name)}`,
    String(option.default),
    range(option),
    option.meaning,
  ]);
  let text = `${paint('bold', info.name)}\n${facts.replace(/^/gm, '  ')}`;
  text += section(
    'Options',
    table(
      [{ title: 'option' }, { title: 'default' }, { title: 'values' }, { title: 'meaning' }],
      [...beta, ...options],
    ),
  );
  text += section('Fields of a batch', fieldList(info));
  const best = Object.entries(info.best).map(([setup, { beta, learningRate }]) => [
    setup,
    String(beta),
    learningRate.toExponential(),
  ]);
  if (best.length > 0) {
    const columns = [
      { title: 'setup' },
      { title: 'beta', align: 'point' },
      { title: 'learning rate' },
    ] as const;
    text += section('Best settings of arXiv 2502.01237', table(columns, best));
    text += section('Its grid of beta', info.betaGrid.join(', '));
  }
  text += section('Notation', wrap(notationOf(info), 0, screenWidth() - 2));
  return text;
}

/** The symbols of a formula. */
function notationOf({ arity, ranking }: MethodInfo): string {
  const sequences =
    'S, R sums of log-probabilities of policy and reference; ' +
    'r of S - R, per token where normalised';
  const functions = 'sg sigmoid, sp(x) = log(1 + exp(x))';
  const own =
    arity === 'group'
      ? `sum over the candidates k of a group, u_k = beta r_k; ${sequences}; ` +
        'lse(u) = log(sum(exp(u_k))), lse(u_k) over k and those after it, best first; ' +
        `y softmax of rewards / rewardTemperature, K candidates; ${functions}`
      : arity === 'pair' || ranking === 'likelihood'
        ? `w chosen, l rejected; ${sequences}; a of S; o log-odds of exp(a); ${functions}; ` +
          'u = beta (r_w - r_l)'
        : 'd 1 of a desirable sequence, 0 of another; dW, uW desirableWeight, ' +
          `undesirableWeight; z kl of the batch, shift its shift; ${sequences}; ${functions}`;
  return `${own}. More: docs/methods.md`;
}

function run(args: string[]): Promise<number> {
  const types = { json: 'boolean', recipes: 'boolean' } as const;
  const { values, positionals } = parse('methods', args, types, 1);
  const [name] = positionals;
  if (values.recipes) {
    if (name !== undefined)
      throw new UsageError(`--recipes lists all; '${name}' has no place there`);
    if (values.json) printJson(recipes);
    else print(recipeTable());
    return Promise.resolve(ok);
  }
  const found = name === undefined ? undefined : methodNamed(name);
  if (values.json) printJson(found ?? methods());
  else print(found ? detail(found) : overview());
  return Promise.resolve(ok);
}

export const methodsCommand: Command = {
  name: 'methods',
  summary: 'the catalogue; one method with its formula, options, fields and best settings; recipes',
  usage: `diralign methods: the catalogue, one method with its formula, options, fields and best
settings, or the recipes

${paint('bold', 'Usage')}
  diralign methods [NAME] [--json]
  diralign methods --recipes [--json]

${paint('bold', 'Examples')}
  diralign methods
  diralign methods cal_dpo
  diralign methods --recipes
  diralign methods --json | jq -r '.[].name'`,
  run,
};
