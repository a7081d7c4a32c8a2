import type { Stage, Task } from '../study.js';
import { adam } from './adam.js';
import { makeData, trainPairs, type Data } from './data.js';
import { rankingLoss, type RankedMethod, type RankingLoss } from './losses.js';
import { accuracy, icc1 } from './metrics.js';
import { backward, backwardInactive, initialise, score } from './mlp.js';

/** Runs of one method in one setting: every learning rate with every seed from `firstSeed` on. */
export interface RankingBiasParams {
  readonly method: RankedMethod;
  readonly hidden: number;
  /** Of the prompt bias. */
  readonly strength: number;
  readonly learningRates: readonly number[];
  readonly firstSeed: number;
  readonly seeds: number;
}

/** On the test pairs after the last epoch, per seed. */
export interface Runs {
  readonly accuracy: readonly number[];
  /** null where the scorer is constant. */
  readonly icc1: readonly (number | null)[];
}

/** One per learning rate. */
export type RankingBiasResult = readonly Runs[];

export const rankingBiasTask = (params: RankingBiasParams): Task => ({
  stage: 'ranking-bias',
  params: { ...params },
});

export const epochs = 100;

export const rankingBiasStage: Stage<RankingBiasParams & Task['params'], RankingBiasResult> = (
  params,
  context,
) => {
  const { method, hidden, strength, learningRates, firstSeed, seeds } = params;
  const losses = { all: rankingLoss(method, trainPairs), one: rankingLoss(method, 1) };
  const runs = learningRates.map(() => ({
    accuracy: [] as number[],
    icc1: [] as (number | null)[],
  }));
  for (let seed = firstSeed; seed < firstSeed + seeds; seed++) {
    const data = makeData(seed, strength);
    learningRates.forEach((learningRate, k) => {
      const scores = train(data, initialise(seed, hidden), losses, learningRate);
      runs[k]?.accuracy.push(accuracy(scores));
      runs[k]?.icc1.push(icc1(scores) ?? null);
    });
    context.progress((seed - firstSeed + 1) / seeds);
  }
  return runs;
};

/** Of all training pairs, and of one pair. */
interface Losses {
  readonly all: RankingLoss;
  readonly one: RankingLoss;
}

/**
 * Full-batch training of `parameters`; the scores of the test pairs after it. A third of the
 * scorers with one unit die on the way: their pairs are all alike then, and one stands for all. The
 * momentum of their last steps may still revive them.
 */
function train(
  { train, test }: Data,
  parameters: Float64Array,
  losses: Losses,
  learningRate: number,
): Float64Array {
  const scores = new Float64Array(2 * train.x.length);
  const gradient = new Float64Array(parameters.length);
  const step = adam(parameters, learningRate);
  for (let epoch = 0; epoch < epochs; epoch++) {
    if (score(parameters, train, scores))
      backward(parameters, train, losses.all(scores).gradient, gradient);
    else backwardInactive(losses.one(scores.slice(0, 2)).gradient, gradient);
    step(gradient);
  }
  const tested = new Float64Array(2 * test.x.length);
  score(parameters, test, tested);
  return tested;
}

export const stages = { 'ranking-bias': rankingBiasStage };
