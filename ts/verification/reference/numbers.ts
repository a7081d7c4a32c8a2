/** Elements, 16-bit formats and sums, for the reference. */

/** An element that is known to be there. */
export function at<T>(array: ArrayLike<T>, index: number): T {
  return array[index] as T;
}

/** Bits of a bfloat16 to its value: the upper half of a float32. */
export function decodeBfloat16(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 7) & 0xff;
  const fraction = (bits & 0x7f) / 128;
  if (exponent === 255) return fraction === 0 ? sign * Infinity : NaN;
  return exponent === 0
    ? sign * fraction * 2 ** -126
    : sign * (1 + fraction) * 2 ** (exponent - 127);
}

/** Bits of an IEEE binary16 to its value. */
export function decodeFloat16(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 0x1f;
  const fraction = (bits & 0x3ff) / 1024;
  if (exponent === 31) return fraction === 0 ? sign * Infinity : NaN;
  return exponent === 0 ? sign * fraction * 2 ** -14 : sign * (1 + fraction) * 2 ** (exponent - 15);
}

/**
 * A sum whose error does not grow with the number of terms: what each addition rounds away is kept
 * (Neumaier).
 */
export class Sum {
  private total = 0;
  private lost = 0;
  add(term: number): void {
    const next = this.total + term;
    const [large, small] =
      Math.abs(this.total) >= Math.abs(term) ? [this.total, term] : [term, this.total];
    // Infinities have nothing to lose, and Infinity - Infinity would make a NaN of them.
    if (Number.isFinite(next)) this.lost += large - next + small;
    this.total = next;
  }
  get value(): number {
    return this.total + this.lost;
  }
}

/** Sum of term(0), ..., term(count - 1). */
export function sum(count: number, term: (index: number) => number): number {
  const result = new Sum();
  for (let index = 0; index < count; index++) result.add(term(index));
  return result.value;
}

/** Their mean. */
export function mean(values: ArrayLike<number>): number {
  return sum(values.length, (index) => at(values, index)) / values.length;
}
