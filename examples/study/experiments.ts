/** What the study consists of, in the order of the report. */
import { methodComparison } from './experiments/methods.js';
import { pareto } from './experiments/pareto.js';
import { sftShare } from './experiments/sft-share.js';
import { tempering } from './experiments/tempering.js';
import { twoStage } from './experiments/two-stage.js';
import { unpaired } from './experiments/unpaired.js';
import { permutation } from './permutation/experiment.js';
import { rankingBias } from './ranking-bias/experiment.js';
import type { Experiment } from './study.js';

/** @param seeds - evaluation seeds of the language model, if not the scale's own number */
export function experiments(seeds?: number): readonly Experiment[] {
  return [
    twoStage(seeds),
    methodComparison(seeds),
    tempering(seeds),
    pareto(seeds),
    sftShare(seeds),
    unpaired(seeds),
    rankingBias,
    permutation,
  ];
}
