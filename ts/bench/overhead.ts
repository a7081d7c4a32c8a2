import { sequenceLogps } from '../logps.js';
import { dirAlignLoss } from '../objective.js';
import { makeBatch } from './data.js';
import { beta } from './modes.js';
import { spread } from './rounds.js';

export interface CallCost {
  readonly title: string;
  /** Median per call. */
  readonly microseconds: number;
}

/**
 * What a call costs whose kernel has next to nothing to do: arguments, checks, results, and threads
 * where there are any.
 */
export async function callCosts(threads: number): Promise<CallCost[]> {
  const dpo = dirAlignLoss('dpo', beta);
  const { logits, shape, labels, reference } = makeBatch(1, 1, 16);
  const batch = { logits, shape, labels, reference };
  const out = new Float32Array(logits.length);
  const inFlight = 64;
  const cases: readonly (readonly [title: string, calls: number, work: () => unknown])[] = [
    ['loss', 1, () => dpo(batch, { gradient: 'none', threads })],
    ['loss and gradient', 1, () => dpo(batch, { out, threads })],
    ['sequenceLogps', 1, () => sequenceLogps(batch, { threads })],
    ['async, one after another', 1, () => dpo.async(batch, { out, threads })],
    [
      `async, ${inFlight} at once`,
      inFlight,
      () =>
        Promise.all(
          Array.from({ length: inFlight }, () => dpo.async(batch, { gradient: 'none', threads })),
        ),
    ],
  ];
  const costs: CallCost[] = [];
  for (const [title, calls, work] of cases)
    costs.push({ title, microseconds: (await medianTime(work, calls)) / calls });
  return costs;
}

/** The compiler is done with what a call runs after 4000 to 5000 of them. */
const callsToCompile = 5000;

/** Microseconds of one run of the work: the median of stretches long enough for the clock. */
async function medianTime(work: () => unknown, calls: number): Promise<number> {
  const stretch = async (runs: number): Promise<number> => {
    const start = performance.now();
    for (let i = 0; i < runs; i++) {
      const result = work();
      if (result instanceof Promise) await result;
    }
    return ((performance.now() - start) * 1000) / runs;
  };
  await stretch(callsToCompile / calls);
  const times: number[] = [];
  for (let i = 0; i < 25; i++) times.push(await stretch(Math.ceil(40 / calls)));
  return spread(times).median;
}
