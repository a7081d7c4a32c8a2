/** What `diralign loss` is asked to compute. */
import fs from 'node:fs';
import { methods } from '../catalogue.js';
import type { GradientMode } from '../loss/options.js';
import { closest, number, oneOf, parse, whole } from './arguments.js';
import { build, optionTypes, readChoice, type Built, type Choice } from './choice.js';
import { UsageError } from './command.js';
import { exampleFile } from './package.js';
import { buildRecipe } from './recipes.js';

const types = {
  method: 'string',
  beta: 'string',
  preset: 'string',
  recipe: 'string',
  normalize: 'boolean',
  noNormalize: 'boolean',
  gradient: 'string',
  threads: 'string',
  ignoreIndex: 'string',
  out: 'string',
  json: 'boolean',
} as const;

export interface LossCommandRequest extends Choice {
  readonly built: readonly Built[];
  readonly file: string;
  /** No FILE was given. */
  readonly isExample: boolean;
  readonly gradient: GradientMode;
  readonly threads: number | undefined;
  readonly ignoreIndex: number | undefined;
  readonly out: string | undefined;
  readonly json: boolean;
}

/**
 * Methods and a file in any order: `dpo batch.safetensors`. What has the name of a method is one;
 * `./dpo` is a file.
 */
function sortOut(
  positionals: readonly string[],
  method: string | undefined,
): { list: string | undefined; file: string | undefined } {
  const known = new Set<string>(['all', ...methods().map(({ name }) => name)]);
  const isList = (text: string): boolean => text.split(',').every((name) => known.has(name.trim()));
  const lists = [...(method === undefined ? [] : [method]), ...positionals.filter(isList)];
  const files = positionals.filter((text) => !isList(text));
  // First: beside a file, a method that is misspelt looks like a second one.
  const unknown = files.find((text) => /^[\w,]+$/.test(text) && !fs.existsSync(text));
  if (unknown !== undefined) {
    const near = closest(unknown, [...known]);
    throw new UsageError(
      `'${unknown}' is no file and no ` +
        `method${near === undefined ? '' : `; did you mean '${near}'?`}`,
    );
  }
  const extra = lists[1] ?? files[1];
  if (extra !== undefined) throw new UsageError(`'${extra}' is one argument too many for loss`);
  return { list: lists[0], file: files[0] };
}

export function readRequest(args: readonly string[]): LossCommandRequest {
  const { values, positionals } = parse<Record<string, 'string' | 'boolean'>>(
    'loss',
    args,
    { ...types, ...optionTypes() },
    2,
  );
  const text = (name: string): string | undefined => values[name] as string | undefined;
  const { list, file } = sortOut(positionals, text('method'));
  const recipe = text('recipe');
  if (recipe !== undefined && list !== undefined)
    throw new UsageError(`--recipe and '${list}' exclude each other: a recipe has its own methods`);
  const own = recipe === undefined ? undefined : buildRecipe(recipe, values);
  // The settings that were typed are in the recipe.
  const choice = own ? readChoice(own.info.name, {}) : readChoice(list ?? 'all', values);
  const threads = text('threads');
  const ignoreIndex = text('ignoreIndex');
  const request: LossCommandRequest = {
    ...choice,
    built: own ? [own] : choice.chosen.map((info) => build(info, choice)),
    file: file ?? exampleFile,
    isExample: file === undefined,
    gradient: oneOf('gradient', text('gradient') ?? 'dense', ['none', 'dense', 'factored']),
    threads: threads === undefined ? undefined : whole('threads', threads, 1),
    ignoreIndex: ignoreIndex === undefined ? undefined : number('ignoreIndex', ignoreIndex),
    out: text('out'),
    json: Boolean(values.json),
  };
  if (request.out !== undefined) {
    if (choice.chosen.length !== 1)
      throw new UsageError('--out: takes the gradient of one method; name it with --method');
    if (request.gradient === 'none')
      throw new UsageError('--out: there is nothing to write with --gradient none; leave it out');
  }
  return request;
}
