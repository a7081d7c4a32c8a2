/**
 * Alignment runs: settings, seeds, and the choice of the best setting. What several experiments
 * need is the same task in each.
 */
import {
  alignmentMethods,
  alignTask,
  pairwiseMethods,
  pretrainTask,
  sftTask,
  type AlignmentMethod,
  type AlignParams,
  type AlignResult,
  type SftResult,
  type UnpairedMethod,
} from '../model/tasks.js';
import { mean } from '../statistics.js';
import type { Study } from '../study.js';
import type { OddsMethod, Plan } from './plan.js';

/** All of an alignment run but its seed. */
export type Setting = Omit<AlignParams, 'seed' | 'scale'>;

/** Where alignment after SFT starts, unless shares are what is studied. */
export const afterSft = { share: 100 } as const;

/** The models before SFT. */
export function baseRuns(
  study: Study,
  { scale }: Plan,
  seeds: readonly number[],
): Promise<SftResult[]> {
  return Promise.all(seeds.map((seed) => study.run<SftResult>(pretrainTask({ scale, seed }))));
}

export function sftRuns(
  study: Study,
  plan: Plan,
  share: number,
  seeds: readonly number[],
): Promise<SftResult[]> {
  return Promise.all(
    seeds.map(async (seed) => {
      await baseRuns(study, plan, [seed]);
      return study.run<SftResult>(sftTask({ scale: plan.scale, seed, share }));
    }),
  );
}

/** One result per seed. */
export function runs(
  study: Study,
  plan: Plan,
  setting: Setting,
  seeds: readonly number[],
): Promise<AlignResult[]> {
  return Promise.all(
    seeds.map(async (seed) => {
      // Every run is compared with the model after SFT on all demonstrations, wherever it starts.
      const shares = new Set([
        afterSft.share,
        ...(setting.init === 'base' ? [] : [setting.init.share]),
      ]);
      await Promise.all([...shares].map((share) => sftRuns(study, plan, share, [seed])));
      return study.run<AlignResult>(alignTask({ scale: plan.scale, seed, ...setting }));
    }),
  );
}

export const qualities = (results: readonly (AlignResult | SftResult)[]): number[] =>
  results.map(({ evaluation }) => evaluation.quality);

/** A setting and what the search found of it; undefined where there was nothing to choose from. */
export interface Tried {
  readonly setting: Setting;
  readonly quality: number | undefined;
  /** In at least one run. */
  readonly diverged: boolean;
}

export interface Search {
  readonly best: Setting;
  readonly tried: readonly Tried[];
}

/**
 * By mean quality over the search seeds; of equal ones the first. What diverged is chosen only if
 * all did. A single candidate is taken without a run.
 */
export async function search(
  study: Study,
  plan: Plan,
  candidates: readonly Setting[],
): Promise<Search> {
  const [first] = candidates;
  if (!first) throw new RangeError('a search needs a candidate');
  if (candidates.length === 1)
    return { best: first, tried: [{ setting: first, quality: undefined, diverged: false }] };
  const tried = await Promise.all(
    candidates.map(async (setting) => {
      const results = await runs(study, plan, setting, plan.searchSeeds);
      return {
        setting,
        quality: mean(qualities(results)),
        diverged: results.some(({ diverged }) => diverged),
      };
    }),
  );
  const stable = tried.filter(({ diverged }) => !diverged);
  const best = (stable.length > 0 ? stable : tried).reduce((a, b) =>
    b.quality > a.quality ? b : a,
  );
  return { best: best.setting, tried };
}

/** Every learning rate with every beta, align-only, after SFT. */
export function alignmentGrid(
  { learningRates, betas }: Plan,
  method: AnyMethod,
): readonly Setting[] {
  return learningRates.flatMap((learningRate) =>
    betas[method].map((beta) => ({ init: afterSft, method, beta, learningRate, lambda: 0 })),
  );
}

/** Every learning rate at beta 1, which is no tempering. */
export function untemperedGrid({ learningRates }: Plan, method: OddsMethod): readonly Setting[] {
  return learningRates.map((learningRate) => ({
    init: afterSft,
    method,
    beta: 1,
    learningRate,
    lambda: 0,
  }));
}

/** The best setting with every beta: of the sweep, where the method has one. */
export function sweepOf({ betas, sweptBetas }: Plan, best: Setting): readonly Setting[] {
  const { method } = best;
  const swept = method === 'orpo' || method === 'asft' ? sweptBetas[method] : betas[method];
  return swept.map((beta) => ({ ...best, beta }));
}

export type PerMethod<Value> = Readonly<Record<AlignmentMethod, Value>>;

export async function perMethod<Value>(
  value: (method: AlignmentMethod) => Value | Promise<Value>,
): Promise<PerMethod<Value>> {
  const entries = await Promise.all(
    alignmentMethods.map(async (method) => [method, await value(method)] as const),
  );
  return Object.fromEntries(entries) as PerMethod<Value>;
}

/** The best (learning rate, beta) of every method. */
export function searchAll(study: Study, plan: Plan): Promise<PerMethod<Search>> {
  return perMethod((method) => search(study, plan, alignmentGrid(plan, method)));
}

export type Ranking = 'pairwise' | 'pointwise';

type AnyMethod = AlignmentMethod | UnpairedMethod;

export const rankingOf = (method: AnyMethod): Ranking =>
  (pairwiseMethods as readonly AnyMethod[]).includes(method) ? 'pairwise' : 'pointwise';

/** Value by value, that is, seed by seed. */
export function meanAcross(series: readonly (readonly number[])[]): number[] {
  const [first = []] = series;
  return first.map((_, i) => mean(series.map((values) => values[i] as number)));
}

const names: Readonly<Record<AnyMethod, string>> = {
  ...{
    dpo: 'DPO',
    ipo: 'IPO',
    simpo: 'SimPO',
    orpo: 'ORPO',
    apo_zero: 'APO-Zero',
    nca: 'NCA',
    cal_dpo: 'Cal-DPO',
    asft: 'ASFT',
    kto: 'KTO',
  },
};
export const nameOf = (method: AnyMethod): string => names[method];

/** 3e-4 rather than 0.0003, as papers write learning rates. */
export const scientific = (value: number): string =>
  value.toExponential().replace('e+', 'e').replace(/e0$/, '');

export const seedList = (seeds: readonly number[]): string => seeds.join(', ');
