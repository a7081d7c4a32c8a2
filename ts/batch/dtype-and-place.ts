/** The dtype of data, and its place: the host or a device. */
import { types } from 'node:util';
import { DeviceTensor } from '../device/memory.js';
import { availability } from '../device/status.js';
import { dtypes, type Dtype } from '../dtype.js';
import { typeError } from '../errors.js';
import { describe, quoted } from '../given.js';
import { Target, type Memory } from '../native/interface.js';
import { checkArray, spanOf, isFloat16Array, tagOf, type Kind } from './arrays.js';
import type { Logits, LogitsArray } from './types.js';

/** The raw bits of a float16 array, or the array itself. */
export function rawArray(data: LogitsArray): Float32Array | Uint16Array {
  if (!isFloat16Array(data)) return data;
  const { buffer, byteOffset, byteLength } = spanOf(data);
  return new Uint16Array(buffer as ArrayBuffer, byteOffset, byteLength / 2);
}

/** What native code takes: the address of a tensor, or an array of a kind that Node-API knows. */
export function rawMemory(data: Logits): Memory {
  return data instanceof DeviceTensor ? data.ptr : rawArray(data);
}

export type Backend = 'auto' | 'cpu' | 'cuda';

/** @throws DirAlignError for a backend that does not exist, or is not available */
export function checkBackend(backend: unknown): Backend {
  if (backend === 'cuda') {
    const { reason } = availability();
    if (reason !== undefined)
      throw typeError('ERR_DIRALIGN_BACKEND', `backend: 'cuda' is not available: ${reason}`);
    return backend;
  }
  if (backend !== 'auto' && backend !== 'cpu') {
    throw typeError(
      'ERR_DIRALIGN_OPTION',
      `backend: ${describe(backend)} is not one of 'auto', 'cpu', 'cuda'`,
    );
  }
  return backend;
}

export function targetOf(backend: Backend, name: string, data: Logits): Target {
  if (!(data instanceof DeviceTensor)) return backend === 'cuda' ? Target.staged : Target.cpu;
  if (backend === 'cpu') {
    throw typeError(
      'ERR_DIRALIGN_BACKEND',
      `backend: 'cpu' does not read ${name} in device memory; leave backend out, ` +
        'or copy them to a host array',
    );
  }
  return Target.device;
}

/** Who computes. */
export function backendOf(target: Target): 'cpu' | 'cuda' {
  return target === Target.cpu ? 'cpu' : 'cuda';
}

/** Refuses an object with an address that is no DeviceTensor. */
function checkAddress(name: string, data: unknown): void {
  // Arrays are refused by their kind, and so are Proxies, which answer by the caller's code.
  if (typeof data !== 'object' || data === null || ArrayBuffer.isView(data) || types.isProxy(data))
    return;
  if (!('ptr' in data)) return;
  const { reason } = availability();
  if (reason !== undefined) {
    throw typeError(
      'ERR_DIRALIGN_BACKEND',
      `${name}: device memory needs the CUDA backend, which is not available: ${reason}`,
    );
  }
  throw typeError(
    'ERR_DIRALIGN_DTYPE',
    `${name}: expected an array or a DeviceTensor, not ${describe(data)}; make one by cuda.tensor`,
  );
}

/** The dtype of the batch's data, as the data implies or `dtype` says. */
export function checkDtype(name: string, data: Logits, dtype: Dtype | undefined): Dtype {
  if (dtype !== undefined && !dtypes.includes(dtype)) {
    throw typeError(
      'ERR_DIRALIGN_DTYPE',
      `dtype: ${describe(dtype)} is not one of ${quoted(dtypes)}`,
    );
  }
  if (data instanceof DeviceTensor) {
    if (dtype !== undefined && dtype !== data.dtype) {
      throw typeError(
        'ERR_DIRALIGN_DTYPE',
        `dtype: '${dtype}' does not fit ${name} in a DeviceTensor of ${data.dtype}`,
      );
    }
    return data.dtype;
  }
  checkAddress(name, data);
  const kind = tagOf(data);
  checkArray(name, data, ['Float32Array', 'Uint16Array', 'Float16Array'], 'ERR_DIRALIGN_DTYPE');
  const implied =
    kind === 'Float16Array' ? 'float16' : kind === 'Float32Array' ? 'float32' : undefined;
  if (implied === undefined) {
    if (dtype === 'float16' || dtype === 'bfloat16') return dtype;
    throw typeError(
      'ERR_DIRALIGN_DTYPE',
      "dtype: a Uint16Array holds 'float16' or 'bfloat16' bits; " +
        `say which (given: ${describe(dtype)})`,
    );
  }
  if (dtype !== undefined && dtype !== implied) {
    throw typeError('ERR_DIRALIGN_DTYPE', `dtype: '${dtype}' does not fit ${name} in a ${kind}`);
  }
  return implied;
}

const hostTypes: Readonly<Record<Dtype, readonly Kind[]>> = {
  float32: ['Float32Array'],
  float16: ['Uint16Array', 'Float16Array'],
  bfloat16: ['Uint16Array'],
};

/**
 * Data that goes with other data: of this dtype, and on the host or on the device and stream, as
 * that is.
 */
export function checkLike(
  name: string,
  value: unknown,
  dtype: Dtype,
  likeName: string,
  like: Logits,
): Logits {
  if (!(like instanceof DeviceTensor)) {
    if (value instanceof DeviceTensor) {
      throw typeError(
        'ERR_DIRALIGN_DTYPE',
        `${name}: expected an array, as ${likeName} is, not a DeviceTensor`,
      );
    }
    checkAddress(name, value);
    return checkArray(name, value, hostTypes[dtype], 'ERR_DIRALIGN_DTYPE') as LogitsArray;
  }
  if (!(value instanceof DeviceTensor)) {
    throw typeError(
      'ERR_DIRALIGN_DTYPE',
      `${name}: expected a DeviceTensor, as ${likeName} is, not ${describe(value)}`,
    );
  }
  if (value.dtype !== dtype) {
    throw typeError(
      'ERR_DIRALIGN_DTYPE',
      `${name}: its dtype is ${value.dtype}; expected ${dtype}`,
    );
  }
  for (const key of ['device', 'stream'] as const) {
    if (value[key] !== like[key]) {
      throw typeError(
        'ERR_DIRALIGN_DEVICE',
        `${name}: its ${key} is ${value[key]}; expected that of ${likeName}, ${like[key]}`,
      );
    }
  }
  return value;
}
