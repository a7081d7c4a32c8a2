/**
 * What a caller gives: properties read once, names that are not known, and values as messages name
 * them.
 */
import { types } from 'node:util';
import { typeError, type DirAlignErrorCode } from './errors.js';

const maxShown = 80;

/** A value as a message names it: primitives as they are, objects by their class. Never throws. */
export function describe(value: unknown): string {
  switch (typeof value) {
    case 'string':
      return value.length > maxShown ? `'${value.slice(0, maxShown)}…'` : `'${value}'`;
    case 'bigint':
      return `${value}n`;
    case 'symbol':
      return value.toString();
    case 'function':
      return 'a function';
    case 'object':
      return value === null ? 'null' : describeObject(value);
    default:
      return String(value);
  }
}

/** What an error says; of anything else that was thrown, what it is. Never throws. */
export function messageOf(error: unknown): string {
  try {
    if (error instanceof Error) {
      const { message }: { readonly message: unknown } = error;
      if (typeof message === 'string') return message;
    }
  } catch {
    // A getter that throws, or a revoked Proxy.
  }
  return typeof error === 'string' ? error : describe(error);
}

function describeObject(value: object): string {
  // The class of a Proxy is whatever its handler says, and asking runs it.
  if (types.isProxy(value)) return isRevoked(value) ? 'a revoked Proxy' : 'a Proxy';
  try {
    const { constructor } = value as { readonly constructor?: { readonly name?: unknown } };
    const name = constructor?.name;
    if (typeof name === 'string' && name !== '') return name;
  } catch {
    // A getter that throws.
  }
  return 'an object';
}

/** Sizes as messages write them: `[2,3]`. */
export function written(values: readonly unknown[]): string {
  const each = (value: unknown): string =>
    typeof value === 'string' ? JSON.stringify(value) : describe(value);
  return `[${values.map(each).join(',')}]`;
}

/** `'a', 'b'`. */
export function quoted(names: Iterable<string>): string {
  return [...names].map((name) => `'${name}'`).join(', ');
}

/**
 * Whether it is an array, of any realm. A revoked Proxy is none, though Array.isArray throws for
 * it.
 */
export function isArray(value: unknown): value is unknown[] {
  return !isRevoked(value) && Array.isArray(value);
}

/**
 * The first elements of an array, which may be a Proxy or have getters, each read once; at most
 * `most`, which tells that there are too many. What is no array comes back as it is.
 */
export function readElements(value: unknown, most: number): unknown {
  if (!isArray(value)) return value;
  const length: unknown = value.length;
  const count = typeof length === 'number' ? Math.trunc(Math.min(length, most)) : 0;
  const elements: unknown[] = [];
  for (let i = 0; i < count; i++) elements[i] = value[i];
  return elements;
}

/** Whether it is a Proxy, or a Proxy of one, that was revoked: whatever is asked of it throws. */
export function isRevoked(value: unknown): boolean {
  if (!types.isProxy(value)) return false;
  try {
    // The one question about a Proxy that no trap answers.
    Array.isArray(value);
    return false;
  } catch {
    return true;
  }
}

/**
 * @throws DirAlignError for anything but an object with properties of its own: arrays and views are
 * mistakes here
 */
export function checkObject(
  name: string,
  value: unknown,
  code: DirAlignErrorCode = 'ERR_DIRALIGN_OPTION',
  expected = 'an object',
): asserts value is object {
  const isObject = typeof value === 'object' && value !== null && !isRevoked(value);
  if (!isObject || ArrayBuffer.isView(value) || isArray(value)) {
    throw typeError(code, `${name}: expected ${expected}, not ${describe(value)}`);
  }
}

/** @throws DirAlignError for what is no object that can be gone through: text is a mistake here */
export function checkIterable(
  name: string,
  value: unknown,
  of: string,
): asserts value is Iterable<unknown> {
  const isObject = typeof value === 'object' && value !== null && !isRevoked(value);
  if (!isObject || typeof (value as Partial<Iterable<unknown>>)[Symbol.iterator] !== 'function')
    throw typeError(
      'ERR_DIRALIGN_OPTION',
      `${name}: expected an iterable of ${of}, not ${describe(value)}`,
    );
}

/** Reads a property of a caller's object. Ignores what a program has added to Object.prototype. */
function property(object: object, key: string): unknown {
  const value = (object as Record<string, unknown>)[key];
  if (value === undefined || !(key in Object.prototype)) return value;
  for (
    let at: object | null = object;
    at !== null && at !== Object.prototype;
    at = Object.getPrototypeOf(at) as object | null
  ) {
    if (Object.hasOwn(at, key)) return value;
  }
  return undefined;
}

/** What a program adds to Object.prototype is not looked up in what inherits from it. */
const nothing = Object.freeze(Object.create(null) as object);

/**
 * Whether what it has are properties of its own that can be enumerated: a copy of them is all there
 * is to read.
 */
function isPlain(object: object, keys: readonly string[]): boolean {
  if (types.isProxy(object)) return false;
  const prototype: unknown = Object.getPrototypeOf(object);
  return (
    (prototype === Object.prototype || prototype === null) &&
    Object.getOwnPropertyNames(object).length === keys.length
  );
}

/**
 * Reads each of `keys` once into an object that has those that are there: whatever getters and
 * Proxies do later, the checks and the computation see the same values. Unknown properties of the
 * object's own are refused.
 * @param welcome further names, which mean nothing here but are not refused.
 */
export function readProperties<Key extends string>(
  name: string,
  object: object,
  keys: readonly Key[],
  code: DirAlignErrorCode = 'ERR_DIRALIGN_OPTION',
  welcome: ReadonlySet<string> = new Set(),
): Record<Key, unknown> {
  const own = Object.keys(object);
  for (const key of own) {
    if (keys.includes(key as Key) || welcome.has(key)) continue;
    const kind = code === 'ERR_DIRALIGN_OPTION' ? 'option' : 'property';
    throw typeError(code, unknownName(kind, `${name}.${key}`, key, keys));
  }
  // A third of the time that it takes to ask for every key.
  if (isPlain(object, own)) return { __proto__: nothing, ...object } as Record<Key, unknown>;
  const values = Object.create(nothing) as Record<Key, unknown>;
  for (const key of keys) {
    const value = property(object, key);
    if (value !== undefined) values[key] = value;
  }
  return values;
}

/**
 * Every property of the object's own, and those of `keys` that its class has: for names that are
 * checked later.
 */
export function readAll(object: object, keys: Iterable<string>): Readonly<Record<string, unknown>> {
  const values = Object.create(null) as Record<string, unknown>;
  for (const key of new Set([...Object.keys(object), ...keys])) values[key] = property(object, key);
  return values;
}

/**
 * A read-only property. Without a prototype, the descriptor says nothing that Object.prototype
 * adds.
 */
export function define(object: object, key: PropertyKey, value: unknown): void {
  Object.defineProperty(
    object,
    key,
    Object.assign(Object.create(null), { value, enumerable: true }) as PropertyDescriptor,
  );
}

/** The message about a value that is none of a few names. */
export function noneOf(what: string, value: unknown, names: readonly string[]): string {
  const near = typeof value === 'string' ? nearest(value, names) : undefined;
  const advice = near === undefined ? '' : `; did you mean '${near}'?`;
  return `${what}: ${describe(value)} is not one of ${quoted(names)}${advice}`;
}

/** The message about a name that is not known. */
export function unknownName(
  kind: string,
  what: string,
  name: string,
  known: Iterable<string>,
): string {
  const names = [...known];
  const near = nearest(name, names);
  const hint = near === undefined ? `there are ${names.join(', ')}` : `did you mean '${near}'?`;
  return `${what}: no such ${kind}; ${hint}`;
}

/**
 * The name that was probably meant: spelt in another style, or with few letters changed; undefined
 * where none is near.
 */
export function nearest(name: string, known: Iterable<string>): string | undefined {
  const plain = (text: string): string => text.replace(/[_\-\s]/g, '').toLowerCase();
  const wanted = plain(name.slice(0, maxShown));
  let best: string | undefined;
  let least = Math.max(1, Math.floor(wanted.length / 3)) + 1;
  for (const candidate of known) {
    const distance = editDistance(wanted, plain(candidate));
    if (distance < least) [best, least] = [candidate, distance];
  }
  return best;
}

/** The Levenshtein distance, row by row. */
function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const replaced = (row[j - 1] as number) + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(replaced, (row[j] as number) + 1, (next[j - 1] as number) + 1));
    }
    row = next;
  }
  return row[b.length] as number;
}
