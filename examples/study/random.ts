/**
 * Uniform numbers in [0, 1), multiples of 2^-32, the same on every machine: Chris Doty-Humphrey's
 * sfc32. Its counter makes streams of different seeds distinct for 2^32 numbers, which a generator
 * with 32 bits of state cannot promise to hundreds of seeds.
 */
export function uniformNumbers(seed: number, stream: number): () => number {
  let a = seed | 0;
  let b = stream | 0;
  let c = 0x9e3779b9 | 0;
  let counter = 1;
  const next = (): number => {
    const out = (a + b + counter) | 0;
    counter = (counter + 1) | 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) | 0;
    c = (((c << 21) | (c >>> 11)) + out) | 0;
    return (out >>> 0) / 2 ** 32;
  };
  // The seed has reached every bit of the state by then.
  for (let i = 0; i < 16; i++) next();
  return next;
}
