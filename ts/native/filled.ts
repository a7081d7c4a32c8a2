/**
 * Arrays that native code fills, or reads and nobody else has. The engine has those of up to 64
 * bytes in its heap, until native code asks where they are: then each moves to memory of its own,
 * and with what the collector does for that later it takes 0.2 to 0.7 us, where a small call takes
 * 5 in all. So these are lent for a call, and what the caller gets of them are copies, which stay
 * in the heap.
 */
import { allocate } from '../batch/arrays.js';

/** Bytes that an array has in the engine's heap. */
const mostBytes = 64;
/** Elements of an array that is lent. */
const mostElements = 64;
/** Idle arrays of a length. */
const mostIdle = 16;

interface Kinds {
  readonly Float64Array: Float64Array;
  readonly Float32Array: Float32Array;
  readonly Int32Array: Int32Array;
}
type Filled = Kinds[keyof Kinds];

/** Idle arrays by their length. */
const byLength = <A extends Filled>(): readonly A[][] =>
  Array.from({ length: mostElements + 1 }, () => []);
const idle: { readonly [Kind in keyof Kinds]: readonly Kinds[Kind][][] } = {
  Float64Array: byLength(),
  Float32Array: byLength(),
  Int32Array: byLength(),
};

/**
 * An array, all 0, until {@link resultOf} or {@link giveBack}. A call that fails keeps it.
 * @throws DirAlignError with code ERR_DIRALIGN_MEMORY
 */
export function filled<Kind extends keyof Kinds>(
  name: string,
  kind: Kind,
  length: number,
): Kinds[Kind] {
  const used = length <= mostElements ? idle[kind][length]?.pop() : undefined;
  return (used?.fill(0) ?? allocate(name, kind, length)) as Kinds[Kind];
}

/** Of an array that no result has. */
export function giveBack(array: Float64Array): void {
  keep(idle.Float64Array, array);
}

function keep<A extends Filled>(lists: readonly A[][], array: A): void {
  const list = lists[array.length];
  if (list && list.length < mostIdle) list.push(array);
}

/** The array for the caller, once it is filled. */
export function resultOf<A extends Filled>(array: A): A;
export function resultOf(array: Filled): Filled {
  if (array.byteLength > mostBytes) return array;
  if (array instanceof Float64Array) {
    keep(idle.Float64Array, array);
    return new Float64Array(array);
  }
  if (array instanceof Int32Array) {
    keep(idle.Int32Array, array);
    return new Int32Array(array);
  }
  keep(idle.Float32Array, array);
  return new Float32Array(array);
}
