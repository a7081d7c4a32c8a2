// Arrays in other clothes: what a caller's program may make of a typed array, on purpose or not.
import vm from 'node:vm';
import { choose, integer, type Random } from '../support/numbers.js';
import type { Call } from './call.js';
import { Float16, Guarded, type Constructor, type HostArray, type View } from './memory.js';
import { copiedKeys, isRead, planted, type Expectation, type Twist } from './twist.js';

/** One array of the call: what is given in its place, and what must come of that. */
type Disguise = (
  held: Guarded,
  random: Random,
  call: Call,
) => { readonly value: unknown; readonly expect: Expectation; readonly what?: string } | undefined;

const constructorOf = (view: View): Constructor => view.constructor as Constructor;
const over = ({ value }: Guarded, kind = constructorOf(value), length = value.length): HostArray =>
  new kind(value.buffer, value.byteOffset, length);

/** The constructors of another realm. */
const realm = vm.runInNewContext(
  '({ Float32Array, Float64Array, Int32Array, Uint8Array, Uint16Array, ArrayBuffer, ' +
    'SharedArrayBuffer, Array, ' +
    "Float16Array: typeof Float16Array === 'function' ? Float16Array : undefined })",
) as Record<string, Constructor> & {
  ArrayBuffer: ArrayBufferConstructor;
  SharedArrayBuffer: SharedArrayBufferConstructor;
};
const inRealm = (view: View): Constructor => realm[constructorOf(view).name] as Constructor;

/**
 * What replaces a property of an array; 'the constructor' is a value that it has in every class.
 */
const lies: readonly (readonly [key: PropertyKey, values: readonly unknown[]])[] = [
  ['length', [0, 1, 2 ** 31, 2 ** 53, -1, NaN, undefined, '3', Symbol('length')]],
  ['byteLength', [0, 4, 2 ** 40, NaN]],
  ['byteOffset', [0, 4, 2 ** 40, -8, NaN]],
  ['BYTES_PER_ELEMENT', [1, 2, 4, 8, 0, NaN]],
  ['buffer', [new ArrayBuffer(0), new ArrayBuffer(8), null, new SharedArrayBuffer(8), {}]],
  ['constructor', [Array, Float64Array, Uint8Array, undefined, null, Object, () => 1]],
  [Symbol.toStringTag, ['Float64Array', 'Float16Array', 'Uint16Array', 'Int32Array', undefined, 1]],
  [Symbol.species, [Array, null]],
  [Symbol.iterator, [undefined, () => [][Symbol.iterator]()]],
  ['ptr', [4096n, 0n, 4096]],
  [
    'then',
    [
      (settle: (x: number) => void) => {
        settle(1);
      },
    ],
  ],
  ['toJSON', [() => undefined]],
];
const methodNames = ['subarray', 'slice', 'set', 'at', 'every', 'fill', 'map', 'some', 'forEach'];

const disguises: Readonly<Record<string, Disguise>> = {
  'an instance of a subclass': (held) => {
    const Base = constructorOf(held.value) as unknown as new (...all: unknown[]) => Int32Array;
    return { value: over(held, class extends Base {} as unknown as Constructor), expect: 'same' };
  },
  'a subclass whose constructor has ideas of its own': (held, random, call) => {
    const Base = constructorOf(held.value) as unknown as new (...all: unknown[]) => Int32Array;
    let armed = false;
    const results = [() => new Base(0), () => new Base(1), () => new Float64Array(3), () => ({})];
    const result = choose(random, results);
    const error = random() < 0.2 ? planted(call) : undefined;
    class Own extends Base {
      constructor(...all: unknown[]) {
        if (armed && error) throw error;
        super(...all);
        if (armed) return result() as Own;
      }
      static get [Symbol.species](): unknown {
        return armed ? choose(random, [Own, Array, undefined]) : Own;
      }
    }
    const value = over(held, Own as unknown as Constructor);
    armed = true;
    return { value, expect: 'same' };
  },
  'an array with properties of its own': (held, random) => {
    const value = over(held);
    const [key, values] = choose(random, lies);
    const lie = choose(random, values);
    Object.defineProperty(value, key, { value: lie, enumerable: random() < 0.5 });
    return { value, expect: 'same', what: String(key) };
  },
  'an array with accessors of its own': (held, random, call) => {
    const value = over(held);
    const [key, values] = choose(random, lies);
    const error = random() < 0.5 ? planted(call) : undefined;
    let reads = 0;
    const get = (): unknown => {
      if (error) throw error;
      return reads++ === 0 ? Reflect.get(held.value, key) : choose(random, values);
    };
    Object.defineProperty(value, key, { get });
    return { value, expect: 'same', what: String(key) };
  },
  'an array with methods of its own': (held, random, call) => {
    const value = over(held);
    const error = planted(call);
    const key = choose(random, methodNames);
    const method = (): never => {
      throw error;
    };
    Object.defineProperty(value, key, { value: method });
    return { value, expect: 'same', what: key };
  },
  'an array of another prototype': (held, random) => {
    const value = over(held);
    const prototypes = [null, Object.prototype, Array.prototype, Uint16Array.prototype];
    Object.setPrototypeOf(value, choose(random, [...prototypes, Float32Array.prototype, {}]));
    return { value, expect: 'same' };
  },
  'an array that cannot be extended': (held) => ({
    value: Object.preventExtensions(over(held)),
    expect: 'same',
  }),
  'an array of another realm': (held) => ({
    value: over(held, inRealm(held.value)),
    expect: 'same',
  }),
  'an array over a buffer of another realm': (held, random) => {
    const kind = choose(random, [realm.ArrayBuffer, realm.SharedArrayBuffer]);
    held.move((bytes) => new kind(bytes));
    return { value: held.value, expect: 'same' };
  },
  'an array over memory that may change its size': (held, random) => {
    type Sized = new (bytes: number, options: { maxByteLength: number }) => ArrayBufferLike;
    const kinds = [ArrayBuffer, SharedArrayBuffer, realm.ArrayBuffer, realm.SharedArrayBuffer];
    const kind = choose(random, kinds) as unknown as Sized;
    held.move((bytes) => new kind(bytes, { maxByteLength: 2 * bytes + 64 }));
    const { value } = held;
    const Tracking = constructorOf(value) as unknown as new (
      b: ArrayBuffer,
      o: number,
    ) => HostArray;
    const tracks = random() < 0.3;
    return {
      value: tracks ? new Tracking(value.buffer, value.byteOffset) : value,
      expect: 'refused',
      what: kind.name,
    };
  },
  'an array whose memory is gone': (held) => {
    if (!(held.value.buffer instanceof ArrayBuffer)) return undefined;
    const value = over(held);
    structuredClone(value.buffer, { transfer: [value.buffer] });
    return { value, expect: 'refused' };
  },
  'a Proxy of an array': (held, random) => {
    const target = over(held);
    const handler: ProxyHandler<object> =
      random() < 0.5 ? {} : { get: (of, key) => Reflect.get(of, key, of) as unknown };
    return { value: new Proxy(target, handler), expect: 'refused' };
  },
  'an object that inherits from an array': (held) => ({
    value: Object.create(over(held)) as object,
    expect: 'refused',
  }),
  'an object that has what an array has': (held) => ({
    value: Object.setPrototypeOf(
      Object.assign({ length: held.value.length }, over(held)),
      constructorOf(held.value).prototype as object,
    ) as object,
    expect: 'refused',
  }),
  'an array of another length': (held, random) => {
    const { length } = held.value;
    const other = choose(random, [length - 1, length + 1, 2 * length, 0]);
    const kind = constructorOf(held.value) as unknown as new (length: number) => HostArray;
    if (other < 0 || other === length) return undefined;
    return { value: new kind(other), expect: 'any', what: `${length} -> ${other}` };
  },
  'an array of another type': (held, random) => {
    const kinds = [Float32Array, Float64Array, Int32Array, Uint16Array, Uint32Array, Int16Array];
    const kind = choose(random, [...kinds, ...(Float16 ? [Float16] : []), Uint8Array]);
    const make = kind as unknown as new (length: number) => View;
    return { value: new make(held.value.length), expect: 'any', what: kind.name };
  },
};

const hostArrays = (call: Call): [string, Guarded][] =>
  [...call.inputs, ...call.outputs].filter(
    (entry): entry is [string, Guarded] => entry[1] instanceof Guarded && !entry[1].isGone,
  );

const disguised: readonly Twist[] = Object.entries(disguises).map(([name, disguise]) => ({
  name,
  apply(call, random) {
    const arrays = hostArrays(call);
    if (arrays.length === 0) return undefined;
    const [key, held] = choose(random, arrays);
    const result = disguise(held, random, call);
    if (!result) return undefined;
    call.give(key, result.value);
    const expect = result.expect === 'refused' && !isRead(call, key) ? 'any' : result.expect;
    return { expect, what: `${key}: ${name}${result.what ? `, ${result.what}` : ''}` };
  },
}));

/** A second object over the same shared memory, as a message to another thread makes it. */
const twin = (buffer: SharedArrayBuffer): SharedArrayBuffer => structuredClone(buffer);

const overlap: Twist = {
  name: 'a gradient over what the call reads',
  apply(call, random) {
    const targets = [...call.outputs].filter(([, held]) => held instanceof Guarded);
    const sources = hostArrays(call).filter(
      ([key]) => call.inputs.has(key) && isRead(call, key) && !copiedKeys.has(key),
    );
    if (targets.length === 0 || sources.length === 0) return undefined;
    const [name, held] = choose(random, targets) as [string, Guarded];
    const [key, source] = choose(random, sources);
    const [size, { length }] = [held.value.BYTES_PER_ELEMENT, held.value];
    if (length === 0 || source.value.length === 0) return undefined;
    // Both in one stretch of memory, the gradient ending or beginning inside the other.
    const bytes = source.value.byteLength;
    const room = length * size;
    const begin = room + 64;
    const shared = random() < 0.5;
    const total = begin + bytes + room + 64;
    const buffer = shared ? new SharedArrayBuffer(total) : new ArrayBuffer(total);
    const input = new (constructorOf(source.value))(
      buffer,
      begin - (begin % source.value.BYTES_PER_ELEMENT),
      source.value.length,
    );
    input.set(source.value);
    const last = input.byteOffset + bytes - 1;
    const first = input.byteOffset - room + size;
    const at = integer(random, Math.ceil(first / size), Math.floor(last / size)) * size;
    const memory = shared && random() < 0.7 ? twin(buffer as SharedArrayBuffer) : buffer;
    const output = new (constructorOf(held.value))(memory, at, length);
    call.give(key, input);
    call.give(name, output);
    return { expect: 'refused', what: `${name} overlaps ${key}` };
  },
};

export const arrayTwists: readonly Twist[] = [...disguised, overlap];
