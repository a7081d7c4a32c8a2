import { contract } from './contract.generated.js';
import { deepFreeze } from './freeze.js';
import { paperSettings, type BestSetting } from './presets.js';

type Catalogue = (typeof contract)['methods'][number];
/** A direct alignment algorithm. */
export type Method = Catalogue['name'];
/** The f-divergence that `dpo` is regularised by: what its score is of the log-ratio. */
export type Divergence = (typeof contract)['divergences'][number];
/** What the likelihood term averages over: sequences, or all scored tokens of the batch. */
export type SftReduction = 'sequence' | 'token';

type Entry<M extends Method> = Extract<Catalogue, { name: M }>;
type SharedOption = 'referenceFree' | 'sftWeight' | 'sftReduction';
type OwnOptions<M extends Method> = {
  readonly [K in Exclude<keyof Entry<M>['options'], SharedOption>]?: K extends 'divergence'
    ? Divergence
    : number;
};
interface ReferenceOptions<Free extends boolean> {
  /** Score log-probabilities instead of log-ratios to the reference. */
  readonly referenceFree?: Free;
}
interface SftReductionOption {
  /**
   * `'sequence'` (default): mean over pairs of the chosen's negative log-likelihood, per scored
   * token where `normalize` is true, summed where it is false. `'token'`: mean over all scored
   * chosen tokens of the batch.
   */
  readonly sftReduction?: SftReduction;
}
interface SftOptions extends SftReductionOption {
  /** Weight of the likelihood term on the chosen, at least 0; default 0. */
  readonly sftWeight?: number;
}

/**
 * The options that mean something to method `M`; anything else is refused, here and at run time.
 * `Free` is `referenceFree`.
 */
export type MethodOptions<M extends Method, Free extends boolean = boolean> = M extends Method
  ? OwnOptions<M> &
      (Entry<M>['reference'] extends true ? ReferenceOptions<Free> : unknown) &
      (Entry<M>['options'] extends { sftWeight: unknown } ? SftOptions : SftReductionOption)
  : never;

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
   * `'likelihood'`: the chosen alone.
   */
  readonly ranking: 'pairwise' | 'pointwise' | 'likelihood';
  /** Whether `batch.reference` is needed (unless `referenceFree`). */
  readonly reference: boolean;
  /** Default of `normalize`: the method's original setting. */
  readonly normalize: boolean;
  /** Whether a pair's loss depends on the rest of the batch. */
  readonly batchCoupled: boolean;
  /** Loss of a pair; notation in docs/methods.md. */
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

function entry(m: Catalogue): MethodInfo {
  return deepFreeze({ ...m, ...paperSettings(m.name) });
}

const infos: readonly MethodInfo[] = Object.freeze(contract.methods.map(entry));
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
