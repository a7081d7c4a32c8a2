import { fileURLToPath } from 'node:url';
import { defineConfig } from 'vitest/config';

/** A module of the package, for examples that import it by its name. */
const source = (module: string): string =>
  fileURLToPath(new URL(`./ts/${module}index.ts`, import.meta.url));

export default defineConfig({
  resolve: {
    alias: [
      { find: /^diralign$/, replacement: source('') },
      { find: /^diralign\/(data|distributed|logging|safetensors)$/, replacement: source('$1/') },
      { find: /^diralign\/(jax-js|tfjs|transformers)$/, replacement: source('trainers/$1/') },
    ],
  },
  test: {
    // Processes, not threads: some tests end workers, or the process, in mid-computation.
    pool: 'forks',
    include: ['tests/**/*.test.ts', 'examples/study/tests/**/*.test.ts'],
    // By default one processor of two is left idle.
    maxWorkers: '100%',
    // For tests that hang: none is to fail because the machine is busy with something else.
    testTimeout: 1_200_000,
    hookTimeout: 1_200_000,
  },
});
