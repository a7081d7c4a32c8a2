/** Element types of logits and gradients, and the bytes that they take. */

/** How the 16 or 32 bits of a logit are read. */
export type Dtype = 'float32' | 'float16' | 'bfloat16';

/** A `Float16Array`, on runtimes that have one (Node 24 and later). */
export interface Float16ArrayLike extends ArrayBufferView {
  /** Elements. */
  readonly length: number;
  /** 2. */
  readonly BYTES_PER_ELEMENT: number;
  /** Its name. */
  readonly [Symbol.toStringTag]: 'Float16Array';
}

export const elementBytes: Readonly<Record<Dtype, number>> = {
  float32: 4,
  float16: 2,
  bfloat16: 2,
};

/** In the order of the native side's numbers. */
export const dtypes: readonly Dtype[] = ['float32', 'float16', 'bfloat16'];
