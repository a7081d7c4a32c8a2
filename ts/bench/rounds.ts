import { randomNumbers } from './data.js';

export interface TimedCase {
  readonly name: string;
  /** Does the work once and returns how long it took, in milliseconds. */
  run(): number | Promise<number>;
  /** Timed in one round of so many; 1 by default. For work that takes seconds. */
  readonly every?: number;
}

/** Milliseconds by round; undefined where the case did not run. */
export type Times = ReadonlyMap<string, readonly (number | undefined)[]>;

/**
 * Runs every case once a round, each round in another order. The bandwidth of a machine wanders over minutes, so only times of
 * the same rounds compare; and no case may always follow the same one. A round before the first is not recorded.
 *
 * @param before runs untimed before every case
 * @param progress is told after every case what share is done
 */
export async function interleave(
  cases: readonly TimedCase[],
  rounds: number,
  before: (timed: TimedCase) => void | Promise<void>,
  progress: (done: number) => void = () => undefined,
): Promise<Times> {
  const times = new Map<string, (number | undefined)[]>(
    cases.map(({ name }) => [name, Array.from({ length: rounds }, () => undefined)]),
  );
  const random = randomNumbers(rounds);
  for (let round = -1; round < rounds; round++) {
    for (const [i, timed] of shuffled(cases, random).entries()) {
      if (round <= 0 || round % (timed.every ?? 1) === 0) {
        await before(timed);
        const ms = await timed.run();
        if (round >= 0) (times.get(timed.name) as (number | undefined)[])[round] = ms;
      }
      progress(((round + 1) * cases.length + i + 1) / ((rounds + 1) * cases.length));
    }
  }
  return times;
}

function shuffled<T>(list: readonly T[], random: () => number): T[] {
  return list
    .map((item) => ({ item, place: random() }))
    .sort((a, b) => a.place - b.place)
    .map(({ item }) => item);
}

/** How long one synchronous piece of work takes, in milliseconds. */
export function timeOf(work: () => void): number {
  const start = performance.now();
  work();
  return performance.now() - start;
}

export interface Spread {
  readonly median: number;
  readonly min: number;
  /** Quartiles. */
  readonly q1: number;
  readonly q3: number;
  /** How many values there are. */
  readonly n: number;
}

export function spread(values: readonly (number | undefined)[]): Spread {
  const sorted = values.filter((value) => value !== undefined).sort((a, b) => a - b);
  if (sorted.length === 0) throw new Error('no times: a case has not run');
  const quantile = (q: number): number => {
    const at = q * (sorted.length - 1);
    const low = sorted[Math.floor(at)] as number;
    return low + (at % 1) * ((sorted[Math.ceil(at)] as number) - low);
  };
  return { median: quantile(0.5), min: sorted[0] as number, q1: quantile(0.25), q3: quantile(0.75), n: sorted.length };
}

export interface Ratio {
  /** Of the medians. */
  readonly value: number;
  /** Quartiles of the ratios inside each round. */
  readonly q1: number;
  readonly q3: number;
}

/** Time of one case over the sum of the times of others. */
export function ratio(times: Times, over: string, under: readonly string[]): Ratio {
  const of = (name: string): readonly (number | undefined)[] => {
    const found = times.get(name);
    if (!found) throw new Error(`no times of ${name}`);
    return found;
  };
  const byRound = of(over).map((ms, round) => {
    const sum = under.reduce((total, name) => total + (of(name)[round] ?? NaN), 0);
    return ms === undefined || Number.isNaN(sum) ? undefined : ms / sum;
  });
  const { q1, q3 } = spread(byRound);
  return {
    value: spread(of(over)).median / under.reduce((total, name) => total + spread(of(name)).median, 0),
    q1,
    q3,
  };
}
