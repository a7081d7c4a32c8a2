/** The CUDA backend, as far as this build has one. Never throws. */
export const cuda = Object.freeze({
  /** Whether `backend: 'cuda'` can be asked for. */
  available: false,
  /** Why not. */
  reason: 'this build contains no CUDA kernels; it computes on the CPU',
  /** The devices that can be used. */
  devices: (): readonly never[] => [],
});
