import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: ['tests/**/*.test.ts'],
    // Processes, not threads: some tests end workers, or the process, in mid-computation.
    pool: 'forks',
    // By default one processor of two is left idle.
    maxWorkers: '100%',
    testTimeout: 30_000,
  },
});
