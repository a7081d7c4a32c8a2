import { dirAlignLoss } from '../objective.js';
import type { Buffers } from './buffers.js';
import { randomNumbers } from './data.js';
import { beta } from './modes.js';
import { interleave, spread, timeOf, type Spread, type TimedCase } from './rounds.js';

export interface SweepPoint {
  readonly rows: number;
  readonly vocab: number;
  /** Nanoseconds per logit. */
  readonly forward: Spread;
  readonly inPlace: Spread;
}

export interface Sweep {
  /**
   * Over the vocabulary, with the same number of logits throughout (as near as whole rows come).
   */
  readonly overVocab: readonly SweepPoint[];
  /** Over the rows, with the vocabulary of the run. */
  readonly overRows: readonly SweepPoint[];
}

/** Is the cost linear? The same logits cut into rows of other lengths, and more and more rows. */
export async function sweep(
  buffers: Buffers,
  rounds: number,
  progress: (done: number) => void,
): Promise<Sweep> {
  const logits = buffers.work.length;
  const vocabs = Array.from({ length: 9 }, (_, i) => 1000 * 2 ** i).filter(
    (vocab) => 2 * vocab <= logits,
  );
  const shapes = vocabs.map((vocab) => ({ vocab, rows: 2 * Math.floor(logits / vocab / 2) }));
  const [sequences, tokens, vocab] = buffers.batch.shape;
  const all = sequences * tokens;
  const more: { vocab: number; rows: number }[] = [];
  for (let rows = all; rows >= 2; rows = 2 * Math.floor(rows / 4)) more.unshift({ vocab, rows });
  const cases = [...shapes, ...more].map(
    (shape) => [pointCase(buffers, shape, false), pointCase(buffers, shape, true)] as const,
  );
  const times = await interleave(
    cases.flat(),
    rounds,
    () => {
      buffers.makeCold();
    },
    progress,
  );
  const points = [...shapes, ...more].map(({ rows, vocab: v }, i): SweepPoint => {
    const [forward, inPlace] = cases[i] as (typeof cases)[number];
    const ns = ({ name }: TimedCase): Spread =>
      spread((times.get(name) as readonly number[]).map((ms) => (ms * 1e6) / (rows * v)));
    return { rows, vocab: v, forward: ns(forward), inPlace: ns(inPlace) };
  });
  return { overVocab: points.slice(0, shapes.length), overRows: points.slice(shapes.length) };
}

function pointCase(
  buffers: Buffers,
  { rows, vocab }: { rows: number; vocab: number },
  inPlace: boolean,
): TimedCase {
  const dpo = dirAlignLoss('dpo', beta, undefined, { referenceFree: true });
  const random = randomNumbers(rows);
  const batch = {
    logits: buffers.work.subarray(0, rows * vocab),
    shape: [2, rows / 2, vocab] as const,
    labels: Int32Array.from({ length: rows }, () => Math.floor(random() * vocab)),
  };
  const { threads } = buffers;
  return {
    name: `${vocab} ${rows} ${inPlace ? 'in place' : 'forward'}`,
    run: () => {
      if (inPlace) buffers.overwritten();
      return timeOf(() =>
        dpo(batch, inPlace ? { inPlace, threads } : { gradient: 'none', threads }),
      );
    },
  };
}
