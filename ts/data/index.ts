/**
 * Data for preference training: JSONL to records, token ids to batches, and the reference's numbers in a file.
 *
 * @module
 */
export {
  collatePairs,
  type CollateOptions,
  type PackedPairs,
  type PaddedPairs,
  type PreferencePair,
  type TokenIds,
  type Truncation,
} from './collate.js';
export { fingerprint, type FingerprintPart } from './fingerprint.js';
export {
  isConversational,
  readPreferences,
  type ConversationalPreference,
  type Message,
  type PlainPreference,
  type Preference,
  type PreferenceSource,
  type ReadPreferencesOptions,
} from './preferences.js';
export { cachedReference, type CachedReferenceOptions } from './reference-cache.js';
