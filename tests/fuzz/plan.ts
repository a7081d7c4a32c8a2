// What one call of the fuzzer is, as plain data: it can be printed, sent to another process and
// shrunk. tests/fuzz/call.ts makes arrays and objects of it.
import fc from 'fast-check';
import {
  methods,
  recipes,
  type MethodInfo,
  type RecipeName,
  type RowMetric,
} from '../../ts/index.js';
import { contract } from '../../ts/contract.generated.js';
import { alignmentsOf, configsOf, type LossConfig } from '../../ts/verification/objectives.js';
import type { ReferenceConfig, ReferenceTerm } from '../../ts/verification/reference.js';
import { dtypes, type Dtype } from '../support/batches.js';
import { rowMetricNames } from '../support/row-metrics.js';

export const doors = ['logits', 'hidden', 'logps', 'tokens', 'backward'] as const;
export type Door = (typeof doors)[number];

/** Where the data lies and who computes: CPU; CUDA on host arrays; CUDA on device memory. */
export const places = ['host', 'staged', 'device'] as const;
export type Place = (typeof places)[number];

/** The rows of a batch. Contents are those of tests/support's generators for `seed`. */
export interface RowsPlan {
  readonly seed: number;
  readonly units: number;
  readonly tokens: number;
  readonly vocab: number;
  readonly dtype: Dtype;
  /** In a Float16Array, where the runtime has them and the dtype is float16. */
  readonly float16Array: boolean;
  /** Standard deviation of the logits. */
  readonly scale: number;
  readonly ignored: number;
  readonly ignoreIndex: number | undefined;
  /** NaN, infinities and the like here and there. */
  readonly special: boolean;
  /** Sequences of different lengths, one after the other. */
  readonly packed: boolean;
  /** One sequence scores nothing. */
  readonly emptied: boolean;
  readonly reference: 'float64' | 'float32';
}

const parallels = ['vocab', 'sequence', 'data', 'columnGrid'] as const;
export type Parallel = (typeof parallels)[number];

export interface RunPlan {
  readonly gradient: 'dense' | 'factored' | 'none' | undefined;
  readonly target: 'fresh' | 'in place' | 'out';
  readonly threads: number | undefined;
  readonly sftLabels: boolean;
  /** Of logits: elements of padding after each row; whether the last row comes without. */
  readonly padding: number;
  readonly cut: boolean;
  /** Of hidden states. */
  readonly hiddenSize: number;
  readonly saysHiddenSize: boolean;
  readonly bias: boolean;
  readonly outs: readonly HiddenOutPlan[];
  readonly accumulate: boolean;
  readonly memory: number | undefined;
  /** Of losses and of log-probabilities. */
  readonly gradientScale: number | undefined;
  /** Of losses: the metrics of rows that are asked for. */
  readonly metrics: readonly RowMetric[] | undefined;
  /** A group of this rank alone, or columns in cells: what others would do is nothing. */
  readonly parallel: Parallel | undefined;
}
/** What a batch carries besides, and what becomes of its logits. */
export interface FieldsPlan {
  /** Of those that the loss may have, those that there are. */
  readonly names: readonly string[];
  /** In what they come. */
  readonly arrays: 'float64' | 'float32' | 'plain';
  /** Sums of weights in place of counts, where there are no rows. */
  readonly tokenWeights: boolean;
  readonly logitScale: number | undefined;
  readonly logitSoftcap: number | undefined;
  readonly temperature: number | undefined;
}
/** By what the door `backward` is asked for a gradient. */
export interface DerivativesPlan {
  readonly by: 'rows' | 'sequences' | 'neither';
  readonly entropy: boolean;
  /** With what tokenLogps finds. */
  readonly forward: boolean;
  readonly arrays: 'float64' | 'float32';
}

/** What `out` says of gradHidden, gradWeight and gradBias, in this order. */
export type HiddenOutPlan = 'buffer' | 'fresh' | 'left out' | 'not said';

/**
 * A change of the call that tests/fuzz/twists.ts knows by this name; `pick` chooses among its ways.
 */
export interface TwistPlan {
  readonly name: string;
  readonly pick: number;
}

export interface CallPlan {
  readonly door: Door;
  readonly place: Place;
  readonly asynchronous: boolean;
  readonly config: ReferenceConfig;
  /** In place of `config`. */
  readonly mixture: readonly ReferenceTerm[] | undefined;
  /** In place of both. */
  readonly recipe: RecipeName | undefined;
  /** dirAlignLoss(method, beta, normalize, options) in place of one object. */
  readonly positional: boolean;
  readonly rows: RowsPlan;
  readonly fields: FieldsPlan;
  readonly derivatives: DerivativesPlan;
  /** The door `tokens`: tokenLogps in place of sequenceLogps, with logCollision. */
  readonly perToken: boolean;
  readonly collision: boolean;
  /** The doors `tokens` and `backward`: of hidden states. */
  readonly fromHidden: boolean;
  readonly run: RunPlan;
  /** Of every array: elements behind an aligned address; in shared memory. */
  readonly shift: number;
  readonly shared: boolean;
  readonly twists: readonly TwistPlan[];
}

const often = <T>(usual: T, rare: fc.Arbitrary<T>, weight = 3): fc.Arbitrary<T> =>
  fc.oneof({ weight, arbitrary: fc.constant(usual) }, { weight: 1, arbitrary: rare });

type Option = MethodInfo['options'][string];

/** A value that the method takes for an option. */
function optionValue({
  default: usual,
  values,
  min,
  above,
  max,
  below,
}: Option): fc.Arbitrary<string | number | boolean> {
  if (values) return fc.constantFrom(...values);
  if (typeof usual === 'boolean') return fc.boolean();
  const low = min ?? above ?? (max ?? below ?? 1) - 3;
  return fc.double({
    min: low,
    max: max ?? below ?? low + 3,
    minExcluded: min === undefined && above !== undefined,
    maxExcluded: max === undefined && below !== undefined,
    noNaN: true,
  });
}

function configOf(info: MethodInfo): fc.Arbitrary<ReferenceConfig> {
  const options = Object.fromEntries(
    Object.entries(info.options).map(([name, option]) => [
      name,
      often<string | number | boolean | undefined>(undefined, optionValue(option)),
    ]),
  );
  const beta = fc.oneof(
    fc.constantFrom(0.1, 1e-3, 0.5, 1, 2, 10),
    fc.double({ min: 0.01, max: 3, noNaN: true }),
  );
  return fc
    .record({
      method: fc.constant(info.name),
      beta: info.name === 'sft' ? fc.constant(undefined) : beta,
      normalize: often(undefined, fc.boolean(), 2),
      ...options,
    })
    .map((all) => {
      // Of the divergences, one has an alpha.
      const { alpha, divergence } = all as ReferenceConfig;
      const needless = 'divergence' in options && divergence !== 'alpha' && alpha !== undefined;
      const given = Object.entries(all).filter(
        ([name, value]) => value !== undefined && !(needless && name === 'alpha'),
      );
      return Object.fromEntries(given) as unknown as ReferenceConfig;
    });
}
const config = fc.oneof(...methods().map(configOf));

/** Up to three losses of one arity; pairs and single sequences may have a likelihood beside. */
function mixtureOf(arity: MethodInfo['arity']): fc.Arbitrary<ReferenceTerm[]> {
  const own = methods().filter((info) => info.arity === arity && info.ranking !== 'likelihood');
  const term = (of: fc.Arbitrary<ReferenceConfig>): fc.Arbitrary<ReferenceTerm> =>
    fc.record({ weight: fc.constantFrom(1, 0, 0.2, 0.8, 3), config: of });
  const aligning = fc.array(term(fc.oneof(...own.map(configOf))), { minLength: 1, maxLength: 2 });
  if (arity === 'group') return aligning;
  const likelihood = methods().filter((info) => info.ranking === 'likelihood');
  const rest = fc.array(term(fc.oneof(...likelihood.map(configOf))), { maxLength: 1 });
  return fc.tuple(aligning, rest).map(([first, second]) => [...first, ...second]);
}
const mixture = fc.oneof(...(['pair', 'single', 'group'] as const).map(mixtureOf));

/** The loss of a call, as the reference has it. */
export function lossOf({ config: one, mixture: mixed, recipe }: CallPlan): LossConfig {
  if (recipe === undefined) return mixed ?? one;
  const terms = recipes[recipe].terms.map(({ weight, settings }) => ({
    weight,
    config: settings,
  }));
  return terms.length === 1 ? (terms[0] as ReferenceTerm).config : terms;
}
/** What a unit of a call is. */
export function arityOf(plan: CallPlan): MethodInfo['arity'] {
  return plan.door === 'tokens' || plan.door === 'backward'
    ? 'single'
    : (alignmentsOf(lossOf(plan))[0] as MethodInfo).arity;
}

const number = (...values: number[]): fc.Arbitrary<number | undefined> =>
  often(undefined, fc.constantFrom(...values), 4);
const fields: fc.Arbitrary<FieldsPlan> = fc.record({
  names: often<string[]>([], fc.subarray(contract.fields.map(({ name }) => name)), 1),
  arrays: fc.constantFrom('float64', 'float32', 'plain'),
  tokenWeights: often(false, fc.boolean()),
  logitScale: number(0.5, 1, 2),
  logitSoftcap: number(4, 30),
  temperature: number(0.5, 1, 3),
});
const derivatives: fc.Arbitrary<DerivativesPlan> = fc.record({
  by: fc.constantFrom('rows', 'sequences', 'neither'),
  entropy: fc.boolean(),
  forward: fc.boolean(),
  arrays: fc.constantFrom('float64', 'float32'),
});

/** Lengths around the kernels' lanes and vectors; few elements, so that calls are many. */
const vocabulary = fc.oneof(
  { weight: 6, arbitrary: fc.integer({ min: 1, max: 40 }) },
  { weight: 1, arbitrary: fc.constantFrom(63, 64, 65, 100, 511, 512, 513, 1025, 2049) },
);

const rows: fc.Arbitrary<RowsPlan> = fc.record({
  seed: fc.nat(),
  units: fc.integer({ min: 1, max: 4 }),
  tokens: fc.integer({ min: 0, max: 5 }),
  vocab: vocabulary,
  dtype: fc.constantFrom(...dtypes),
  float16Array: fc.boolean(),
  scale: fc.constantFrom(2, 0, 8, 30, 1e4),
  ignored: fc.constantFrom(0.3, 0, 0.9, 1),
  ignoreIndex: often(undefined, fc.constantFrom(-1, 0, 7, -(2 ** 31), 2 ** 31 - 1)),
  special: often(false, fc.boolean(), 8),
  packed: fc.boolean(),
  emptied: often(false, fc.boolean()),
  reference: fc.constantFrom('float64', 'float32'),
});

const hiddenOut = fc.constantFrom<HiddenOutPlan>('not said', 'fresh', 'buffer', 'left out');
const run: fc.Arbitrary<RunPlan> = fc.record({
  gradient: fc.constantFrom(undefined, 'dense', 'factored', 'none'),
  target: fc.constantFrom('fresh', 'in place', 'out'),
  threads: often(undefined, fc.oneof(fc.integer({ min: 1, max: 4 }), fc.constant(1024))),
  sftLabels: often(false, fc.boolean()),
  padding: often(0, fc.integer({ min: 1, max: 9 })),
  cut: fc.boolean(),
  hiddenSize: fc.constantFrom(1, 2, 3, 8, 17, 64),
  saysHiddenSize: fc.boolean(),
  bias: fc.boolean(),
  outs: fc.tuple(hiddenOut, hiddenOut, hiddenOut),
  accumulate: often(false, fc.boolean()),
  memory: often(undefined, fc.constantFrom(2 ** 20, 2 ** 24)),
  gradientScale: often(undefined, fc.constantFrom(...[1, -1, 1 / 3, 0, 1024, 1e-30, 1e30, 1e308])),
  metrics: often(undefined, fc.subarray([...rowMetricNames])),
  parallel: often<Parallel | undefined>(undefined, fc.constantFrom(...parallels)),
});

export interface Choice {
  readonly doors: readonly Door[];
  readonly places: readonly Place[];
  /** Names of twists. */
  readonly twists: readonly string[];
}

/** Half of the calls are fine; the others are twisted, some of them twice. */
export function callPlans({
  doors: open,
  places: reached,
  twists,
}: Choice): fc.Arbitrary<CallPlan> {
  const twist = fc.record({ name: fc.constantFrom(...twists), pick: fc.nat() });
  return fc
    .record({
      door: fc.constantFrom(...open),
      // An emulated device takes ten times as long.
      place: fc.oneof(
        ...reached.map((one) => ({
          weight: one === 'host' ? 4 : 1,
          arbitrary: fc.constant(one),
        })),
      ),
      asynchronous: fc.boolean(),
      config,
      mixture: often(undefined, mixture),
      recipe: often(undefined, fc.constantFrom(...(Object.keys(recipes) as RecipeName[])), 12),
      fields,
      derivatives,
      collision: fc.boolean(),
      positional: often(false, fc.boolean()),
      rows,
      perToken: fc.boolean(),
      fromHidden: fc.boolean(),
      run,
      shift: fc.nat({ max: 15 }),
      shared: often(false, fc.boolean(), 5),
      twists: fc.oneof(fc.constant([]), fc.array(twist, { minLength: 1, maxLength: 2 })),
    })
    .map(meaningful);
}

/**
 * The plan with what its door has no use for at its simplest, and what does not go together apart.
 */
function meaningful(plan: CallPlan): CallPlan {
  const { door, run: wanted, fields: given, derivatives: by } = plan;
  const isLoss = door === 'logits' || door === 'hidden';
  const isBackward = door === 'backward';
  const isSingle = plan.mixture !== undefined || plan.recipe !== undefined;
  const loss = lossOf(plan);
  const isLikelihood = configsOf(loss).every(({ method }) => method === 'sft');
  const hasRejected = !isLikelihood && arityOf(plan) !== 'group';
  const isHidden = door === 'hidden' || (!isLoss && door !== 'logps' && plan.fromHidden);
  const sftLabels = wanted.sftLabels && isLoss && !isLikelihood;
  const entropy = by.entropy || by.by === 'neither';
  const unfactored = door !== 'logits' && (isHidden || !isBackward || entropy);
  const isFactored = wanted.gradient === 'factored' && !sftLabels && !unfactored;
  const gradient =
    isFactored || (wanted.gradient !== 'factored' && !(isBackward && wanted.gradient === 'none'))
      ? wanted.gradient
      : 'dense';
  const metrics = isLoss
    ? wanted.metrics?.filter((name) => hasRejected || name !== 'logits/rejected')
    : undefined;
  // Of `backward`, weights are those of sequences.
  const tokenWeights = given.tokenWeights && (!isBackward || by.by === 'sequences');
  const place = door === 'logps' || isBackward ? 'host' : plan.place;
  const asynchronous = plan.asynchronous && (isLoss || isBackward);
  const collision = plan.collision && place === 'host';
  const isWhole = place === 'host' && door !== 'logps';
  // A transport of JavaScript cannot answer while a call computes.
  const mayMeet = asynchronous && (isLoss || wanted.parallel === 'vocab');
  const parallel =
    isWhole && (mayMeet || wanted.parallel === 'columnGrid') ? wanted.parallel : undefined;
  const none = { logitScale: undefined, logitSoftcap: undefined, temperature: undefined };
  return {
    ...plan,
    place,
    positional: plan.positional && !isSingle,
    asynchronous,
    collision,
    fields: { ...given, tokenWeights, ...(place !== 'host' && none) },
    derivatives: { ...by, entropy },
    // Products cost.
    rows: isHidden ? { ...plan.rows, vocab: Math.min(plan.rows.vocab, 65) } : plan.rows,
    run: {
      ...wanted,
      gradient,
      sftLabels,
      metrics,
      parallel,
      padding: isHidden ? 0 : wanted.padding,
    },
  };
}
