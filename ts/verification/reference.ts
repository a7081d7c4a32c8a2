/**
 * Every objective in float64, from logits, by definition: what `diralign verify` and the tests hold
 * the native code to.
 *
 * Slow on purpose, and independent: nothing is shared with the native code or its catalogue. No
 * derivative of an objective is written down here. A loss is a function of dual numbers, the
 * log-probabilities of the sequences of a unit, and its gradient is what the chain rule makes of
 * that function (`Dual`), or what differences of the loss say (`finiteDifference`).
 */
export type { ReferenceConfig, ReferenceMethod } from './reference/config.js';
export type { FamilyFields, MismatchedSums } from './reference/fields.js';
export { decodeBfloat16, decodeFloat16 } from './reference/numbers.js';
export {
  Dual,
  exp,
  expm1,
  log1mexp,
  logOdds,
  logSigmoid,
  logSumExp,
  relu,
  sigmoid,
  softplus,
} from './reference/dual.js';
export {
  referenceFromLogps,
  type ReferenceLogpsBatch,
  type ReferenceLogpsResult,
} from './reference/logps.js';
export type { ReferenceBatch } from './reference/rows.js';
export { referenceLogps, referenceTokenLogps, type ReferenceTokenLogps } from './reference/sums.js';
export { referenceLoss, type ReferenceResult } from './reference/logits.js';
export {
  referenceHiddenLoss,
  referenceLayer,
  type ReferenceHiddenBatch,
  type ReferenceHiddenResult,
  type ReferenceLayer,
  type ReferenceLayerGradients,
} from './reference/hidden.js';
export {
  referenceMix,
  type ReferenceMixLogpsResult,
  type ReferenceMixResult,
  type ReferenceTerm,
} from './reference/mix.js';
export {
  referenceLogpsBackward,
  type ReferenceCoefficients,
  type ReferenceLogitsGradient,
} from './reference/backward.js';
export { finiteDifference, type FiniteDifference } from './reference/differences.js';
