/** The numbers of `diralign loss` by pair, by sequence or by group. */
import type { LogitsBatch } from '../batch/types.js';
import { isPaired, unitName } from '../units.js';
import { digits, plural, table, type Column } from '../text/table.js';
import { paint } from '../text/terminal.js';
import { lossesOf } from './batch-fields.js';
import type { Outcome } from './loss-output.js';

/** More than fit a screen are for --json. */
const mostUnits = 16;

type Row = readonly string[];
type Units = readonly [columns: readonly Column[], row: (i: number) => Row];

const number = (title: string): Column => ({ title, align: 'point' });
const count = (title: string): Column => ({ title, align: 'right' });

const value = (array: ArrayLike<number>, i: number): string => digits(array[i] ?? NaN, 5);

export function showUnits(outcome: Outcome, batch: LogitsBatch): string {
  const { losses } = outcome.result;
  const about = lossesOf(outcome.objective);
  const [columns, row] = isPaired(about)
    ? pairs(outcome)
    : about.arity === 'group'
      ? groups(outcome, batch)
      : sequences(outcome, batch);
  const shown = Math.min(mostUnits, losses.length);
  const text = table(
    columns,
    Array.from({ length: shown }, (_, i) => row(i)),
  );
  const rest = losses.length - shown;
  return rest > 0
    ? `${text}\n${paint('dim', `and ${plural(rest, `more ${unitName(about)}`)}; --json has all`)}`
    : text;
}

function pairs({ info, result }: Outcome): Units {
  const { losses, logps, counts, rewards, coefficients } = result;
  const columns = [
    count(info.batchCoupled ? 'rank / pair' : 'pair'),
    number('loss'),
    count('tokens'),
    number('logp chosen'),
    number('logp rejected'),
    number('reward margin'),
    number('dloss/dlogp chosen'),
    number('rejected'),
  ];
  const row = (i: number): Row => {
    const l = i + losses.length;
    const margin = (rewards[i] ?? NaN) - (rewards[l] ?? NaN);
    return [
      String(i),
      value(losses, i),
      `${String(counts[i])}/${String(counts[l])}`,
      value(logps, i),
      value(logps, l),
      digits(margin, 5),
      value(coefficients, i),
      value(coefficients, l),
    ];
  };
  return [columns, row];
}

function sequences({ result, objective }: Outcome, { desirable }: LogitsBatch): Units {
  const { losses, logps, counts, rewards, coefficients } = result;
  const isUnpaired = lossesOf(objective).fields.desirable !== undefined;
  const columns = [
    count('sequence'),
    ...(isUnpaired ? [{ title: 'desirable' }] : []),
    number('loss'),
    count('tokens'),
    number('logp'),
    ...(isUnpaired ? [number('reward')] : []),
    number('dloss/dlogp'),
  ];
  const row = (i: number): Row => [
    String(i),
    ...(isUnpaired ? [desirable?.[i] ? 'yes' : 'no'] : []),
    value(losses, i),
    String(counts[i]),
    value(logps, i),
    ...(isUnpaired ? [value(rewards, i)] : []),
    value(coefficients, i),
  ];
  return [columns, row];
}

function groups({ result }: Outcome, batch: LogitsBatch): Units {
  const { losses, rewards } = result;
  const columns = [
    count('group'),
    count('K'),
    number('loss'),
    count('best'),
    number('its reward'),
    number('mean of the others'),
  ];
  const offsets = batch.groups ?? new Int32Array(1);
  const row = (g: number): Row => {
    const [first = 0, end = 0] = offsets.subarray(g, g + 2);
    const best = bestOf(batch, first, end);
    const others = [...rewards.subarray(first, end)].filter((_, k) => first + k !== best);
    const mean = others.reduce((sum, reward) => sum + reward, 0) / others.length;
    return [
      String(g),
      String(end - first),
      value(losses, g),
      String(best),
      value(rewards, best),
      others.length === 0 ? '-' : digits(mean, 5),
    ];
  };
  return [columns, row];
}

/** The sequence of the best candidate: of the lowest rank, or the highest reward. */
function bestOf({ ranks, rewards }: LogitsBatch, first: number, end: number): number {
  const worth = (s: number): number => (ranks ? -(ranks[s] ?? NaN) : (rewards?.[s] ?? NaN));
  let best = first;
  for (let s = first + 1; s < end; s++) if (worth(s) > worth(best)) best = s;
  return best;
}
