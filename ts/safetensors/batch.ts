import type { LogitsBatch } from '../batch/types.js';
import { defect, quote, written } from './format.js';
import { readSafetensors, type SafetensorsTensor } from './read.js';

function toInt32(path: string, name: string, { dtype, data }: SafetensorsTensor): Int32Array {
  if (data instanceof Int32Array) return data;
  if (!(data instanceof BigInt64Array))
    throw defect(path, `tensor ${quote(name)}: dtype ${dtype}; expected I32 or I64.`);
  const outside = data.findIndex((value) => BigInt.asIntN(32, value) !== value);
  if (outside >= 0)
    throw defect(
      path,
      `tensor ${quote(name)}: element ${outside} is ${data[outside] ?? ''}; expected 32 bits.`,
    );
  return Int32Array.from(data, Number);
}

const names = ['logits', 'labels', 'reference', 'offsets', 'sft_labels'];

/**
 * A batch as `diralign loss` takes it: `logits` [sequences, tokens, vocab], or [rows, vocab] with
 * `offsets` [sequences + 1]; `labels` and, where there are any, `sft_labels`, one per row;
 * `reference`, where there is one, one per sequence.
 *
 * @param path a file, an index of shards, or a directory. Other tensors are not read, whatever
 *   their dtype.
 */
export function readBatch(path: string): LogitsBatch {
  const tensors = readSafetensors(path, names);
  const needed = (name: string): SafetensorsTensor => {
    const tensor = tensors.get(name);
    if (tensor !== undefined) return tensor;
    const present = [...tensors.keys()].slice(0, 8).map(quote).join(', ');
    throw defect(path, `tensor ${quote(name)} is missing; there are: ${present || 'none'}.`);
  };
  const shaped = (
    name: string,
    { shape }: SafetensorsTensor,
    expected: readonly number[],
  ): void => {
    if (shape.length === expected.length && shape.every((size, axis) => size === expected[axis]))
      return;
    throw defect(
      path,
      `tensor ${quote(name)}: shape ${written(shape)}; expected ${written(expected)}.`,
    );
  };

  const logits = needed('logits');
  const { dtype, data } = logits;
  const [first, second, third] = logits.shape;
  if (first === undefined || second === undefined || logits.shape.length > 3) {
    throw defect(
      path,
      `tensor "logits": shape ${written(logits.shape)}; expected [sequences, tokens, vocab] or [rows, vocab].`,
    );
  }
  const dtypes = { F32: 'float32', F16: 'float16', BF16: 'bfloat16' } as const;
  if (
    !Object.hasOwn(dtypes, dtype) ||
    !(data instanceof Float32Array || data instanceof Uint16Array)
  ) {
    throw defect(path, `tensor "logits": dtype ${dtype}; expected F32, F16 or BF16.`);
  }

  let offsets: Int32Array | undefined;
  if (third === undefined) {
    const tensor = needed('offsets');
    offsets = toInt32(path, 'offsets', tensor);
    shaped('offsets', tensor, [offsets.length]);
    const rising = offsets.every((row, b) => row >= (b === 0 ? 0 : (offsets?.[b - 1] ?? 0)));
    if (!rising || offsets[0] !== 0 || offsets.at(-1) !== first) {
      throw defect(path, `tensor "offsets": expected rows that rise from 0 to ${first}.`);
    }
  } else if (tensors.has('offsets')) {
    throw defect(path, 'tensor "offsets": belongs to logits of shape [rows, vocab].');
  }
  const rows = third === undefined ? [first] : [first, second];
  const labelsOf = (name: string): Int32Array => {
    const tensor = needed(name);
    shaped(name, tensor, rows);
    return toInt32(path, name, tensor);
  };
  const referenceOf = (): Float64Array | Float32Array => {
    const tensor = needed('reference');
    shaped('reference', tensor, [offsets === undefined ? first : offsets.length - 1]);
    if (tensor.data instanceof Float64Array || tensor.data instanceof Float32Array)
      return tensor.data;
    throw defect(path, `tensor "reference": dtype ${tensor.dtype}; expected F32 or F64.`);
  };

  return {
    logits: data,
    dtype: dtypes[dtype as keyof typeof dtypes],
    shape: third === undefined ? [first, second] : [first, second, third],
    ...(offsets && { offsets }),
    labels: labelsOf('labels'),
    ...(tensors.has('reference') && { reference: referenceOf() }),
    ...(tensors.has('sft_labels') && { sftLabels: labelsOf('sft_labels') }),
  };
}
