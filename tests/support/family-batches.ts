// Random batches of units with the fields of the wider family, for any method and door.
import type {
  FamilyFields,
  ReferenceBatch,
  ReferenceConfig,
  ReferenceHiddenBatch,
  ReferenceLogpsBatch,
  ReferenceMethod,
} from '../../ts/verification/reference.js';
import { at, generator, integer, normal, type Random } from './numbers.js';

export type Field = keyof FamilyFields;
interface MethodFields {
  readonly arity: 'pair' | 'single' | 'group';
  /** Fields of its own that it cannot do without, and others. */
  readonly needs?: readonly Field[];
  readonly takes?: readonly Field[];
  readonly config?: Omit<ReferenceConfig, 'method'>;
}

const pair = { arity: 'pair' } as const;
const ofDifference = { ...pair, takes: ['margins', 'weights'] } as const;
const smoothed = { ...pair, takes: ['margins', 'preferences', 'weights'] } as const;
const pointwise = { ...pair, takes: ['weights'] } as const;
const weighted = { desirableWeight: 1.3, undesirableWeight: 0.7 } as const;
const group = { arity: 'group', takes: ['weights'] } as const;

/** As the specification has them. */
export const methodFields: Readonly<Record<ReferenceMethod, MethodFields>> = {
  sft: { arity: 'single', takes: ['weights'] },
  dpo: smoothed,
  ipo: { ...pair, takes: ['targets', 'weights'] },
  simpo: smoothed,
  orpo: ofDifference,
  asft: pointwise,
  apo_zero: pointwise,
  nca: pointwise,
  cal_dpo: pointwise,
  hinge: ofDifference,
  robust: smoothed,
  exo_pair: smoothed,
  bco_pair: pointwise,
  sppo_hard: pointwise,
  aot: pair,
  aot_unpaired: pair,
  discopop: { ...ofDifference, config: { tau: 0.5 } },
  apo_down: pointwise,
  cpo: smoothed,
  alphapo: smoothed,
  r_dpo: ofDifference,
  dpop: { ...ofDifference, config: { penalty: 2 } },
  simper: pointwise,
  kto: { arity: 'single', needs: ['desirable', 'kl'], takes: ['weights'], config: weighted },
  apo_zero_unpaired: {
    arity: 'single',
    needs: ['desirable'],
    takes: ['weights'],
    config: weighted,
  },
  bco: { arity: 'single', needs: ['desirable'], takes: ['shift', 'weights'], config: weighted },
  plackett_luce: { ...group, needs: ['groups', 'ranks'] },
  info_nca: { ...group, needs: ['groups', 'rewards'], config: { rewardTemperature: 0.5 } },
  nca_listwise: { ...group, needs: ['groups', 'rewards'], config: { rewardTemperature: 0.5 } },
};
export const familyMethods = Object.keys(methodFields) as ReferenceMethod[];

/** Its settings, with a beta of 0.5. */
export function configOf(method: ReferenceMethod): ReferenceConfig {
  return { method, beta: 0.5, ...methodFields[method].config };
}

/** Offsets of so many groups of 1 to 4 candidates. */
function groupOffsets(random: Random, units: number): Int32Array {
  const offsets = new Int32Array(units + 1);
  for (let g = 0; g < units; g++) offsets[g + 1] = at(offsets, g) + integer(random, 1, 4);
  return offsets;
}

/** Ranks from 0 in each group, shuffled. */
function ranksOf(random: Random, groups: Int32Array): Int32Array {
  const ranks = new Int32Array(at(groups, groups.length - 1));
  for (let g = 0; g + 1 < groups.length; g++) {
    const [from, to] = [at(groups, g), at(groups, g + 1)];
    const keys = Array.from({ length: to - from }, random);
    keys.forEach((key, i) => {
      ranks[from + i] = keys.filter((other) => other < key).length;
    });
  }
  return ranks;
}

/** Values of these fields for so many units. */
export function randomFields(
  seed: number,
  { arity }: MethodFields,
  units: number,
  names: readonly Field[],
): FamilyFields & { readonly sequences: number } {
  const random = generator(seed);
  const groups = groupOffsets(random, units);
  const sequences = arity === 'pair' ? 2 * units : arity === 'single' ? units : at(groups, units);
  const each = (length: number, value: () => number) => Float64Array.from({ length }, value);
  const makers: Partial<Record<Field, () => unknown>> = {
    desirable: () => Uint8Array.from({ length: sequences }, (_, b) => (b + 1) % 2),
    kl: () => 0.4,
    shift: () => -0.3,
    groups: () => groups,
    ranks: () => ranksOf(random, groups),
    rewards: () => each(sequences, () => normal(random)),
    weights: () => each(units, () => 2 * random()),
    margins: () => each(units, () => normal(random)),
    preferences: () => each(units, () => 0.55 + 0.4 * random()),
    targets: () => each(units, () => normal(random)),
    denominator: () => units + 2.5,
    sftDenominator: () => 50,
  };
  const entries = names.map((name) => [name, makers[name]?.()]);
  return { ...Object.fromEntries(entries), sequences } as never;
}

/** Log-probabilities of sequences with any of these fields; no empty sequence. */
export function familyLogps(
  seed: number,
  method: ReferenceMethod,
  units: number,
  names: readonly Field[] = allFields(method),
): ReferenceLogpsBatch {
  const { sequences, ...fields } = randomFields(seed, methodFields[method], units, names);
  const random = generator(seed + 1);
  const counts = Int32Array.from({ length: sequences }, () => integer(random, 1, 12));
  const logps = Float64Array.from(counts, (n) => -n * (0.1 + random()));
  const reference = logps.map((s) => s * (0.7 + 0.6 * random()));
  return { logps, counts, reference, ...fields };
}

/** What the method needs and what it may have, and a denominator. */
export function allFields(method: ReferenceMethod): Field[] {
  const { needs = [], takes = [] } = methodFields[method];
  return [...needs, ...takes, 'denominator'];
}

/** {@link allFields}, and the tokens that a likelihood by tokens is divided by. */
export function fieldsFor(config: ReferenceConfig): Field[] {
  const { method, sftReduction } = config;
  return sftReduction === 'token' ? [...allFields(method), 'sftDenominator'] : allFields(method);
}

export const methodsTaking = (name: Field): ReferenceMethod[] =>
  familyMethods.filter((method) => methodFields[method].takes?.includes(name));

/** Fields of log-probabilities that mean nothing to the method, with values for two units. */
export function fieldsWithoutMeaning(method: ReferenceMethod): [name: Field, value: unknown][] {
  const fields: readonly Field[] = [
    ...(['desirable', 'kl', 'shift', 'groups', 'ranks', 'rewards', 'weights'] as const),
    ...(['margins', 'preferences', 'targets', 'sftDenominator'] as const),
  ];
  const others = fields.filter((field) => !allFields(method).includes(field));
  return others.map((name) => [name, randomFields(1, methodFields[method], 2, [name])[name]]);
}

/** Ten units in parts, for `unitsBetween`. */
export const partsOfTen = [
  [0, 4],
  [4, 8],
  [8, 10],
] as const;

interface RowShape {
  readonly tokens: number;
  readonly vocab: number;
  readonly size: number;
}
const small: RowShape = { tokens: 3, vocab: 5, size: 4 };

function familyRows(seed: number, method: ReferenceMethod, units: number, names: readonly Field[]) {
  const { sequences, ...fields } = randomFields(seed, methodFields[method], units, names);
  const { tokens, vocab } = small;
  const random = generator(seed + 2);
  const rows = sequences * tokens;
  return {
    random,
    rows,
    batch: {
      shape: [sequences, tokens, vocab] as const,
      // The last row of each sequence is scored.
      labels: Int32Array.from({ length: rows }, (_, row) =>
        random() < 0.3 && row % tokens < tokens - 1 ? -100 : integer(random, 0, vocab - 1),
      ),
      reference: Float64Array.from({ length: sequences }, () => -1 - 5 * random()),
      tokenWeights: Float64Array.from({ length: rows }, () => 0.2 + random()),
      logitScale: 0.8,
      logitSoftcap: 3,
      temperature: 1.3,
      ...fields,
    },
  };
}

/** Logits with any of these fields, and with those of rows. */
export function familyLogits(
  seed: number,
  method: ReferenceMethod,
  units: number,
  names: readonly Field[] = allFields(method),
): ReferenceBatch & { readonly logits: Float64Array } {
  const { random, rows, batch } = familyRows(seed, method, units, names);
  const logits = Float64Array.from({ length: rows * small.vocab }, () => 2 * normal(random));
  return { ...batch, logits };
}

/** Hidden states with any of these fields, and with those of rows. */
export function familyHidden(
  seed: number,
  method: ReferenceMethod,
  units: number,
  names: readonly Field[] = allFields(method),
): ReferenceHiddenBatch & Readonly<Record<'hidden' | 'weight' | 'bias', Float64Array>> {
  const { random, rows, batch } = familyRows(seed, method, units, names);
  const { vocab, size } = small;
  const numbers = (length: number) => Float64Array.from({ length }, () => normal(random));
  return {
    ...batch,
    hidden: numbers(rows * size),
    weight: numbers(vocab * size),
    bias: numbers(vocab),
  };
}

const perUnit = ['weights', 'margins', 'preferences', 'targets'];
/** Arrays of the layer, and offsets: not cut here. */
const perBatch = ['weight', 'bias', 'shape', 'groups'];

/** Units `from` to `to` of a batch, and the sequences that they are. */
export function unitsBetween<B extends FamilyFields>(
  batch: B,
  method: ReferenceMethod,
  sequences: number,
  [from, to]: readonly [number, number],
): { readonly part: B; readonly indices: readonly number[] } {
  const { arity } = methodFields[method];
  const range = (first: number, last: number): number[] =>
    Array.from({ length: last - first }, (_, i) => first + i);
  const { groups = [] } = batch;
  const own = arity === 'group' ? range(at(groups, from), at(groups, to)) : range(from, to);
  const indices = arity === 'pair' ? [...own, ...own.map((i) => i + sequences / 2)] : own;
  const cut = ([name, value]: [string, unknown]): [string, unknown] => {
    if (name === 'shape') return [name, [indices.length, ...(value as number[]).slice(1)]];
    if (name === 'groups')
      return [name, Int32Array.from(range(from, to + 1), (g) => at(groups, g) - at(groups, from))];
    if (!ArrayBuffer.isView(value) || perBatch.includes(name)) return [name, value];
    const array = value as Float64Array;
    if (perUnit.includes(name)) return [name, array.slice(from, to)];
    return [name, pick(array, array.length / sequences, indices)];
  };
  return { part: Object.fromEntries(Object.entries(batch).map(cut)) as unknown as B, indices };
}

/** Blocks of so many elements, by index. */
export function pick<A extends Float64Array | Int32Array | Uint8Array>(
  array: A,
  block: number,
  indices: readonly number[],
): A {
  const parts = indices.flatMap((i) => Array.from(array.subarray(i * block, (i + 1) * block)));
  return (array.constructor as unknown as { from(values: readonly number[]): A }).from(parts);
}
