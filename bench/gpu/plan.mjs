// What `gpu:bench` measures, what memory must at least move for it, and what was aimed at.

export const elementBytes = { float32: 4, float16: 2, bfloat16: 2 };

/**
 * Passes over the scored rows; `zeros` where the ignored rows of the gradient have to be written.
 */
export const modes = [
  { name: 'forward', title: 'loss only', passes: 1, zeros: false, run: { gradient: 'none' } },
  {
    name: 'tokenLogps',
    title: 'token log-probs and entropy',
    passes: 1,
    zeros: false,
    tokens: true,
  },
  {
    name: 'factored',
    title: 'factored, in place',
    passes: 2,
    zeros: true,
    run: { gradient: 'factored', inPlace: true },
  },
  {
    name: 'dense',
    title: 'dense, in place',
    passes: 3,
    zeros: true,
    run: { gradient: 'dense', inPlace: true },
  },
  {
    name: 'dense out',
    title: 'dense, into another buffer',
    passes: 3,
    zeros: true,
    run: { gradient: 'dense' },
    out: true,
  },
];

/** Sequences of at most 1024 tokens, at least one pair. */
export function shapeOf(rows) {
  const tokens = Math.min(1024, rows / 2);
  return { sequences: rows / tokens, tokens };
}

export const scales = {
  full: {
    rounds: 15,
    rows: [256, 2048, 8192, 32768],
    vocabularies: [32000, 50257, 128256, 151936, 256000],
    // Every shape in bfloat16; the other types where they say something new.
    others: [
      { dtype: 'float32', rows: 8192, vocab: 50257 },
      { dtype: 'float32', rows: 8192, vocab: 128256 },
      { dtype: 'float16', rows: 8192, vocab: 50257 },
      { dtype: 'float16', rows: 8192, vocab: 128256 },
    ],
    peerRows: [256, 2048, 8192, 32768],
    layers: [
      { rows: 1024, size: 4096, vocab: 128256 },
      { rows: 4096, size: 2048, vocab: 32000 },
      { rows: 4096, size: 4096, vocab: 128256 },
    ],
    // Bytes that the copy kernel copies.
    yardstick: 2 ** 30,
  },
  quick: {
    rounds: 15,
    rows: [256, 8192],
    vocabularies: [32000, 50257, 128256, 256000],
    others: [{ dtype: 'float32', rows: 8192, vocab: 50257 }],
    peerRows: [8192],
    layers: [{ rows: 4096, size: 4096, vocab: 128256 }],
    yardstick: 2 ** 30,
  },
  // The first minutes on a card: the shapes that say most, the most telling first. See `npm run
  // gpu:first`.
  first: {
    rounds: 15,
    shapes: [
      { dtype: 'bfloat16', rows: 8192, vocab: 128256 },
      { dtype: 'bfloat16', rows: 8192, vocab: 50257 },
      { dtype: 'bfloat16', rows: 8192, vocab: 32000 },
      { dtype: 'bfloat16', rows: 256, vocab: 32000 },
      { dtype: 'float32', rows: 8192, vocab: 128256 },
    ],
    peerShapes: [{ dtype: 'bfloat16', rows: 8192, vocab: 128256 }],
    // Each is another process that compiles for half a minute.
    peerFractions: [1],
    layers: [{ rows: 4096, size: 4096, vocab: 128256 }],
    yardstick: 2 ** 30,
  },
  // For the emulation: whether it runs at all.
  tiny: {
    rounds: 2,
    rows: [64],
    vocabularies: [96, 101],
    others: [],
    peerRows: [],
    layers: [{ rows: 64, size: 16, vocab: 96 }],
    yardstick: 2 ** 16,
  },
};

/** `8192x32000,256x50257` as rows and vocabularies. */
export function parseShapes(text) {
  return text.split(',').map((shape) => {
    const match = /^(\d+)x(\d+)$/.exec(shape);
    const [rows, vocab] = match ? [Number(match[1]), Number(match[2])] : [0, 0];
    // Rows repeat 64 distinct ones, and pairs have two sequences.
    if (rows < 64 || rows % 64 !== 0 || !Number.isInteger(Math.log2(rows)) || vocab < 1) {
      throw new Error(
        `--shapes ${shape}: expected ROWSxVOCABULARY, rows a power of two of at least 64`,
      );
    }
    return { rows, vocab };
  });
}

const parts = {
  logits: 'our calls on logits',
  layer: 'our calls from hidden states',
  peers: 'installed peers of both',
};
export const partNames = Object.keys(parts);

/** Each batch that is measured, dtype, rows, vocabulary; `hasPeers`: against peers, too. */
export function batchesOf(scale, shapes) {
  const inBfloat16 = ({ rows, vocab }) => ({ dtype: 'bfloat16', rows, vocab });
  if (shapes) return shapes.map((shape) => ({ ...inBfloat16(shape), hasPeers: true }));
  if (scale.shapes) {
    const same = (a, b) => a.dtype === b.dtype && a.rows === b.rows && a.vocab === b.vocab;
    return scale.shapes.map((shape) => ({
      ...shape,
      hasPeers: scale.peerShapes.some((peer) => same(peer, shape)),
    }));
  }
  const all = scale.rows.flatMap((rows) =>
    scale.vocabularies.map((vocab) => inBfloat16({ rows, vocab })),
  );
  return [
    ...all.map((shape) => ({ ...shape, hasPeers: scale.peerRows.includes(shape.rows) })),
    ...scale.others.map((shape) => ({ ...shape, hasPeers: false })),
  ];
}

/** Fewest bytes through device memory. */
export function floorBytes({ passes, zeros }, { rows, scoredRows, vocab, dtype }) {
  const row = vocab * elementBytes[dtype];
  return passes * scoredRows * row + (zeros ? (rows - scoredRows) * row : 0);
}

// ----------------------------------------------------------------------------------------------
// Targets. Stated for an H200 whose copy kernel moves 4.3 TB/s, in bfloat16.

/** Share of the copy kernel's bandwidth on the floor's bytes, N = 8192, every row scored. */
const shares = {
  forward: { 32000: 0.92, 50257: 0.9, 128256: 0.94, 256000: 0.94 },
  factored: { 32000: 0.88, 50257: 0.85, 128256: 0.92, 256000: 0.92 },
  dense: { 32000: 0.88, 50257: 0.85, 128256: 0.9, 256000: 0.9 },
};
/** A gradient in another buffer than the logits moves as much as one in place. */
shares['dense out'] = shares.dense;

/**
 * Half of the rows scored: half of the time. What is left over is the start and end of a launch,
 * and the zeros of ignored rows.
 */
const halfTime = 0.55;

/**
 * [what, wanted, got, whether it was reached] of one measurement, given those of the whole batch of
 * rows.
 */
export function targetsOf(entry, { copyBandwidth, wholeMs }) {
  const { mode, rows, vocab, dtype, fraction, device, floorBytes: bytes } = entry;
  const list = [];
  const add = (what, wanted, got, reached) => list.push({ what, wanted, got, reached });
  const share = bytes / (device.median / 1000) / copyBandwidth;
  const wanted = shares[mode]?.[vocab];
  if (dtype === 'bfloat16' && rows === 8192 && fraction === 1 && wanted !== undefined) {
    add('share of the copy bandwidth', wanted, share, share >= wanted);
  }
  if (
    dtype === 'bfloat16' &&
    rows === 8192 &&
    fraction === 0.5 &&
    wanted !== undefined &&
    wholeMs !== undefined
  ) {
    // The zeros of the ignored rows are work that the whole batch does not have.
    const zeros =
      ((floorBytes({ passes: 0, zeros: true }, entry) * (mode === 'forward' ? 0 : 1)) /
        copyBandwidth) *
      1000;
    const got = (device.median - zeros) / wholeMs;
    add('time over that of all rows, zeros aside', halfTime, got, got <= halfTime);
  }
  if (dtype === 'bfloat16' && rows === 256 && fraction === 1 && mode !== 'tokenLogps') {
    const limit = (2 * bytes * 1000) / copyBandwidth + 0.015;
    add('ms: twice the floor and 15 us', limit, device.median, device.median <= limit);
  }
  return list;
}

// The output layer fused with the loss: milliseconds on an H200 by the clock, and the workspace it
// may take by default.
const layerTime = { 1: 18.5, 0.5: 10 };
const layerMemory = 2 ** 31;

/** [what, wanted, got, reached] of one measurement of `fromHidden`. */
export function layerTargetsOf({ rows, size, vocab, fraction, mode, wall, memory }) {
  const list = [
    {
      what: 'bytes of workspace',
      wanted: layerMemory,
      got: memory,
      reached: memory <= layerMemory,
    },
  ];
  const limit = layerTime[fraction];
  if (
    mode === 'all gradients' &&
    rows === 4096 &&
    size === 4096 &&
    vocab === 128256 &&
    limit !== undefined
  )
    list.push({ what: 'ms', wanted: limit, got: wall.median, reached: wall.median <= limit });
  return list;
}

/**
 * No slower than any peer of the same shape. Ours is the dense gradient in a buffer of its own, as
 * theirs is, by events; of the output layer all gradients, by the clock.
 */
export function peerTarget(ours, peer) {
  const clock = peer.size === undefined ? 'device' : 'wall';
  const ratio = peer[clock].median / ours[clock].median;
  return { what: `${peer.name} over ours`, wanted: 1, got: ratio, reached: ratio >= 1 };
}
