import {
  findMethod,
  methods,
  settingNames,
  type Method,
  type MethodInfo,
  type OptionInfo,
} from './catalogue.js';
import { rangeError, typeError } from './errors.js';
import { describe, nearest, quoted, readAll } from './given.js';

/** A validated objective: what its public properties show, and what the native side takes. */
export interface Settings {
  readonly info: MethodInfo;
  readonly beta: number | undefined;
  readonly normalize: boolean;
  /** Every option of the method, defaults filled in. */
  readonly options: Readonly<Record<string, number | string | boolean>>;
  readonly usesReference: boolean;
  readonly hasSftTerm: boolean;
  /** Index of the method in the catalogue. */
  readonly method: number;
  readonly native: Float64Array;
}

/**
 * Checks method, beta, normalize and options as the user gave them.
 * @param given the options, read once, without a prototype.
 * @throws DirAlignError with code ERR_DIRALIGN_OPTION
 */
export function resolveSettings(
  method: unknown,
  beta: unknown,
  normalize: unknown,
  given: Readonly<Record<string, unknown>>,
): Settings {
  const found = typeof method === 'string' ? findMethod(method) : undefined;
  if (!found) {
    const names = methods().map(({ name }) => name);
    const near = typeof method === 'string' ? nearest(method, names) : undefined;
    const advice = near === undefined ? '' : `; did you mean '${near}'?`;
    throw typeError(
      'ERR_DIRALIGN_OPTION',
      `method: ${describe(method)} is not one of ${quoted(names)}${advice}`,
    );
  }
  const { info, index } = found;
  const isSft = info.name === 'sft';
  if (!isSft) checkBeta(info.name, beta);
  else if (beta !== undefined && typeof beta !== 'number') {
    throw typeError(
      'ERR_DIRALIGN_OPTION',
      `beta: 'sft' needs none and takes a number, not ${describe(beta)}`,
    );
  }
  if (normalize !== undefined && typeof normalize !== 'boolean') {
    throw typeError('ERR_DIRALIGN_OPTION', `normalize: ${describe(normalize)} is not a boolean`);
  }
  for (const name of Object.keys(given)) {
    if (given[name] !== undefined && !Object.hasOwn(info.options, name)) {
      const known = Object.keys(info.options);
      const near = nearest(name, known);
      const advice = near === undefined ? `it has ${quoted(known)}` : `did you mean '${near}'?`;
      throw typeError(
        'ERR_DIRALIGN_OPTION',
        `${name}: '${info.name}' has no such option; ${advice}`,
      );
    }
  }
  const options: Record<string, number | string | boolean> = {};
  for (const [name, option] of Object.entries(info.options))
    options[name] = checkOption(name, option, given[name]);
  if (
    given.alpha !== undefined &&
    Object.hasOwn(options, 'divergence') &&
    options.divergence !== 'alpha'
  ) {
    throw typeError(
      'ERR_DIRALIGN_OPTION',
      `alpha: only divergence 'alpha' has one, not ${describe(options.divergence)}`,
    );
  }
  // Without a prototype: a setting that the method lacks is nobody else's.
  const settings = readAll(
    { lambda: 1, ...options, beta: isSft ? 1 : beta, normalize: normalize ?? info.normalize },
    [],
  ) as Readonly<Record<string, number | boolean | string | undefined>>;
  return {
    info,
    beta: isSft ? undefined : (beta as number),
    normalize: normalize ?? info.normalize,
    options: Object.freeze(options),
    usesReference: info.reference && options.referenceFree !== true,
    hasSftTerm: !isSft && options.sftWeight !== 0,
    method: index,
    native: Float64Array.from(settingNames, (name) => encode(settings[name], info.options[name])),
  };
}

const withoutPrototype = (option: OptionInfo): OptionInfo =>
  readAll(option, []) as unknown as OptionInfo;

function checkBeta(method: Method, beta: unknown): void {
  if (typeof beta !== 'number') {
    throw typeError(
      'ERR_DIRALIGN_OPTION',
      `beta: '${method}' needs a number greater than 0, not ${describe(beta)}`,
    );
  }
  if (!(beta > 0 && beta < Infinity)) {
    throw rangeError('ERR_DIRALIGN_OPTION', `beta: ${beta} is not a finite number greater than 0`);
  }
}

function checkOption(name: string, option: OptionInfo, value: unknown): number | string | boolean {
  if (value === undefined) return option.default;
  if (typeof value !== typeof option.default) {
    throw typeError(
      'ERR_DIRALIGN_OPTION',
      `${name}: ${describe(value)} is not a ${typeof option.default}`,
    );
  }
  if (typeof value === 'string' && option.values && !option.values.includes(value)) {
    throw rangeError(
      'ERR_DIRALIGN_OPTION',
      `${name}: ${describe(value)} is not one of ${quoted(option.values)}`,
    );
  }
  if (typeof value === 'number') {
    const {
      min = -Infinity,
      above = -Infinity,
      max = Infinity,
      below = Infinity,
    } = withoutPrototype(option);
    if (!Number.isFinite(value) || value < min || value <= above || value > max || value >= below) {
      throw rangeError(
        'ERR_DIRALIGN_OPTION',
        `${name}: ${value} is not a finite number${interval(option)}`,
      );
    }
  }
  return value as number | string | boolean;
}

function interval(option: OptionInfo): string {
  const { min, above, max, below } = withoutPrototype(option);
  const low =
    min !== undefined
      ? `at least ${String(min)}`
      : above !== undefined
        ? `greater than ${String(above)}`
        : '';
  const high =
    max !== undefined
      ? `at most ${String(max)}`
      : below !== undefined
        ? `less than ${String(below)}`
        : '';
  return [low, high].some(Boolean) ? ` ${[low, high].filter(Boolean).join(' and ')}` : '';
}

/** Flags are 0 or 1, names their place among the option's. */
function encode(
  value: number | string | boolean | undefined,
  option: OptionInfo | undefined,
): number {
  if (typeof value === 'string') return option?.values?.indexOf(value) ?? 0;
  return Number(value ?? 0);
}
