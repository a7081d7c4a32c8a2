import { typeError } from '../errors.js';
import { environment } from '../native/system.js';
import { native, type CudaStatus, type NativeCuda } from '../native/interface.js';

export interface Availability {
  /** Undefined where CUDA can be used. */
  readonly reason: string | undefined;
  readonly devices: number;
  /** Undefined where the addon cannot be loaded. */
  readonly status: CudaStatus | undefined;
}

let known: Availability | undefined;

/** Asked once: what CUDA has counted it does not count again. Never throws. */
export function availability(): Availability {
  return (known ??= ask());
}

function ask(): Availability {
  let status: CudaStatus;
  try {
    status = native().cuda.status();
  } catch (error) {
    return {
      reason: `the addon cannot be loaded: ${(error as Error).message}`,
      devices: 0,
      status: undefined,
    };
  }
  const reason = whyNot(status, environment('CUDA_VISIBLE_DEVICES'));
  return { reason, devices: reason === undefined ? status.devices : 0, status };
}

const noDevice = 100; // cudaErrorNoDevice
const driverTooOld = 35; // cudaErrorInsufficientDriver, which CUDA answers without a driver, too

const version = (number: number): string =>
  `${Math.floor(number / 1000)}.${Math.floor((number % 1000) / 10)}`;

/** Why CUDA cannot be used, in words; undefined where it can. */
export function whyNot(status: CudaStatus, visibleDevices: string | undefined): string | undefined {
  const { compiled, runtime, driver, error, errorText, devices } = status;
  if (!compiled) return 'this build contains no CUDA kernels; it computes on the CPU';
  if (driver === 0) return 'no NVIDIA driver is installed';
  if (error === driverTooOld) {
    return (
      `the NVIDIA driver supports CUDA ${version(driver)} and this build needs ` +
      `${version(runtime)}: update the driver to R580 or newer`
    );
  }
  if (error === noDevice || (error === 0 && devices === 0)) {
    const hidden =
      visibleDevices === undefined ? '' : `; CUDA_VISIBLE_DEVICES is '${visibleDevices}'`;
    return `an NVIDIA driver is installed, but no device is visible${hidden}`;
  }
  return error === 0 ? undefined : `CUDA error ${error}: ${errorText}`;
}

let hidden: { readonly reason: string | undefined } | undefined;

/**
 * Why output layers cannot be computed on a device; undefined where they can. The first call loads
 * their library.
 */
export function hiddenReason(): string | undefined {
  const { reason } = availability();
  if (reason !== undefined) return reason;
  hidden ??= { reason: native().cuda.layerProblem() || undefined };
  return hidden.reason;
}

/**
 * The native functions of CUDA.
 * @throws DirAlignError with code ERR_DIRALIGN_BACKEND where it is not available
 */
export function nativeCuda(): NativeCuda {
  const { reason } = availability();
  if (reason !== undefined)
    throw typeError('ERR_DIRALIGN_BACKEND', `cuda is not available: ${reason}`);
  return native().cuda;
}
