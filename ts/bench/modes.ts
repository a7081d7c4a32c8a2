import { sequenceLogps } from '../logps.js';
import { dirAlignLoss } from '../objective.js';
import type { Dtype } from '../dtype.js';
import type { LossResult } from '../loss/results.js';
import type { Buffers } from './buffers.js';
import { withPrompt } from './data.js';
import { timeOf, type TimedCase } from './rounds.js';

/**
 * What a mode must at least do to memory, as loops over the float32 logits of the scored rows:
 * read, scaled in place, copied.
 */
export interface Floor {
  readonly read: number;
  readonly scale: number;
  readonly copy: number;
}

export interface Mode {
  readonly name: string;
  readonly title: string;
  readonly dtype: Dtype;
  readonly floor: Floor;
  /** A dense gradient is 0 on ignored rows, and that has to be written. */
  readonly writesZeros: boolean;
  /** Also measured with part of the rows ignored. */
  readonly fractions: boolean;
  /**
   * The work on the given labels, as a user would call it; the loss, or undefined where none is
   * computed.
   */
  run(buffers: Buffers, labels: Int32Array): LossResult | undefined;
}

export const beta = 0.1;
const dpo = dirAlignLoss('dpo', beta);

const read = { read: 1, scale: 0, copy: 0 };
const readScale = { read: 1, scale: 1, copy: 0 };
const scale = { read: 0, scale: 1, copy: 0 };
const readCopy = { read: 1, scale: 0, copy: 1 };

function float32(buffers: Buffers, labels: Int32Array) {
  const { shape, reference } = buffers.batch;
  return { logits: buffers.work, shape, labels, reference };
}

function halves(buffers: Buffers, labels: Int32Array, dtype: 'bfloat16' | 'float16') {
  const { shape, reference } = buffers.batch;
  return { logits: buffers.halves(dtype), dtype, shape, labels, reference };
}

export const modes: readonly Mode[] = [
  {
    name: 'forward',
    title: 'loss only',
    dtype: 'float32',
    floor: read,
    writesZeros: false,
    fractions: true,
    run: (b, labels) => dpo(float32(b, labels), { gradient: 'none', threads: b.threads }),
  },
  {
    name: 'forward-bf16',
    title: 'loss only',
    dtype: 'bfloat16',
    floor: read,
    writesZeros: false,
    fractions: false,
    run: (b, labels) =>
      dpo(halves(b, labels, 'bfloat16'), { gradient: 'none', threads: b.threads }),
  },
  {
    name: 'forward-f16',
    title: 'loss only',
    dtype: 'float16',
    floor: read,
    writesZeros: false,
    fractions: false,
    run: (b, labels) => dpo(halves(b, labels, 'float16'), { gradient: 'none', threads: b.threads }),
  },
  {
    name: 'in-place',
    title: 'gradient in place',
    dtype: 'float32',
    floor: readScale,
    writesZeros: true,
    fractions: true,
    run: (b, labels) => {
      b.overwritten();
      return dpo(float32(b, labels), { inPlace: true, threads: b.threads });
    },
  },
  {
    name: 'factored',
    title: 'factored in place',
    dtype: 'float32',
    floor: scale,
    writesZeros: true,
    fractions: true,
    run: (b, labels) => {
      b.overwritten();
      return dpo(float32(b, labels), { gradient: 'factored', inPlace: true, threads: b.threads });
    },
  },
  {
    name: 'out',
    title: 'into a reused array',
    dtype: 'float32',
    floor: readCopy,
    writesZeros: true,
    fractions: true,
    run: (b, labels) => dpo(float32(b, labels), { out: b.out, threads: b.threads }),
  },
  {
    name: 'out-bf16',
    title: 'into a reused array',
    dtype: 'bfloat16',
    floor: readCopy,
    writesZeros: true,
    fractions: false,
    run: (b, labels) =>
      dpo(halves(b, labels, 'bfloat16'), { out: b.halves('out'), threads: b.threads }),
  },
  {
    name: 'fresh',
    title: 'into a fresh array',
    dtype: 'float32',
    floor: readCopy,
    writesZeros: false,
    fractions: false,
    run: (b, labels) => {
      b.leavesGarbage();
      return dpo(float32(b, labels), { threads: b.threads });
    },
  },
  {
    name: 'lent',
    title: 'into lent memory',
    dtype: 'float32',
    floor: readCopy,
    writesZeros: true,
    fractions: false,
    run: (b, labels) => {
      const { lent: buffers, threads } = b;
      const result = dpo(float32(b, labels), { buffers, threads });
      buffers.release(result.gradLogits);
      return result;
    },
  },
  {
    name: 'logps',
    title: 'sequenceLogps',
    dtype: 'float32',
    floor: read,
    writesZeros: false,
    fractions: false,
    run: (b, labels) => {
      sequenceLogps(float32(b, labels), { threads: b.threads });
      return undefined;
    },
  },
];

export const bytesOf = (dtype: Dtype): number => (dtype === 'float32' ? 4 : 2);

export interface ModeCase extends TimedCase {
  readonly mode: Mode;
  /** Share of the rows that are scored. */
  readonly fraction: number;
  /** Of the last run. */
  loss(): number | undefined;
}

/** A mode with a share of the rows scored, ready to be timed. */
export function modeCase(buffers: Buffers, mode: Mode, fraction: number): ModeCase {
  const labels = fraction === 1 ? buffers.batch.labels : withPrompt(buffers.batch, fraction);
  const scored = labels.reduce((n, label) => (label < 0 ? n : n + 1), 0);
  let loss: number | undefined;
  return {
    name: fraction === 1 ? mode.name : `${mode.name}@${fraction}`,
    mode,
    fraction: scored / labels.length,
    loss: () => loss,
    run: () =>
      timeOf(() => {
        loss = mode.run(buffers, labels)?.loss;
      }),
  };
}

export const loopNames = ['loop-read', 'loop-scale', 'loop-copy'] as const;

/** What memory allows on the same arrays with the same threads. */
export function loopCases(buffers: Buffers): TimedCase[] {
  return loopNames.map((name, kind) => ({
    name,
    run: () =>
      timeOf(() => {
        buffers.loop(kind as 0 | 1 | 2);
      }),
  }));
}

/**
 * Milliseconds that memory alone needs for a mode, from the loops' milliseconds over all float32
 * logits of the same run.
 */
export function floorTime(mode: Mode, fraction: number, loops: Floor): number {
  const { read: r, scale: s, copy: c } = mode.floor;
  const scored = fraction * (r * loops.read + s * loops.scale + c * loops.copy);
  // Scaling reads and writes a line; writing zeros only writes it.
  const zeros = mode.writesZeros ? ((1 - fraction) * loops.scale) / 2 : 0;
  return (bytesOf(mode.dtype) / 4) * (scored + zeros);
}

/** Bytes that a mode must move: each loop pass counts what it reads and what it writes. */
export function floorBytes(mode: Mode, fraction: number, elements: number): number {
  const { read: r, scale: s, copy: c } = mode.floor;
  const passes = fraction * (r + 2 * s + 2 * c) + (mode.writesZeros ? 1 - fraction : 0);
  return elements * bytesOf(mode.dtype) * passes;
}
