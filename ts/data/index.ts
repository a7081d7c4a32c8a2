/**
 * Data for preference training: JSONL to records, token ids to batches, and the reference's numbers
 * in a file.
 *
 * @module
 */
export type { CollateOptions, Truncation } from './collate-options.js';
export { collatePairs, type PackedPairs, type PaddedPairs } from './collate.js';
export type { PreferencePair, TokenIds } from './pairs.js';
export { fingerprint, type FingerprintPart } from './fingerprint.js';
export {
  isConversational,
  readPreferences,
  type PreferenceReader,
  type PreferenceReport,
  type PreferenceSource,
  type ReadPreferencesOptions,
} from './preferences.js';
export type {
  ConversationalPreference,
  Message,
  PlainPreference,
  Preference,
  PreferenceRecord,
  SkipReason,
} from './records.js';
export { cachedReference, type CachedReferenceOptions } from './reference-cache.js';
