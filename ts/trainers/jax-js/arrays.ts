/** What the loss takes of jax-js arrays: checks that neither read nor consume them, and reading. */
import { Array as JaxArray, tree, type JsTree } from '@jax-js/jax';
import { checkShape, type Outline } from '../bindings.js';
import { typeError, type DirAlignErrorCode } from '../../errors.js';
import { describe } from '../../given.js';

/** An array, or what stands for one while a function is traced. */
export function isArrayOrTracer(value: unknown): value is JaxArray {
  return (
    value instanceof JaxArray ||
    (value instanceof Object && ['shape', 'dtype', 'ref', 'dispose'].every((key) => key in value))
  );
}

function checkLive(name: string, array: JaxArray): void {
  if (array.refCount <= 0) {
    throw typeError(
      'ERR_DIRALIGN_SHAPE',
      `${name}: the array is freed; pass array.ref where it is consumed before`,
    );
  }
}

/** @throws DirAlignError unless every leaf is an array that can be read */
export function checkParams(params: JsTree<JaxArray>): void {
  for (const leaf of tree.leaves<unknown>(params)) {
    if (!(leaf instanceof JaxArray)) {
      const traced = isArrayOrTracer(leaf)
        ? '; the loss reads numbers, and cannot be inside of jit, grad or vmap'
        : '';
      throw typeError(
        'ERR_DIRALIGN_OPTION',
        `params: expected a tree of Arrays, not one with ${describe(leaf)}${traced}`,
      );
    }
    checkLive('params', leaf);
  }
}

/** Of an array, what can be said without reading it. */
export interface ArrayOutline {
  readonly shape: readonly number[];
  readonly dtype: string;
}

export function checkFloats(name: string, { shape, dtype }: ArrayOutline, expected: Outline): void {
  if (dtype !== 'float32') {
    throw typeError(
      'ERR_DIRALIGN_DTYPE',
      `${name}: its dtype is ${dtype}; expected float32; astype(numpy.float32) makes it one`,
    );
  }
  checkShape(name, shape, expected);
}

/**
 * An array of a batch: one of the host, which the core checks, or one of jax-js, which is checked
 * here.
 */
export function checkGiven(
  name: string,
  value: unknown,
  dtype: 'int32' | 'float32',
  code: DirAlignErrorCode,
): void {
  if (!(value instanceof JaxArray)) return;
  if ((value.dtype as string) !== dtype) {
    const advice = `astype(numpy.${dtype}) makes it one`;
    throw typeError(code, `${name}: its dtype is ${value.dtype}; expected ${dtype}; ${advice}`);
  }
  checkLive(name, value);
}

/** Elements, row-major, in memory of their own. The arrays are consumed. */
export function readNow(arrays: readonly JaxArray[]): ArrayBufferView[] {
  return arrays.map((array) => array.dataSync() as ArrayBufferView);
}

/** The same for devices that answer later. */
export function readLater(arrays: readonly JaxArray[]): Promise<ArrayBufferView[]> {
  return Promise.all(arrays.map((array) => array.data() as Promise<ArrayBufferView>));
}
