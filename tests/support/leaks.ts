// Whether memory grows with the calls that are made, from tests/fixtures/lifecycle/windows.mjs.
import { expect } from 'vitest';

export interface Windows {
  /** In a window. */
  readonly calls: number;
  /** Bytes that a call would keep, if it kept anything worth looking for. */
  readonly kept: number;
  /** By what was measured: bytes at the end of each window. */
  readonly samples: Readonly<Record<string, readonly number[]>>;
}
/** AddressSanitizer, where it is in the process, keeps freed memory for a while otherwise. */
export const leakEnvironment = {
  ASAN_OPTIONS: [
    process.env.ASAN_OPTIONS,
    'quarantine_size_mb=0',
    'thread_local_quarantine_size_kb=0',
  ].join(':'),
};

export type LeakReport = Readonly<Record<string, Windows>>;

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2
    ? (sorted[middle] as number)
    : ((sorted[middle - 1] as number) + (sorted[middle] as number)) / 2;
}

/**
 * What every window adds: the lesser of two medians, that of the steps between neighbours, which a
 * few jumps of the level leave alone, and that of the slopes between all of them (Theil and Sen),
 * which ups and downs leave alone. A leak is in both in full.
 */
export function growthPerWindow(samples: readonly number[]): number {
  const slopes = samples.flatMap((from, i) =>
    samples.slice(i + 1).map((to, k) => ({ slope: (to - from) / (k + 1), steps: k + 1 })),
  );
  const neighbours = slopes.filter(({ steps }) => steps === 1);
  return Math.min(...[neighbours, slopes].map((some) => median(some.map(({ slope }) => slope))));
}

/** Growth a call, as a share of what a call would keep. */
export function leakOf({ calls, kept, samples }: Windows): Readonly<Record<string, number>> {
  return Object.fromEntries(
    Object.entries(samples).map(([name, bytes]) => [name, growthPerWindow(bytes) / calls / kept]),
  );
}

/** Resident memory wavers; what is counted does not. */
const most = (name: string): number => (name === 'rss' ? 1 / 2 : 1 / 32);

/** Expects no growth of any kind, and to have been able to see one: in the kind `leaking`. */
export function expectFlat({ leaking, ...report }: LeakReport): void {
  expect(leaking && leakOf(leaking).rss).toBeGreaterThan(0.9);
  for (const [kind, windows] of Object.entries(report)) {
    for (const [name, share] of Object.entries(leakOf(windows))) {
      expect(share, `${kind}: ${name}, ${JSON.stringify(windows.samples[name])}`).toBeLessThan(
        most(name),
      );
    }
  }
}
