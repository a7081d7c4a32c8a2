/** The options of a call on hidden states, checked. */
import type { Logits } from '../batch/types.js';
import { DeviceTensor } from '../device/memory.js';
import { typeError } from '../errors.js';
import { checkObject, describe, isArray, quoted, readElements, readProperties } from '../given.js';
import { gradientNames, type GradientChoice } from './gradient-output.js';
import type { HiddenGradient, HiddenRunOptions } from './options.js';

const runKeys = [
  'gradient',
  'inPlace',
  'out',
  'buffers',
  'accumulate',
  'gradientScale',
  'parallel',
  'metrics',
  'memory',
  'backend',
  'threads',
  'signal',
] as const;

export type GivenRun = HiddenRunOptions<Logits> & { readonly inPlace?: unknown };

/** The options of a call and the properties of `out`, each read once. */
export function readHiddenRun(run: unknown): GivenRun {
  const given = run === undefined ? {} : run;
  checkObject('run', given);
  const options = readProperties('run', given, runKeys);
  const { out } = options;
  if (out !== undefined) {
    const isTensor = out instanceof DeviceTensor;
    const expected = 'an object with gradHidden, gradWeight and gradBias';
    if (isTensor)
      throw typeError('ERR_DIRALIGN_OPTION', `out: expected ${expected}, not ${describe(out)}`);
    checkObject('out', out, 'ERR_DIRALIGN_OPTION', expected);
    options.out = readProperties('out', out, gradientNames);
  }
  options.accumulate = readElements(options.accumulate, gradientNames.length + 1);
  return options as GivenRun;
}

/** Which gradients a call makes, and where they go. */
export function checkHiddenRun(run: GivenRun, hasBias: boolean): GradientChoice {
  if (run.inPlace !== undefined) {
    throw typeError(
      'ERR_DIRALIGN_OPTION',
      'inPlace: from hidden states there are no logits to overwrite; pass buffers in out',
    );
  }
  const nothing = { gradHidden: undefined, gradWeight: undefined, gradBias: undefined };
  const { gradient = 'dense', out = nothing, accumulate = false } = run;
  checkMode(gradient);
  const absent = gradientNames.find((name) => (out[name] as unknown) === null);
  if (absent)
    throw typeError(
      'ERR_DIRALIGN_DTYPE',
      `out.${absent}: expected a buffer, true or false, not null`,
    );
  const buffers = gradientNames.filter((name) => typeof out[name] === 'object');
  const accumulated = checkAccumulate(accumulate, buffers);
  const asked = gradientNames.find((name) => out[name] !== undefined && out[name] !== false);
  if (gradient === 'none') {
    if (asked)
      throw typeError(
        'ERR_DIRALIGN_OPTION',
        `out.${asked}: gradient is 'none', so there is nothing to write`,
      );
    return { wanted: { gradHidden: false, gradWeight: false, gradBias: false }, accumulated };
  }
  if (!hasBias && out.gradBias !== undefined && out.gradBias !== false) {
    throw typeError(
      'ERR_DIRALIGN_OPTION',
      'out.gradBias: the batch has no bias, so there is no gradient of it',
    );
  }
  const { gradHidden = true, gradWeight = true, gradBias = hasBias } = out;
  return { wanted: { gradHidden, gradWeight, gradBias }, accumulated };
}

function checkMode(gradient: unknown): void {
  if (gradient === 'factored') {
    throw typeError(
      'ERR_DIRALIGN_OPTION',
      "gradient: 'factored' is for logits; from hidden states there are 'dense' and 'none'",
    );
  }
  if (gradient !== 'dense' && gradient !== 'none') {
    throw typeError(
      'ERR_DIRALIGN_OPTION',
      `gradient: ${describe(gradient)} is not one of 'dense', 'none'`,
    );
  }
}

function checkAccumulate(
  accumulate: unknown,
  buffers: readonly HiddenGradient[],
): ReadonlySet<HiddenGradient> {
  if (accumulate === false) return new Set();
  if (accumulate === true) {
    if (buffers.length === 0)
      throw typeError('ERR_DIRALIGN_OPTION', 'accumulate: there is no buffer in out to add to');
    return new Set(buffers);
  }
  if (!isArray(accumulate)) {
    throw typeError(
      'ERR_DIRALIGN_OPTION',
      `accumulate: expected a boolean or an array of names, not ${describe(accumulate)}`,
    );
  }
  for (const name of accumulate) {
    if (!gradientNames.includes(name as HiddenGradient)) {
      throw typeError(
        'ERR_DIRALIGN_OPTION',
        `accumulate: ${describe(name)} is not one of ${quoted(gradientNames)}`,
      );
    }
    if (!buffers.includes(name as HiddenGradient)) {
      throw typeError(
        'ERR_DIRALIGN_OPTION',
        `accumulate: '${name as string}' has no buffer in out to add to`,
      );
    }
  }
  return new Set(accumulate as HiddenGradient[]);
}
