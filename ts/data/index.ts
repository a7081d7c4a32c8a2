/**
 * Data for preference training: files to records, token ids to batches, and the reference's numbers
 * in a file.
 *
 * @module
 */
export type {
  CollateOptions,
  PackedOptions,
  PaddedOptions,
  Truncation,
} from './collate-options.js';
export {
  collateGroups,
  collatePairs,
  collateUnpaired,
  type PackedGroups,
  type PackedPairs,
  type PackedUnpaired,
  type PaddedGroups,
  type PaddedPairs,
  type PaddedUnpaired,
} from './collate.js';
export type { CompletionGroup, Judgements, PreferencePair, UnpairedExample } from './examples.js';
export { fingerprint, type FingerprintPart } from './fingerprint.js';
export { detectForm, type DetectedForm } from './forms.js';
export type { CollatedRows, PackedRows, PaddedRows, Truncated } from './layout.js';
export { lengthDesensitized, type RowsOfPairs } from './length-desensitized.js';
export type { TokenMask } from './masks.js';
export { learnedTurns } from './messages.js';
export { mismatched, type Completed } from './mismatched.js';
export type { ReadPreferencesOptions } from './preference-options.js';
export {
  isConversational,
  readPreferences,
  type PreferenceReader,
  type PreferenceReport,
} from './preferences.js';
export type {
  ConversationalCompletion,
  ConversationalPreference,
  ConversationalResponses,
  GroupRecord,
  Message,
  PlainCompletion,
  PlainPreference,
  PlainResponses,
  Preference,
  PreferenceForm,
  PreferenceFormat,
  PreferenceRecord,
  ScoredPreferenceRecord,
  SkipReason,
  UnpairedRecord,
} from './records.js';
export { cachedReference, type CachedReferenceOptions } from './reference-cache.js';
export type { PreferenceChunk, PreferenceSource } from './source.js';
export type { IntegerArray, TokenIds } from './token-ids.js';
