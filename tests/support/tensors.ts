// Tensors of safetensors files, in a word each.
import type { WritableTensor } from '../../ts/safetensors.js';

export const floats = (...values: number[]): WritableTensor => ({
  dtype: 'F64',
  shape: [values.length],
  data: Float64Array.from(values),
});
export const singles = (shape: number[], ...values: number[]): WritableTensor => ({
  dtype: 'F32',
  shape,
  data: Float32Array.from(values),
});
export const whole = (...values: number[]): WritableTensor => ({
  dtype: 'I32',
  shape: [values.length],
  data: Int32Array.from(values),
});
export const long = (...values: bigint[]): WritableTensor => ({
  dtype: 'I64',
  shape: [values.length],
  data: BigInt64Array.from(values),
});
export const bytes = (dtype: 'U8' | 'BOOL', ...values: number[]): WritableTensor => ({
  dtype,
  shape: [values.length],
  data: Uint8Array.from(values),
});
export const scalar = (value: number): WritableTensor => singles([], value);
