// The reference cases that scripts/pack-vectors.mjs packed.
import fs from 'node:fs';
import { brotliDecompressSync } from 'node:zlib';
import { at } from './numbers.js';

export interface VectorInput {
  readonly name: string;
  readonly B: number;
  readonly T: number;
  readonly V: number;
  /** What the logits are exact in. */
  readonly dtypeExact: 'f32' | 'f16' | 'bf16';
  readonly reference: Float64Array;
  readonly counts: Int32Array;
  readonly logps: Float64Array;
  readonly labels: Int32Array;
  /** Labels of the likelihood term where they differ; the rejected half is not scored by it. */
  readonly nllLabels: Int32Array | undefined;
  /** [2B, T, V]; NaN on rows that no term scores. */
  readonly logits: Float32Array<ArrayBuffer>;
  /** onehot(label) - softmax of every scored row, in float64; 0 on the others. */
  readonly residual: Float64Array;
  /** onehot(nll label) - softmax likewise. */
  readonly nllResidual: Float64Array;
  readonly digest:
    | { readonly idx: readonly number[]; readonly rows: readonly number[] }
    | undefined;
}

export interface VectorCase {
  readonly id: string;
  readonly input: VectorInput;
  /** What `dirAlignLoss` takes. */
  readonly call: Readonly<Record<string, unknown>> & { readonly method: string };
  readonly loss: number;
  readonly losses: readonly number[] | undefined;
  readonly rewards: readonly number[] | undefined;
  /** dLoss/dlogps per sequence; a likelihood term that averages over sequences included. */
  readonly dseq: readonly number[] | undefined;
  /** dLoss/dlogp of every token scored by a likelihood term that averages over tokens. */
  readonly dnll: number;
  /** dLoss/dlogits, [2B, T, V]. */
  readonly gradient: Float64Array | undefined;
  readonly digest:
    | {
        readonly val: readonly number[];
        readonly row_l1: readonly number[];
        readonly row_l2: readonly number[];
        readonly abs_max: number;
      }
    | undefined;
  readonly robustnessOnly: boolean;
}

export function fromPlanes(planes: Buffer, size: number): Buffer {
  const count = planes.length / size;
  const data = Buffer.alloc(planes.length);
  for (let i = 0; i < count; i++)
    for (let b = 0; b < size; b++) data[i * size + b] = at(planes, b * count + i);
  return data;
}

/** onehot - softmax of one row, the label's entry as the sum of the others over the total. */
export function rowResidual(
  logits: ArrayLike<number>,
  offset: number,
  vocab: number,
  label: number,
  out: Float64Array,
): void {
  let max = -Infinity;
  for (let v = 0; v < vocab; v++) max = Math.max(max, at(logits, offset + v));
  let rest = 0;
  for (let v = 0; v < vocab; v++) {
    const e = Math.exp(at(logits, offset + v) - max);
    out[offset + v] = -e;
    if (v !== label) rest += e;
  }
  const total = rest - at(out, offset + label);
  out[offset + label] = rest;
  for (let v = 0; v < vocab; v++) out[offset + v] = at(out, offset + v) / total;
}

interface PackedInput {
  readonly B: number;
  readonly T: number;
  readonly V: number;
  readonly dtypeExact: 'f32' | 'f16' | 'bf16';
  readonly reference: number[];
  readonly counts: number[];
  readonly logps: number[];
  readonly labels: number[];
  readonly nllLabels?: number[];
  readonly digest?: { readonly idx: number[]; readonly rows: number[] };
}
interface PackedCase {
  readonly id: string;
  readonly input: string;
  readonly call: Readonly<Record<string, unknown>> & { readonly method: string };
  readonly expected: {
    readonly loss: number;
    readonly losses?: number[];
    readonly rewards?: number[];
    readonly dseq?: (number | string)[];
    readonly dnll?: number;
    readonly digest?: {
      readonly val: number[];
      readonly row_l1: number[];
      readonly row_l2: number[];
      readonly abs_max: number;
    };
  };
  readonly robustnessOnly?: true;
}

/** All cases, by input. */
export function loadVectors(
  folder = new URL('../fixtures/vectors/', import.meta.url),
): Map<VectorInput, VectorCase[]> {
  const unpack = (name: string): Buffer =>
    brotliDecompressSync(fs.readFileSync(new URL(name, folder)));
  const packed = JSON.parse(unpack('cases.json.br').toString()) as {
    readonly inputs: Readonly<Record<string, PackedInput>>;
    readonly cases: readonly PackedCase[];
  };
  const logitBytes = fromPlanes(unpack('logits.f32.br'), 4);
  let logitsRead = 0;
  const inputs = new Map<string, { input: VectorInput; scored: Set<number> }>();
  for (const [name, p] of Object.entries(packed.inputs)) {
    const rows = 2 * p.B * p.T;
    const logits = new Float32Array(rows * p.V).fill(NaN);
    const residual = new Float64Array(rows * p.V);
    const nllResidual = new Float64Array(rows * p.V);
    const scored = new Set<number>();
    for (let row = 0; row < rows; row++) {
      const label = at(p.labels, row);
      const nllLabel = p.nllLabels ? at(p.nllLabels, row) : label;
      if (label === -100 && nllLabel === -100) continue;
      scored.add(row);
      for (let v = 0; v < p.V; v++)
        logits[row * p.V + v] = logitBytes.readFloatLE(4 * logitsRead++);
      if (label !== -100) rowResidual(logits, row * p.V, p.V, label, residual);
      if (nllLabel !== -100) rowResidual(logits, row * p.V, p.V, nllLabel, nllResidual);
    }
    const input: VectorInput = {
      name,
      B: p.B,
      T: p.T,
      V: p.V,
      dtypeExact: p.dtypeExact,
      reference: Float64Array.from(p.reference),
      counts: Int32Array.from(p.counts),
      logps: Float64Array.from(p.logps),
      labels: Int32Array.from(p.labels),
      nllLabels: p.nllLabels && Int32Array.from(p.nllLabels),
      logits,
      residual,
      nllResidual,
      digest: p.digest,
    };
    inputs.set(name, { input, scored });
  }

  const gradientBytes = Buffer.concat(
    [0, 1, 2].map((part) => fromPlanes(unpack(`gradients.${String(part)}.f64.br`), 8)),
  );
  let gradientsRead = 0;
  const vectors = new Map<VectorInput, VectorCase[]>(
    Array.from(inputs.values(), ({ input }) => [input, []]),
  );
  for (const { id, input: name, call, expected, robustnessOnly } of packed.cases) {
    const { input, scored } = inputs.get(name) as { input: VectorInput; scored: Set<number> };
    let gradient: Float64Array | undefined;
    if (!expected.digest) {
      gradient = new Float64Array(input.logits.length);
      for (const row of scored) {
        for (let v = 0; v < input.V; v++)
          gradient[row * input.V + v] = gradientBytes.readDoubleLE(8 * gradientsRead++);
      }
    }
    vectors.get(input)?.push({
      id,
      input,
      call,
      loss: expected.loss,
      losses: expected.losses,
      rewards: expected.rewards,
      dseq: expected.dseq?.map(Number),
      dnll: expected.dnll ?? 0,
      gradient,
      digest: expected.digest,
      robustnessOnly: robustnessOnly ?? false,
    });
  }
  if (8 * gradientsRead !== gradientBytes.length)
    throw new Error('the gradients do not fit the cases');
  return vectors;
}
