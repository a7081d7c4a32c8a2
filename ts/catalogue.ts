import type { BatchFields } from './batch/types.js';
import { contract } from './contract.generated.js';
import { deepFreeze } from './freeze.js';
import { paperSettings, type BestSetting } from './presets.js';

type Catalogue = (typeof contract)['methods'][number];
/** A direct alignment algorithm. */
export type Method = Catalogue['name'];
/** The f-divergence that `dpo` is regularised by: what its score is of the log-ratio. */
export type Divergence = (typeof contract)['divergences'][number];
/**
 * The mean that the likelihood term is: over sequences, over all scored tokens of the batch, or
 * over sequences of the mean over their tokens.
 */
export type SftReduction = 'sequence' | 'token' | 'mean';

type Entry<M extends Method> = Extract<Catalogue, { name: M }>;
/** Methods of which the catalogue says this. */
type MethodWith<Facts> = Extract<Catalogue, Facts>['name'];
/** Methods that need no beta. */
export type MethodWithoutBeta = MethodWith<{ beta: false }>;
/** Methods that are a likelihood: every sequence is chosen. */
export type LikelihoodMethod = MethodWith<{ ranking: 'likelihood' }>;
/** Methods of sequences that are desirable, or are not. */
export type UnpairedMethod = Exclude<MethodWith<{ arity: 'single' }>, LikelihoodMethod>;
/** Methods of groups of candidates. */
export type GroupMethod = MethodWith<{ arity: 'group' }>;
/** Methods that score log-odds. */
export type OddsMethod = MethodWith<{ odds: true }>;

type OptionName<M extends Method> = keyof Entry<M>['options'];
interface ReferenceOptions<Free extends boolean> {
  /** Score log-probabilities instead of log-ratios to the reference. */
  readonly referenceFree?: Free;
}
interface SftOptions {
  /** Weight of the likelihood term on the chosen, at least 0; default 0. */
  readonly sftWeight?: number;
  /**
   * `'sequence'` (default): mean over pairs of the chosen's negative log-likelihood, per scored
   * token where `normalize` is true, summed where it is false. `'token'`: mean over all scored
   * chosen tokens of the batch. `'mean'`: as `'sequence'`, per scored token in any case.
   */
  readonly sftReduction?: SftReduction;
}
type SharedOption = keyof ReferenceOptions<boolean> | keyof SftOptions;
/** Options of which the catalogue says everything. */
type OwnOptions<M extends Method> = {
  readonly [K in Exclude<OptionName<M>, SharedOption>]?: K extends 'divergence'
    ? Divergence
    : number;
};

/**
 * The options that mean something to method `M`; anything else is refused, here and at run time.
 * `Free` is `referenceFree`.
 */
// Written out, not picked by name: `Free` would not be inferred.
export type MethodOptions<M extends Method, Free extends boolean = boolean> = M extends Method
  ? OwnOptions<M> &
      ('referenceFree' extends OptionName<M> ? ReferenceOptions<Free> : unknown) &
      Pick<SftOptions, OptionName<M> & keyof SftOptions>
  : never;

/** The fields of a batch that method `M` needs. */
export type MethodFields<M extends Method> = {
  [F in keyof Entry<M>['fields']]: Entry<M>['fields'][F] extends { needed: true } ? F : never;
}[keyof Entry<M>['fields']] &
  string;

/** Whether a batch must have `reference`. Both together: only the call can tell. */
export type ReferenceNeed = 'required' | 'optional';

/**
 * What method `M` needs, as far as the compiler knows method and `referenceFree`, which is `Free`.
 */
export type NeedOf<M extends Method, Free extends boolean = false> = [
  Free,
  Entry<M>['reference'],
] extends [false, true]
  ? 'required'
  : ReferenceNeed;

/**
 * Name and default of an option, with the interval a number must lie in (`above` and `below`
 * exclude their end).
 */
export interface OptionInfo {
  /** In a few words. */
  readonly meaning: string;
  /** The value of an option that is left out. */
  readonly default: number | string | boolean;
  /** All values, of an option that is a name. */
  readonly values?: readonly string[];
  /** Least value. */
  readonly min?: number;
  /** Values are greater than this. */
  readonly above?: number;
  /** Greatest value. */
  readonly max?: number;
  /** Values are less than this. */
  readonly below?: number;
}

/** A field of batches, as a method takes it, with the interval its numbers must lie in. */
export interface FieldInfo extends Omit<OptionInfo, 'meaning' | 'default' | 'values'> {
  /** Whether a batch without it is refused. */
  readonly needed: boolean;
}

/** One entry of {@link methods}. */
export interface MethodInfo {
  /** As `dirAlignLoss` takes it. */
  readonly name: Method;
  /** `'paper'`: in arXiv 2502.01237; `'wider'`: its relatives. */
  readonly family: 'paper' | 'wider';
  /** What is ranked. */
  readonly score: string;
  /**
   * `'pairwise'`: by the difference of the two scores; `'pointwise'`: each score by itself;
   * `'listwise'`: by all scores of a group; `'likelihood'`: the chosen alone.
   */
  readonly ranking: 'pairwise' | 'pointwise' | 'listwise' | 'likelihood';
  /** Whether `batch.reference` is needed (unless `referenceFree`). */
  readonly reference: boolean;
  /** Default of `normalize`: the method's original setting. */
  readonly normalize: boolean;
  /**
   * What the loss has one value for: `'pair'`, a chosen and a rejected sequence; `'single'`, a
   * sequence; `'group'`, several completions of one prompt.
   */
  readonly arity: 'pair' | 'single' | 'group';
  /** Whether `dirAlignLoss` needs a beta. */
  readonly beta: boolean;
  /** Whether the score is the log-odds, whose metrics the result then has. */
  readonly odds: boolean;
  /** Whether a pair's loss depends on the rest of the batch. */
  readonly batchCoupled: boolean;
  /** By name: what it takes of a batch besides. Other fields are refused. */
  readonly fields: Readonly<Partial<Record<keyof BatchFields, FieldInfo>>>;
  /** Loss of a unit; notation in docs/methods.md. */
  readonly formula: string;
  /** Paper that the formula is from. */
  readonly source: string;
  /** By name: every option that the method takes. */
  readonly options: Readonly<Record<string, OptionInfo>>;
  /** The paper's grid; empty where it has none. */
  readonly betaGrid: readonly number[];
  /** The paper's best setting per setup; empty where it has none. */
  readonly best: Readonly<Record<string, BestSetting>>;
}

const infos: readonly MethodInfo[] = deepFreeze(
  contract.methods.map((method) => ({ ...method, ...paperSettings(method.name) })),
);
const byName = new Map<string, { readonly index: number; readonly info: MethodInfo }>(
  infos.map((info, index) => [info.name, { index, info }]),
);

/**
 * Every method: what it ranks and how, whether it needs a reference, its options and defaults, the
 * paper's settings, its source.
 */
export function methods(): readonly MethodInfo[] {
  return infos;
}

/** @internal Whether the loss is the likelihood itself, which no other term goes beside. */
export function isLikelihood({ ranking }: MethodInfo): boolean {
  return ranking === 'likelihood';
}

/** @internal */
export function findMethod(
  name: string,
): { readonly index: number; readonly info: MethodInfo } | undefined {
  return byName.get(name);
}

/** @internal Order of the native settings and metrics. */
export const settingNames: readonly string[] = contract.settings;
/** @internal */
export const metricNames = contract.metrics;
