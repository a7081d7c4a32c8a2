export {
  logpsBackward,
  type BackwardCalls,
  type BackwardRunOptions,
  type HiddenBackwardRunOptions,
  type LogpsBackward,
  type LogpsDerivatives,
} from './loss/logps-backward.js';
export {
  sequenceLogps,
  tokenLogps,
  type LogpsOptions,
  type SequenceLogpsCalls,
  type TokenLogpsCalls,
  type TokenLogpsOptions,
} from './logps.js';
export { mixLosses, type Mix, type WeightedObjective } from './mix-losses.js';
export { GradientBuffers } from './loss/gradient-buffers.js';
export { dirAlignLoss, type Objective, type ObjectiveCalls } from './objective.js';
export {
  methods,
  type Divergence,
  type Method,
  type MethodInfo,
  type MethodOptions,
  type OptionInfo,
  type SftReduction,
} from './catalogue.js';
export {
  recipe,
  recipes,
  type Recipe,
  type RecipeName,
  type RecipeOverrides,
  type RecipeSettings,
  type RecipeTerm,
} from './recipes.js';
export { presets, type BestSetting, type PresetSetup } from './presets.js';
export { DirAlignError, type DirAlignErrorCode } from './errors.js';
export { cuda, type Cuda } from './device/cuda.js';
export type { FromHidden } from './loss/from-hidden.js';
export type { FromLogps } from './loss/from-logps.js';
export type { DeviceOptions } from './device/arguments.js';
export type {
  AllocOptions,
  DeviceBuffer,
  DeviceTensor,
  ForeignTensor,
  TensorOptions,
} from './device/memory.js';
export type { PinnedArray } from './device/pinned.js';
export type { CopyOptions, FillOptions } from './device/region.js';
export type {
  CudaEvent,
  CudaStream,
  EventLike,
  EventOptions,
  StreamLike,
} from './device/streams.js';
export type { Dtype, Float16ArrayLike } from './dtype.js';
export type * from './metrics.js';
export type * from './batch/types.js';
export type * from './device/info.js';
export type * from './loss/options.js';
export type * from './loss/results.js';
