/**
 * Past one process: the columns of the vocabulary, the tokens of sequences and the units of a batch
 * over ranks that exchange bytes.
 * @module
 */
export { type Communicator, type Engine, type NativeCommunicator } from './communicator.js';
export { countBatch, type BatchCounts } from './count-batch.js';
export { layout, vocabShard, type Axis, type VocabShard } from './layout.js';
export { mpi, type MpiOptions } from './mpi.js';
export { nccl, type NcclOptions } from './nccl.js';
export type { LogitsParallel, Parallel } from './parallel.js';
export type { Window, WindowGroups, WindowResult } from './window.js';
export type { Shard } from '../batch/shard.js';
