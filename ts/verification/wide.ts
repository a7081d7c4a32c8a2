/**
 * Float64 numbers whose exponents have no end, for the reference: slopes that meet in a chain rule
 * may each be far beyond float64.
 */

const double = new Float64Array(1);
const words = new Uint32Array(double.buffer);

/** The exponent of a finite number that is not 0: |x| is 2^exponent times 1 to 2. */
function exponentOf(x: number): number {
  double[0] = x;
  const biased = ((words[1] as number) >>> 20) & 0x7ff;
  return biased === 0 ? exponentOf(x * 2 ** 54) - 54 : biased - 1023;
}

/** ln 2 in two parts: the product of the first with a whole number of 23 bits is exact. */
const ln2 = [0x2c5c85fd / 2 ** 30, 8.893134238886677e-10] as const;

/**
 * fraction * 2^exponent, with a fraction of 1 to 2, or the number itself where that is 0, infinite
 * or not a number. Operations round as those of float64 do, to 53 bits, so that they have the same
 * bits wherever float64 has the numbers.
 */
export class Wide {
  private constructor(
    private readonly fraction: number,
    private readonly exponent: number,
  ) {}

  static of(x: number | Wide): Wide {
    return typeof x === 'number' ? Wide.scaled(x, 0) : x;
  }
  private static scaled(x: number, exponent: number): Wide {
    if (x === 0 || !Number.isFinite(x)) return new Wide(x, 0);
    const own = exponentOf(x);
    // In two factors: one of them may be beyond 2^1023.
    const fraction = x * 2 ** -Math.floor(own / 2) * 2 ** -Math.ceil(own / 2);
    return new Wide(fraction, own + exponent);
  }

  /** The nearest float64. */
  get number(): number {
    if (this.fraction === 0 || !Number.isFinite(this.fraction)) return this.fraction;
    if (this.exponent > 1023) return this.fraction * Infinity;
    // Below the normal numbers, only the last step may round.
    return this.exponent < -1022
      ? this.fraction * 2 ** Math.max(this.exponent + 200, -1022) * 2 ** -200
      : this.fraction * 2 ** this.exponent;
  }
  get isZero(): boolean {
    return this.fraction === 0;
  }
  private get isPlain(): boolean {
    return this.fraction === 0 || !Number.isFinite(this.fraction);
  }

  plus(other: Wide): Wide {
    if (this.isZero) return other;
    if (other.isZero) return this;
    if (this.isPlain || other.isPlain) return Wide.of(this.fraction + other.fraction);
    const [high, low] = this.exponent >= other.exponent ? [this, other] : [other, this];
    if (high.exponent - low.exponent > 60) return high;
    return Wide.scaled(
      high.fraction + low.fraction * 2 ** (low.exponent - high.exponent),
      high.exponent,
    );
  }
  times(other: Wide): Wide {
    return Wide.scaled(this.fraction * other.fraction, this.exponent + other.exponent);
  }
  over(other: Wide): Wide {
    return Wide.scaled(this.fraction / other.fraction, this.exponent - other.exponent);
  }
  negated(): Wide {
    return new Wide(-this.fraction, this.exponent);
  }
  abs(): Wide {
    return new Wide(Math.abs(this.fraction), this.exponent);
  }

  /** e^this. */
  exp(): Wide {
    const x = this.number;
    if (!(Math.abs(x) > 700)) return Wide.of(Math.exp(x));
    if (!Number.isFinite(x)) return Wide.of(x > 0 ? Infinity : 0);
    const n = Math.round(x / Math.LN2);
    // Beyond 10^15, x itself does not say where between two powers of 2 it is.
    return Wide.scaled(Math.abs(x) > 1e15 ? 1 : Math.exp(x - n * ln2[0] - n * ln2[1]), n);
  }
  /** e^this - 1. */
  expm1(): Wide {
    return this.number > 700 ? this.exp() : Wide.of(Math.expm1(this.number));
  }
  /** log(1 + this), this being no less than 0. */
  log1p(): Wide {
    return this.exponent < -60 ? this : Wide.of(Math.log1p(this.number));
  }
}
