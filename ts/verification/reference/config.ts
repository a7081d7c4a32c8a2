/** Methods and their settings. */
import { rangeError, typeError } from '../../errors.js';
import { commonFields, type FieldName, type FieldNeeds } from './fields.js';
import type { Arity, BatchLoss, Method, Options } from './method.js';
import { groupMethods, singleMethods } from './other-methods.js';
import { pairMethods } from './pair-methods.js';

const definitions = { ...singleMethods, ...pairMethods, ...groupMethods };

/** The methods that the reference knows: those of `dirAlignLoss`. */
export type ReferenceMethod = keyof typeof definitions;

/**
 * The settings `dirAlignLoss` takes. An option left out has the method's default; one without a
 * meaning is an error.
 */
export interface ReferenceConfig {
  /** Whose loss. */
  readonly method: ReferenceMethod;
  /** Temperature on the score, above 0. */
  readonly beta?: number | undefined;
  /** Whether log-probabilities are divided by the scored tokens. */
  readonly normalize?: boolean | undefined;
  /** Share of pairs that are taken to be labelled the wrong way round. */
  readonly labelSmoothing?: number | undefined;
  /** Margin that `simpo` and `alphapo` ask for. */
  readonly gamma?: number | undefined;
  /** Scores log-probabilities instead of log-ratios. */
  readonly referenceFree?: boolean | undefined;
  /** Weight of the likelihood term on the chosen, or on the desirable. */
  readonly sftWeight?: number | undefined;
  /** What the likelihood term averages over. */
  readonly sftReduction?: 'sequence' | 'token' | 'mean' | undefined;
  /** Weight of the ranking term of `orpo` and `asft`. */
  readonly lambda?: number | undefined;
  /** Weight of the squares of `cal_dpo`. */
  readonly calibrationWeight?: number | undefined;
  /** What the score of `dpo` is of the log-ratio. */
  readonly divergence?: 'reverse_kl' | 'forward_kl' | 'js' | 'alpha' | undefined;
  /** Of the alpha divergence, of `alphapo`, or of `r_dpo`. */
  readonly alpha?: number | undefined;
  /** Temperature of the mixture in `discopop`. */
  readonly tau?: number | undefined;
  /** Weight of the penalty in `dpop`. */
  readonly penalty?: number | undefined;
  /** Weight of desirable sequences in `kto`, `apo_zero_unpaired` and `bco`. */
  readonly desirableWeight?: number | undefined;
  /** Weight of the others. */
  readonly undesirableWeight?: number | undefined;
  /** Temperature of the rewards' softmax in `info_nca` and `nca_listwise`. */
  readonly rewardTemperature?: number | undefined;
}

/** An objective that can be scored. */
export interface Resolved extends FieldNeeds {
  readonly method: ReferenceMethod;
  readonly arity: Arity;
  readonly beta: number;
  readonly normalize: boolean;
  readonly usesReference: boolean;
  readonly options: Options;
  /** Undefined where the likelihood term is all there is. */
  readonly loss: BatchLoss | undefined;
}

/** @throws DirAlignError for settings that mean nothing */
export function resolve(config: ReferenceConfig): Resolved {
  const { method, beta, normalize, ...given } = config;
  if (!Object.hasOwn(definitions, method)) {
    throw typeError('ERR_DIRALIGN_OPTION', `method: ${JSON.stringify(method)} is none of them.`);
  }
  const definition: Method = definitions[method];
  const options = resolveOptions(method, definition, given);
  const temperature = resolveBeta(definition, beta);
  return {
    method,
    arity: definition.arity,
    beta: temperature,
    normalize: normalize ?? definition.normalize,
    usesReference: definition.reference && !options.referenceFree,
    options,
    takes: fieldsTaken(definition, options),
    needs: new Set(definition.needs),
    preferences: definition.preferences,
    loss: definition.loss?.(temperature, options),
  };
}

function resolveOptions(
  method: string,
  definition: Method,
  given: Readonly<Record<string, unknown>>,
): Options {
  const options: Record<string, unknown> = { ...definition.options };
  for (const [name, value] of Object.entries(given)) {
    if (value === undefined) continue;
    if (!Object.hasOwn(options, name))
      throw typeError('ERR_DIRALIGN_OPTION', `${name}: '${method}' has no such option.`);
    options[name] = value;
  }
  // The likelihood objective is its own likelihood term; a method without one has no weight of it.
  options.sftWeight ??= definition.loss ? 0 : 1;
  return options as unknown as Options;
}

/** The likelihood objective has no temperature: its rewards are plain log-probabilities. */
function resolveBeta(definition: Method, beta: number | undefined): number {
  if (!definition.loss || definition.takesNoBeta) return 1;
  if (beta !== undefined && beta > 0 && Number.isFinite(beta)) return beta;
  throw rangeError(
    'ERR_DIRALIGN_OPTION',
    `beta: ${String(beta)}; expected a finite number above 0.`,
  );
}

function fieldsTaken(definition: Method, options: Options): ReadonlySet<FieldName> {
  const { takes = [], needs = [], isCoupled } = definition;
  const taken = new Set<FieldName>([...commonFields, ...takes, ...needs]);
  if (!isCoupled) taken.add('weights');
  if (options.sftWeight !== 0 && options.sftReduction === 'token') taken.add('sftDenominator');
  return taken;
}
