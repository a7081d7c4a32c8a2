/** Losses that trainers have a name for, made of the methods: as data, and built. */
import { findMethod, type Method, type MethodOptions, type SftReduction } from './catalogue.js';
import { typeError } from './errors.js';
import { deepFreeze } from './freeze.js';
import { checkObject, noneOf, readAll } from './given.js';
import { mixLosses } from './mix-losses.js';
import { dirAlignLoss, type ObjectiveCalls } from './objective.js';

/** Method, beta and options of a loss. */
export interface RecipeSettings {
  /** Whose loss. */
  readonly method: Method;
  /** Temperature. */
  readonly beta?: number;
  /** Per scored token or not; by default as the method is. */
  readonly normalize?: boolean;
  /** Weight of the likelihood term. */
  readonly sftWeight?: number;
  /** What the likelihood averages over. */
  readonly sftReduction?: SftReduction;
  /** Probability that a label is flipped. */
  readonly labelSmoothing?: number;
}

/** A loss of a recipe: the settings that `dirAlignLoss` takes, and its weight. */
export interface RecipeTerm {
  /** What multiplies the loss. */
  readonly weight: number;
  /** What `dirAlignLoss` takes. */
  readonly settings: RecipeSettings;
}

/** How a loss that has a name is made. */
export interface Recipe {
  /** One loss, or those of a mixture. */
  readonly terms: readonly RecipeTerm[];
  /** What a batch needs besides, in words. */
  readonly batch?: string;
  /** Where it is from, and who computes it so. */
  readonly source: string;
}

const one = (settings: RecipeSettings): readonly RecipeTerm[] => [{ weight: 1, settings }];

/** A name of {@link recipes}. */
export type RecipeName = 'dpo_norm' | 'rpo' | 'mpo' | 'cdpo' | 'ld_dpo';

/** By the name that trainers give them. */
export const recipes: Readonly<Record<RecipeName, Recipe>> = deepFreeze({
  dpo_norm: {
    terms: one({ method: 'dpo', beta: 5, normalize: true }),
    source: 'Tulu 3 (arXiv 2411.15124): DPO with log-ratios per token',
  },
  rpo: {
    terms: one({ method: 'dpo', beta: 0.1, sftWeight: 1, sftReduction: 'mean' }),
    source:
      'arXiv 2404.19733, equation 1: DPO and the negative log-likelihood of the chosen per ' +
      'token; LLaMA-Factory reduces it so (pref_ftx), TRL (rpo_alpha) in some versions over ' +
      'all tokens of the batch',
  },
  mpo: {
    terms: [
      { weight: 0.8, settings: { method: 'dpo', beta: 0.1 } },
      { weight: 0.2, settings: { method: 'bco_pair', beta: 0.1 } },
      { weight: 1, settings: { method: 'sft', sftReduction: 'mean' } },
    ],
    source: 'arXiv 2411.10442 (InternVL), with the weights of TRL',
  },
  cdpo: {
    terms: one({ method: 'dpo', beta: 0.1, labelSmoothing: 0.1 }),
    source: 'E. Mitchell, A note on DPO with noisy preferences (2023); label_smoothing of TRL',
  },
  ld_dpo: {
    terms: one({ method: 'dpo', beta: 0.1 }),
    batch:
      'tokenWeights of lengthDesensitized(batch, alpha), for the policy and for the reference ' +
      '(its sequenceLogps) as in TRL; LLaMA-Factory and ms-swift weight the policy alone',
    source: 'arXiv 2409.06411',
  },
});

type EachOption = MethodOptions<Method>;
type NameIn<T> = T extends unknown ? keyof T : never;
type ValueOf<T, K extends PropertyKey> =
  T extends Readonly<Partial<Record<K, infer V>>> ? V : never;

/** Settings in place of a recipe's; each goes to the losses that take it. */
export type RecipeOverrides = {
  /** Of every loss that takes one. */
  readonly beta?: number;
  /** Of every loss. */
  readonly normalize?: boolean;
} & {
  readonly [K in NameIn<EachOption>]?: ValueOf<EachOption, K>;
};

/**
 * Builds the loss of a recipe.
 *
 * @param overrides settings in place of the recipe's, each for every loss of it that takes it.
 * @throws DirAlignError with code ERR_DIRALIGN_OPTION
 *
 * @example
 * const rpo = recipe('rpo', { beta: 0.05, sftWeight: 0.5 });
 */
export function recipe(name: RecipeName, overrides: RecipeOverrides = {}): ObjectiveCalls {
  const isName = typeof (name as unknown) === 'string' && Object.hasOwn(recipes, name);
  const found = isName ? recipes[name] : undefined;
  if (!found) throw typeError('ERR_DIRALIGN_OPTION', noneOf('recipe', name, Object.keys(recipes)));
  checkObject('overrides', overrides);
  const given = readAll(overrides, []);
  const used = new Set<string>();
  const built = found.terms.map(({ weight, settings }) => {
    const own = Object.entries(given).filter(
      ([key, value]) => value !== undefined && takes(settings, key),
    );
    for (const [key] of own) used.add(key);
    const all = { ...settings, ...Object.fromEntries(own) };
    return { weight, objective: dirAlignLoss(all as never) };
  });
  const unused = Object.keys(given).find((key) => given[key] !== undefined && !used.has(key));
  if (unused !== undefined)
    throw typeError('ERR_DIRALIGN_OPTION', `overrides.${unused}: '${name}' has no such setting`);
  return built.length === 1 ? (built[0] as (typeof built)[0]).objective : mixLosses(built);
}

/** Whether a loss of a recipe takes a setting. A likelihood takes what the recipe gives it. */
function takes({ method, ...own }: RecipeSettings, key: string): boolean {
  const info = findMethod(method)?.info;
  if (key === 'beta') return info?.beta === true;
  if (key === 'normalize') return true;
  return Object.hasOwn(own, key) || Object.hasOwn(info?.options ?? {}, key);
}
