import { methods, type MethodInfo, type OptionInfo } from '../catalogue.js';
import { closest, kebab, parse } from './arguments.js';
import { ok, UsageError, type Command } from './command.js';
import { list, table, wrap } from '../text/table.js';
import { paint, print, printJson, screenWidth } from '../text/terminal.js';

/** @throws UsageError with the name that was probably meant */
export function methodNamed(name: string): MethodInfo {
  const all = methods();
  const found = all.find((info) => info.name === name);
  if (found) return found;
  const names = all.map((info) => info.name);
  const near = closest(name, names);
  const help = near === undefined ? `; there are ${names.join(', ')}` : `; did you mean '${near}'?`;
  throw new UsageError(`there is no method '${name}'${help}`);
}

/** Options that every method has, or nearly: the overview would repeat them in every row. */
const common = new Set(['referenceFree', 'sftWeight', 'sftReduction']);

function overview(): string {
  const rows = methods().map((info) => [
    { text: info.name, style: 'bold' as const },
    info.score,
    info.batchCoupled ? `${info.ranking}, over the batch` : info.ranking,
    info.reference ? 'yes' : '-',
    info.normalize ? 'yes' : '-',
    Object.keys(info.options)
      .filter((name) => !common.has(name))
      .join(', '),
  ]);
  const columns = ['method', 'ranks', 'ranking', 'reference', 'normalised', 'options of its own'];
  return `${table(
    columns.map((title) => ({ title })),
    rows,
  )}

${paint('dim', 'One in detail: diralign methods NAME')}`;
}

/** The interval of a number, or the words that may stand there. */
function range({ values, min, above, max, below, default: initial }: OptionInfo): string {
  if (values) return values.join(', ');
  if (typeof initial === 'boolean') return 'true, false';
  const bounds = [
    min === undefined ? '' : `>= ${min}`,
    above === undefined ? '' : `> ${above}`,
    max === undefined ? '' : `<= ${max}`,
    below === undefined ? '' : `< ${below}`,
  ];
  return bounds.filter(Boolean).join(', ') || 'any number';
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
    ['loss of a pair', info.formula],
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
  text += section(
    'Notation',
    wrap(
      'w chosen, l rejected; S, R sums of log-probabilities of policy and reference; a of S, r of S - R, per token where normalised; ' +
        'o log-odds of exp(a); sg sigmoid, sp(x) = log(1 + exp(x)); u = beta (r_w - r_l). More: docs/methods.md',
      0,
      screenWidth() - 2,
    ),
  );
  return text;
}

function run(args: string[]): Promise<number> {
  const { values, positionals } = parse('methods', args, { json: 'boolean' }, 1);
  const [name] = positionals;
  const found = name === undefined ? undefined : methodNamed(name);
  if (values.json) printJson(found ?? methods());
  else print(found ? detail(found) : overview());
  return Promise.resolve(ok);
}

export const methodsCommand: Command = {
  name: 'methods',
  summary: 'the catalogue; one method with its formula, options and best settings',
  usage: `diralign methods: the catalogue, or one method with its formula, options and best settings

${paint('bold', 'Usage')}
  diralign methods [NAME] [--json]

${paint('bold', 'Examples')}
  diralign methods
  diralign methods cal_dpo
  diralign methods --json | jq -r '.[].name'`,
  run,
};
