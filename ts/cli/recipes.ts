/** Recipes of the library, as the command line takes and lists them. */
import { recipe, recipes, type RecipeName } from '../recipes.js';
import { table, wrap } from '../text/table.js';
import { paint, screenWidth } from '../text/terminal.js';
import { kebab, number, oneOf } from './arguments.js';
import { lossesOf } from './batch-fields.js';
import { methodOptions, normalizeOf, type Built } from './choice.js';
import { UsageError } from './command.js';

export const recipeNames = Object.keys(recipes) as RecipeName[];

/**
 * A recipe with the settings that were typed in place of its own.
 *
 * @throws UsageError for a name that is none, and for a setting that none of its losses takes
 */
export function buildRecipe(
  given: string,
  values: Readonly<Record<string, string | boolean | undefined>>,
): Built {
  const name = oneOf('recipe', given, recipeNames);
  if (values.preset !== undefined)
    throw new UsageError('--recipe and --preset exclude each other: a recipe has betas of its own');
  const normalize = normalizeOf(values);
  const overrides: Record<string, unknown> = {
    ...(values.beta !== undefined && { beta: number('beta', String(values.beta)) }),
    ...(normalize !== undefined && { normalize }),
  };
  for (const [option, type] of methodOptions()) {
    const value = values[option];
    if (value === undefined) continue;
    overrides[option] = type === 'number' ? number(option, String(value)) : value;
  }
  let objective;
  try {
    objective = recipe(name, overrides);
  } catch (error) {
    const { message } = error as Error;
    // As it was typed.
    const typed = message.replace(/^overrides\.(\w+)/, (_, key: string) => `--${kebab(key)}`);
    throw new UsageError(typed, { cause: error });
  }
  const { arity, terms } = lossesOf(objective);
  const deciding = terms.find(({ settings }) => settings.info.arity === arity) ?? terms[0];
  if (!deciding) throw new TypeError(`${name} has no losses`);
  return {
    info: deciding.settings.info,
    objective,
    betaSource: values.beta === undefined ? 'recipe' : 'given',
    recipe: name,
  };
}

/** `0.8 dpo + 0.2 bco_pair + 1 sft`; of one loss, its name. */
export function sumOf(terms: readonly { readonly method: string; readonly weight: number }[]) {
  const [only, ...others] = terms;
  if (only && others.length === 0) return only.method;
  return terms.map(({ weight, method }) => `${weight} ${method}`).join(' + ');
}

/** The recipes, as `diralign methods --recipes` lists them. */
export function recipeTable(): string {
  const rows = recipeNames.map((name) => {
    const { terms } = recipes[name];
    const losses = terms.map(({ weight, settings }) => ({ method: settings.method, weight }));
    const settings = terms.flatMap(({ settings }) =>
      Object.entries(settings)
        .filter(([key]) => key !== 'method')
        .map(([key, value]) => `${key} ${String(value)}`),
    );
    return [
      { text: name, style: 'bold' as const },
      sumOf(losses),
      [...new Set(settings)].join(', '),
    ];
  });
  const columns = ['recipe', 'loss', 'settings'].map((title) => ({ title }));
  const notes = recipeNames.map((name) => {
    const { source, batch } = recipes[name];
    return wrap(
      `${name}: ${source}${batch === undefined ? '' : `. Needs ${batch}`}`,
      2,
      screenWidth(),
    );
  });
  return [table(columns, rows), '', ...notes, '', paint('dim', 'diralign loss --recipe NAME')].join(
    '\n',
  );
}
