/** A CUDA device. Sizes are in bytes. */
export interface DeviceInfo {
  /** What `device` takes. */
  readonly index: number;
  /** As the driver has it. */
  readonly name: string;
  /** As nvidia-smi prints it. */
  readonly uuid: string;
  /** For instance `'9.0'`. */
  readonly computeCapability: string;
  /** Streaming multiprocessors. */
  readonly multiprocessors: number;
  /** All of it, in use or not. */
  readonly memory: number;
  /**
   * Asked for when it is read. The first time starts the device for this process, which takes some
   * hundred megabytes of it.
   */
  readonly freeMemory: number;
  /** Size of the level 2 cache. */
  readonly l2Cache: number;
  /** Most that a block can have. */
  readonly sharedMemory: number;
  /** Bytes per second by clock and bus width; 0 where the driver does not tell. */
  readonly memoryBandwidth: number;
}
