/** A batch of one pair, as a trainer has it. */
export const shape = [2, 3, 4];
export const labels = Int32Array.of(-100, 2, 1, -100, 0, 3);
export const logits = Float32Array.from({ length: 24 }, (_, i) => Math.cos(i));
export const reference = Float64Array.of(-3, -3);
