/**
 * Files of the safetensors format, read and written. It needs no addon.
 *
 * @module
 */
export type { DecodedDtype } from './format.js';
export {
  readSafetensors,
  type SafetensorsData,
  type SafetensorsFile,
  type SafetensorsTensor,
} from './read.js';
export { writeSafetensors, type WritableTensor } from './write.js';
