/** Calls of native code, and what callers see of its errors. */
import { outOfMemory } from '../batch/arrays.js';
import { labelError } from '../batch/labels.js';
import {
  cudaError,
  distributedError,
  rangeError,
  typeError,
  type DistributedErrorCode,
} from '../errors.js';
import type { Answer, BadLabel, BatchRequest, LayerRequest } from './interface.js';

const computing = 'computing on the device';

/** What native code threw, as a caller is to see it. */
export function nativeError(cause: unknown, layer?: LayerRequest): unknown {
  const { name, bytes, message, code } = cause as {
    readonly name?: unknown;
    readonly code?: unknown;
    readonly bytes?: number;
    readonly message?: string;
  };
  switch (name) {
    case 'WorkspaceTooSmall':
      return rangeError(
        'ERR_DIRALIGN_OPTION',
        `memory: ${String(layer?.memory)} bytes are too few for the workspace; ` +
          `expected at least ${String(bytes)}`,
      );
    case 'OutOfMemory':
      return outOfMemory('the computation', bytes, cause);
    case 'Refused':
      return typeError('ERR_DIRALIGN_SHAPE', String(message), { cause });
    case 'DistributedError':
      return distributedError(code as DistributedErrorCode, String(message), { cause });
    default:
      return cudaError(computing, cause);
  }
}

/** Calls the native side for what it answers later. */
export async function answered<T>(start: (done: Answer<T>) => void): Promise<T> {
  try {
    return await new Promise<T>((resolve, reject) => {
      start((error, value) => {
        if (error) reject(error);
        else resolve(value);
      });
    });
  } catch (cause) {
    throw nativeError(cause);
  }
}

/**
 * Calls the native side at once. What it refuses are labels, and a workspace that is too small;
 * what fails is the device.
 */
export function compute(
  { batch, layer }: { readonly batch: BatchRequest; readonly layer: LayerRequest | undefined },
  action: () => BadLabel | undefined,
): void {
  let bad: BadLabel | undefined;
  try {
    bad = action();
  } catch (cause) {
    throw nativeError(cause, layer);
  }
  if (bad) throw labelError(bad, batch);
}
