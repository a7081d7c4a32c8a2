import eslint from '@eslint/js';
import { defineConfig, globalIgnores } from 'eslint/config';
import tseslint from 'typescript-eslint';

const nodeGlobals = [
  'AbortController',
  'AbortSignal',
  'Buffer',
  'URL',
  'WebAssembly',
  'clearInterval',
  'console',
  'fetch',
  'performance',
  'process',
  'setInterval',
  'setTimeout',
];

export default defineConfig(
  globalIgnores([
    'build/',
    'coverage/',
    'dist/',
    'docs/.vitepress/cache/',
    'docs/.vitepress/dist/',
    'docs/api/',
    'prebuilds/',
    'study-results/',
  ]),
  eslint.configs.recommended,
  {
    // What prettier leaves as it is: comments, strings and regular expressions.
    rules: { 'max-len': ['error', 100] },
  },
  {
    // Formulas, each a string.
    files: ['ts/contract.generated.ts'],
    rules: { 'max-len': 'off' },
  },
  {
    files: ['**/*.ts'],
    extends: [tseslint.configs.strictTypeChecked, tseslint.configs.stylisticTypeChecked],
    languageOptions: { parserOptions: { projectService: true } },
    rules: {
      // Numbers in messages are what the messages are for.
      '@typescript-eslint/restrict-template-expressions': ['error', { allowNumber: true }],
      // `array[i] as number` and `array[i]!` say the same; the other rule forbids the second.
      '@typescript-eslint/non-nullable-type-assertion-style': 'off',
      // DirAlignError is a brand that classes with three different bases carry.
      '@typescript-eslint/no-unsafe-class-instance-assignment': 'off',
    },
  },
  {
    files: ['**/*.js', '**/*.mjs'],
    languageOptions: { globals: Object.fromEntries(nodeGlobals.map((name) => [name, 'readonly'])) },
  },
);
