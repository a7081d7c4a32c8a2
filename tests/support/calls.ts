// A call on a batch of host arrays, wherever they are computed on: its gradient comes back in a
// host array, with what was wrong besides the numbers.
import type { LogitsBatch, LossResult, Objective, RunOptions } from '../../ts/index.js';
import type { DeviceTensor, GradientMode as Gradient, StreamLike } from '../../ts/index.js';
import { Copy, takeGradient, type Cuda, type Elements } from './device.js';
import { sameBits } from './numbers.js';

export type HostBatch = LogitsBatch<Elements>;
export type HostResult = LossResult<Elements>;
/** Where the gradient goes. */
export const places = ['fresh', 'out', 'inPlace'] as const;

export interface CallOptions extends Omit<RunOptions, 'out' | 'inPlace' | 'backend' | 'gradient'> {
  readonly place?: (typeof places)[number];
  readonly gradient?: Gradient;
  /** Elements between an aligned address and the logits. */
  readonly shift?: number;
  readonly exact?: boolean;
  readonly stream?: StreamLike;
  readonly device?: number;
}
type AnyResult = Omit<LossResult<Elements | DeviceTensor>, 'gradLogits'> & {
  readonly gradLogits?: Elements | DeviceTensor;
};
export interface Called {
  readonly result: HostResult;
  readonly problems: readonly string[];
}
/** What an objective is to be called with, and what is made of its result. */
interface Prepared {
  readonly batch: unknown;
  readonly run: object;
  readonly finish: (result: AnyResult) => Called;
  readonly dispose: () => void;
}
export type Prepare = (batch: HostBatch, options?: CallOptions) => Prepared;

/** Of an array for a gradient: an element that nobody writes shows. */
const poison = (like: Elements): Elements =>
  like.slice().fill(like instanceof Float32Array ? NaN : 0xffff);

const ours = ['place', 'shift', 'exact', 'stream', 'device'];
/** What of the options is the call's. */
const runOf = (options: CallOptions): object => ({
  gradient: 'dense',
  ...Object.fromEntries(Object.entries(options).filter(([name]) => !ours.includes(name))),
});

function problemsOf(
  { gradLogits, backend, ...result }: AnyResult,
  { gradient, target }: { readonly gradient: Gradient; readonly target: unknown },
  expected: string,
): string[] {
  const unwanted = gradient === 'none' && (gradLogits !== undefined || 'rowScale' in result);
  return [
    ...(unwanted ? ['has a gradient that was not asked for'] : []),
    ...(target !== undefined && gradLogits !== target ? ['the gradient is elsewhere'] : []),
    ...(backend === expected ? [] : [`computed by '${backend}'`]),
  ];
}

/** On copies of the arrays in device memory. */
export const onDevice =
  (cuda?: Cuda): Prepare =>
  (batch, options = {}) => {
    const { place = 'fresh', gradient = 'dense', shift = 0, exact = false } = options;
    const { stream, device = 0 } = options;
    const run = runOf(options);
    const copy = (array: Elements, by: number): Copy =>
      new Copy(array, batch.dtype, { shift: by, exact, device, ...(stream && { stream }) }, cuda);
    const logits = copy(batch.logits, shift);
    const given = gradient === 'none' ? 'fresh' : place;
    // At another alignment than the logits.
    const out =
      given === 'out' ? copy(poison(batch.logits), shift === 0 ? 0 : shift + 1) : undefined;
    const target = out?.tensor ?? (given === 'inPlace' ? logits.tensor : undefined);
    return {
      batch: { ...batch, logits: logits.tensor },
      run: {
        ...run,
        ...(out && { out: out.tensor }),
        ...(given === 'inPlace' && { inPlace: true }),
      },
      finish(result) {
        const problems = problemsOf(result, { gradient, target }, 'cuda');
        const read = (from: Copy): Elements | undefined => {
          try {
            return from.read();
          } catch (error) {
            problems.push((error as Error).message);
            return undefined;
          }
        };
        const after = read(logits);
        if (given !== 'inPlace' && after && !sameBits(after, batch.logits))
          problems.push('the logits were written');
        const fresh = result.gradLogits as DeviceTensor | undefined;
        const gradLogits =
          gradient === 'none'
            ? undefined
            : out
              ? read(out)
              : given === 'inPlace'
                ? after
                : takeGradient(fresh, batch.logits);
        return { result: { ...result, ...(gradLogits && { gradLogits }) } as HostResult, problems };
      },
      dispose() {
        logits.dispose();
        out?.dispose();
      },
    };
  };

/** On host arrays: of 'cuda' they travel to the device and back. */
export const onHost =
  (backend: 'cpu' | 'cuda'): Prepare =>
  (batch, options = {}) => {
    const { place = 'fresh', gradient = 'dense', shift = 0 } = options;
    const run = runOf(options);
    const at = (array: Elements): Elements => {
      const copy = new (array.constructor as new (length: number) => Elements)(
        array.length + shift,
      );
      copy.set(array, shift);
      return copy.subarray(shift);
    };
    const logits = at(batch.logits);
    const given = gradient === 'none' ? 'fresh' : place;
    const out = given === 'out' ? at(poison(batch.logits)) : undefined;
    const target = out ?? (given === 'inPlace' ? logits : undefined);
    return {
      batch: { ...batch, logits },
      run: { ...run, backend, ...(out && { out }), ...(given === 'inPlace' && { inPlace: true }) },
      finish(result) {
        const problems = problemsOf(result, { gradient, target }, backend);
        if (given !== 'inPlace' && !sameBits(logits, batch.logits))
          problems.push('the logits were written');
        return { result: result as HostResult, problems };
      },
      dispose: () => undefined,
    };
  };

type Work = (batch: unknown, run: object) => AnyResult;

export function call(objective: Objective, { batch, run, finish, dispose }: Prepared): Called {
  try {
    return finish((objective as unknown as Work)(batch, run));
  } finally {
    dispose();
  }
}

export async function callLater(
  objective: Objective,
  { batch, run, finish, dispose }: Prepared,
): Promise<Called> {
  const { async: work } = objective as unknown as {
    readonly async: (batch: unknown, run: object) => Promise<AnyResult>;
  };
  try {
    return finish(await work(batch, run));
  } finally {
    dispose();
  }
}
