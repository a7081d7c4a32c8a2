/** Files of the safetensors format: read strictly, whole or in shards, and written. */
export { readBatch } from './safetensors/batch.js';
export {
  readSafetensors,
  readSafetensorsFile,
  type SafetensorsData,
  type SafetensorsFile,
  type SafetensorsTensor,
} from './safetensors/read.js';
export {
  besideIndex,
  filesOfDirectory,
  isIndex,
  readJsonFile,
  shardNames,
  shardsOfIndex,
  wholeSet,
} from './safetensors/shards.js';
export { writeSafetensors, type WritableTensor } from './safetensors/write.js';
