import { cuda } from '../cuda.js';

export type Backend = 'cpu' | 'cuda';

/** Nothing where the CUDA backend can be used. Asked through this type, because a build without it has a constant there. */
export function whyNoCuda(): string | undefined {
  const { available, reason } = cuda as { readonly available: boolean; readonly reason: string };
  return available ? undefined : reason;
}

export function availableBackends(): Backend[] {
  return whyNoCuda() === undefined ? ['cpu', 'cuda'] : ['cpu'];
}
