// A call of the wider family in every way that its batch may be laid out, and its gradient asked
// for.
import type { LogitsBatch } from '../../ts/index.js';
import { packed } from '../../ts/verification/cases.js';
import type { Misses } from './bounds.js';
import { restride } from './cases.js';
import { sameBits } from './numbers.js';

type Batch = LogitsBatch<Float32Array<ArrayBuffer>>;
type Run = Readonly<Record<string, unknown>>;
export interface WaysResult {
  readonly gradLogits: Float32Array<ArrayBuffer>;
  readonly rowScale?: Float32Array;
}

/** A door that takes logits; `rows`: which rows of the batch as it was there still are. */
export interface LogitsDoor {
  readonly call: (batch: Batch, run: Run, rows?: readonly number[]) => WaysResult;
  readonly later: (batch: Batch, run: Run) => Promise<WaysResult>;
  /** Whether one scale per row is enough for its gradient. */
  readonly factors: boolean;
}

/** Arrays, numbers and objects of a result, but its gradient, with the same bits. */
function sameValues(misses: Misses, what: string, actual: object, expected: object): void {
  const names = Object.keys(expected).filter((name) => !['gradLogits', 'rowScale'].includes(name));
  for (const name of names) {
    const [a, b] = [actual, expected].map((one) => (one as Record<string, unknown>)[name]);
    const same =
      ArrayBuffer.isView(a) && ArrayBuffer.isView(b)
        ? sameBits(a, b)
        : typeof b === 'object' && b !== null
          ? JSON.stringify(a) === JSON.stringify(b)
          : Object.is(a, b);
    misses.require(same, () => `${what}: ${name}`);
  }
}

/** Rows of a padded batch that {@link packed} keeps. */
function keptRows({ shape }: Batch, offsets: Int32Array): number[] {
  const tokens = shape[1];
  return Array.from(offsets.subarray(1), (end, b) =>
    Array.from({ length: end - (offsets[b] ?? 0) }, (_, t) => b * tokens + t),
  ).flat();
}

/** Returns what the call gives; the other ways have the same bits, or a miss. */
export async function checkEachWay(
  misses: Misses,
  what: string,
  batch: Batch,
  { call, later, factors }: LogitsDoor,
): Promise<WaysResult> {
  const fresh = call(batch, {});
  const same = (way: string, result: WaysResult, gradient = result.gradLogits): void => {
    sameValues(misses, `${what}, ${way}`, result, fresh);
    misses.require(sameBits(gradient, fresh.gradLogits), `${what}, ${way}: gradient`);
  };
  const copy = { ...batch, logits: batch.logits.slice() };
  const inPlace = call(copy, { inPlace: true });
  misses.require(inPlace.gradLogits === copy.logits, `${what}: in place`);
  same('in place', inPlace);

  const out = new Float32Array(batch.logits.length).fill(NaN);
  const given = call(batch, { out });
  misses.require(given.gradLogits === out, `${what}: out`);
  same('out', given);

  const { length } = batch.logits;
  const vocab = batch.shape.at(-1) ?? NaN;
  const rowStride = vocab + 3;
  const wide = restride(batch.logits, vocab, vocab, rowStride, NaN) as typeof batch.logits;
  const strided = call({ ...batch, logits: wide.slice(0, -3), rowStride }, {});
  const own = restride(strided.gradLogits, vocab, rowStride, vocab) as typeof batch.logits;
  same('strided', strided, own);

  const cut = packed(batch) as Batch;
  const rows = keptRows(batch, cut.offsets as Int32Array);
  const ofPacked = call(cut, {}, rows);
  const unpacked = new Float32Array(length);
  rows.forEach((row, i) => {
    unpacked.set(ofPacked.gradLogits.subarray(i * vocab, (i + 1) * vocab), row * vocab);
  });
  same('packed', ofPacked, unpacked);

  same('asynchronous', await later(batch, {}));
  for (const threads of [1, 3]) same(`${threads} threads`, call(batch, { threads }));
  if (!factors) return fresh;
  const { gradLogits, rowScale = [], ...values } = call(batch, { gradient: 'factored' });
  sameValues(misses, `${what}, factored`, values, fresh);
  // Two roundings in place of one.
  const product = gradLogits.map((g, i) => g * (rowScale[Math.floor(i / vocab)] ?? NaN));
  misses.each(`${what}, factored`, product, fresh.gradLogits, (x) => 2 ** -21 * Math.abs(x));
  return fresh;
}
