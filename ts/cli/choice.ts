/** What `loss` and `plot` compute: methods, and the settings that the command line gives them. */
import { methods, type MethodInfo } from '../catalogue.js';
import { dirAlignLoss, type Objective } from '../objective.js';
import { presets, type PresetSetup } from '../presets.js';
import { kebab, number } from './arguments.js';
import { UsageError } from './command.js';
import { methodNamed } from './methods.js';

/** The setup whose best betas are taken where the user gives none: the largest model with a chat data set. */
export const setup: PresetSetup = 'ultrafeedback-llama-3.1-8b';
export const plainBeta = 0.1;

/** Every option of any method, by its name in the library. */
function methodOptions(): Map<string, 'number' | 'string' | 'boolean'> {
  const options = methods().flatMap((info) => Object.entries(info.options));
  return new Map(options.map(([name, option]) => [name, typeof option.default as 'number' | 'string' | 'boolean']));
}

/** What is to be computed, as `loss` and `plot` are told. */
export interface Choice {
  readonly chosen: readonly MethodInfo[];
  /** `all` was asked for, or nothing: what cannot be had is left out, not refused. */
  readonly all: boolean;
  /** Undefined: the best known for the method. */
  readonly beta: number | undefined;
  /** Undefined: the method's default. */
  readonly normalize: boolean | undefined;
  /** Those of any method, by their names in the library. */
  readonly options: Readonly<Record<string, number | string | boolean>>;
}

/** The options of the methods as the parser takes them. */
export function optionTypes(): Record<string, 'string' | 'boolean'> {
  return Object.fromEntries([...methodOptions()].map(([name, type]) => [name, type === 'boolean' ? 'boolean' : 'string']));
}

/**
 * @param list names with commas between them, or `all`.
 * @param values what was typed: `beta`, `normalize`, `noNormalize` and the options of the methods.
 * @throws UsageError for names and numbers that are none, and for options that none of the methods has.
 */
export function readChoice(list: string, values: Readonly<Record<string, string | boolean | undefined>>): Choice {
  const options: Record<string, number | string | boolean> = {};
  for (const [name, type] of methodOptions()) {
    const given = values[name];
    if (given !== undefined) options[name] = type === 'number' ? number(name, String(given)) : given;
  }
  const names = list.split(',').map((name) => name.trim());
  const all = names.includes('all');
  const chosen = all ? methods() : names.map(methodNamed);
  for (const name of Object.keys(options)) {
    // For several methods, an option goes to those that have it.
    if (!chosen.some((info) => Object.hasOwn(info.options, name))) {
      const known = Object.keys(chosen[0]?.options ?? {}).map((option) => `--${kebab(option)}`);
      throw new UsageError(`--${kebab(name)}: ${names.join(', ')} has no such option; it has ${known.join(', ')}`);
    }
  }
  if (values.normalize && values.noNormalize) throw new UsageError('--normalize and --no-normalize exclude each other');
  return {
    chosen,
    all,
    beta: values.beta === undefined ? undefined : number('beta', String(values.beta)),
    normalize: values.normalize ? true : values.noNormalize ? false : undefined,
    options,
  };
}

export type BetaSource = 'given' | 'best' | 'plain';

export interface Built {
  readonly info: MethodInfo;
  readonly objective: Objective;
  readonly betaSource: BetaSource | undefined;
}

/** The objective of a method with what the command line says. @throws DirAlignError where it has no meaning. */
export function build(info: MethodInfo, request: Choice): Built {
  const best = presets.best[setup][info.name]?.beta;
  const betaSource: BetaSource = request.beta !== undefined ? 'given' : best !== undefined ? 'best' : 'plain';
  const options = Object.fromEntries(Object.entries(request.options).filter(([name]) => Object.hasOwn(info.options, name)));
  // Not every divergence has an alpha; only dirAlignLoss knows which combinations have a meaning.
  const objective = dirAlignLoss({
    method: info.name,
    beta: request.beta ?? best ?? plainBeta,
    ...(request.normalize !== undefined && { normalize: request.normalize }),
    ...options,
  } as { method: 'dpo'; beta: number }) as unknown as Objective;
  return { info, objective, betaSource: info.name === 'sft' ? undefined : betaSource };
}

export function usesReference({ info, objective }: Built): boolean {
  return info.reference && !(objective as unknown as { referenceFree: boolean }).referenceFree;
}

const settingNames = new Set(['method', 'beta', 'normalize', 'async', 'fromLogps', 'fromHidden']);

/** The options of an objective; those the user did not give are worth showing only where they do something. */
export function optionsOf(objective: Objective): Record<string, number | string | boolean> {
  const entries = Object.entries(objective as unknown as Record<string, unknown>).filter(([name]) => !settingNames.has(name));
  return Object.fromEntries(entries) as Record<string, number | string | boolean>;
}

/** Options with the same meaning, and whose they are. */
export function optionHelp(): string {
  const seen = new Map<string, { name: string; meaning: string; owners: MethodInfo[] }>();
  for (const info of methods()) {
    for (const [name, { meaning }] of Object.entries(info.options)) {
      const key = `${name} ${meaning}`;
      const entry = seen.get(key) ?? { name, meaning, owners: [] };
      entry.owners.push(info);
      seen.set(key, entry);
    }
  }
  const whose = (owners: readonly MethodInfo[]): string => {
    if (owners.length >= methods().length - 1) return owners.length === methods().length ? 'all' : 'all but sft';
    if (owners.length > 8) return 'those with a reference';
    return owners.map(({ name }) => name).join(', ');
  };
  return [...seen.values()]
    .sort((a, b) => b.owners.length - a.owners.length)
    .map(({ name, meaning, owners }) => `  --${kebab(name).padEnd(19)} ${meaning} (${whose(owners)})`)
    .join('\n');
}
