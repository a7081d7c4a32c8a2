// A reference case in every way that a caller may take it, on any backend: on the CPU, on the
// emulation of CUDA and, by gpu:check, on a device.
import { sequenceLogps, tokenLogps } from '../../ts/index.js';
import type { Objective } from '../../ts/index.js';
import { gradientBound, halfBound, logpBound, type Misses } from './bounds.js';
import { call, callLater, type Called, type CallOptions } from './calls.js';
import type { HostBatch, HostResult, Prepare } from './calls.js';
import {
  build,
  checkGradient,
  checkNumbers,
  elements,
  expectedScales,
  makeBatch,
  oneSetOfLabels,
  packed,
  restride,
  sameResult,
  unfactored,
  unpacked,
} from './cases.js';
import type { Copy } from './device.js';
import { at, decodeHalf, encodeHalf, present, sameBits, type HalfDtype } from './numbers.js';
import type { VectorCase, VectorInput } from './vectors.js';

export interface Backend {
  readonly name: 'cpu' | 'cuda';
  readonly prepare: Prepare;
  readonly objective?: (c: VectorCase) => Objective;
}

/** Whatever the layout and the destination, and whether waited for or not. */
export const ways = [
  'fresh',
  'in place',
  'out',
  'none',
  'odd address',
  'strided',
  'packed',
  'asynchronous',
  'factored',
] as const;
export type Way = (typeof ways)[number];

/** The case in 16 bits; undefined where its logits are not exact in them. */
export function inHalf(c: VectorCase): HostBatch | undefined {
  const dtype = ({ f32: undefined, f16: 'float16', bf16: 'bfloat16' } as const)[c.input.dtypeExact];
  return dtype && { ...makeBatch(c), logits: encodeHalf(makeBatch(c).logits, dtype), dtype };
}

/**
 * One case in the ways that are asked for, in their order: the first is held to the numbers of the
 * case, the others to the bits of the first; a factored gradient always to the numbers.
 *
 * @param turn chooses among the variants of a way
 */
export async function checkCase(
  misses: Misses,
  c: VectorCase,
  batch: HostBatch,
  backend: Backend,
  { asked = ways, turn = 0 }: { readonly asked?: readonly Way[]; readonly turn?: number } = {},
): Promise<void> {
  const objective = (backend.objective ?? build)(c);
  const dtype = batch.dtype as HalfDtype | undefined;
  const vocab = c.input.V;
  let first: HostResult | undefined;
  let where: Pick<CallOptions, 'place' | 'shift'> = {};
  const take = (what: string, { result, problems }: Called): HostResult => {
    for (const problem of problems) misses.require(false, `${c.id} ${what}: ${problem}`);
    return result;
  };
  const run = (what: string, given = batch, options: CallOptions = {}): HostResult =>
    take(what, call(objective, backend.prepare(given, { ...where, ...options })));
  /** `gradient`: as that of the batch itself lies; none where there is to be none. */
  const hold = (what: string, result: HostResult, gradient = result.gradLogits): void => {
    if (first) sameResult(misses, `${c.id} ${what}`, result, first);
    else checkNumbers(misses, c, result, backend.name);
    if (gradient === undefined) return;
    if (first?.gradLogits)
      misses.require(sameBits(gradient, first.gradLogits), `${c.id} ${what}: gradient`);
    else checkGradient(misses, c, dtype ? decodeHalf(gradient, dtype) : gradient, dtype);
    first ??= { ...result, gradLogits: gradient };
  };

  const strided = (rowStride: number, whole: boolean): void => {
    const what = `strided by ${rowStride}`;
    const filler = dtype ? 0x7fff : NaN;
    const wide = restride(batch.logits, vocab, vocab, rowStride, filler);
    // With the padding of the last row, or without.
    const logits = whole ? wide : wide.slice(0, wide.length - (rowStride - vocab));
    const result = run(what, { ...batch, logits, rowStride });
    const gradient = present(result.gradLogits);
    const own = restride(gradient, vocab, rowStride, vocab);
    hold(what, result, own);
    const padded = restride(own, vocab, vocab, rowStride).subarray(0, logits.length);
    misses.require(sameBits(gradient, padded), `${c.id} ${what}: padding`);
  };
  const factored = (what: string): void => {
    const result = run(what, batch, { gradient: 'factored' });
    if (first) sameResult(misses, `${c.id} ${what}`, result, first);
    else checkNumbers(misses, c, result, backend.name);
    const gradient = present(result.gradLogits);
    const values = dtype ? decodeHalf(gradient, dtype) : gradient;
    misses.each(`${c.id} ${what}: rowScale`, present(result.rowScale), expectedScales(c), (x) =>
      gradientBound(Math.abs(x), 0),
    );
    // Its largest element is at most 1: what is below 1e-9 of that may be 0.
    const residual = c.input.residual.subarray(0, elements(c));
    const largest = residual.reduce((x, y) => Math.max(x, Math.abs(y)), 0);
    misses.each(`${c.id} ${what}`, values, residual, (x) =>
      dtype ? halfBound(x, dtype) : gradientBound(Math.abs(x), largest),
    );
    if (!dtype) checkGradient(misses, c, unfactored(result, values, vocab));
  };

  for (const way of asked) {
    // Ways that say nothing of the destination go into each in turn.
    const place = (['fresh', 'inPlace', 'out'] as const)[turn % 3] ?? 'fresh';
    where = { place };
    if (way === 'fresh') hold(way, run(way, batch, { place: 'fresh' }));
    else if (way === 'in place') hold(way, run(way, batch, { place: 'inPlace' }));
    else if (way === 'out') hold(way, run(way, batch, { place: 'out' }));
    else if (way === 'none') hold(way, run(way, batch, { gradient: 'none' }));
    else if (way === 'odd address')
      hold(way, run(way, batch, { shift: 1 + (Math.floor(turn / 3) % 7) }));
    else if (way === 'strided') strided(vocab + (turn % 2 === 0 ? 1 : 32), turn % 4 < 2);
    else if (way === 'packed') {
      const { batch: rowsOnly, rows } = packed(batch);
      const result = run(way, rowsOnly);
      const { length } = batch.logits;
      hold(way, result, unpacked(present(result.gradLogits), rows, length, vocab));
    } else if (way === 'asynchronous')
      hold(way, take(way, await callLater(objective, backend.prepare(batch, where))));
    else if (oneSetOfLabels(c)) factored(`factored, ${place}`);
    else
      misses.require(
        refuses(() => run(way, batch, { gradient: way })),
        `${c.id} ${way}`,
      );
  }
}

/** A factored gradient has no place for a second set of labels. */
function refuses(work: () => unknown): boolean {
  try {
    work();
  } catch (error) {
    return (error as Error).message.includes('sftLabels');
  }
  return false;
}

/** Certainty and empty sequences: there is no number to reach, but everything is finite. */
export function checkFinite(misses: Misses, c: VectorCase, backend: Backend): void {
  for (const gradient of ['dense', 'factored'] as const)
    for (const place of ['fresh', 'inPlace'] as const) {
      if (gradient === 'factored' && !oneSetOfLabels(c)) continue;
      const what = `${c.id} ${gradient}, ${place}`;
      const prepared = backend.prepare(makeBatch(c), { gradient, place });
      const { result, problems } = call((backend.objective ?? build)(c), prepared);
      for (const problem of problems) misses.require(false, `${what}: ${problem}`);
      const { loss, losses, coefficients, metrics } = result;
      for (const values of [[loss], losses, coefficients, present(result.gradLogits)])
        misses.require(Array.from(values).every(Number.isFinite), `${what}: not finite`);
      misses.require(metrics.nonfinite === 0, `${what}: metrics.nonfinite`);
      const empty = c.input.counts.filter((n) => n === 0).length;
      misses.require(metrics.empty_sequences === empty, `${what}: metrics.empty_sequences`);
    }
}

/**
 * The log-probabilities of an input, as sums and by token; returns those by token.
 *
 * @param copy of the logits on a device, where they are to be taken from there
 */
export function checkLogps(
  misses: Misses,
  input: VectorInput,
  backend: Backend['name'],
  copy?: Copy,
  library = { sequenceLogps, tokenLogps },
): ReturnType<typeof tokenLogps> {
  const { name, B, T, V, labels } = input;
  const logits = (copy?.tensor ?? input.logits) as Float32Array;
  const batch = { logits, shape: [2 * B, T, V] as const, labels };
  const { logps, counts } = library.sequenceLogps(batch, { backend });
  misses.each(`${name} logps`, logps, input.logps, (x, b) => logpBound(x, at(input.counts, b)));
  misses.require(sameBits(counts, input.counts), `${name} counts`);
  const tokens = library.tokenLogps(batch, { backend });
  const sums = Array.from(logps, (_, b) =>
    tokens.logps.subarray(b * T, (b + 1) * T).reduce((x, y) => x + y, 0),
  );
  misses.each(`${name} sums of tokenLogps`, sums, logps, (x) => 1e-14 * Math.abs(x));
  return tokens;
}
