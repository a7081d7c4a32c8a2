/** What the ops take of a tensor: checks, and the memory under it. */
import { engine, Tensor } from '@tensorflow/tfjs-core';
import { checkShape, type Outline } from '../bindings.js';
import { typeError, type DirAlignErrorCode } from '../../errors.js';
import { describe } from '../../given.js';

function checkTensor(
  name: string,
  value: unknown,
  dtype: 'float32' | 'int32',
  code: DirAlignErrorCode,
  advice = '',
): Tensor {
  if (!(value instanceof Tensor))
    throw typeError(code, `${name}: expected a Tensor of ${dtype}, not ${describe(value)}`);
  if (value.dtype !== dtype)
    throw typeError(code, `${name}: its dtype is ${value.dtype}; expected ${dtype}${advice}`);
  if (value.isDisposed) throw typeError('ERR_DIRALIGN_SHAPE', `${name}: the tensor is disposed`);
  return value as Tensor;
}

/** A float32 tensor of this shape. */
export function checkFloats(name: string, value: unknown, expected: Outline): void {
  checkShape(name, checkTensor(name, value, 'float32', 'ERR_DIRALIGN_DTYPE').shape, expected);
}

/**
 * Elements of a float32 tensor, row-major. On the cpu backend this is the tensor's own memory: read
 * it, and do not keep it.
 */
export function floatsOf(tensor: Tensor): Float32Array {
  return tensor.dataSync<'float32'>();
}

/**
 * Whether {@link floatsOf} is a copy of ours, and tensors are copies of the arrays that they are
 * made of.
 */
export function isCopied(tensor: Tensor): boolean {
  const { backend, backendName, state } = engine();
  // A tensor stays with the backend that made it.
  return backendName === 'wasm' && state.tensorInfo.get(tensor.dataId)?.backend === backend;
}

/** Labels: an array as the core takes it, which checks it, or a tensor of the shape of the rows. */
export function labelsOf(
  name: string,
  value: Int32Array | Tensor,
  rows: readonly number[],
): Int32Array {
  if (!(value instanceof Tensor)) return value;
  const tensor = checkTensor(
    name,
    value,
    'int32',
    'ERR_DIRALIGN_LABEL',
    "; cast(labels, 'int32') makes it one",
  );
  checkShape(name, tensor.shape, rows, 'ERR_DIRALIGN_SHAPE', ', one label per row');
  return tensor.dataSync<'int32'>();
}

/**
 * The reference's numbers: an array as the core takes it, which checks it, or a tensor of one
 * dimension.
 */
export function referenceOf(
  value: Float64Array | Float32Array | Tensor,
): Float64Array | Float32Array {
  if (!(value instanceof Tensor)) return value;
  const tensor = checkTensor('reference', value, 'float32', 'ERR_DIRALIGN_REFERENCE');
  checkShape('reference', tensor.shape, ['sequences'], 'ERR_DIRALIGN_REFERENCE');
  return floatsOf(tensor);
}
