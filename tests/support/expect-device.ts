import { expect, test } from 'vitest';
import { cuda } from '../../ts/index.js';

/**
 * To be registered by every suite that needs a device: where one must be there, being without is a
 * failure and not a skip.
 */
export function expectDevice(): void {
  test('CUDA is available where it is expected', () => {
    if (process.env.DIRALIGN_EXPECT_CUDA === '1') expect(cuda.reason).toBeUndefined();
    else expect(cuda.available).toBe(cuda.reason === undefined);
  });
}
