/** Arguments of CUDA calls, and the calls themselves. */
import { dtypes, elementBytes, type Dtype } from '../dtype.js';
import { cudaError, rangeError, typeError } from '../errors.js';
import { checkObject, describe, quoted, readProperties } from '../given.js';
import type { NativeCuda } from '../native/interface.js';
import { availability, nativeCuda } from './status.js';

/** Which device. */
export interface DeviceOptions {
  /** Index in `cuda.devices()`; default 0. */
  readonly device?: number;
}

/** Runs a call of CUDA; where it fails, the error says what was being done. */
export function onDevice<T>(doing: string, action: (cuda: NativeCuda) => T): T {
  const cuda = nativeCuda();
  try {
    return action(cuda);
  } catch (cause) {
    throw cudaError(doing, cause);
  }
}

/** The options of a call, each read once. */
export function readOptions<Options extends object>(
  options: Options,
  keys: readonly (keyof Options & string)[],
  name = 'options',
): Partial<Options> {
  checkObject(name, options);
  return readProperties(name, options, keys) as Partial<Options>;
}

/** @throws DirAlignError with code ERR_DIRALIGN_DEVICE */
export function checkDevice(device: unknown): number {
  const { devices } = availability();
  if (typeof device !== 'number')
    throw typeError('ERR_DIRALIGN_DEVICE', `device: expected a number, not ${describe(device)}`);
  if (!Number.isInteger(device) || device < 0 || device >= devices) {
    throw rangeError(
      'ERR_DIRALIGN_DEVICE',
      `device: there is no device ${device}; there are ${devices}, from 0`,
    );
  }
  return device;
}

export function checkBytes(name: string, bytes: unknown): number {
  if (!Number.isSafeInteger(bytes) || (bytes as number) < 0) {
    const message = `${name}: ${describe(bytes)} is not a whole number of bytes`;
    throw typeof bytes === 'number'
      ? rangeError('ERR_DIRALIGN_SHAPE', message)
      : typeError('ERR_DIRALIGN_SHAPE', message);
  }
  return bytes as number;
}

/** An address or handle of 64 bits. */
export function checkHandle(name: string, value: unknown): bigint {
  if (typeof value === 'number' && Number.isSafeInteger(value) && value >= 0) return BigInt(value);
  if (typeof value !== 'bigint') {
    throw typeError('ERR_DIRALIGN_DEVICE', `${name}: expected a bigint, not ${describe(value)}`);
  }
  if (value < 0n || value > 0xffff_ffff_ffff_ffffn) {
    throw rangeError(
      'ERR_DIRALIGN_DEVICE',
      `${name}: ${value} is not an unsigned number of 64 bits`,
    );
  }
  return value;
}

export function checkTensorDtype(dtype: unknown): Dtype {
  if (typeof dtype !== 'string' || !Object.hasOwn(elementBytes, dtype)) {
    throw typeError(
      'ERR_DIRALIGN_DTYPE',
      `dtype: ${describe(dtype)} is not one of ${quoted(dtypes)}`,
    );
  }
  return dtype as Dtype;
}
