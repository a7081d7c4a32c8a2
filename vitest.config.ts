import { fileURLToPath } from 'node:url';
import { defineConfig } from 'vitest/config';

/** A module of the package, for examples that import it by its name. */
const source = (module: string): string => fileURLToPath(new URL(`./ts/${module}index.ts`, import.meta.url));

/** These measure times, or end workers at a moment: they run one at a time, and with no neighbours. */
const alone = ['tests/lifecycle.test.ts', 'tests/cuda-lifecycle.test.ts'];

const shared = {
  // Processes, not threads: some tests end workers, or the process, in mid-computation.
  pool: 'forks',
  testTimeout: 30_000,
} as const;

export default defineConfig({
  resolve: {
    alias: [
      { find: /^diralign$/, replacement: source('') },
      { find: /^diralign\/(data|jax-js|tfjs)$/, replacement: source('$1/') },
    ],
  },
  test: {
    projects: [
      {
        extends: true,
        // By default one processor of two is left idle.
        test: {
          ...shared,
          name: 'tests',
          include: ['tests/**/*.test.ts'],
          exclude: alone,
          maxWorkers: '100%',
          sequence: { groupOrder: 0 },
        },
      },
      {
        extends: true,
        test: { ...shared, name: 'alone', include: alone, maxWorkers: 1, sequence: { groupOrder: 1 } },
      },
    ],
  },
});
