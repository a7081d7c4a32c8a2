/** What the ops take of a tensor: checks, and the memory under it. */
import { Tensor } from '@tensorflow/tfjs-core';
import { describe } from '../arrays.js';
import { rangeError, typeError, type DirAlignErrorCode } from '../errors.js';

/** `[2, 3]`, as messages have it. */
function written(shape: readonly unknown[]): string {
  return `[${shape.join(', ')}]`;
}

function checkTensor(name: string, value: unknown, dtype: 'float32' | 'int32', code: DirAlignErrorCode, advice = ''): Tensor {
  if (!(value instanceof Tensor)) throw typeError(code, `${name}: expected a Tensor of ${dtype}, not ${describe(value)}`);
  if (value.dtype !== dtype) throw typeError(code, `${name}: its dtype is ${value.dtype}; expected ${dtype}${advice}`);
  if (value.isDisposed) throw typeError('ERR_DIRALIGN_SHAPE', `${name}: the tensor is disposed`);
  return value as Tensor;
}

/** A float32 tensor whose shape is one of these; a dimension is its size, or what it stands for where any size will do. */
export function checkFloats(name: string, value: unknown, ...shapes: readonly (readonly (string | number)[])[]): Tensor {
  const tensor = checkTensor(name, value, 'float32', 'ERR_DIRALIGN_DTYPE');
  const fits = shapes.some(
    (shape) =>
      shape.length === tensor.rank && shape.every((size, i) => typeof size === 'string' || size === (tensor.shape[i] as number)),
  );
  if (fits) return tensor;
  throw rangeError(
    'ERR_DIRALIGN_SHAPE',
    `${name}: its shape is ${written(tensor.shape)}; expected ${shapes.map(written).join(' or ')}`,
  );
}

/** Elements of a float32 tensor, row-major. On the cpu backend this is the tensor's own memory: read it, and do not keep it. */
export function floatsOf(tensor: Tensor): Float32Array {
  return tensor.dataSync<'float32'>();
}

/** Labels: an array as the core takes it, which checks it, or a tensor of the shape of the rows. */
export function labelsOf(name: string, value: Int32Array | Tensor, rows: readonly number[]): Int32Array {
  if (!(value instanceof Tensor)) return value;
  const tensor = checkTensor(name, value, 'int32', 'ERR_DIRALIGN_LABEL', "; cast(labels, 'int32') makes it one");
  if (tensor.rank === rows.length && rows.every((size, i) => size === tensor.shape[i])) return tensor.dataSync<'int32'>();
  throw rangeError(
    'ERR_DIRALIGN_SHAPE',
    `${name}: its shape is ${written(tensor.shape)}; expected ${written(rows)}, one label per row`,
  );
}

/** The reference's numbers: an array as the core takes it, which checks it, or a tensor of one dimension. */
export function referenceOf(value: Float64Array | Float32Array | Tensor): Float64Array | Float32Array {
  if (!(value instanceof Tensor)) return value;
  const tensor = checkTensor('reference', value, 'float32', 'ERR_DIRALIGN_REFERENCE');
  if (tensor.rank === 1) return floatsOf(tensor);
  throw rangeError('ERR_DIRALIGN_REFERENCE', `reference: its shape is ${written(tensor.shape)}; expected [sequences]`);
}
