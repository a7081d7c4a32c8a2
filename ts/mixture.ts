/** What the calls of an objective compute: one loss, or the weighted sum of several. */
import { isLikelihood, settingNames } from './catalogue.js';
import { ownOf, type FieldName, type FieldOfMethod, type FieldsOfMethod } from './batch/fields.js';
import { typeError } from './errors.js';
import type { Settings } from './settings.js';
import type { Arity } from './units.js';

/** One loss of it. */
export interface MixtureTerm {
  readonly weight: number;
  readonly settings: Settings;
}

/** Losses of one arity over one batch; a plain objective is one of weight 1. */
export interface Mixture {
  readonly terms: readonly MixtureTerm[];
  readonly arity: Arity;
  /** For messages. */
  readonly name: string;
  readonly usesReference: boolean;
  readonly hasSftTerm: boolean;
  /** Whether the loss is a likelihood and nothing else. */
  readonly isLikelihood: boolean;
  /** Whether results have the losses of the terms, too: of one weight or of many. */
  readonly hasParts: boolean;
  readonly fields: FieldsOfMethod;
  /** The part of a request that says what is computed. */
  readonly native: {
    readonly methods: Int32Array;
    readonly settings: Float64Array;
    readonly shares: Float64Array;
  };
}

/** The settings of a likelihood as a term beside others: of the chosen, with weight 1. */
function besideOthers(settings: Settings): Float64Array {
  const native = settings.native.slice();
  native[settingNames.indexOf('sftWeight')] = 1;
  return native;
}

/** What both allow. */
function both(a: FieldOfMethod, b: FieldOfMethod): FieldOfMethod {
  const ends = (['min', 'above', 'max', 'below'] as const).flatMap((end) => {
    const given = [ownOf(a, end), ownOf(b, end)].filter((x) => x !== undefined);
    const tightest = end === 'min' || end === 'above' ? Math.max : Math.min;
    return given.length > 0 ? [[end, tightest(...given)]] : [];
  });
  const limits = Object.assign(Object.create(null), Object.fromEntries(ends)) as object;
  const { min, above, max, below } = limits as Partial<Record<string, number>>;
  // Of two ends, the one that says more.
  const isAbove = above !== undefined && !(min !== undefined && min > above);
  const isBelow = below !== undefined && !(max !== undefined && max < below);
  return {
    needed: a.needed || b.needed,
    ...(isAbove ? { above } : min !== undefined && { min }),
    ...(isBelow ? { below } : max !== undefined && { max }),
  };
}

/**
 * A field that one of the losses takes means something to the mixture, but weights, which are those
 * of all.
 */
function fieldsOf(aligning: readonly MixtureTerm[]): FieldsOfMethod {
  const joint: Partial<Record<FieldName, FieldOfMethod>> = {};
  for (const { settings } of aligning) {
    for (const [name, own] of Object.entries(settings.info.fields)) {
      const known = ownOf(joint, name as FieldName);
      joint[name as FieldName] = known ? both(known, own) : own;
    }
  }
  if (aligning.some(({ settings }) => !Object.hasOwn(settings.info.fields, 'weights')))
    delete joint.weights;
  if (!aligning.some(({ settings }) => averagesTokens(settings))) delete joint.sftDenominator;
  return joint;
}

/** Whether the loss has a likelihood that is a mean over tokens. */
function averagesTokens({ info, options, hasSftTerm }: Settings): boolean {
  return (hasSftTerm || isLikelihood(info)) && options.sftReduction === 'token';
}

/** @throws DirAlignError for losses of different arities */
export function mixtureOf(terms: readonly MixtureTerm[], hasParts: boolean): Mixture {
  const aligning = terms.filter(({ settings }) => !isLikelihood(settings.info));
  // A likelihood beside others is that of the chosen, whatever a unit is.
  const mixed = aligning.length > 0;
  const deciding = mixed ? aligning : terms;
  const first = deciding[0] as MixtureTerm;
  const { arity } = first.settings.info;
  const other = deciding.find(({ settings }) => settings.info.arity !== arity);
  if (other)
    throw typeError(
      'ERR_DIRALIGN_OPTION',
      `terms: '${first.settings.info.name}' compares ${plural(arity)} and ` +
        `'${other.settings.info.name}' ${plural(other.settings.info.arity)}; ` +
        'expected one of the two',
    );
  const likelihood = terms.find(({ settings }) => isLikelihood(settings.info));
  if (arity === 'group' && likelihood)
    throw typeError(
      'ERR_DIRALIGN_OPTION',
      'terms: no sequence of a group is the chosen one, ' +
        `which '${likelihood.settings.info.name}' beside other losses is of`,
    );
  const natives = terms.map(({ settings }) =>
    mixed && isLikelihood(settings.info) ? besideOthers(settings) : settings.native,
  );
  const names = terms.map(({ settings }) => `'${settings.info.name}'`);
  return {
    terms,
    arity,
    name: terms.length === 1 ? (names[0] as string) : `the mixture of ${names.join(', ')}`,
    usesReference: terms.some(({ settings }) => settings.usesReference),
    hasSftTerm: terms.some(
      ({ settings }) => settings.hasSftTerm || (mixed && isLikelihood(settings.info)),
    ),
    isLikelihood: !mixed,
    hasParts,
    fields: fieldsOf(
      mixed ? [...aligning, ...terms.filter(({ settings }) => averagesTokens(settings))] : terms,
    ),
    native: {
      methods: Int32Array.from(terms, ({ settings }) => settings.method),
      settings: Float64Array.from(natives.flatMap((native) => [...native])),
      shares: Float64Array.from(terms, ({ weight }) => weight),
    },
  };
}

function plural(arity: Arity): string {
  return { single: 'single sequences', pair: 'pairs', group: 'groups' }[arity];
}
