/** Arms of an experiment: settings found by search, what they came to, and how they are shown. */
import type { AlignResult, SftResult } from '../model/tasks.js';
import { outcomeAbove, overSeeds, plusMinus } from '../outcome.js';
import { interval, paired } from '../statistics.js';
import type { Finding, Table } from '../study.js';
import { qualities, scientific, type Setting } from './runs.js';

export interface Arm {
  readonly label: string;
  readonly setting: Setting;
  readonly results: readonly AlignResult[];
}

/** A model that alignment starts from. */
export interface Start {
  readonly label: string;
  readonly results: readonly SftResult[];
}

/** That one arm has a higher quality than other results of the same seeds. */
export function findingAbove(
  claim: string,
  { results }: Arm,
  others: readonly (AlignResult | SftResult)[],
): Finding {
  const difference = paired(qualities(results), qualities(others));
  return {
    claim,
    outcome: outcomeAbove([difference]),
    evidence: `Difference of quality ${overSeeds(difference)}.`,
  };
}

/** Win, tie and lose in per cent, and the KL. */
export function comparedCells(results: readonly AlignResult[]): readonly string[] {
  return [
    ...(['win', 'tie', 'lose'] as const).map((of) =>
      plusMinus(interval(results.map((result) => 100 * result[of])), 1),
    ),
    plusMinus(interval(results.map(({ kl }) => kl)), 2),
  ];
}

export function armTable(starts: readonly Start[], arms: readonly Arm[]): Table {
  return {
    caption:
      'Quality (0 to 1), win / tie / lose against the model after SFT in per cent, ' +
      'KL to it in nats per summary',
    columns: ['model', 'learning rate', 'beta', 'quality', 'win', 'tie', 'lose', 'KL'],
    rows: [
      ...starts.map(({ label, results }) => [
        ...[label, '', ''],
        plusMinus(interval(qualities(results))),
        ...['', '', '', ''],
      ]),
      ...arms.map(({ label, setting, results }) => [
        label,
        scientific(setting.learningRate),
        setting.beta,
        plusMinus(interval(qualities(results))),
        ...comparedCells(results),
      ]),
    ],
  };
}

/** Arms as the data of a section. */
export function armData(arms: readonly Arm[]) {
  return arms.map(({ label, setting, results }) => ({
    label,
    setting: { ...setting },
    quality: qualities(results),
  }));
}
