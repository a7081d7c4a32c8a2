/** What a batch may carry besides its rows: the fields, and which of them an objective takes. */
import { rangeError, typeError } from '../../errors.js';
import { at, sum } from './numbers.js';

/** Log-probabilities of mismatched completions. */
export interface MismatchedSums {
  /** Of the policy. */
  readonly logps: ArrayLike<number>;
  /** Of the reference. */
  readonly reference: ArrayLike<number>;
}

/** What a batch may carry besides its rows, where the method gives it a meaning. */
export interface FamilyFields {
  /** Per sequence: which half of an unpaired method's formula. */
  readonly desirable?: ArrayLike<number | boolean> | undefined;
  /**
   * Of `kto`: the baseline, or log-probabilities of mismatched completions, which make it
   * max(0, mean(logps - reference)).
   */
  readonly kl?: number | MismatchedSums | undefined;
  /** Of `bco`: the running mean of the rewards, by default 0. */
  readonly shift?: number | undefined;
  /** Of group methods: groups + 1 offsets over the sequences. */
  readonly groups?: ArrayLike<number> | undefined;
  /** Per sequence: distinct integers within a group, the lowest is the best. */
  readonly ranks?: ArrayLike<number> | undefined;
  /** Per sequence: what a reward model gave it. */
  readonly rewards?: ArrayLike<number> | undefined;
  /** Per unit: multiplies its loss, the likelihood term included. 0 leaves the unit out. */
  readonly weights?: ArrayLike<number> | undefined;
  /** Per pair: subtracted from beta times the difference of the scores. */
  readonly margins?: ArrayLike<number> | undefined;
  /** Per pair: probability that the chosen is the better one. */
  readonly preferences?: ArrayLike<number> | undefined;
  /** Per pair: what `ipo` has in place of 1 / (2 beta). */
  readonly targets?: ArrayLike<number> | undefined;
  /** Divides the weighted sum of the units' losses; by default the number of units. */
  readonly denominator?: number | undefined;
  /** Divides the likelihood term of `sftReduction: 'token'`; by default its scored tokens. */
  readonly sftDenominator?: number | undefined;
  /** Per row: S = sum of w log p, and the sum of w stands for the number of tokens. */
  readonly tokenWeights?: ArrayLike<number> | undefined;
  /** With the next two: y = softcap(scale x) / temperature, whose softmax is taken. */
  readonly logitScale?: number | undefined;
  /** softcap(v) = cap tanh(v / cap). */
  readonly logitSoftcap?: number | undefined;
  /** 1 by default. */
  readonly temperature?: number | undefined;
}

export type FieldName = keyof FamilyFields;

/** Fields of rows, which sequence log-probabilities have behind them. */
export const rowFields = ['tokenWeights', 'logitScale', 'logitSoftcap', 'temperature'] as const;
/** Fields that mean something to every method. */
export const commonFields = ['denominator', ...rowFields] as const;

/** Which numbers are allowed. */
export interface Limit {
  readonly expected: string;
  readonly fits: (x: number) => boolean;
}
interface Values extends Limit {
  readonly per: 'sequence' | 'unit' | 'row' | 'batch';
}
const finite = { expected: 'a finite number', fits: Number.isFinite };
const notNegative = {
  expected: 'a finite number of at least 0',
  fits: (x: number) => Number.isFinite(x) && x >= 0,
};
const positive = {
  expected: 'a finite number above 0',
  fits: (x: number) => Number.isFinite(x) && x > 0,
};
/** `kl` and `groups` have checks of their own. */
const values: Readonly<Record<Exclude<FieldName, 'kl' | 'groups'>, Values>> = {
  desirable: { per: 'sequence', expected: '0 or 1', fits: (x) => x === 0 || x === 1 },
  ranks: { per: 'sequence', expected: 'an integer', fits: Number.isInteger },
  rewards: { per: 'sequence', ...finite },
  weights: { per: 'unit', ...notNegative },
  margins: { per: 'unit', ...finite },
  preferences: { per: 'unit', expected: 'within [0, 1]', fits: (x) => x >= 0 && x <= 1 },
  targets: { per: 'unit', ...finite },
  tokenWeights: { per: 'row', ...notNegative },
  shift: { per: 'batch', ...finite },
  denominator: { per: 'batch', ...positive },
  sftDenominator: { per: 'batch', ...positive },
  logitScale: { per: 'batch', ...positive },
  logitSoftcap: { per: 'batch', ...positive },
  temperature: { per: 'batch', ...positive },
};

/** How many of each a batch has. */
export type Extent = Readonly<Record<Values['per'], number>>;

/** @throws DirAlignError for values that a field cannot have */
export function checkValues(fields: FamilyFields, extent: Extent): void {
  for (const [name, limits] of Object.entries(values)) {
    const given = fields[name as keyof typeof values];
    if (given === undefined) continue;
    if (typeof given !== 'number') checkLength(name, given, extent[limits.per], limits.per);
    checkNumbers(name, given, limits);
  }
  if (typeof fields.kl === 'number') checkNumbers('kl', fields.kl, notNegative);
  if (fields.groups) checkGroups(fields.groups, fields.ranks, extent.sequence);
}

function checkNumbers(
  name: string,
  given: number | ArrayLike<number | boolean>,
  { expected, fits }: Limit,
): void {
  const numbers = typeof given === 'number' ? [given] : Array.from(given, Number);
  const wrong = numbers.findIndex((x) => !fits(x));
  if (wrong < 0) return;
  const what = typeof given === 'number' ? name : `${name}[${wrong}]`;
  throw rangeError('ERR_DIRALIGN_OPTION', `${what}: ${at(numbers, wrong)}; expected ${expected}.`);
}

function checkLength(name: string, given: ArrayLike<unknown>, length: number, per: string): void {
  if (given.length === length) return;
  throw rangeError(
    'ERR_DIRALIGN_SHAPE',
    `${name}: ${given.length} of them; expected ${length}, one per ${per}.`,
  );
}

function checkGroups(
  groups: ArrayLike<number>,
  ranks: ArrayLike<number> | undefined,
  sequences: number,
): void {
  const offsets = Array.from(groups);
  const rises = offsets.every((offset, g) => g === 0 || offset > at(offsets, g - 1));
  if (!rises || offsets[0] !== 0 || offsets.at(-1) !== sequences) {
    throw rangeError(
      'ERR_DIRALIGN_SHAPE',
      `groups: expected rising offsets from 0 to ${sequences}.`,
    );
  }
  if (!ranks) return;
  for (const [g, first] of offsets.slice(0, -1).entries()) {
    const own = Array.from(ranks).slice(first, offsets[g + 1]);
    if (new Set(own).size !== own.length)
      throw rangeError('ERR_DIRALIGN_OPTION', `ranks: those of group ${g} are not distinct.`);
  }
}

/** z of `kto`. */
export function baseline(kl: NonNullable<FamilyFields['kl']>): number {
  if (typeof kl === 'number') return kl;
  const { logps, reference } = kl;
  checkLength('kl.reference', reference, logps.length, 'log-probability');
  const ratios = sum(logps.length, (i) => at(logps, i) - at(reference, i));
  return Math.max(0, ratios / logps.length);
}

/** What an objective says of fields. */
export interface FieldNeeds {
  readonly method: string;
  readonly takes: ReadonlySet<FieldName>;
  readonly needs: ReadonlySet<FieldName>;
  /** Of `preferences`, where the formula allows fewer than all probabilities. */
  readonly preferences?: Limit | undefined;
}

/**
 * A field is for those that it means something to; the weights of units are for all or for none.
 *
 * @throws DirAlignError for a field that is missing, or that nobody takes
 */
export function checkFields(objectives: readonly FieldNeeds[], fields: FamilyFields): void {
  const names = [...Object.keys(values), 'kl', 'groups'] as FieldName[];
  for (const name of names) {
    if (fields[name] === undefined) {
      const needy = objectives.find(({ needs }) => needs.has(name));
      if (needy) throw typeError('ERR_DIRALIGN_OPTION', `${name}: '${needy.method}' needs it.`);
      continue;
    }
    const strangers = objectives.filter(({ takes }) => !takes.has(name));
    const [stranger] = strangers;
    if (!stranger || (name !== 'weights' && strangers.length < objectives.length)) continue;
    throw typeError('ERR_DIRALIGN_OPTION', `${name}: '${stranger.method}' gives it no meaning.`);
  }
  for (const { preferences } of objectives)
    if (preferences && fields.preferences)
      checkNumbers('preferences', fields.preferences, preferences);
}
