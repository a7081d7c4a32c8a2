// Numbers that a call must refuse, and values of another kind where numbers are due.
import { contract } from '../../ts/contract.generated.js';
import { methods, type LogitsBatch } from '../../ts/index.js';
import { alignmentsOf } from '../../ts/verification/objectives.js';
import { choose, integer } from '../support/numbers.js';
import { hasLoss, type Call, type Properties } from './call.js';
import { Guarded } from './memory.js';
import { lossOf } from './plan.js';
import { derivativeKeys, isRead, type Twist } from './twist.js';

function arrayOf(call: Call, key: string): Guarded['value'] | undefined {
  const held = call.inputs.get(key);
  return held instanceof Guarded && held.value.length > 0 ? held.value : undefined;
}

const label: Twist = {
  name: 'a label outside the vocabulary',
  apply(call, random) {
    const labels = arrayOf(call, 'labels');
    if (!labels) return undefined;
    const { ignoreIndex = -100, shape } = call.exact as LogitsBatch;
    const wrong = [-1, -2, shape.at(-1) ?? 0, 2 ** 31 - 1, -(2 ** 31)].filter(
      (one) => one !== ignoreIndex,
    );
    const [row, value] = [integer(random, 0, labels.length - 1), choose(random, wrong)];
    labels[row] = value;
    return { expect: 'refused', what: `labels[${row}] = ${value}` };
  },
};

const offset: Twist = {
  name: 'offsets that are none',
  apply(call, random) {
    const offsets = arrayOf(call, 'offsets');
    if (!offsets) return undefined;
    const i = integer(random, 0, offsets.length - 1);
    const rows = offsets.at(-1) ?? 0;
    const value = choose(random, [-1, -(2 ** 31), 2 ** 31 - 1, rows + 1]);
    offsets[i] = value;
    return { expect: 'refused', what: `offsets[${i}] = ${value}` };
  },
};

const counts: Twist = {
  name: 'a negative count',
  apply(call, random) {
    const array = arrayOf(call, 'counts');
    if (!array) return undefined;
    const i = integer(random, 0, array.length - 1);
    array[i] = choose(random, [-1, -(2 ** 31)]);
    return { expect: 'refused', what: `counts[${i}] = ${array[i] ?? NaN}` };
  },
};

const reference: Twist = {
  name: 'a reference that is not finite',
  apply(call, random) {
    const array = arrayOf(call, 'reference');
    if (!array) return undefined;
    const i = integer(random, 0, array.length - 1);
    array[i] = choose(random, [NaN, Infinity, -Infinity]);
    const expect = isRead(call, 'reference') ? 'refused' : 'any';
    return { expect, what: `reference[${i}] = ${array[i] ?? NaN}` };
  },
};

const logps: Twist = {
  name: 'odd log-probabilities',
  apply(call, random) {
    const array = arrayOf(call, 'logps');
    if (!array) return undefined;
    const i = integer(random, 0, array.length - 1);
    array[i] = choose(random, [NaN, Infinity, -Infinity, 1, 1e300, -1e300, -0, -5e-324]);
    return { expect: 'any', what: `logps[${i}] = ${array[i] ?? NaN}` };
  },
};

const fieldNames: readonly string[] = contract.fields.map(({ name }) => name);
/** Numbers that no field of the name may have; margins and the like may have any that is finite. */
function wrongOf(name: string): readonly number[] {
  const bounded = ['weights', 'tokenWeights', 'preferences', 'desirable'].includes(name);
  const beyond = ['preferences', 'desirable'].includes(name) ? [1.5, 2] : [];
  return [NaN, Infinity, -Infinity, ...(bounded ? [-1, -5e-324, ...beyond] : [])];
}

const field: Twist = {
  name: 'a number that the field may not have',
  apply(call, random) {
    const batch = call.objects.get('batch');
    const names = fieldNames.filter((name) => {
      const given = batch?.[name];
      return ArrayBuffer.isView(given) && (given as Float64Array).length > 0;
    });
    const arrays = names.filter((name) => batch?.[name] instanceof Float64Array);
    if (!batch || arrays.length === 0) return undefined;
    const name = choose(random, arrays);
    const array = batch[name] as Float64Array;
    const i = integer(random, 0, array.length - 1);
    array[i] = choose(random, name === 'ranks' ? [NaN, 0.5, Infinity, 2 ** 60] : wrongOf(name));
    return { expect: 'refused', what: `${name}[${i}] = ${array[i] ?? NaN}` };
  },
};

/** What a field may look like, whatever it is. */
const fieldValues = [1, Float64Array.of(1, 1), [1, 1], Int32Array.of(0, 1), Uint8Array.of(1, 1)];

const stranger: Twist = {
  name: 'a field without a meaning',
  apply(call, random) {
    const batch = call.objects.get('batch');
    if (!batch || !hasLoss(call.plan)) return undefined;
    const infos = alignmentsOf(lossOf(call.plan));
    const known = (name: string): boolean => infos.some((info) => Object.hasOwn(info.fields, name));
    const names = fieldNames.filter((name) => !known(name));
    if (infos[0]?.arity !== 'group') names.push('groups');
    const name = choose(random, names);
    batch[name] = choose(random, fieldValues);
    return { expect: 'refused', what: `${name}, which has no meaning` };
  },
};

const needed: Twist = {
  name: 'a field that is missing',
  apply(call, random) {
    const batch = call.objects.get('batch');
    const infos = hasLoss(call.plan) ? alignmentsOf(lossOf(call.plan)) : [];
    const names = fieldNames.filter((name) =>
      infos.some(({ fields }) => (fields as Record<string, { needed?: boolean }>)[name]?.needed),
    );
    if (infos[0]?.arity === 'group') names.push('groups');
    if (!batch || names.length === 0) return undefined;
    const name = choose(random, names);
    Reflect.deleteProperty(batch, name);
    // Nor does another twist give it.
    call.inputs.delete(name);
    return { expect: 'refused', what: `no ${name}` };
  },
};

const groups: Twist = {
  name: 'groups that are none',
  apply(call, random) {
    const array = arrayOf(call, 'groups');
    if (!array) return undefined;
    const i = integer(random, 0, array.length - 1);
    const others = [-1, -(2 ** 31), 2 ** 31 - 1, (array[i - 1] ?? 1) - 0, (array.at(-1) ?? 0) + 1];
    array[i] = choose(random, others);
    return { expect: 'refused', what: `groups[${i}] = ${array[i] ?? NaN}` };
  },
};

const ranks: Twist = {
  name: 'a rank twice',
  apply(call) {
    const batch = call.objects.get('batch') as
      | { ranks?: Int32Array | number[]; groups?: Int32Array }
      | undefined;
    const { ranks: given, groups: offsets } = batch ?? {};
    const g = offsets?.findIndex((from, i) => (offsets[i + 1] ?? from) - from > 1) ?? -1;
    if (!given || !offsets || g < 0 || call.plan.twists.length > 1) return undefined;
    const first = offsets[g] ?? 0;
    given[first + 1] = given[first] ?? 0;
    return { expect: 'refused', what: `ranks of group ${g}` };
  },
};

const transform: Twist = {
  name: 'a transform of the logits that is none',
  apply(call, random) {
    const batch = call.objects.get('batch');
    if (!batch || call.plan.door === 'logps') return undefined;
    const name = choose(random, ['logitScale', 'logitSoftcap', 'temperature']);
    batch[name] = choose<unknown>(random, [0, -0, -1, NaN, Infinity, '1', null, [1], 1n]);
    return { expect: 'refused', what: `${name} is ${String(batch[name])}` };
  },
};

const derivative: Twist = {
  name: 'odd derivatives',
  apply(call, random) {
    const keys = [...derivativeKeys].filter((key) => arrayOf(call, key));
    if (keys.length === 0) return undefined;
    const key = choose(random, keys);
    const array = arrayOf(call, key) as Float64Array;
    const i = integer(random, 0, array.length - 1);
    array[i] = choose(random, [NaN, Infinity, -Infinity, 1e308, -0, 5e-324]);
    return { expect: 'any', what: `${key}[${i}] = ${array[i] ?? NaN}` };
  },
};

const both: Twist = {
  name: 'derivatives of rows and of sequences',
  apply(call) {
    const given = call.objects.get('derivatives');
    if (!given) return undefined;
    given.rows ??= new Float64Array(0);
    given.sequences ??= new Float64Array(0);
    return { expect: 'refused', what: 'rows and sequences' };
  },
};

/** An object whose every conversion throws. */
function unspeakable(): object {
  const fail = (): never => {
    throw new Error('converted');
  };
  return { [Symbol.toPrimitive]: fail, toString: fail, valueOf: fail, toJSON: fail };
}
function revoked(): object {
  const { proxy, revoke } = Proxy.revocable({}, {});
  revoke();
  return proxy;
}
function circular(): object {
  const object: Properties = {};
  object.self = object;
  return object;
}
/** An object of a class that has no name, but what `descriptor` says. */
function named(descriptor: PropertyDescriptor): object {
  class Named {
    readonly own = 1;
  }
  Object.defineProperty(Named, 'name', descriptor);
  return new Named();
}
const throwing = (): never => {
  throw new Error('named');
};

/** Values that no argument takes, and some that one or the other does. */
const junk: readonly (readonly [what: string, make: () => unknown])[] = [
  ...[undefined, null, true, false, '', 'x', 'float32', 'bfloat16', 'dense', 'none', 'cuda', 'cpu'],
  ...['__proto__', 'constructor', NaN, Infinity, -Infinity, -1, -0, 0, 0.5, 1, 7, 1024, 1025],
  ...[2 ** 31, 2 ** 32, 2 ** 40, 2 ** 53, 1e308, 5e-324, 0n, 1n, -1n, 2n ** 64n],
].map((value) => [String(value), () => value] as const);
const objects: typeof junk = [
  ['a symbol', () => Symbol('junk')],
  ['Symbol.iterator', () => Symbol.iterator],
  ['a function', () => () => 1],
  ['[]', () => []],
  ['{}', () => ({})],
  ['[1, 2]', () => [1, 2]],
  ['[[2, 3]]', () => [[2, 3]]],
  ['an array with holes', () => new Array<number>(3)],
  ['a long array', () => new Array<number>(1000).fill(1)],
  ['a null-prototype object', () => Object.create(null) as object],
  ['an object that converts to nothing', unspeakable],
  ['an array of one', () => [unspeakable()]],
  ['an array of symbols', () => [Symbol('a'), Symbol('b')]],
  ['an array of bigints', () => [2n, 3n, 5n]],
  ['a revoked Proxy', revoked],
  ['a circular object', circular],
  ['an object of an oddly named class', () => named({ value: Symbol('no string') })],
  ['an object whose class has a throwing name', () => named({ get: throwing })],
  ['an object with a symbol for constructor', () => ({ constructor: Symbol('c') })],
  ['a boxed number', () => Object(2) as object],
  ['a boxed string', () => Object('dense') as object],
  ['a Date that is none', () => new Date(NaN)],
  ['a RegExp', () => /x/],
  ['a Map', () => new Map()],
  ['a Promise', () => Promise.resolve(1)],
  ['a thenable', () => ({ then: () => undefined })],
  ['a DataView', () => new DataView(new ArrayBuffer(8))],
  ['an ArrayBuffer', () => new ArrayBuffer(8)],
  ['a SharedArrayBuffer', () => new SharedArrayBuffer(8)],
  ['a Buffer', () => Buffer.alloc(8)],
  ['an address', () => ({ ptr: 4096n, dtype: 'float32' })],
  ['a misspelt signal', () => ({ aborted: false })],
  ['an aborted signal', () => AbortSignal.abort(Symbol('reason'))],
  ['an object that inherits from signals', () => Object.create(AbortSignal.prototype) as object],
  ['a Proxy of a signal', () => new Proxy(new AbortController().signal, {})],
  ['a Proxy of an array', () => new Proxy([2, 3, 5], {})],
  ...[Float32Array, Float64Array, Int32Array, Uint16Array, Uint8Array, Int8Array].flatMap((kind) =>
    [0, 1, 3].map((n) => [`a ${kind.name} of ${n}`, () => new kind(n)] as const),
  ),
  ['a BigInt64Array', () => new BigInt64Array(4)],
  ['a Uint8ClampedArray', () => new Uint8ClampedArray(4)],
];
const values = [...junk, ...objects];

const batchKeys = [
  ...['logits', 'hidden', 'weight', 'bias', 'labels', 'sftLabels', 'offsets', 'shape', 'dtype'],
  ...['rowStride', 'hiddenSize', 'ignoreIndex', 'reference', 'logps', 'counts', 'groups'],
  ...['logitScale', 'logitSoftcap', 'temperature', ...fieldNames],
];
const keysOf = {
  batch: batchKeys,
  run: [
    ...['gradient', 'inPlace', 'out', 'backend', 'threads', 'signal', 'memory', 'accumulate'],
    ...['gradientScale', 'metrics', 'buffers'],
  ],
  settings: [
    'method',
    'beta',
    'normalize',
    'weight',
    'objective',
    ...methods().flatMap((m) => Object.keys(m.options)),
  ],
  out: ['gradHidden', 'gradWeight', 'gradBias'],
  derivatives: ['rows', 'sequences', 'entropy', 'forward'],
} as const;

const value: Twist = {
  name: 'a value of another kind',
  apply(call, random) {
    call.run ??= {};
    if (call.objects.size === 0) return undefined;
    const [name, object] = choose(random, [...call.objects]);
    // Mostly a key that is there: others are refused whatever their value.
    const keys = random() < 0.7 ? Object.keys(object) : keysOf[name];
    if (keys.length === 0) return undefined;
    const [key, [what, make]] = [choose(random, keys), choose(random, values)];
    object[key] = make();
    if (key === 'inPlace') call.overwrites = true;
    return { expect: 'any', what: `${name}.${key} is ${what}` };
  },
};

const missing: Twist = {
  name: 'a property that is missing',
  apply(call, random) {
    if (call.objects.size === 0) return undefined;
    const [name, object] = choose(random, [...call.objects]);
    const keys = Object.keys(object);
    if (keys.length === 0) return undefined;
    const key = choose(random, keys);
    Reflect.deleteProperty(object, key);
    return { expect: 'any', what: `${name} has no ${key}` };
  },
};

const whole: Twist = {
  name: 'an argument of another kind',
  apply(call, random) {
    const names = [...call.objects.keys()];
    if (names.length === 0) return undefined;
    const [name, [what, make]] = [choose(random, names), choose(random, values)];
    // The engine's own error, about an object of the caller's.
    if (what === 'a revoked Proxy') call.planted.add(TypeError);
    call.replace(name, make());
    return { expect: 'any', what: `${name} is ${what}` };
  },
};

const positional: Twist = {
  name: 'settings in other places',
  apply(call, random) {
    if (!hasLoss(call.plan)) return undefined;
    const [what, make] = choose(random, values);
    const i = integer(random, 0, 4);
    call.settings[i] = make();
    return { expect: 'any', what: `argument ${i} of dirAlignLoss is ${what}` };
  },
};

const sizes = [0, 1, 2, 2 ** 20, 2 ** 31 - 1, 2 ** 31, 2 ** 32, 2 ** 40, 2 ** 53 - 1, 2 ** 53];
const shape: Twist = {
  name: 'another shape',
  apply(call, random) {
    const batch = call.objects.get('batch');
    // Another twist may have put anything there.
    if (!Array.isArray(batch?.shape) || !batch.shape.every((x) => typeof x === 'number')) return;
    const changed: unknown[] = [...batch.shape];
    const i = integer(random, 0, changed.length - 1);
    const old = changed[i] as number;
    const near = [old + 1, old - 1, 2 * old, -old, old + 0.5];
    changed[i] = choose(random, [...near, ...sizes, NaN, String(old), BigInt(old), [old], null]);
    // Two of them, so that products overflow, or are 0 however large one is.
    if (random() < 0.5) changed[integer(random, 0, changed.length - 1)] = choose(random, sizes);
    if (random() < 0.1) changed.push(1);
    batch.shape = changed;
    return { expect: 'any', what: `shape is [${changed.map(String).join(', ')}]` };
  },
};

export const contentTwists: readonly Twist[] = [
  ...[label, offset, counts, reference, logps],
  ...[field, stranger, needed, groups, ranks, transform, derivative, both],
  ...[value, missing, whole, positional, shape],
];
