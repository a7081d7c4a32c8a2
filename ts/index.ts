export { dirAlignLoss, sequenceLogps, tokenLogps, type LogpsOptions, type Objective, type ObjectiveCalls } from './objective.js';
export {
  methods,
  type Divergence,
  type Method,
  type MethodInfo,
  type MethodOptions,
  type OptionInfo,
  type SftReduction,
} from './catalogue.js';
export { presets, type BestSetting, type PresetSetup } from './presets.js';
export { DirAlignError, type DirAlignErrorCode } from './errors.js';
export { cuda } from './cuda.js';
export type * from './types.js';
