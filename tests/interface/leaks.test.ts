// The judge of leaks: what it takes for one, and what not.
import { describe, expect, test } from 'vitest';
import { growthPerWindow } from '../support/leaks.js';
import { generator } from '../support/numbers.js';

const windows = Array.from({ length: 11 }, (_, i) => i);

describe('growth per window', () => {
  test('of a leak is the leak, on top of a jump, a sawtooth and noise', () => {
    expect(growthPerWindow(windows.map((i) => 3 * i))).toBe(3);
    expect(growthPerWindow(windows.map((i) => 3 * i + (i > 5 ? 100 : 0)))).toBe(3);
    const random = generator(1);
    for (let round = 0; round < 100; round++) {
      const noisy = windows.map((i) => 3 * i + (i % 2) + random());
      expect(Math.abs(growthPerWindow(noisy) - 3)).toBeLessThan(1.5);
    }
  });

  test('of a level is next to nothing, whatever disturbs it', () => {
    const disturbances: Readonly<Record<string, (i: number) => number>> = {
      nothing: () => 0,
      'one jump': (i) => (i > 4 ? 25 : 0),
      'three jumps': (i) => 25 * [2, 5, 6].filter((at) => i >= at).length,
      'a sawtooth': (i) => 25 * (i % 2),
      'a peak': (i) => (i === 7 ? 1000 : 0),
      'a slow start': (i) => 25 * (1 - 2 ** -i),
      'a fall': (i) => -25 * i,
    };
    for (const [name, level] of Object.entries(disturbances)) {
      // Where a leak of 5 in a window would be found.
      expect(growthPerWindow(windows.map(level)), name).toBeLessThan(2.5);
    }
  });
});
