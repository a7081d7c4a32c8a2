// Objects in other clothes: batches, options and settings whose properties are code.
import vm from 'node:vm';
import { choose, integer, type Random } from '../support/numbers.js';
import { bitsOf, Call, type Properties } from './call.js';
import { Guarded } from './memory.js';
import { planted, type Expectation, type Twist } from './twist.js';

/** One object of the call: what is given in its place, and what must come of that. */
type Disguise = (
  object: Properties,
  random: Random,
  call: Call,
) => { readonly value: unknown; readonly expect: Expectation; readonly what?: string } | undefined;

/** What a property says when it is read once more. */
function otherValue(value: unknown, random: Random): unknown {
  const others: unknown[] = [undefined, null, NaN, -1, 2 ** 40, 'x', Symbol('again'), {}, []];
  if (ArrayBuffer.isView(value)) {
    const kind = value.constructor as new (length: number) => unknown;
    const { length } = value as unknown as { length: number };
    others.push(new kind(0), new kind(1), new kind(length), new Float64Array(length));
  }
  if (Array.isArray(value))
    others.push(
      [],
      [1, 1, 1],
      [2 ** 20, 2 ** 20],
      value.map(() => 0),
    );
  if (typeof value === 'number') others.push(value + 1, 0);
  return choose(random, others);
}

/** Getters that tell the truth once. */
function liar(object: Properties, random: Random, target: object): object {
  for (const [key, value] of Object.entries(object)) {
    let reads = 0;
    const get = (): unknown => (reads++ === 0 ? value : otherValue(value, random));
    Object.defineProperty(target, key, { get, enumerable: true, configurable: true });
  }
  return target;
}

/** The first of `keys` that the object has, at random. */
function keyOf(object: object, random: Random): string | undefined {
  const keys = Object.keys(object);
  return keys.length === 0 ? undefined : choose(random, keys);
}

const traps = ['get', 'has', 'ownKeys', 'getOwnPropertyDescriptor', 'getPrototypeOf'] as const;

const disguises: Readonly<Record<string, Disguise>> = {
  'an object without a prototype': (object) => ({
    value: Object.assign(Object.create(null) as object, object),
    expect: 'same',
  }),
  'a frozen object': (object) => ({ value: Object.freeze({ ...object }), expect: 'same' }),
  'an instance of a class with accessors': (object) => {
    const prototype = {};
    for (const [key, value] of Object.entries(object))
      Object.defineProperty(prototype, key, { get: () => value, enumerable: false });
    return { value: Object.create(prototype) as object, expect: 'same' };
  },
  'an object of another realm': (object) => ({
    value: Object.assign(vm.runInNewContext('({})') as object, object),
    expect: 'same',
  }),
  'getters that answer otherwise the second time': (object, random) => ({
    value: liar(object, random, {}),
    expect: 'same',
  }),
  'a Proxy': (object) => ({ value: new Proxy({ ...object }, {}), expect: 'same' }),
  'a Proxy that answers otherwise the second time': (object, random) => ({
    value: new Proxy(liar(object, random, {}), {}),
    expect: 'same',
  }),
  'a getter that throws': (object, random, call) => {
    const key = keyOf(object, random);
    if (key === undefined) return undefined;
    const error = planted(call);
    const get = (): never => {
      throw error;
    };
    const value = Object.defineProperty({ ...object }, key, { get, enumerable: true });
    return { value, expect: 'thrown', what: key };
  },
  'a Proxy whose trap throws': (object, random, call) => {
    const error = planted(call);
    const trap = choose(random, traps);
    const fail = (): never => {
      throw error;
    };
    return { value: new Proxy({ ...object }, { [trap]: fail }), expect: 'any', what: trap };
  },
  'a Proxy that breaks the rules': (object, random, call) => {
    // The engine refuses such answers, by TypeErrors that are the caller's own.
    const handler: ProxyHandler<object> = choose(random, [
      { ownKeys: () => ['x', 'x'] },
      { ownKeys: () => 7 as never },
      { getOwnPropertyDescriptor: () => 7 as never },
      { getPrototypeOf: () => 7 as never },
    ]);
    call.planted.add(TypeError);
    return { value: new Proxy({ ...object }, handler), expect: 'any' };
  },
  'a revoked Proxy': (object, _, call) => {
    const { proxy, revoke } = Proxy.revocable({ ...object }, {});
    revoke();
    call.planted.add(TypeError);
    return { value: proxy, expect: 'thrown' };
  },
  'a name that is not known': (object, random) => {
    const key = choose(random, [
      'nonsense',
      'Labels',
      'grad',
      'lables',
      'toString',
      '',
      '0',
      'ptr',
    ]);
    // Neither a mistake nor a meaning: what is undefined.
    const value = random() < 0.8 ? 1 : undefined;
    const expect = value === undefined ? 'any' : 'refused';
    return { value: { ...object, [key]: value }, expect, what: `'${key}'` };
  },
  'a name of the prototype chain': (object, random) => {
    const key = choose(random, ['__proto__', 'constructor', 'hasOwnProperty']);
    const value = Object.defineProperty({ ...object }, key, { value: {}, enumerable: true });
    return { value, expect: 'any', what: key };
  },
  'a property of a symbol': (object) => ({
    value: { ...object, [Symbol('mine')]: 1 },
    expect: 'same',
  }),
  'a getter that changes the arrays': (object, random, call) => {
    const key = keyOf(object, random);
    if (key === undefined) return undefined;
    const arrays = [...call.inputs.values(), ...call.outputs.values()].filter(
      (held) => held instanceof Guarded,
    );
    const change = (): void => {
      for (const held of arrays) {
        if (random() < 0.5 || held.isGone) continue;
        call.restless.add(held);
        if (random() < 0.5) held.value.fill(choose(random, [-1, 2 ** 31 - 1, 0, 7]));
        else if (held.value.buffer instanceof ArrayBuffer)
          structuredClone(held.value.buffer, { transfer: [held.value.buffer] });
      }
    };
    const value = { ...object };
    const own = value[key];
    const get = (): unknown => {
      change();
      return own;
    };
    return { value: Object.defineProperty(value, key, { get }), expect: 'any', what: key };
  },
  'a getter that calls the package': (object, random, call) => {
    const key = keyOf(object, random);
    if (key === undefined) return undefined;
    const value = { ...object };
    const own = value[key];
    // Made now: what another twist adds to Object.prototype is not to be in its batch.
    const other = new Call({ ...call.plan, asynchronous: false });
    call.undo.push(() => {
      other.dispose();
    });
    const get = (): unknown => {
      bitsOf(other, other.start() as Properties);
      return own;
    };
    Object.defineProperty(value, key, { get, enumerable: true });
    return { value, expect: 'same', what: key };
  },
};

const disguised: readonly Twist[] = Object.entries(disguises).map(([name, disguise]) => ({
  name,
  apply(call, random) {
    if (call.objects.size === 0) return undefined;
    const [which, object] = choose(random, [...call.objects]);
    const result = disguise(object, random, call);
    if (!result) return undefined;
    call.replace(which, result.value);
    const what = `${which}: ${name}${result.what === undefined ? '' : `, ${result.what}`}`;
    return { expect: result.expect, what };
  },
}));

/** Properties that a program may have added to every object, and values of them. */
const pollution: readonly (readonly [key: string, values: readonly unknown[]])[] = [
  ['polluted', [1, () => 1]],
  ['gradient', ['none', 'x']],
  ['out', [{}, new Float32Array(1)]],
  ['inPlace', [true, 1]],
  ['buffers', [{}, 1]],
  ['threads', [1, -1]],
  ['signal', [AbortSignal.abort(), 1]],
  ['backend', ['cuda', 1]],
  ['dtype', ['bfloat16', 1]],
  ['offsets', [Int32Array.of(0), 1]],
  ['rowStride', [2 ** 20, 'x']],
  ['ignoreIndex', [0, 'x']],
  ['sftLabels', [Int32Array.of(0), 1]],
  ['reference', [Float64Array.of(0), 1]],
  ['bias', [Float32Array.of(0), 1]],
  ['hiddenSize', [1, 'x']],
  ['memory', [1, 'x']],
  ['accumulate', [true, 1]],
  ['gradientScale', [3, 'x']],
  ['metrics', [['entropy'], 'x']],
  ['normalize', [true, false, 1]],
  ['labelSmoothing', [0.4, 'x']],
  ['weights', [Float64Array.of(0), 'x']],
  ['margins', [Float64Array.of(3), 'x']],
  ['tokenWeights', [Float64Array.of(0), 'x']],
  ['denominator', [7, 'x']],
  ['kl', [7, 'x']],
  ['groups', [Int32Array.of(0, 1), 1]],
  ['temperature', [7, 'x']],
  ['logitSoftcap', [7, 'x']],
  ['rows', [Float64Array.of(0), 1]],
  ['sequences', [Float64Array.of(0), 1]],
  ['entropy', [Float64Array.of(0), 1]],
  ['forward', [{}, 1]],
  ['collision', [true, 1]],
  ['weight', [7, 'x']],
  ['objective', [1]],
  ['min', [0.9]],
  ['above', [0.9]],
  ['sftWeight', [1, 'x']],
  ['alpha', [0.1, 'x']],
  ['divergence', ['js', 1]],
  ['ptr', [4096n]],
  ['layer', [{}, 1]],
  ['needed', [1]],
  ['toJSON', [() => 'polluted']],
  [
    'then',
    [
      (settle: (x: number) => void) => {
        settle(1);
      },
    ],
  ],
  ['0', [1]],
];

const prototype: Twist = {
  name: 'a property that every object has',
  apply(call, random) {
    const [key, values] = choose(random, pollution);
    // Promises settle by what `then` is: nobody could await with this one.
    if (key === 'then' && call.plan.asynchronous) return undefined;
    const value = choose(random, values);
    const hidden = integer(random, 0, 1) === 1;
    const pollute = (): void => {
      const enumerable = !hidden;
      Object.defineProperty(Object.prototype, key, {
        ...{ value, enumerable, configurable: true, writable: true },
        __proto__: null,
      } as PropertyDescriptor);
    };
    call.before.push(pollute);
    call.undo.push(() => {
      Reflect.deleteProperty(Object.prototype, key);
    });
    return { expect: 'same', what: `Object.prototype.${key}` };
  },
};

type ShapeDisguise = (shape: number[], random: Random) => unknown;
const shapes: Readonly<Record<string, ShapeDisguise>> = {
  'a frozen one': (shape) => Object.freeze([...shape]),
  'one of another realm': (shape) => vm.runInNewContext(`[${shape.join(', ')}]`) as unknown,
  'an instance of a subclass': (shape) => {
    class Shape extends Array<number> {
      static override get [Symbol.species](): ArrayConstructor {
        return Float32Array as unknown as ArrayConstructor;
      }
      override every(): this is never[] {
        throw new Error('asked');
      }
    }
    return Shape.from(shape);
  },
  'a Proxy': (shape) => new Proxy([...shape], {}),
  'elements that answer otherwise the second time': (shape, random) =>
    liar(Object.fromEntries(shape.entries()), random, new Array<number>(shape.length)),
  'one with properties of its own': (shape, random) => {
    const key = choose(random, ['every', 'at', 'map', 'toJSON', 'constructor', Symbol.iterator]);
    return Object.defineProperty([...shape], key, { value: () => false });
  },
};
const shape: Twist = {
  name: 'an odd array for the shape',
  apply(call, random) {
    // Another twist may have put anything in its place.
    const batch = call.objects.get('batch');
    if (!Array.isArray(batch?.shape)) return undefined;
    const [what, disguise] = choose(random, Object.entries(shapes));
    batch.shape = disguise(batch.shape as number[], random);
    return { expect: 'same', what: `shape: ${what}` };
  },
};

export const objectTwists: readonly Twist[] = [shape, ...disguised, prototype];
