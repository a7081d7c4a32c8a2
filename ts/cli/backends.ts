import { cuda } from '../device/cuda.js';
import { deviceHiddenLibrary, hiddenLibrary, type HiddenLibrary } from '../verification/hidden.js';
import { deviceLibrary, library, type Library } from '../verification/verification.js';

export type Backend = 'cpu' | 'cuda';

/** Nothing where the CUDA backend can be used. */
export function whyNoCuda(): string | undefined {
  return cuda.reason;
}

/** A backend with the data where it expects it. */
export interface Way {
  readonly name: string;
  readonly backend: Backend;
  readonly library: Library;
  /** Undefined where it cannot compute output layers. */
  readonly hidden: HiddenLibrary | undefined;
}

/**
 * Everything that can compute here. CUDA is two: on data that is on the device, and on host arrays
 * that travel there.
 */
export function availableWays(): Way[] {
  const cpu: Way = { name: 'cpu', backend: 'cpu', library, hidden: hiddenLibrary };
  if (!cuda.available) return [cpu];
  const canLayer = cuda.hiddenReason === undefined;
  return [
    cpu,
    {
      name: 'cuda',
      backend: 'cuda',
      library: deviceLibrary,
      hidden: canLayer ? deviceHiddenLibrary : undefined,
    },
    {
      name: 'cuda, host arrays',
      backend: 'cuda',
      library,
      hidden: canLayer ? hiddenLibrary : undefined,
    },
  ];
}
