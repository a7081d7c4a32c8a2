/** `diralign bench --ranks`: what an exchange costs beside the kernels, over ranks and rows. */
import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { table } from '../text/table.js';
import { findLauncher, LauncherProblem, type Launcher } from './launcher.js';
import { spread as spreadOf, type Spread } from './rounds.js';

/** What every rank is told. */
export interface RankPlan {
  readonly shapes: readonly (readonly [sequences: number, tokens: number])[];
  readonly vocab: number;
  readonly threads: number;
  readonly rounds: number;
}

/** Milliseconds by round, from when all ranks have begun to when all have ended. */
export interface RankTimes {
  readonly rows: number;
  /** Words over all ranks. */
  readonly spread: readonly number[];
  /** The own words, as if they were all: the same kernels, no exchange. */
  readonly alone: readonly number[];
  /** The same without `parallel`. */
  readonly plain: readonly number[];
  /** As `spread` and `plain`, of so few words that the kernels take next to no time. */
  readonly smallSpread: readonly number[];
  readonly smallPlain: readonly number[];
}

/** Of so many ranks, and rows. */
export interface RanksRow {
  readonly ranks: number;
  readonly rows: number;
  /** Milliseconds of a call. */
  readonly call: Spread;
  readonly kernels: Spread;
  readonly plain: Spread;
  /** Milliseconds of a call that are agreement, exchange and merge: whatever its kernels take. */
  readonly exchange: Spread;
  /** The rest: waiting for the slowest rank, from one exchange to the next. */
  readonly waiting: Spread;
  /** How many times as fast as one process with all words. */
  readonly speedUp: number;
}

export interface RanksResult {
  readonly vocab: number;
  readonly threads: number;
  readonly rounds: number;
  readonly engine: string;
  readonly rows: readonly RanksRow[];
}

export interface RanksPlan extends RankPlan {
  readonly ranks: number;
  /** The command; default: the first that is found. */
  readonly mpirun: string | undefined;
}

interface Launched {
  readonly ranks: number;
  readonly engine: string;
  readonly results: readonly RankTimes[];
}

async function launch(
  { command, options }: Launcher,
  ranks: number,
  plan: RankPlan,
): Promise<Launched> {
  const file = fileURLToPath(new URL('../../dist/bench/rank.js', import.meta.url));
  const args = [...options, '-np', String(ranks), process.execPath, file, JSON.stringify(plan)];
  const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'] });
  let [output, complaints] = ['', ''];
  child.stdout.on('data', (data: Buffer) => (output += data.toString()));
  child.stderr.on('data', (data: Buffer) => (complaints += data.toString()));
  const status = await new Promise<unknown>((resolve) => child.on('close', resolve));
  const line = /^DIRALIGN (.*)$/m.exec(output)?.[1];
  if (status === 0 && line !== undefined) return JSON.parse(line) as Launched;
  throw new LauncherProblem(
    `${command} -np ${ranks} failed: ${complaints.trim() || output.trim()}`,
  );
}

/** Numbers of ranks: 1, 2, 4, ... and the one that was asked for. */
function counts(ranks: number): number[] {
  const all = [ranks];
  for (let n = 1; n < ranks; n *= 2) all.push(n);
  return all.sort((a, b) => a - b);
}

export async function runRanks(
  plan: RanksPlan,
  progress: (doing: string, done: number) => void,
): Promise<RanksResult> {
  const { ranks, mpirun, ...rest } = plan;
  const launcher = findLauncher(mpirun);
  const runs: Launched[] = [];
  const all = counts(ranks);
  for (const [i, count] of all.entries()) {
    progress(`${count} ranks`, i / all.length);
    runs.push(await launch(launcher, count, rest));
  }
  const one = runs[0] as Launched;
  const rows = runs.flatMap(({ ranks: count, results }) =>
    results.map(({ rows: n, spread, alone, plain, smallSpread, smallPlain }, i): RanksRow => {
      const minus = (a: readonly number[], b: readonly number[]): number[] =>
        a.map((time, round) => time - (b[round] as number));
      const exchange = minus(smallSpread, smallPlain);
      const whole = spreadOf(one.results[i]?.plain as readonly number[]).median;
      const call = spreadOf(spread);
      return {
        ranks: count,
        rows: n,
        call,
        kernels: spreadOf(alone),
        plain: spreadOf(plain),
        exchange: spreadOf(exchange),
        waiting: spreadOf(minus(minus(spread, alone), exchange)),
        speedUp: whole / call.median,
      };
    }),
  );
  const { vocab, threads, rounds } = rest;
  return { vocab, threads, rounds, engine: one.engine, rows };
}

const ms = ({ median, q1, q3 }: Spread): string =>
  `${median.toFixed(2)} (${q1.toFixed(2)}-${q3.toFixed(2)})`;

export function ranksReport({ vocab, threads, rounds, engine, rows }: RanksResult): string {
  const figures = table(
    [
      { title: 'rows', align: 'right' },
      { title: 'ranks', align: 'right' },
      { title: 'call, ms', align: 'right' },
      { title: 'kernels, ms', align: 'right' },
      { title: 'exchange, ms', align: 'right' },
      { title: '%', align: 'right' },
      { title: 'waiting, ms', align: 'right' },
      { title: 'times as fast', align: 'right' },
    ],
    [...rows]
      .sort((a, b) => a.rows - b.rows || a.ranks - b.ranks)
      .map((row) => [
        String(row.rows),
        String(row.ranks),
        ms(row.call),
        ms(row.kernels),
        ms(row.exchange),
        ((100 * row.exchange.median) / row.call.median).toFixed(1),
        ms(row.waiting),
        row.speedUp.toFixed(2),
      ]),
  );
  return `dpo, float32, ${vocab} words over the ranks, threads of each: ${threads}; ${engine.trim()}

${figures}

Medians of ${rounds} rounds, from when all ranks have begun to when all have ended, with quartiles.
Kernels: a rank's own words, with nobody to exchange with. Exchange: agreement, exchange and merge,
which is what ranks add to a call on as many rows of 8 words a rank; and its share of the call.
Waiting: what the call takes longer than both. Times as fast: as one process with all words, without
parallel.`;
}
