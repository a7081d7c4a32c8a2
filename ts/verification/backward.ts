/** Gradients of `logpsBackward`, and what `tokenLogps` says of the rows, held to float64. */
import type { HiddenBatch, LogitsBatch } from '../batch/types.js';
import { logpsBackward } from '../loss/logps-backward.js';
import type { TokenLogps } from '../loss/results.js';
import { tokenLogps } from '../logps.js';
import { checkLayerGradients, layerGradients, prepareHidden } from './hidden.js';
import { softmaxRow, view, type ReferenceBatch } from './reference/rows.js';
import { referenceTokenLogps, type ReferenceTokenLogps } from './reference.js';
import {
  checkGradient,
  checkInPlace,
  largestElement,
  logpBound,
  prepare,
  rowsOf,
  scaled,
  Tally,
  type Expected,
  type Term,
} from './verification.js';

/** What is verified. */
export interface BackwardLibrary {
  readonly tokenLogps: typeof tokenLogps;
  readonly logpsBackward: typeof logpsBackward;
}
export const backwardLibrary: BackwardLibrary = { tokenLogps, logpsBackward };

/** By what a gradient is asked for. */
export type Derivatives = Readonly<
  Partial<Record<'rows' | 'sequences' | 'entropy', Float64Array<ArrayBuffer>>>
>;
export interface BackwardCase {
  readonly label: string;
  readonly derivatives: Derivatives;
}

/**
 * Coefficients of both signs, one of them 0; NaN in rows that nobody may read. None of a batch that
 * has two sets of labels: `logpsBackward` refuses it.
 */
export function backwardCases(batch: Omit<ReferenceBatch, 'logits'>): readonly BackwardCase[] {
  const { labels, ignoreIndex = -100, sftLabels, tokenWeights } = batch;
  if (sftLabels) return [];
  const wave = (length: number, shift: number): Float64Array<ArrayBuffer> =>
    Float64Array.from({ length }, (_, i) => (i === 2 ? 0 : Math.cos(i + shift)));
  const perRow = (shift: number): Float64Array<ArrayBuffer> =>
    wave(labels.length, shift).map((x, row) => (labels[row] === ignoreIndex ? NaN : x));
  const sequences = wave(rowsOf(batch).sequences, 0.5);
  const [rows, entropy] = [perRow(1), perRow(2)];
  // The weights of rows are those of sequences.
  const byRow = { rows: { rows }, entropy: { entropy }, 'rows, entropy': { rows, entropy } };
  const all = {
    ...(!tokenWeights && byRow),
    sequences: { sequences },
    'sequences, entropy': { sequences, entropy },
  };
  return Object.entries(all).map(([label, derivatives]) => ({ label, derivatives }));
}

/** A batch of logits, and what its rows add to a gradient, once for all coefficients. */
export interface PreparedBackward<B extends ReferenceBatch = ReferenceBatch> {
  readonly batch: B;
  readonly values: ReferenceTokenLogps;
  /** By a row's log-probability. */
  readonly row: Float64Array;
  /** By a sequence's sum. */
  readonly sequence: Float64Array;
  /** By a row's entropy, and the sizes of what adds up to that. */
  readonly entropy: Float64Array;
  readonly sizes: Float64Array;
}

export function prepareBackward<B extends ReferenceBatch>(batch: B): PreparedBackward<B> {
  const rows = view(batch);
  const fresh = (): Float64Array => new Float64Array(rows.rows * rows.vocab);
  const [row, entropy, sizes] = [fresh(), fresh(), fresh()];
  const values = referenceTokenLogps(batch);
  batch.labels.forEach((label, t) => {
    if (label === rows.ignoreIndex) return;
    const softmax = softmaxRow(rows, t, label);
    const gradient = softmax.entropyGradient();
    softmax.gradient.forEach((g, v) => {
      const [i, slope] = [t * rows.vocab + v, rows.slope(t, v)];
      row[i] = g * slope;
      entropy[i] = (gradient[v] ?? NaN) * slope;
      // dH / dz_v = -p_v (H + log p_v), in which H and log p_v may cancel; both come from a sum in
      // float32, which near 1 has seven digits, however small its logarithm is.
      const logp = rows.logit(t, v) - softmax.logsumexp;
      const p = Math.exp(logp);
      const nats = (values.entropy[t] ?? NaN) + Math.abs(logp) + 0.02;
      sizes[i] = p === 0 ? 0 : p * nats * slope;
    });
  });
  return { batch, values, row, sequence: prepare(batch).alignment.residual, entropy, sizes };
}

/** Its gradient, as the checks of losses have it. */
export function expectedBackward(prepared: PreparedBackward, derivatives: Derivatives): Expected {
  const { batch, row, sequence } = prepared;
  const { rows, sequences, entropy } = derivatives;
  const { labels } = batch;
  const none = new Float64Array(0);
  const ofRows = (by: Float64Array, residual: Float64Array): Term => ({
    ...{ labels, residual, coefficients: none },
    rows: by,
  });
  const terms: readonly Term[] = [
    ...(rows ? [ofRows(rows, row)] : []),
    ...(sequences ? [{ labels, residual: sequence, coefficients: sequences }] : []),
    ...(entropy ? [{ ...ofRows(entropy, prepared.entropy), sizes: prepared.sizes }] : []),
  ];
  return {
    ...{ loss: 0, losses: none, rewards: none, slack: none, terms },
    largest: largestElement(terms, rowsOf(batch)),
  };
}

function checkForward(tally: Tally, prepared: PreparedBackward, forward: TokenLogps<true>): void {
  for (const name of ['logps', 'logsumexp', 'entropy', 'logCollision'] as const) {
    prepared.values[name].forEach((expected, row) => {
      const what = (): string => `tokenLogps: ${name}[${row}]`;
      tally.near('logps', forward[name][row] ?? NaN, expected, logpBound(expected, 1), what);
    });
  }
}

/** Dense, in place and, without entropies, factored; with and without what `tokenLogps` found. */
export function checkBackward(
  lib: BackwardLibrary,
  { derivatives }: BackwardCase,
  prepared: PreparedBackward<LogitsBatch>,
): Tally {
  const tally = new Tally();
  const { batch } = prepared;
  const expected = expectedBackward(prepared, derivatives);
  const forward = lib.tokenLogps(batch, { collision: true });
  checkForward(tally, prepared, forward);
  const dense = lib.logpsBackward(batch, derivatives);
  checkGradient(tally, prepared, expected, dense.gradLogits);
  const after = lib.logpsBackward(batch, { ...derivatives, forward });
  checkGradient(tally, prepared, expected, after.gradLogits);
  const overwritten = { ...batch, logits: (batch.logits as Float32Array).slice() };
  lib.logpsBackward(overwritten, derivatives, { inPlace: true });
  checkInPlace(tally, prepared, dense.gradLogits, overwritten.logits);
  if (derivatives.entropy) return tally;
  const run = { gradient: 'factored', gradientScale: -0.75 } as const;
  const { gradLogits, rowScale } = lib.logpsBackward(batch, derivatives, run);
  checkGradient(tally, prepared, scaled(expected, run.gradientScale), gradLogits, rowScale);
  return tally;
}

export type PreparedHiddenBackward = ReturnType<typeof prepareHiddenBackward>;
export function prepareHiddenBackward(batch: HiddenBatch) {
  const hidden = prepareHidden(batch);
  return { hidden, prepared: prepareBackward(hidden.layer.batch) };
}

/** The same through an output layer. */
export function checkHiddenBackward(
  lib: BackwardLibrary,
  { derivatives }: BackwardCase,
  { hidden, prepared }: PreparedHiddenBackward,
): Tally {
  const tally = new Tally();
  const { batch } = hidden;
  const gradients = layerGradients(hidden, expectedBackward(prepared, derivatives).terms);
  const forward = lib.tokenLogps(batch, { collision: true });
  checkForward(tally, prepared, forward);
  for (const given of [derivatives, { ...derivatives, forward }])
    checkLayerGradients(tally, hidden, gradients, lib.logpsBackward(batch, given));
  return tally;
}
