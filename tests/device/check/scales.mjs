// How much `gpu:check` does. `full` is what the package promises; `quick` the same kinds of checks
// in a few minutes; `tiny` is for the emulation of CUDA and for runs under a memory checker, where
// an element costs a thousand times as much.

export const scales = {
  full: {
    vectorStep: 1,
    vocabularies: [1, 2, 31, 8191, 8192, 8193, 32000, 32001, 50257, 128256, 151936, 256000],
    shifts: [0, 1, 3],
    tokens: (vocab) => (vocab < 10_000 ? 13 : 3),
    manyRows: [
      { vocab: 32001, rows: 4096 },
      { vocab: 50257, rows: 4096 },
      { vocab: 151936, rows: 1024 },
    ],
    layers: [
      { vocab: 1, size: 1, tokens: 3 },
      { vocab: 1001, size: 64, tokens: 9 },
      { vocab: 32000, size: 128, tokens: 5 },
      { vocab: 50257, size: 127, tokens: 4 },
      { vocab: 128256, size: 512, tokens: 3 },
    ],
    // Around the tiles of a product, one row alone, and what 2 GiB hold of 128256 x 4096.
    rowCounts: [
      { vocab: 1001, size: 64, counts: [1, 2, 127, 129, 2690] },
      { vocab: 50257, size: 127, counts: [1, 2, 127, 129, 2690] },
    ],
    runs: 20,
    repeated: [
      { vocab: 50257, tokens: 128 },
      { vocab: 128256, tokens: 64 },
      { vocab: 257, tokens: 512 },
    ],
    independent: [31, 8193, 50257, 128256],
    // [8, 2112, 128256]: 2.17e9 elements.
    huge: { vocab: 128256, tokens: 2112 },
    tools: ['memcheck', 'racecheck', 'initcheck', 'synccheck'],
  },
  quick: {
    vectorStep: 5,
    vocabularies: [1, 31, 8193, 32000, 50257, 128256],
    shifts: [0, 1],
    tokens: (vocab) => (vocab < 10_000 ? 5 : 3),
    manyRows: [{ vocab: 50257, rows: 1024 }],
    layers: [
      { vocab: 1001, size: 64, tokens: 9 },
      { vocab: 50257, size: 127, tokens: 3 },
    ],
    rowCounts: [{ vocab: 50257, size: 127, counts: [1, 2, 127, 129, 2690] }],
    runs: 20,
    repeated: [{ vocab: 50257, tokens: 64 }],
    independent: [31, 50257],
    huge: { vocab: 128256, tokens: 2112 },
    tools: ['memcheck', 'racecheck'],
  },
  tiny: {
    vectorStep: 60,
    // The last in several parts, whatever the type.
    vocabularies: [1, 2, 31, 257, 16385],
    shifts: [0, 1],
    tokens: () => 2,
    manyRows: [{ vocab: 101, rows: 256 }],
    layers: [
      { vocab: 1, size: 1, tokens: 2 },
      { vocab: 37, size: 9, tokens: 4 },
    ],
    rowCounts: [{ vocab: 37, size: 9, counts: [1, 2, 7, 40] }],
    runs: 3,
    repeated: [{ vocab: 1003, tokens: 4 }],
    independent: [31, 1001],
    huge: { vocab: 96, tokens: 64 },
    tools: [],
  },
};
