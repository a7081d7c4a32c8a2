/** `objective.window`: what ranks tell each other at its beginning and at its end. */
import { distributedError, rangeError, typeError } from '../errors.js';
import { checkObject, describe, readProperties } from '../given.js';
import { readOutputs } from '../loss/values.js';
import { native } from '../native/interface.js';
import type { Mixture } from '../mixture.js';
import { checkSequences, unitName } from '../units.js';
import { noCounts, type BatchCounts } from './count-batch.js';
import { gatherNumbers, groupsOf, requestOf, tellLater, type Groups } from './parallel.js';
import {
  allAsked,
  baselineNames,
  extentOf,
  meansOf,
  OpenWindow,
  publish,
  type Extent,
  type Window,
  type WindowResult,
} from './window.js';

const countNames = Object.keys(noCounts) as (keyof BatchCounts)[];

function checkCounts(mixture: Mixture, given: unknown): Extent {
  const coupled = mixture.terms.find(({ settings }) => settings.info.batchCoupled);
  if (coupled)
    throw typeError(
      'ERR_DIRALIGN_OPTION',
      `window: '${coupled.settings.info.name}' sorts the whole batch, ` +
        'which no micro-batch has; use sequenceLogps, fromLogps and logpsBackward',
    );
  checkObject('counts', given, 'ERR_DIRALIGN_OPTION', 'what countBatch returned');
  const counts = readProperties('counts', given, countNames);
  for (const name of countNames) {
    const value = counts[name];
    if (typeof value === 'number' && value >= 0 && value < Infinity) continue;
    throw rangeError('ERR_DIRALIGN_OPTION', `counts.${name}: ${describe(value)} is not a count`);
  }
  checkSequences(mixture, counts.sequences as number, true);
  return extentOf(mixture, counts as unknown as BatchCounts);
}

/** Of a window's objective and of its exchange, for the comparison between ranks. */
function nameOf({ native }: Mixture, purpose: 'open' | 'finish'): string {
  return JSON.stringify([purpose, ...Object.values(native).map((numbers) => [...numbers])]);
}

const toNumbers = (extent: Extent): Float64Array =>
  Float64Array.of(extent.units, extent.tokens, extent.likelyTokens);
const toExtent = ([units, tokens, likelyTokens]: Float64Array): Extent =>
  ({ units, tokens, likelyTokens }) as Extent;

/** Units are those of the ranks of data, tokens of all. */
function sumOf(ranks: readonly (readonly Float64Array[])[]): Extent {
  let [units, tokens, likelyTokens] = [0, 0, 0];
  ranks.forEach((ofUnits, d) => {
    const extents = ofUnits.map(toExtent);
    const [first] = extents as [Extent];
    units += first.units;
    extents.forEach((own, q) => {
      tokens += own.tokens;
      likelyTokens += own.likelyTokens;
      if (own.units !== first.units)
        throw distributedError(
          'ERR_DIRALIGN_DISAGREE',
          `counts: ranks 0 and ${q} of sequence, with rank ${d} of data, ` +
            `announce ${first.units} and ${own.units} units`,
        );
    });
  });
  return { units, tokens, likelyTokens };
}

/** `objective.window`. */
export async function openWindow(
  mixture: Mixture,
  counts: unknown,
  given: unknown = {},
): Promise<Window> {
  checkObject('groups', given);
  const groups = groupsOf('groups', readProperties('groups', given, ['sequence', 'data']));
  let announced: Extent;
  try {
    announced = checkCounts(mixture, counts);
  } catch (error) {
    await tellLater(requestOf(groups), error);
    throw error;
  }
  const all = await gatherNumbers(groups, nameOf(mixture, 'open'), toNumbers(announced));
  const window = new OpenWindow(mixture, groups, announced, sumOf(all));
  return publish(window, () => finish(window, groups));
}

/** What a rank tells of its calls, in this order. */
type Report = readonly [
  announced: Float64Array,
  seen: Float64Array,
  asked: Float64Array,
  hardware: Float64Array,
  baselines: Float64Array,
  values: Float64Array,
  sums: Float64Array,
  sizes: Float64Array,
];

async function finish(window: OpenWindow, groups: Groups): Promise<WindowResult> {
  if (window.isFinished)
    throw distributedError('ERR_DIRALIGN_WINDOW', 'window: it is finished already');
  window.isFinished = true;
  const { mixture } = window;
  const mine: Report = [
    toNumbers(window.announced),
    toNumbers(window.seen),
    Float64Array.of(window.asked),
    Float64Array.of(native().distributed.hardware(), Number(window.isMixed)),
    window.baselines,
    window.values,
    window.sums,
    window.sizes,
  ];
  const numbers = Float64Array.from(mine.flatMap((part) => [...part]));
  const all = await gatherNumbers(groups, nameOf(mixture, 'finish'), numbers);
  const reports = all.map((ofUnits) =>
    ofUnits.map((theirs) => {
      let from = 0;
      return mine.map(({ length }) => theirs.subarray(from, (from += length))) as never as Report;
    }),
  );
  checkSeen(mixture, reports);
  // Ranks of sequence have the same, but for the tokens.
  const own = reports.map(([first]) => first as Report);
  const [kl] = checkBaselines(own);
  const total = (part: 5 | 6 | 7): Float64Array =>
    own.reduce(
      (sum, report) => sum.map((x, i) => x + (report[part][i] as number)),
      new Float64Array(mine[part].length),
    );
  const asked = own.reduce((mask, [, , [theirs]]) => mask & (theirs as number), allAsked);
  const { shares } = mixture.native;
  const none = new Float64Array(0);
  const metrics = meansOf(mixture, total(6), total(7), {
    kl,
    mixed_hardware: Number(isMixed(reports.flat())),
  });
  const outputs = { losses: none, rewards: none, shares, values: total(5), metrics };
  // Without any call nobody has said what the metrics of rows are to be.
  const { loss, ...rest } = readOutputs(mixture, outputs, asked === allAsked ? 0 : asked);
  return { loss, metrics: rest.metrics, ...('terms' in rest && { terms: rest.terms }) };
}

/** Whether ranks compute differently, or a call has found that those of its groups do. */
function isMixed(reports: readonly Report[]): boolean {
  const [first] = reports.map(([, , , [hardware]]) => hardware);
  return reports.some(([, , , [hardware, known]]) => known === 1 || hardware !== first);
}

/** Sums of weights may have been added up in another order. */
const roundedBy = 2 ** -40;

function checkSeen(mixture: Mixture, reports: readonly (readonly Report[])[]): void {
  const ofLikelihood = mixture.arity === 'pair' ? 'chosen tokens' : 'desirable tokens';
  const wrong = reports.flatMap((ofUnits, d) =>
    ofUnits.flatMap(([announced, seen], q) =>
      [`${unitName(mixture)}s`, 'tokens', ofLikelihood].flatMap((what, i) => {
        const [before, after] = [announced[i] as number, seen[i] as number];
        if (Math.abs(after - before) <= roundedBy * before) return [];
        return [`${after} of ${before} ${what} on rank ${d} of data, rank ${q} of sequence`];
      }),
    ),
  );
  if (wrong.length > 0)
    throw distributedError(
      'ERR_DIRALIGN_WINDOW',
      `window: its calls that have ended have seen ${wrong.join('; ')}`,
    );
}

/** The numbers that all batches have in common; 0 where there were none. */
function checkBaselines(reports: readonly Report[]): [kl: number, shift: number] {
  return baselineNames.map((name, i) => {
    const known = reports.map(([, , , , baselines]) => baselines[i] as number);
    const some = known.filter((x) => !Number.isNaN(x));
    const other = known.findIndex((x) => !Number.isNaN(x) && x !== some[0]);
    if (other >= 0)
      throw distributedError(
        'ERR_DIRALIGN_DISAGREE',
        `${name}: ${known[other]} on rank ${other} of data, ${some[0]} on others`,
      );
    return some[0] ?? 0;
  }) as [number, number];
}
