export {
  dirAlignLoss,
  sequenceLogps,
  tokenLogps,
  type LogpsOptions,
  type Objective,
  type ObjectiveCalls,
} from './objective.js';
export {
  methods,
  type BestSetting,
  type Divergence,
  type Method,
  type MethodInfo,
  type MethodOptions,
  type OptionInfo,
  type SftReduction,
} from './catalogue.js';
export { presets, type PresetSetup } from './presets.js';
export { DirAlignError, type DirAlignErrorCode } from './errors.js';
export { cuda, type Cuda } from './device/cuda.js';
export type { FromHidden } from './hidden.js';
export type {
  AllocOptions,
  CopyOptions,
  CudaEvent,
  CudaStream,
  DeviceBuffer,
  DeviceOptions,
  DeviceTensor,
  EventLike,
  EventOptions,
  FillOptions,
  ForeignTensor,
  PinnedArray,
  StreamLike,
  TensorOptions,
} from './device/device.js';
export type * from './metrics.js';
export type * from './types.js';
