import {
  findMethod,
  methods,
  settingNames,
  type Method,
  type MethodInfo,
  type OptionInfo,
} from './catalogue.js';
import { rangeError, typeError } from './errors.js';
import { describe, nearest, noneOf, quoted, readAll } from './given.js';
import { checkNumber } from './interval.js';

type Given = Readonly<Record<string, unknown>>;
type Options = Readonly<Record<string, number | string | boolean>>;

/** A validated objective: what its public properties show, and what the native side takes. */
export interface Settings {
  readonly info: MethodInfo;
  readonly beta: number | undefined;
  readonly normalize: boolean;
  /** Every option of the method, defaults filled in. */
  readonly options: Options;
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
  given: Given,
): Settings {
  const { info, index } = checkMethod(method);
  if (info.beta) checkBeta(info.name, beta);
  else checkNeedlessBeta(info.name, beta);
  if (normalize !== undefined && typeof normalize !== 'boolean') {
    throw typeError('ERR_DIRALIGN_OPTION', `normalize: ${describe(normalize)} is not a boolean`);
  }
  const options = checkOptions(info, given);
  const settings = {
    info,
    beta: info.beta ? (beta as number) : undefined,
    normalize: normalize ?? info.normalize,
    options,
    usesReference: info.reference && options.referenceFree !== true,
    hasSftTerm: Object.hasOwn(options, 'sftWeight') && options.sftWeight !== 0,
    method: index,
  };
  return { ...settings, native: encode(settings) };
}

function checkMethod(method: unknown): { readonly index: number; readonly info: MethodInfo } {
  const found = typeof method === 'string' ? findMethod(method) : undefined;
  if (found) return found;
  const names = methods().map(({ name }) => name);
  throw typeError('ERR_DIRALIGN_OPTION', noneOf('method', method, names));
}

function checkBeta(method: Method, beta: unknown): void {
  if (typeof beta !== 'number') {
    throw typeError(
      'ERR_DIRALIGN_OPTION',
      `beta: '${method}' needs a number greater than 0, not ${describe(beta)}`,
    );
  }
  checkNumber('beta', beta, { above: 0 });
}

function checkNeedlessBeta(method: Method, beta: unknown): void {
  if (beta === undefined || typeof beta === 'number') return;
  throw typeError(
    'ERR_DIRALIGN_OPTION',
    `beta: '${method}' needs none and takes a number, not ${describe(beta)}`,
  );
}

/** Every option of the method, defaults filled in. */
function checkOptions(info: MethodInfo, given: Given): Options {
  for (const name of Object.keys(given)) {
    if (given[name] === undefined || Object.hasOwn(info.options, name)) continue;
    const known = Object.keys(info.options);
    const near = nearest(name, known);
    const advice = near === undefined ? `it has ${quoted(known)}` : `did you mean '${near}'?`;
    throw typeError('ERR_DIRALIGN_OPTION', `${name}: '${info.name}' has no such option; ${advice}`);
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
  return Object.freeze(options);
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
  return typeof value === 'number' ? checkNumber(name, value, option) : (value as string | boolean);
}

/** For the native side: a number for each setting of any method, in the catalogue's order. */
function encode({
  info,
  beta = 1,
  normalize,
  options,
}: Pick<Settings, 'info' | 'beta' | 'normalize' | 'options'>): Float64Array {
  // Without a prototype, so that nothing there stands for a setting that the method lacks.
  const values = readAll({ lambda: 1, ...options, beta, normalize }, []);
  return Float64Array.from(settingNames, (name) => {
    const value = values[name];
    return typeof value === 'string'
      ? (info.options[name]?.values ?? []).indexOf(value)
      : Number(value ?? 0);
  });
}
