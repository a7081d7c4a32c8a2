// Files that were damaged, or made to mislead: batches, preferences, cached references.
import fs from 'node:fs';
import zlib from 'node:zlib';
import fc from 'fast-check';
import {
  cachedReference,
  readPreferences,
  type GroupRecord,
  type PreferenceRecord,
  type UnpairedRecord,
} from '../../ts/data/index.js';
import { DirAlignError, dirAlignLoss, sequenceLogps } from '../../ts/index.js';
import { readBatch, readSafetensors, writeSafetensors } from '../../ts/safetensors.js';
import { randomBatch } from '../support/batches.js';
import { choose, generator, integer, type Random } from '../support/numbers.js';
import { Fault } from './fault.js';
import { inFolder } from './folder.js';

export interface FilePlan {
  readonly kind: 'batch' | 'preferences' | 'reference';
  /** Which of the files of the kind. */
  readonly base: number;
  /** What is done to it, in turn. */
  readonly edits: readonly { readonly how: string; readonly pick: number }[];
  /** Preferences: text in place of bytes; where it is cut in two; bad lines are skipped. */
  readonly text: boolean;
  readonly skip: boolean;
  readonly cut: number;
}

// ----------------------------------------------------------------------------------------------
// The files

const dtypeNames = { float32: 'F32', float16: 'F16', bfloat16: 'BF16' } as const;

function batchFile(i: number): Buffer {
  const dtype = (['float32', 'float16', 'bfloat16'] as const)[i % 3] ?? 'float32';
  const packed = i >= 3;
  const spec = { seed: i, sequences: 2, tokens: 3, vocab: 4 };
  const { logits, labels, reference } = randomBatch({ ...spec, dtype });
  const rows = packed ? [6] : [2, 3];
  const long = BigInt64Array.from(labels, BigInt);
  writeSafetensors(
    inFolder('batch'),
    {
      logits: { dtype: dtypeNames[dtype], shape: [...rows, 4], data: logits },
      labels: packed
        ? { dtype: 'I32', shape: rows, data: labels }
        : { dtype: 'I64', shape: rows, data: long },
      reference: { dtype: 'F64', shape: [2], data: reference },
      ...(packed && {
        offsets: { dtype: 'I32', shape: [3], data: Int32Array.of(0, 2, 6) },
        sft_labels: { dtype: 'I32', shape: rows, data: labels },
        weights: { dtype: 'F64', shape: [1], data: Float64Array.of(0.5) },
        margins: { dtype: 'F32', shape: [1], data: Float32Array.of(-1) },
        denominator: { dtype: 'F64', shape: [], data: Float64Array.of(2) },
        token_weights: { dtype: 'F64', shape: rows, data: Float64Array.of(1, 0.5, 0, 2, 1, 1) },
        logit_softcap: { dtype: 'F32', shape: [1], data: Float32Array.of(30) },
      }),
    },
    i % 2 === 0 ? { made: 'by a test' } : undefined,
  );
  return fs.readFileSync(inFolder('batch'));
}

const turn = (role: string, content: string): object => ({ role, content });
const question = turn('user', 'q');
const records: readonly object[] = [
  { prompt: 'p', chosen: 'c', rejected: 'r' },
  {
    prompt: [turn('system', 's'), question],
    chosen: [turn('assistant', 'a')],
    rejected: [turn('assistant', 'é\u2028𝄞')],
  },
  { chosen: [question, turn('assistant', 'a')], rejected: [question, turn('assistant', 'b')] },
  { prompt: 'p', chosen: 'p: c', rejected: 'p: r', system: null, tools: [{ name: 't' }] },
  { chosen: '\n\nHuman: q\n\nAssistant: a', rejected: '\n\nHuman: q\n\nAssistant: b' },
  {
    prompt: [question],
    chosen: [{ role: 'assistant', content: null, tool_calls: [{ id: '1' }] }],
    rejected: [turn('assistant', 'b')],
  },
];
const singles: readonly object[] = [
  { prompt: 'p', completion: 'c', label: true },
  { prompt: [question], completion: [question, turn('assistant', 'a')], label: 0 },
  { completion: [question, turn('assistant', 'a')], label: 1, id: 7 },
];
const groups: readonly object[] = [
  { prompt: 'p', responses: ['a', 'b', 'c'], scores: [2, 1e3, -0.5] },
  {
    prompt: 'q',
    completions: [[turn('assistant', 'a')], [turn('assistant', 'b')]],
    scores: [1, 0],
  },
  { responses: [[question, turn('assistant', 'a')]], scores: [4] },
];
/** Pairs by the names of other trainers. */
const others = [
  {
    input: { messages: [question], tools: [] },
    preferred_output: [turn('assistant', 'a')],
    non_preferred_output: [turn('assistant', 'b')],
  },
  {
    system: 's',
    conversations: [{ from: 'human', value: 'q' }],
    chosen: { from: 'gpt', value: 'a' },
    rejected: { from: 'gpt', value: 'b' },
  },
  { messages: [question, turn('assistant', 'a')], rejected_response: 'b' },
  { query: 'q', response: 'a', rejected_response: 'b', history: [['c', 'd']] },
];
const jsonl = (lines: readonly object[], end: string): Buffer =>
  Buffer.from(lines.map((line) => JSON.stringify(line)).join(end));

const known = { logps: Float64Array.of(-1, -2.5), counts: Int32Array.of(3, 4) };
async function referenceFile(): Promise<Buffer> {
  await cachedReference(inFolder('reference'), { fingerprint: 'abc' }, () => known);
  return fs.readFileSync(inFolder('reference'));
}

const bases: Readonly<Record<FilePlan['kind'], readonly Buffer[]>> = {
  batch: Array.from({ length: 6 }, (_, i) => batchFile(i)),
  preferences: [
    jsonl(records, '\n'),
    jsonl(records, '\r\n\r\n'),
    jsonl(records.slice(0, 1), ''),
    jsonl(singles, '\n'),
    jsonl(groups, '\n'),
    jsonl(others, '\n'),
    Buffer.from(JSON.stringify([...records, ...others], null, 1)),
    zlib.gzipSync(jsonl(records, '\n')),
  ],
  reference: [await referenceFile()],
};

// ----------------------------------------------------------------------------------------------
// Damage

const numbers = [
  ...['0', '-1', '1e3', '4294967296', '2147483648', '9007199254740993', '1e400', '-0', '0.5'],
  ...['18446744073709551616', '1099511627776', 'null', '"2"', '[]', '{}', 'true', ''],
];
const words = [
  ...['"F64"', '"I32"', '"BF16"', '"F8_E4M3"', '"U8"', '"labels"', '"offsets"', '"__proto__"'],
  ...['"constructor"', '"__metadata__"', '"reference"', '"sft_labels"', '"prompt"', '"role"'],
  ...['"completion"', '"responses"', '"label"', '"scores"', '"weights"', '"token_weights"', '"kl"'],
  ...['"desirable"', '"groups"', '"temperature"', '"tokenWeights"', '"kl.logps"'],
];

function splice(bytes: Buffer, begin: number, end: number, insertion: Uint8Array | string): Buffer {
  const middle = typeof insertion === 'string' ? Buffer.from(insertion, 'latin1') : insertion;
  return Buffer.concat([bytes.subarray(0, begin), middle, bytes.subarray(end)]);
}

/** Another number or word where one stands. */
function reword(bytes: Buffer, random: Random): Buffer {
  const text = bytes.toString('latin1');
  const found = [...text.slice(0, 2000).matchAll(/-?\d+|"[^"]*"|null|true/g)];
  if (found.length === 0) return bytes;
  const match = choose(random, found);
  return splice(
    bytes,
    match.index,
    match.index + match[0].length,
    choose(random, [...numbers, ...words]),
  );
}

type Damage = (bytes: Buffer, random: Random) => Buffer;
const damages: Readonly<Record<string, Damage>> = {
  'another byte': (bytes, random) => {
    const copy = Buffer.from(bytes);
    if (copy.length > 0) copy[integer(random, 0, copy.length - 1)] = integer(random, 0, 255);
    return copy;
  },
  'a flipped bit near the beginning': (bytes, random) => {
    const copy = Buffer.from(bytes);
    const i = integer(random, 0, Math.min(copy.length, 600) - 1);
    if (i >= 0) copy[i] = (copy[i] ?? 0) ^ (1 << integer(random, 0, 7));
    return copy;
  },
  'an end that is missing': (bytes, random) => bytes.subarray(0, integer(random, 0, bytes.length)),
  'more at the end': (bytes, random) =>
    splice(bytes, bytes.length, bytes.length, Buffer.alloc(integer(random, 1, 40), 0x41)),
  'a hole': (bytes, random) => {
    const at = integer(random, 0, bytes.length);
    return splice(bytes, at, at + integer(random, 1, 20), '');
  },
  'a part twice': (bytes, random) => {
    const at = integer(random, 0, bytes.length);
    return splice(bytes, at, at, bytes.subarray(at, at + integer(random, 1, 60)));
  },
  'a number that was slipped in': (bytes, random) => {
    const at = integer(random, 0, Math.min(bytes.length, 1000));
    return splice(bytes, at, at, choose(random, numbers));
  },
  'another word': reword,
  'another word in a header of the right length': (bytes, random) => {
    if (bytes.length < 8) return bytes;
    const length = Number(bytes.readBigUInt64LE(0));
    if (length > bytes.length - 8) return bytes;
    const header = reword(bytes.subarray(8, 8 + length), random);
    const size = Buffer.alloc(8);
    size.writeBigUInt64LE(BigInt(header.length));
    return Buffer.concat([size, header, bytes.subarray(8 + length)]);
  },
  'nested without end': (bytes, random) => {
    const at = integer(random, 0, Math.min(bytes.length, 200));
    return splice(bytes, at, at, choose(random, ['[', '{"a":']).repeat(5000));
  },
};

const edit = fc.record({ how: fc.constantFrom(...Object.keys(damages)), pick: fc.nat() });
export const filePlans: fc.Arbitrary<FilePlan> = fc.record({
  kind: fc.constantFrom('batch', 'preferences', 'reference'),
  base: fc.nat({ max: 5 }),
  // A header has several places where one lie needs another.
  edits: fc.array(edit, { maxLength: 4 }),
  text: fc.boolean(),
  skip: fc.boolean(),
  cut: fc.nat({ max: 2000 }),
});

// ----------------------------------------------------------------------------------------------
// What must hold

const simpo = dirAlignLoss('simpo', 1);

function readBatchFile(bytes: Buffer): void {
  const file = inFolder('damaged');
  fs.writeFileSync(file, bytes);
  for (const { shape, data } of readSafetensors(file).values()) {
    const elements = shape.reduce((product, n) => product * n, 1);
    if (data && data.length !== elements)
      throw new Fault(`${data.length} elements of shape [${String(shape)}]`);
  }
  const batch = readBatch(file);
  const { gradLogits } = simpo(batch);
  if (gradLogits.length !== batch.logits.length) throw new Fault('the gradient has another length');
  const { logps } = sequenceLogps(batch);
  if (logps.some((logp) => logp > 0)) throw new Fault('a log-probability above 0');
}

/** The completions of a record, whose label or scores are checked. */
function saidBy(record: PreferenceRecord | UnpairedRecord | GroupRecord): readonly unknown[] {
  if ('chosen' in record) return [record.chosen, record.rejected];
  if ('completion' in record) {
    if (typeof record.label !== 'boolean') throw new Fault(`a label of ${String(record.label)}`);
    return [record.completion];
  }
  const { responses, scores } = record;
  if (scores.length !== responses.length || !scores.every(Number.isFinite) || scores.length === 0)
    throw new Fault(`${responses.length} responses with scores of ${String(scores)}`);
  return responses;
}

async function readPreferenceFile(bytes: Buffer, { text, skip, cut }: FilePlan): Promise<void> {
  // oxlint-disable-next-line typescript/require-await
  async function* pieces(): AsyncGenerator<Uint8Array | string> {
    const whole = text ? bytes.toString() : bytes;
    yield whole.slice(0, cut);
    yield whole.slice(cut);
  }
  let [read, skipped] = [0, 0];
  const onSkip = (error: unknown): void => {
    skipped++;
    if (!(error instanceof DirAlignError)) throw new Fault(`skipped for ${String(error)}`);
  };
  const reader = readPreferences(pieces(), skip ? { onError: 'skip', onSkip } : {});
  const forms = new Set<string>();
  // Without a form asked for, what the first record is decides.
  for await (const record of reader as AsyncIterable<
    PreferenceRecord | UnpairedRecord | GroupRecord
  >) {
    read++;
    forms.add(Object.keys(record).join());
    const kinds = new Set([record.prompt, ...saidBy(record)].map((one) => typeof one));
    if (kinds.size > 1) throw new Fault(`a record of ${[...kinds].join(' and ')}`);
  }
  if (forms.size > 1) throw new Fault(`records of several forms: ${[...forms].join('; ')}`);
  const { report } = reader;
  const byReason = Object.values(report.reasons).reduce((sum, n) => sum + n, 0);
  if (report.read !== read || report.skipped !== skipped || byReason !== skipped)
    throw new Fault(`${read} read and ${skipped} skipped, reported as ${JSON.stringify(report)}`);
}

async function readReferenceFile(bytes: Buffer): Promise<void> {
  const file = inFolder('damaged');
  fs.writeFileSync(file, bytes);
  const computed = (): never => {
    throw new Fault('computed, though a file is there');
  };
  const { logps, counts } = await cachedReference(file, { fingerprint: 'abc' }, computed);
  if (String(logps) !== String(known.logps) || String(counts) !== String(known.counts))
    throw new Fault('other numbers than were kept');
}

const readers = {
  batch: readBatchFile,
  preferences: readPreferenceFile,
  reference: readReferenceFile,
} as const;

/**
 * Throws where a damaged file is read otherwise than rightly, or refused by anything but a
 * DirAlignError.
 */
export async function checkFile(plan: FilePlan): Promise<void> {
  const files = bases[plan.kind];
  let bytes = files[plan.base % files.length] ?? Buffer.alloc(0);
  for (const { how, pick } of plan.edits) bytes = damages[how]?.(bytes, generator(pick)) ?? bytes;
  try {
    await readers[plan.kind](bytes, plan);
  } catch (error) {
    const isFine = plan.edits.length === 0;
    if (error instanceof DirAlignError && !isFine) return;
    throw error;
  }
}
