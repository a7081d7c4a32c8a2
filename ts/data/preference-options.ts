/** How preference data is read. */
import { type DirAlignError, typeError } from '../errors.js';
import { checkObject, describe, quoted, readProperties } from '../given.js';
import { preferenceForms } from './forms.js';
import type { PreferenceForm, SkipReason } from './records.js';

/** What is read, what errors say, and what happens after one. */
export interface ReadPreferencesOptions<Form extends PreferenceForm = 'pairs'> {
  /**
   * What everything is read as: `'pairs'`, `'unpaired'` or `'groups'`. Default: what the first
   * record is, where the type of the records is that of pairs.
   */
  readonly form?: Form;
  /**
   * Whether records have a `margin`, `score_chosen - score_rejected`; a line without these scores
   * is then no preference. Of pairs only. Default false.
   */
  readonly margins?: boolean;
  /**
   * What errors call the source. Default: its path, or where it has none `'stream'`, `'rows'`,
   * `'bytes'`, `'blob'` or `'text'`.
   */
  readonly name?: string;
  /**
   * What happens at a line, an element of a JSON array or a row that is no preference: `'throw'`
   * (default) ends the reading with an error that names its place; `'skip'` goes on with the next,
   * and `report` counts it. A source that cannot be read is an error either way.
   */
  readonly onError?: 'throw' | 'skip';
  /**
   * Called for each that is skipped, with the error that `'throw'` would throw. Needs `onError:
   * 'skip'`.
   */
  readonly onSkip?: (error: DirAlignError, reason: SkipReason) => void;
}

export function checkOptions(options: unknown = {}): ReadPreferencesOptions<PreferenceForm> {
  checkObject('options', options);
  const { form, margins, name, onError, onSkip } = readProperties('options', options, [
    'form',
    'margins',
    'name',
    'onError',
    'onSkip',
  ]);
  if (form !== undefined && !preferenceForms.includes(form as PreferenceForm)) {
    throw typeError(
      'ERR_DIRALIGN_OPTION',
      `form: ${describe(form)} is not one of ${quoted(preferenceForms)}`,
    );
  }
  if (margins !== undefined && typeof margins !== 'boolean') {
    throw typeError('ERR_DIRALIGN_OPTION', `margins: expected a boolean, not ${describe(margins)}`);
  }
  if (margins === true && form !== undefined && form !== 'pairs') {
    throw typeError('ERR_DIRALIGN_OPTION', `margins: only pairs have them, not ${describe(form)}`);
  }
  if (name !== undefined && typeof name !== 'string') {
    throw typeError('ERR_DIRALIGN_OPTION', `name: expected a string, not ${describe(name)}`);
  }
  if (onError !== undefined && onError !== 'throw' && onError !== 'skip') {
    throw typeError(
      'ERR_DIRALIGN_OPTION',
      `onError: ${describe(onError)} is not one of ${quoted(['throw', 'skip'])}`,
    );
  }
  if (onSkip !== undefined && typeof onSkip !== 'function') {
    throw typeError('ERR_DIRALIGN_OPTION', `onSkip: expected a function, not ${describe(onSkip)}`);
  }
  if (onSkip !== undefined && onError !== 'skip') {
    throw typeError(
      'ERR_DIRALIGN_OPTION',
      `onSkip: needs onError 'skip'; it is ${describe(onError)}`,
    );
  }
  return { form, margins, name, onError, onSkip } as ReadPreferencesOptions<PreferenceForm>;
}
