import { cuda } from '../cuda.js';

export type Backend = 'cpu' | 'cuda';

/** Nothing where the CUDA backend can be used. */
export function whyNoCuda(): string | undefined {
  return cuda.reason;
}

export function availableBackends(): Backend[] {
  return cuda.available ? ['cpu', 'cuda'] : ['cpu'];
}
