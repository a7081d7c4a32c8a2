/** What a native engine would hand over. Only compiled. */
export const shape = [4, 512, 32000] as const;
export const labels = new Int32Array(4 * 512).fill(-100);
export const reference = new Float64Array(4);
export const logitsOnHost = new Float32Array(0);
export const policyLogits = { address: 0n, stream: 0n };
