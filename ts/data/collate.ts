/** From token ids of prompts and completions to the rows and labels that `dirAlignLoss` takes. */
import { allocate } from '../batch/arrays.js';
import { typeError } from '../errors.js';
import {
  checkOptions,
  type CollateOptions,
  type CollateSettings,
  type PackedOptions,
  type PaddedOptions,
} from './collate-options.js';
import {
  checkGroup,
  checkPair,
  checkUnpaired,
  readExamples,
  type Candidate,
  type CompletionGroup,
  type Group,
  type PreferencePair,
  type UnpairedExample,
} from './examples.js';
import { layOut, offsetsOf, type PackedRows, type PaddedRows, type Truncated } from './layout.js';
import { areMadeIdentical, cut, isCut, type Sequence } from './truncation.js';

interface OfPairs extends Truncated {
  /** Twice the number of pairs; pair i is sequences i (chosen) and i + sequences / 2 (rejected). */
  readonly sequences: number;
  /**
   * Pairs whose completions differ, of which truncation left the same tokens: they teach nothing.
   * More than a few ask for a larger `maxLength`.
   */
  readonly madeIdentical: number;
}

/** {@link PaddedRows} of pairs: the first half of the sequences are the chosen. */
export interface PaddedPairs extends OfPairs, PaddedRows {}

/** {@link PackedRows} of pairs: the first half of the sequences are the chosen. */
export interface PackedPairs extends OfPairs, PackedRows {}

interface OfUnpaired extends Truncated {
  /** Per sequence: 1 where it is one to learn, 0 where it is one to unlearn. */
  readonly desirable: Uint8Array;
}

/** {@link PaddedRows} of single completions: sequence i is example i. */
export interface PaddedUnpaired extends OfUnpaired, PaddedRows {}

/** {@link PackedRows} of single completions: sequence i is example i. */
export interface PackedUnpaired extends OfUnpaired, PackedRows {}

interface OfGroups extends Truncated {
  /** `groups + 1` offsets: group i is sequences `groups[i]` to `groups[i + 1] - 1`. */
  readonly groups: Int32Array;
  /** Per sequence, where the examples have them. */
  readonly ranks?: Float64Array;
  /** Per sequence, where the examples have them. */
  readonly rewards?: Float64Array;
}

/** {@link PaddedRows} of groups: the completions of a group one after another. */
export interface PaddedGroups extends OfGroups, PaddedRows {}

/** {@link PackedRows} of groups: the completions of a group one after another. */
export interface PackedGroups extends OfGroups, PackedRows {}

/** Sequences of each unit, and how many units lost tokens. */
function cutUnits(
  units: readonly (readonly Candidate[])[],
  settings: CollateSettings,
): { readonly cuts: readonly (readonly Sequence[])[] } & Truncated {
  const cuts = units.map((unit) => unit.map((candidate) => cut(candidate, settings)));
  return { cuts, truncated: cuts.filter((unit) => unit.some(isCut)).length };
}

/**
 * A batch of preference pairs, in memory of its own: the chosen sequences (prompt, then completion)
 * in the order of the examples, then the rejected. It can be spread into the batch of a loss beside
 * its logits:
 *
 *     const pairs = collatePairs(examples, { pad: 0, maxLength: 512 });
 *     const logits = model.forward(pairs.inputIds, pairs.attentionMask);
 *     dpo({ ...pairs, logits, shape: [pairs.sequences, pairs.tokens, vocab], reference });
 *
 * Tokens of the completions with 0 in a mask are context, not scored: what tools give back, and
 * what users say in between. `learnedTurns` says which turns these are.
 *
 * Every sequence has at least one scored row. The first token of a sequence is context only, also
 * where truncation leaves no prompt.
 *
 * @throws DirAlignError with code ERR_DIRALIGN_OPTION for options; ERR_DIRALIGN_LABEL for token ids
 *   that are no token ids, masks that are none, an empty completion and one of which truncation or
 *   its mask leaves nothing to score; ERR_DIRALIGN_SHAPE for no examples, for a mask of another
 *   length than its completion, and for 2^31 rows and more; ERR_DIRALIGN_MEMORY where the batch
 *   does not fit memory.
 */
export function collatePairs(
  examples: readonly PreferencePair[],
  options: PackedOptions,
): PackedPairs;

export function collatePairs(
  examples: readonly PreferencePair[],
  options: PaddedOptions,
): PaddedPairs;

export function collatePairs(
  examples: readonly PreferencePair[],
  options: CollateOptions,
): PaddedPairs | PackedPairs;

export function collatePairs(
  examples: readonly PreferencePair[],
  options: CollateOptions,
): PaddedPairs | PackedPairs {
  const settings = checkOptions(options);
  const pairs = readExamples(examples, 'pairs', checkPair);
  const { cuts, truncated } = cutUnits(pairs, settings);
  const sides = [0, 1].map((side) => cuts.map((pair) => pair[side] as Sequence));
  const madeIdentical = cuts.filter(([a, b]) => areMadeIdentical(a as Sequence, b as Sequence));
  return { ...layOut(sides.flat(), settings), truncated, madeIdentical: madeIdentical.length };
}

/**
 * A batch of single completions, each judged by itself, in the order of the examples: for
 * `'kto'`, `'apo_zero_unpaired'` and `'bco'`. Layouts, truncation and errors are those of
 * {@link collatePairs}.
 *
 *     const batch = collateUnpaired(examples, { layout: 'packed', maxLength: 512 });
 *     const baseline = collateUnpaired(mismatched(examples), { layout: 'packed', maxLength: 512 });
 *
 * @throws DirAlignError also with code ERR_DIRALIGN_OPTION for an example whose `desirable` is no
 *   boolean
 */
export function collateUnpaired(
  examples: readonly UnpairedExample[],
  options: PackedOptions,
): PackedUnpaired;

export function collateUnpaired(
  examples: readonly UnpairedExample[],
  options: PaddedOptions,
): PaddedUnpaired;

export function collateUnpaired(
  examples: readonly UnpairedExample[],
  options: CollateOptions,
): PaddedUnpaired | PackedUnpaired;

export function collateUnpaired(
  examples: readonly UnpairedExample[],
  options: CollateOptions,
): PaddedUnpaired | PackedUnpaired {
  const settings = checkOptions(options);
  const checked = readExamples(examples, 'examples', checkUnpaired);
  const units = checked.map(({ candidates }) => candidates);
  const { cuts, truncated } = cutUnits(units, settings);
  const rows = layOut(cuts.flat(), settings);
  const desirable = allocate('desirable', 'Uint8Array', rows.sequences);
  desirable.set(checked.map((example) => Number(example.desirable)));
  return { ...rows, truncated, desirable };
}

/**
 * A batch of groups, all completions of the first prompt, then of the second: for
 * `'plackett_luce'`, which reads `ranks`, and for `'info_nca'` and `'nca_listwise'`, which read
 * `rewards`. A method refuses what it gives no meaning: let the examples have only what the method
 * reads.
 *
 *     collateGroups([{ prompt, completions: [good, fair, bad], rewards: [9, 6, 1] }], { pad: 0 });
 *
 * Layouts, truncation and errors are those of {@link collatePairs}. With `maxPromptLength` the
 * longest completion of a group decides how its prompt is cut, the same for all.
 *
 * @throws DirAlignError also with code ERR_DIRALIGN_SHAPE for a group without completions, and for
 *   ranks or rewards that are not one per completion; ERR_DIRALIGN_OPTION for ranks that are not
 *   distinct whole numbers within their group, rewards that are not finite, and for ranks or
 *   rewards that only some of the groups have; ERR_DIRALIGN_DTYPE for arrays of another type
 */
export function collateGroups(
  examples: readonly CompletionGroup[],
  options: PackedOptions,
): PackedGroups;

export function collateGroups(
  examples: readonly CompletionGroup[],
  options: PaddedOptions,
): PaddedGroups;

export function collateGroups(
  examples: readonly CompletionGroup[],
  options: CollateOptions,
): PaddedGroups | PackedGroups;

export function collateGroups(
  examples: readonly CompletionGroup[],
  options: CollateOptions,
): PaddedGroups | PackedGroups {
  const settings = checkOptions(options);
  const checked = readExamples(examples, 'groups', checkGroup);
  const [ranks, rewards] = [ofAll(checked, 'ranks'), ofAll(checked, 'rewards')];
  const units = checked.map(({ candidates }) => candidates);
  const { cuts, truncated } = cutUnits(units, settings);
  const rows = layOut(cuts.flat(), settings);
  const sizes = checked.map(({ candidates }) => candidates.length);
  return {
    ...rows,
    truncated,
    groups: offsetsOf('groups', sizes),
    ...(ranks && { ranks }),
    ...(rewards && { rewards }),
  };
}

/** One number per sequence, of all groups or of none. */
function ofAll(groups: readonly Group[], key: 'ranks' | 'rewards'): Float64Array | undefined {
  const isThere = groups[0]?.[key] !== undefined;
  const other = groups.findIndex((group) => (group[key] !== undefined) !== isThere);
  if (other >= 0) {
    const [has, lacks] = isThere ? [0, other] : [other, 0];
    throw typeError(
      'ERR_DIRALIGN_OPTION',
      `examples[${lacks}].${key}: undefined; expected one per completion, as examples[${has}] has`,
    );
  }
  if (!isThere) return undefined;
  const values = groups.flatMap((group) => group[key] ?? []);
  const array = allocate(key, 'Float64Array', values.length);
  array.set(values);
  return array;
}
