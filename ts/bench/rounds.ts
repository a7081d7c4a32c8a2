import { randomNumbers } from './data.js';

export interface TimedCase {
  readonly name: string;
  /** Does the work once and returns how long it took, in milliseconds. */
  run(): number | Promise<number>;
  /** Timed in so many of the rounds, evenly spread; all by default. For work that takes seconds. */
  readonly most?: number;
}

/**
 * Of fewer rounds nothing is concluded: their quartiles are hardly more than the extremes of what a
 * machine does.
 */
export const fewestRounds = 9;

/** Milliseconds by round; undefined where the case did not run. */
export type Times = ReadonlyMap<string, readonly (number | undefined)[]>;

/**
 * Runs every case once a round, each round in another order. The bandwidth of a machine wanders
 * over minutes, so only times of the same rounds compare; and no case may always follow the same
 * one. A round before the first is not recorded.
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
      const turn = (of: number): number => Math.floor((of * (timed.most ?? rounds)) / rounds);
      if (turn(round) > turn(round - 1)) {
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
  return {
    median: quantile(0.5),
    min: sorted[0] as number,
    q1: quantile(0.25),
    q3: quantile(0.75),
    n: sorted.length,
  };
}

export interface Ratio {
  /** Of the medians over the rounds in which all ran. */
  readonly value: number;
  /** Quartiles of the ratios inside each round. */
  readonly q1: number;
  readonly q3: number;
  /** In how many rounds all ran. */
  readonly n: number;
}

/** Time of one case over the sum of the times of others. */
export function ratio(times: Times, over: string, under: readonly string[]): Ratio {
  const of = (name: string): readonly (number | undefined)[] => {
    const found = times.get(name);
    if (!found) throw new Error(`no times of ${name}`);
    return found;
  };
  const all = [over, ...under].map(of);
  const rounds = of(over).flatMap((_, round) => {
    const [ms, ...others] = all.flatMap((times) => times[round] ?? []);
    return ms !== undefined && others.length === under.length ? [{ ms, others }] : [];
  });
  const sum = (numbers: readonly number[]): number =>
    numbers.reduce((total, each) => total + each, 0);
  const { q1, q3, n } = spread(rounds.map(({ ms, others }) => ms / sum(others)));
  const medians = under.map((_, i) => spread(rounds.map(({ others }) => others[i])).median);
  return { value: spread(rounds.map(({ ms }) => ms)).median / sum(medians), q1, q3, n };
}
