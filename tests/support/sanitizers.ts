/** Whether AddressSanitizer is in this process. */
export const isSanitized = (process.env.LD_PRELOAD ?? '').includes('asan');
