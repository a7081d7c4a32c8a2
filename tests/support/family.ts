// The reference cases of the wider family, which scripts/pack-family.mjs packed.
import fs from 'node:fs';
import { brotliDecompressSync } from 'node:zlib';
import type { ReferenceConfig } from '../../ts/verification/reference.js';
import { fromPlanes } from './vectors.js';

/** What a batch of the cases may carry besides its rows. */
export interface CaseFields {
  readonly reference?: Float64Array;
  readonly desirable?: Uint8Array;
  readonly kl?: number | { readonly logps: Float64Array; readonly reference: Float64Array };
  readonly shift?: number;
  readonly groups?: Int32Array;
  readonly ranks?: Int32Array;
  readonly rewards?: Float64Array;
  readonly weights?: Float64Array;
  readonly margins?: Float64Array;
  readonly preferences?: Float64Array;
  readonly targets?: Float64Array;
  readonly denominator?: number;
  readonly sftDenominator?: number;
  readonly tokenWeights?: Float64Array;
  readonly logitScale?: number;
  readonly logitSoftcap?: number;
  readonly temperature?: number;
}

interface CaseRows extends CaseFields {
  readonly shape: readonly [sequences: number, tokens: number, vocab: number];
  readonly labels: Int32Array;
}
export interface CaseLogitsBatch extends CaseRows {
  /** NaN on rows with an ignored label. */
  readonly logits: Float32Array<ArrayBuffer>;
}
export interface CaseHiddenBatch extends CaseRows {
  /** NaN on rows with an ignored label. */
  readonly hidden: Float32Array<ArrayBuffer>;
  readonly weight: Float32Array<ArrayBuffer>;
  readonly bias?: Float32Array<ArrayBuffer>;
}

export interface LayerGradients {
  readonly gradHidden: Float64Array;
  readonly gradWeight: Float64Array;
  /** Where there is a bias. */
  readonly gradBias?: Float64Array;
}
interface Values {
  readonly loss: number;
  /** Per unit, the likelihood term (`sftWeight`) left out. */
  readonly losses: Float64Array;
}

/** An objective of a batch of logits. */
export interface LossCase {
  readonly id: string;
  readonly door: 'loss';
  readonly call: ReferenceConfig;
  readonly batch: CaseLogitsBatch;
  readonly expected: Values & { readonly gradLogits: Float64Array };
}
/** A mixture of objectives. */
export interface MixCase {
  readonly id: string;
  readonly door: 'mix';
  readonly call: readonly { readonly weight: number; readonly objective: ReferenceConfig }[];
  readonly batch: CaseLogitsBatch;
  readonly expected: {
    readonly loss: number;
    /** Losses of the terms. */
    readonly terms: Float64Array;
    readonly gradLogits: Float64Array;
  };
}
/** An objective of a batch of hidden states. */
export interface HiddenCase {
  readonly id: string;
  readonly door: 'fromHidden';
  readonly call: ReferenceConfig;
  readonly batch: CaseHiddenBatch;
  readonly expected: Values & LayerGradients;
}
/** Coefficients of the rows, NaN on ignored ones, or of the sequences. */
export interface Coefficients {
  readonly rows?: Float64Array;
  readonly entropy?: Float64Array;
  readonly sequences?: Float64Array;
}
interface RowValues {
  /** Per row; 0 on ignored ones. */
  readonly logps: Float64Array;
  readonly entropy: Float64Array;
}
/** A gradient of the caller's own. */
export interface LogpsBackwardCase {
  readonly id: string;
  readonly door: 'logpsBackward';
  readonly call: Coefficients;
  readonly batch: CaseLogitsBatch;
  readonly expected: RowValues & { readonly gradLogits: Float64Array };
}
/** The same through an output layer. */
export interface HiddenBackwardCase {
  readonly id: string;
  readonly door: 'hiddenLogpsBackward';
  readonly call: Coefficients;
  readonly batch: CaseHiddenBatch;
  readonly expected: RowValues & LayerGradients;
}
export type FamilyCase = LossCase | MixCase | HiddenCase | LogpsBackwardCase | HiddenBackwardCase;

/** Cases of one door. */
export function familyCases<Door extends FamilyCase['door']>(
  door: Door,
): (FamilyCase & { readonly door: Door })[] {
  loaded ??= load();
  return loaded.filter((c): c is FamilyCase & { readonly door: Door } => c.door === door);
}
let loaded: FamilyCase[] | undefined;

/** For `test.each`. */
export const byId = <C extends { readonly id: string }>(cases: readonly C[]) =>
  cases.map((c) => [c.id, c] as const);

const ignored = -100;

/** A case as the file has it: plain arrays, without the logits and their gradient. */
interface Packed {
  readonly id: string;
  readonly door: string;
  readonly call: Readonly<Record<string, unknown>>;
  readonly batch: Readonly<Record<string, unknown>> & {
    readonly shape: [number, number, number];
    readonly labels: number[];
    readonly hidden?: number[];
  };
  readonly expected: Readonly<Record<string, unknown>>;
}

function load(): FamilyCase[] {
  const unpack = (name: string): Buffer =>
    brotliDecompressSync(
      fs.readFileSync(new URL(`../fixtures/family/${name}.br`, import.meta.url)),
    );
  const cases = JSON.parse(unpack('cases.json').toString()) as Packed[];
  const logits = fromPlanes(unpack('logits.f32'), 4);
  const gradients = fromPlanes(unpack('gradients.f64'), 8);
  let read = 0;
  const result = cases.map((packed) => {
    const { shape, labels, hidden } = packed.batch;
    const batch = typed(packed.batch, float32s, batchArrays);
    const expected = typed(packed.expected, Float64Array);
    const call = typed(packed.call, float32s);
    const ignoreRows = (name: string, values: unknown): void => {
      if (values instanceof Float32Array || values instanceof Float64Array)
        fillIgnored(name, values, labels);
    };
    if (hidden) {
      ignoreRows('hidden', batch.hidden);
    } else {
      const vocab = shape[2];
      const z = new Float32Array(labels.length * vocab).fill(NaN);
      const g = new Float64Array(z.length);
      for (let i = 0; i < z.length; i++) {
        if (labels[Math.floor(i / vocab)] === ignored) continue;
        z[i] = logits.readFloatLE(4 * read);
        g[i] = gradients.readDoubleLE(8 * read++);
      }
      batch.logits = z;
      expected.gradLogits = g;
    }
    ignoreRows('rows', call.rows);
    ignoreRows('entropy', call.entropy);
    const { id, door } = packed;
    if ('mix' in call) return { id, door: 'mix', call: call.mix, batch, expected };
    const own = hidden && door === 'logpsBackward' ? 'hiddenLogpsBackward' : door;
    return { id, door: own, call, batch, expected };
  });
  if (4 * read !== logits.length || 8 * read !== gradients.length)
    throw new Error('the logits do not fit the cases');
  return result as unknown as FamilyCase[];
}

interface ArrayType {
  from(values: readonly number[]): ArrayBufferView;
}
const batchArrays: Readonly<Record<string, ArrayType>> = {
  labels: Int32Array,
  groups: Int32Array,
  ranks: Int32Array,
  desirable: Uint8Array,
  hidden: Float32Array,
  weight: Float32Array,
  bias: Float32Array,
};

/** Inputs are numbers of float32, of which the file has the nine digits that say which. */
const float32s: ArrayType = { from: (values) => Float64Array.from(values, Math.fround) };

/** Arrays of numbers as typed arrays, `other` where `types` says nothing. Shapes stay. */
function typed(
  given: Readonly<Record<string, unknown>>,
  other: ArrayType,
  types: Readonly<Record<string, ArrayType>> = {},
): Record<string, unknown> {
  const convert = ([name, value]: [string, unknown]): [string, unknown] => {
    if (name === 'kl' && typeof value === 'object')
      return [name, typed(value as Record<string, unknown>, other)];
    if (name === 'shape' || !Array.isArray(value) || typeof value[0] === 'object')
      return [name, value];
    return [name, (types[name] ?? other).from(value as number[])];
  };
  return Object.fromEntries(Object.entries(given).map(convert));
}

/** NaN in the rows that nothing may read. */
function fillIgnored(
  name: string,
  values: Float32Array | Float64Array,
  labels: readonly number[],
): void {
  const size = values.length / labels.length;
  if (!Number.isInteger(size)) throw new Error(`${name}: ${values.length} numbers`);
  labels.forEach((label, row) => {
    if (label === ignored) values.fill(NaN, row * size, (row + 1) * size);
  });
}
