// A planned call with its arrays and objects, and what came of it.
import { types } from 'node:util';
import {
  cuda,
  dirAlignLoss,
  logpsBackward,
  mixLosses,
  recipe,
  sequenceLogps,
  tokenLogps,
  type LogpsBatch,
  type Objective,
  type ObjectiveCalls,
} from '../../ts/index.js';
import { DeviceTensor } from '../../ts/device/memory.js';
import type { Elements } from '../support/device.js';
import { encodeHalf } from '../support/numbers.js';
import {
  batchOf,
  derivativesOf,
  isHidden,
  logpsOf,
  type ExactBatch,
  type ExactHidden,
} from './contents.js';
import {
  Float16,
  Guarded,
  OnDevice,
  type Constructor,
  type HostArray,
  type Held,
} from './memory.js';
import type { CallPlan, Parallel, Place } from './plan.js';
import { derivativeKeys } from './twist.js';

export type Properties = Record<string, unknown>;

/** Of a rank that has no others. */
function parallelOf(kind: Parallel): Properties {
  if (kind === 'columnGrid') return { columnGrid: 512 };
  const allGather = (bytes: Uint8Array): Promise<Uint8Array> => Promise.resolve(bytes.slice());
  return { [kind]: { rank: 0, size: 1, allGather } };
}

/** A call of an objective, whatever its batch. */
type Door = ((...args: unknown[]) => unknown) & { readonly async: (...args: unknown[]) => unknown };

/** The objects of a caller. */
export type ObjectName = 'batch' | 'run' | 'settings' | 'out' | 'derivatives';

/** Whether a loss is computed. */
export const hasLoss = ({ door }: CallPlan): boolean => door !== 'tokens' && door !== 'backward';

/** What the objective is built of. */
function settingsOf({ config, mixture, recipe: name, positional }: CallPlan): unknown[] {
  if (name !== undefined) return [{}];
  if (mixture)
    return mixture.map(({ weight, config: own }) => ({
      weight,
      objective: dirAlignLoss({ ...own } as never),
    }));
  const { method, beta, normalize, ...options } = config;
  return positional ? [method, beta, normalize, options] : [{ ...config }];
}

/** Anything of it may be changed before it is called. */
export class Call {
  /** Arguments of dirAlignLoss; the terms of a mixture; the overrides of a recipe. */
  settings: unknown[];
  batch: unknown;
  /** Of `logpsBackward`. */
  derivatives: unknown;
  run: unknown;
  /** By their keys in the batch. */
  readonly inputs = new Map<string, Held>();
  /** By their names in results. */
  readonly outputs = new Map<string, Held>();
  /** The batch in plain arrays. */
  readonly exact: ExactBatch | LogpsBatch;
  /** Logits in place. */
  overwrites = false;
  /** It may fail once it has begun, and leave outputs incomplete. */
  mayBeHalfDone = false;
  /** Arrays and tensors of the caller, as they were given. */
  readonly given = new Set<unknown>();
  /** Objects whose properties are no longer plain. */
  readonly disguised = new Set<string>();
  /** Errors that user code of the call throws. */
  readonly planted = new Set<unknown>();
  /** Run right before it is called. */
  readonly before: (() => void)[] = [];
  /** Run once the call was started, before anything is awaited. */
  readonly meanwhile: (() => void)[] = [];
  /** Run once it is over. */
  readonly undo: (() => void)[] = [];
  /** Run once its result was read. */
  readonly release: (() => void)[] = [];
  /** What is altered while it runs, by whoever has it. */
  readonly restless = new Set<Held>();
  /** What is wrong with other calls that ran beside it. */
  beside: Promise<string | undefined> | undefined;

  constructor(readonly plan: CallPlan) {
    this.settings = settingsOf(plan);
    this.exact = plan.door === 'logps' ? logpsOf(plan) : batchOf(plan);
    const batch: Properties = { ...this.exact };
    this.#holdAll(batch);
    this.batch = batch;
    if (plan.door === 'backward') {
      const exact = this.exact as ExactBatch;
      const derivatives: Properties = { ...derivativesOf(plan, exact) };
      this.#holdAll(derivatives);
      if (plan.derivatives.forward) derivatives.forward = tokenLogps(exact as never);
      this.derivatives = derivatives;
    }
    this.run = this.#runOf();
    // What a Float16Array says of itself.
    if (Float16 && this.#inFloat16Array && plan.rows.seed % 2 === 0) delete batch.dtype;
  }

  get #inFloat16Array(): boolean {
    const { dtype, float16Array } = this.plan.rows;
    return (
      Float16 !== undefined && float16Array && dtype === 'float16' && this.plan.place !== 'device'
    );
  }

  #holdAll(object: Properties): void {
    for (const [key, value] of Object.entries(object)) {
      if (!ArrayBuffer.isView(value)) continue;
      const held = this.#hold(key, value as HostArray);
      this.inputs.set(key, held);
      this.given.add(held.value);
      object[key] = held.value;
    }
  }

  #hold(key: string, values: HostArray): Held {
    const { plan } = this;
    const isData = ['logits', 'hidden', 'weight', 'bias'].includes(key) || key.startsWith('grad');
    if (plan.place === 'device' && isData) {
      const dtype = values instanceof Float32Array ? 'float32' : plan.rows.dtype;
      return new OnDevice(values as Elements, dtype, plan.shift);
    }
    const kind =
      this.#inFloat16Array && values instanceof Uint16Array ? { kind: Float16 as Constructor } : {};
    return new Guarded(values, { shift: plan.shift, shared: plan.shared, ...kind });
  }

  /** A buffer of the caller's for a gradient, which holds something. */
  #output(name: string, like: HostArray, length = like.length): unknown {
    const { dtype } = this.plan.rows;
    const halves = new Float32Array(length).fill(0.5);
    const held = this.#hold(
      name,
      like instanceof Uint16Array && dtype !== 'float32' ? encodeHalf(halves, dtype) : halves,
    );
    this.outputs.set(name, held);
    this.given.add(held.value);
    return held.value;
  }

  #runOf(): Properties | undefined {
    const { door, place, run } = this.plan;
    const { gradient, target, threads, memory, gradientScale, metrics, parallel } = run;
    const scale: Properties = gradientScale === undefined ? {} : { gradientScale };
    if (door === 'logps') return gradientScale === undefined ? undefined : scale;
    const batch = this.exact as ExactBatch;
    const result: Properties = {
      ...(door !== 'tokens' && scale),
      ...(place === 'staged' && { backend: 'cuda' }),
      ...(threads !== undefined && { threads }),
      // The synchronous twin of a call goes without, and has the same bits.
      ...(parallel &&
        (this.plan.asynchronous || parallel === 'columnGrid') && {
          parallel: parallelOf(parallel),
        }),
      ...(memory !== undefined && isHidden(batch) && { memory }),
      ...(door === 'tokens' && this.plan.perToken && this.plan.collision && { collision: true }),
    };
    if (door !== 'tokens') {
      if (metrics !== undefined) result.metrics = [...metrics];
      if (gradient !== undefined) result.gradient = gradient;
      if (isHidden(batch)) this.#hiddenOuts(batch, result);
      else if (gradient !== 'none' && target === 'in place')
        this.overwrites = result.inPlace = true;
      else if (gradient !== 'none' && target === 'out')
        result.out = this.#output('gradLogits', batch.logits);
    }
    return Object.keys(result).length > 0 ? result : undefined;
  }

  #hiddenOuts({ hidden, weight, bias }: ExactHidden, result: Properties): void {
    const { gradient, outs, accumulate } = this.plan.run;
    if (gradient === 'none') return;
    const float32 = new Float32Array(0);
    const makers = {
      gradHidden: () => this.#output('gradHidden', hidden),
      gradWeight: () => this.#output('gradWeight', float32, weight.length),
      gradBias: () => this.#output('gradBias', float32, bias?.length),
    };
    const out: Properties = {};
    Object.entries(makers).forEach(([name, make], i) => {
      const wanted = outs[i] ?? 'not said';
      if (wanted === 'not said' || (name === 'gradBias' && !bias)) return;
      out[name] = wanted === 'buffer' ? make() : wanted === 'fresh';
    });
    if (Object.keys(out).length > 0) result.out = out;
    if (this.outputs.size > 0 && accumulate) result.accumulate = true;
  }

  /** The objects of the caller, by name. */
  get objects(): Map<ObjectName, Properties> {
    const isObject = (value: unknown): value is Properties =>
      typeof value === 'object' && value !== null && !types.isProxy(value);
    const run = isObject(this.run) && !this.disguised.has('run') ? this.run : undefined;
    const given = {
      batch: this.batch,
      run,
      settings: this.plan.positional ? this.settings[3] : this.settings[0],
      out: isHidden(this.exact) && this.plan.door !== 'tokens' ? run?.out : undefined,
      derivatives: this.derivatives,
    };
    if (!hasLoss(this.plan)) given.settings = undefined;
    return new Map(
      Object.entries(given).filter(
        ([name, value]) => isObject(value) && !this.disguised.has(name),
      ) as [ObjectName, Properties][],
    );
  }

  /** Puts another object where one of `objects` is. */
  replace(name: ObjectName, value: unknown): void {
    this.disguised.add(name);
    if (name === 'batch') this.batch = value;
    else if (name === 'run') this.run = value;
    else if (name === 'out') (this.run as Properties).out = value;
    else if (name === 'derivatives') this.derivatives = value;
    else this.settings[this.plan.positional ? 3 : 0] = value;
  }

  /** Puts something else where an array of the caller stands. */
  give(key: string, value: unknown): void {
    this.given.add(value);
    const { objects } = this;
    if (derivativeKeys.has(key)) Object.assign(objects.get('derivatives') ?? {}, { [key]: value });
    else if (this.inputs.has(key)) Object.assign(objects.get('batch') ?? {}, { [key]: value });
    else if (key === 'gradLogits') Object.assign(objects.get('run') ?? {}, { out: value });
    else Object.assign(objects.get('out') ?? {}, { [key]: value });
  }

  /** The public call itself; a promise where it is asynchronous. */
  start(): unknown {
    const { plan, batch } = this;
    const args = (this.run === undefined ? [batch] : [batch, this.run]) as [never];
    if (plan.door === 'tokens') return (plan.perToken ? tokenLogps : sequenceLogps)(...args);
    if (plan.door === 'backward') {
      const work = logpsBackward as unknown as Door;
      const all = [batch, this.derivatives, ...args.slice(1)];
      return plan.asynchronous ? work.async(...all) : work(...all);
    }
    const objective = this.#objective();
    if (plan.door === 'logps') return objective.fromLogps(...args);
    const door = (plan.door === 'hidden' ? objective.fromHidden : objective) as unknown as Door;
    return plan.asynchronous ? door.async(...args) : door(...args);
  }

  #objective(): ObjectiveCalls {
    const { mixture, recipe: name } = this.plan;
    if (name !== undefined) return recipe(name, ...(this.settings as [never]));
    if (mixture) return mixLosses(this.settings as never);
    return (dirAlignLoss as unknown as (...all: unknown[]) => Objective)(...this.settings);
  }

  /** Puts back what the call changed of its surroundings, once. */
  end(): void {
    for (const one of this.undo.splice(0)) one();
  }

  dispose(): void {
    this.end();
    for (const one of this.release.splice(0)) one();
    for (const held of [...this.inputs.values(), ...this.outputs.values()]) held.dispose();
  }
}

export type Outcome = { readonly result: Properties } | { readonly error: unknown };

/** Calls, and waits for what comes of it. */
export async function outcomeOf(call: Call): Promise<Outcome> {
  try {
    for (const one of call.before) one();
    const started = call.start();
    for (const one of call.meanwhile) one();
    // A result is no promise, whatever Object.prototype makes of it.
    return { result: (call.plan.asynchronous ? await started : started) as Properties };
  } catch (error) {
    return { error };
  } finally {
    call.end();
  }
}

/** Places that can be reached here. */
export function availablePlaces(): readonly Place[] {
  return cuda.available ? ['host', 'staged', 'device'] : ['host'];
}

export type Bits = ReadonlyMap<string, Uint8Array | number>;

/** Every number of a result, by its bits. Fresh memory of a device is freed. */
export function bitsOf(call: Call, result: Properties): Bits {
  const bits = new Map<string, Uint8Array | number>();
  for (const [key, value] of Object.entries(result)) {
    // What it holds is read below, past what the caller made of the object.
    if (call.given.has(value)) continue;
    if (typeof value === 'number') bits.set(key, value);
    else if (value instanceof DeviceTensor) {
      const bytes = new Uint8Array(value.byteLength ?? 0);
      if (bytes.length > 0) value.copyTo(bytes);
      bits.set(key, bytes);
      value.dispose();
    } else if (ArrayBuffer.isView(value)) {
      const { buffer, byteOffset, byteLength } = value;
      bits.set(key, new Uint8Array(buffer, byteOffset, byteLength).slice());
    } else if (key === 'terms') {
      for (const [i, { loss }] of (value as { loss: number }[]).entries())
        bits.set(`terms ${i}`, loss);
    } else if (key === 'metrics')
      for (const [name, x] of Object.entries(value as object))
        bits.set(`metrics ${name}`, x as number);
  }
  for (const [name, held] of call.outputs) bits.set(name, held.bytes());
  const logits = call.inputs.get('logits');
  if (call.overwrites && logits) bits.set('gradLogits', logits.bytes());
  return bits;
}

/** A result whose gradients are arrays of the host, wherever they were. */
export function onHost({ plan }: Call, result: Properties, bits: Bits): Properties {
  if (plan.place !== 'device') return result;
  const copied = Object.keys(result).flatMap((key) => {
    const bytes = bits.get(key);
    if (!(result[key] instanceof DeviceTensor) || !(bytes instanceof Uint8Array)) return [];
    const isHalf = plan.rows.dtype !== 'float32' && /^grad(Logits|Hidden)$/.test(key);
    const buffer = bytes.slice().buffer;
    return [[key, isHalf ? new Uint16Array(buffer) : new Float32Array(buffer)]];
  });
  return { ...result, ...(Object.fromEntries(copied) as typeof result) };
}

/** How two results differ. */
export function difference(actual: Bits, expected: Bits): string | undefined {
  for (const key of new Set([...actual.keys(), ...expected.keys()])) {
    const [a, b] = [actual.get(key), expected.get(key)];
    if (a === undefined || b === undefined) return `${key} is ${a ? 'there' : 'missing'}`;
    if (typeof a === 'number' || typeof b === 'number') {
      if (!Object.is(a, b)) return `${key} is ${String(a)} in place of ${String(b)}`;
    } else if (!Buffer.from(a).equals(Buffer.from(b))) return `${key} has other bits`;
  }
  return undefined;
}
