/** What `loss` and `plot` compute: methods, and the settings that the command line gives them. */
import { methods, type Method, type MethodInfo } from '../catalogue.js';
import { dirAlignLoss, type Objective, type ObjectiveCalls } from '../objective.js';
import { presets, type PresetSetup } from '../presets.js';
import type { RecipeName } from '../recipes.js';
import { wrap } from '../text/table.js';
import { closest, kebab, number, oneOf } from './arguments.js';
import { lossesOf } from './batch-fields.js';
import { UsageError } from './command.js';

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

const perToken = ['mean log-prob', 'alpha log-prob'];

/**
 * The beta with which a method is commonly used: by what it multiplies, whole sequences, log-odds,
 * or nats per token.
 */
export function usualBeta({ score }: MethodInfo): number {
  return score === 'log-odds' ? 1 : perToken.includes(score) ? 2 : 0.1;
}
/** {@link usualBeta} in words. */
export const usualBetas = '0.1; 1 over log-odds, 2 per token';

export type Value = number | string | boolean;

/** Every option of any method, by its name in the library. */
export function methodOptions(): Map<string, 'number' | 'string' | 'boolean'> {
  const options = methods().flatMap((info) => Object.entries(info.options));
  return new Map(
    options.map(([name, option]) => [
      name,
      typeof option.default as 'number' | 'string' | 'boolean',
    ]),
  );
}

/** What is to be computed, as `loss` and `plot` are told. */
export interface Choice {
  readonly chosen: readonly MethodInfo[];
  /** `all` was asked for, or nothing: what cannot be had is left out, not refused. */
  readonly all: boolean;
  /** Undefined: the best of the preset, or else the usual one of the method. */
  readonly beta: number | undefined;
  readonly preset: PresetSetup | undefined;
  /** Undefined: the method's default. */
  readonly normalize: boolean | undefined;
  /** The options given to each method, by their names in the library. */
  readonly options: ReadonlyMap<Method, Readonly<Record<string, Value>>>;
}

/** The options of the methods as the parser takes them. */
export function optionTypes(): Record<string, 'string' | 'boolean'> {
  return Object.fromEntries(
    [...methodOptions()].map(([name, type]) => [name, type === 'boolean' ? 'boolean' : 'string']),
  );
}

const setups = Object.keys(presets.best) as PresetSetup[];

/**
 * @param list names with commas between them, or `all`.
 * @param values what was typed: `beta`, `preset`, `normalize`, `noNormalize` and the options of the
 *   methods.
 * @throws UsageError for names and numbers that are none, and for options that none of the methods
 *   has.
 */
export function readChoice(
  list: string,
  values: Readonly<Record<string, string | boolean | undefined>>,
): Choice {
  const names = [...new Set(list.split(',').map((name) => name.trim()))];
  const all = names.includes('all');
  const chosen = all ? methods() : names.map(methodNamed);
  const options = new Map<Method, Record<string, Value>>(chosen.map(({ name }) => [name, {}]));
  for (const [name, type] of methodOptions()) {
    const given = values[name];
    if (given === undefined) continue;
    for (const [info, value] of assigned(name, given, chosen)) {
      (options.get(info.name) as Record<string, Value>)[name] =
        type === 'number' ? number(name, String(value)) : value;
    }
  }
  if (values.beta !== undefined && values.preset !== undefined) {
    throw new UsageError(
      '--beta and --preset exclude each other: a preset is the betas of a setup',
    );
  }
  return {
    chosen,
    all,
    beta: values.beta === undefined ? undefined : number('beta', String(values.beta)),
    preset:
      values.preset === undefined ? undefined : oneOf('preset', String(values.preset), setups),
    normalize: normalizeOf(values),
    options,
  };
}

/** @returns undefined where neither was typed */
export function normalizeOf({
  normalize,
  noNormalize,
}: Readonly<Record<string, string | boolean | undefined>>): boolean | undefined {
  if (normalize && noNormalize)
    throw new UsageError('--normalize and --no-normalize exclude each other');
  return normalize ? true : noNormalize ? false : undefined;
}

/**
 * Which methods an option goes to: those that have it, or that it names, as in
 * `alphapo=0.25,r_dpo=0.01`.
 */
function assigned(
  name: string,
  given: string | boolean,
  chosen: readonly MethodInfo[],
): [MethodInfo, string | boolean][] {
  const option = `--${kebab(name)}`;
  const having = chosen.filter((info) => Object.hasOwn(info.options, name));
  const [first] = having;
  if (!first) {
    const known = Object.keys(chosen[0]?.options ?? {}).map((each) => `--${kebab(each)}`);
    throw new UsageError(
      `${option}: ${chosen.map((info) => info.name).join(', ')} has no such option; ` +
        `it has ${known.join(', ')}`,
    );
  }
  if (typeof given === 'string' && given.includes('=')) {
    return given.split(',').map((each) => {
      const [method = '', value = ''] = each.split('=').map((part) => part.trim());
      const info = having.find((candidate) => candidate.name === method);
      if (info) return [info, value];
      throw new UsageError(
        `${option}: '${method}' is none of the methods that have it: ` +
          having.map((one) => one.name).join(', '),
      );
    });
  }
  const meanings = new Set(having.map((info) => info.options[name]?.meaning ?? ''));
  if (meanings.size > 1) {
    const owners = (meaning: string): string =>
      having
        .flatMap((info) => (info.options[name]?.meaning === meaning ? [info.name] : []))
        .join(', ');
    const told = [...meanings].map((meaning) => `${meaning} (${owners(meaning)})`).join(' or ');
    throw new UsageError(
      `${option}: ${told}? ` +
        `Name the method, as in ${option} ${having.at(-1)?.name ?? ''}=${String(given)}`,
    );
  }
  return having.map((info) => [info, given]);
}

/** Where a beta comes from: what was typed, the usual one, a preset by its name, or a recipe. */
export type BetaSource = 'given' | 'usual' | 'recipe' | PresetSetup;

export interface Built {
  /** Of a mixture: of the loss that says what a unit is. */
  readonly info: MethodInfo;
  readonly objective: ObjectiveCalls;
  readonly betaSource: BetaSource | undefined;
  /** The name of the recipe that it is. */
  readonly recipe?: RecipeName;
}

/**
 * The objective of a method with what the command line says. @throws DirAlignError where it has no
 * meaning.
 */
export function build(
  info: MethodInfo,
  { beta, preset, normalize, options }: Choice,
): Built & { readonly objective: Objective } {
  const best = preset && presets.best[preset][info.name]?.beta;
  const betaSource: BetaSource =
    beta !== undefined ? 'given' : best !== undefined ? (preset as PresetSetup) : 'usual';
  // Not every divergence has an alpha; only dirAlignLoss knows which combinations have a meaning.
  const objective = dirAlignLoss({
    method: info.name,
    beta: beta ?? best ?? usualBeta(info),
    ...(normalize !== undefined && { normalize }),
    ...options.get(info.name),
  } as { method: 'dpo'; beta: number }) as unknown as Objective;
  return { info, objective, betaSource: info.beta ? betaSource : undefined };
}

export function usesReference({ objective }: Built): boolean {
  return lossesOf(objective).usesReference;
}

/**
 * The options of an objective of one loss; those the user did not give are worth showing only where
 * they do something.
 */
export function optionsOf(objective: ObjectiveCalls): Record<string, Value> {
  return { ...lossesOf(objective).terms[0]?.settings.options };
}

/** Help is the same everywhere: it is on the site, too. */
const helpWidth = 100;
const helpIndent = 23;

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
  const having = (is: (info: MethodInfo) => boolean): string =>
    methods()
      .filter(is)
      .map(({ name }) => name)
      .join(', ');
  const whose = (owners: readonly MethodInfo[]): string => {
    if (methods().every((info) => info.reference === owners.includes(info)))
      return 'those with a reference';
    if (2 * owners.length < methods().length) return owners.map(({ name }) => name).join(', ');
    return `all but ${having((info) => !owners.includes(info))}`;
  };
  return [...seen.values()]
    .sort((a, b) => b.owners.length - a.owners.length)
    .map(({ name, meaning, owners }) =>
      wrap(`  --${kebab(name).padEnd(18)} ${meaning} (${whose(owners)})`, helpIndent, helpWidth),
    )
    .join('\n');
}
