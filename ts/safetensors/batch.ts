import type { LogitsBatch } from '../batch/types.js';
import { written } from './format.js';
import { fieldTensors, readFields } from './fields.js';
import { readSafetensors } from './read.js';
import { BatchTensors, snake, type NamedTensor } from './tensors.js';

const names = ['logits', 'labels', 'reference', 'offsets', 'sftLabels', ...fieldTensors];

/**
 * A batch as `diralign loss` takes it: `logits` [sequences, tokens, vocab], or [rows, vocab] with
 * `offsets` [sequences + 1]; `labels` and, where there are any, `sft_labels`, one per row;
 * `reference`, where there is one, one per sequence; and fields of a batch under their names, in
 * camelCase or snake_case.
 *
 * @param path a file, an index of shards, or a directory. Other tensors are not read, whatever
 *   their dtype.
 */
export function readBatch(path: string): LogitsBatch {
  const read = readSafetensors(
    path,
    names.flatMap((name) => [name, snake(name)]),
  );
  const tensors = new BatchTensors(path, read);
  const { logits, dtype, shape } = logitsOf(tensors);
  const [first, second, third] = shape;
  const offsets = third === undefined ? offsetsOf(tensors, first) : undefined;
  const unwanted = third === undefined ? undefined : tensors.find('offsets');
  if (unwanted) throw tensors.defect('offsets', 'belongs to logits of shape [rows, vocab].');
  const rows = third === undefined ? [first] : [first, second];
  const sequences = offsets === undefined ? first : offsets.length - 1;
  const labelsOf = (tensor: NamedTensor): Int32Array => {
    tensors.shaped(tensor, rows);
    return tensors.int32(tensor);
  };
  const referenceOf = (tensor: NamedTensor): Float64Array | Float32Array => {
    tensors.shaped(tensor, [sequences]);
    return tensors.floats(tensor);
  };
  const [labels, sftLabels] = [tensors.needed('labels'), tensors.find('sftLabels')];
  const reference = tensors.find('reference');
  return {
    logits,
    dtype,
    shape,
    ...(offsets && { offsets }),
    labels: labelsOf(labels),
    ...(reference && { reference: referenceOf(reference) }),
    ...(sftLabels && { sftLabels: labelsOf(sftLabels) }),
    ...readFields(tensors, { sequences, rows }),
  };
}

function logitsOf(tensors: BatchTensors): Required<Pick<LogitsBatch, 'logits' | 'dtype'>> & {
  readonly shape: readonly [number, number] | readonly [number, number, number];
} {
  const { dtype, shape, data } = tensors.needed('logits');
  const [first, second, third] = shape;
  if (first === undefined || second === undefined || shape.length > 3)
    throw tensors.defect(
      'logits',
      `shape ${written(shape)}; expected [sequences, tokens, vocab] or [rows, vocab].`,
    );
  const dtypes = { F32: 'float32', F16: 'float16', BF16: 'bfloat16' } as const;
  if (
    !Object.hasOwn(dtypes, dtype) ||
    !(data instanceof Float32Array || data instanceof Uint16Array)
  )
    throw tensors.defect('logits', `dtype ${dtype}; expected F32, F16 or BF16.`);
  return {
    logits: data,
    dtype: dtypes[dtype as keyof typeof dtypes],
    shape: third === undefined ? [first, second] : [first, second, third],
  };
}

function offsetsOf(tensors: BatchTensors, rows: number): Int32Array {
  const tensor = tensors.needed('offsets');
  const offsets = tensors.int32(tensor);
  tensors.shaped(tensor, [offsets.length]);
  const rising = offsets.every((row, b) => row >= (b === 0 ? 0 : (offsets[b - 1] as number)));
  if (!rising || offsets[0] !== 0 || offsets.at(-1) !== rows)
    throw tensors.defect('offsets', `expected rows that rise from 0 to ${rows}.`);
  return offsets;
}
