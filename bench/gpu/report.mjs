// The tables of `gpu:bench`, and what of its targets was reached.
import { inconclusiveNote, isConclusive, quartiles, ratioText } from '../../dist/bench/report.js';
import { fewestRounds } from '../../dist/bench/rounds.js';
import { table } from '../../dist/text/table.js';
import { layerTargetsOf, modes, peerTarget, targetsOf } from './plan.mjs';

const title = (mode) => modes.find(({ name }) => name === mode)?.title ?? mode;
const percent = (share) => `${(100 * share).toFixed(1)} %`;
const shapeName = ({ dtype, rows, vocab, fraction }) =>
  `${dtype} ${rows} x ${vocab}, ${100 * fraction} %`;
const layerName = ({ dtype, rows, size, vocab, fraction }) =>
  `${dtype} ${rows} x ${size} x ${vocab}, ${100 * fraction} %`;
const number = (value) =>
  value >= 100 ? value.toFixed(0) : value >= 1 ? value.toFixed(2) : value.toFixed(3);

/**
 * Every target of a run, none where its rounds are too few: what was wanted, what was measured, and
 * whether it was reached. A peer that went wrong is a miss, but one that ran out of memory is only
 * reported.
 */
export function judge({ groups, peers, layers = [], layerPeers = [], rounds }) {
  if (rounds < fewestRounds) return [];
  const list = [];
  for (const { entries, copyBandwidth } of groups) {
    for (const entry of entries) {
      const whole = entries.find(({ mode, fraction }) => mode === entry.mode && fraction === 1);
      for (const target of targetsOf(entry, { copyBandwidth, wholeMs: whole?.device.median })) {
        list.push({ shape: shapeName(entry), mode: entry.mode, ...target });
      }
    }
  }
  for (const entry of layers) {
    for (const target of layerTargetsOf(entry))
      list.push({ shape: layerName(entry), mode: entry.mode, ...target });
  }
  for (const peer of [...peers, ...layerPeers].filter(({ exhausted }) => !exhausted)) {
    const what =
      peer.size === undefined
        ? { shape: shapeName(peer), mode: 'dense out' }
        : { shape: layerName(peer), mode: 'all gradients' };
    if (peer.problem)
      list.push({
        ...what,
        what: `${peer.name}: ${peer.problem}`,
        wanted: 1,
        got: NaN,
        reached: false,
      });
    else list.push({ ...what, ...peerTarget(peer.ours, peer) });
  }
  return list;
}

function timesTable({ groups }) {
  const rows = groups.flatMap(({ entries, copyBandwidth }) =>
    entries.map((entry) => {
      const { device, wall, floorBytes: bytes } = entry;
      const perSecond = bytes / (device.median / 1000);
      return [
        entry.dtype,
        String(entry.rows),
        String(entry.vocab),
        percent(entry.fraction),
        title(entry.mode),
        number(device.median),
        quartiles(device, number),
        (perSecond / 1e9).toFixed(0),
        percent(perSecond / copyBandwidth),
        number(wall.median),
        entry.extraBytes === undefined ? '' : (entry.extraBytes / 2 ** 20).toFixed(1),
      ];
    }),
  );
  const columns = [
    ...['logits', 'rows', 'vocab', 'scored', 'mode'].map((name) => ({ title: name })),
    { title: 'ms', align: 'point' },
    { title: 'quartiles' },
    { title: 'GB/s', align: 'right' },
    { title: 'of copy', align: 'right' },
    { title: 'call ms', align: 'point' },
    { title: 'extra MiB', align: 'right' },
  ];
  return table(columns, rows);
}

function layersTable({ layers }) {
  const rows = layers.map((entry) => [
    layerName(entry),
    entry.mode,
    number(entry.wall.median),
    quartiles(entry.wall, number),
    number(entry.flop / entry.wall.median / 1e9),
    mebibytes(entry.memory),
  ]);
  const columns = [
    ...['layer', 'gradients'].map((name) => ({ title: name })),
    { title: 'call ms', align: 'point' },
    { title: 'quartiles' },
    { title: 'TFLOP/s', align: 'point' },
    { title: 'workspace MiB', align: 'right' },
  ];
  return table(columns, rows);
}

const mebibytes = (bytes) => (bytes / 2 ** 20).toFixed(0);

function peersTable({ peers }) {
  const rows = peers.map((peer) =>
    peer.problem
      ? [peer.name, shapeName(peer), peer.problem]
      : [
          peer.version,
          shapeName(peer),
          number(peer.device.median),
          number(peer.ours.device.median),
          ratioText(peer.ratio, number),
          isConclusive(peer.wallRatio) ? number(peer.wallRatio.value) : '',
          mebibytes(peer.extraBytes),
        ],
  );
  const names = [
    'peer',
    'batch',
    'ms',
    'ours ms',
    'slower by (quartiles)',
    'by the clock',
    'extra MiB',
  ];
  return table(
    names.map((name) => ({ title: name })),
    rows,
  );
}

function layerPeersTable({ layerPeers }) {
  const rows = layerPeers.map((peer) =>
    peer.problem
      ? [peer.name, layerName(peer), peer.problem]
      : [
          peer.name,
          layerName(peer),
          number(peer.wall.median),
          number(peer.ours.wall.median),
          ratioText(peer.ratio, number),
          mebibytes(peer.extraBytes),
          mebibytes(peer.ours.memory),
          peer.version,
        ],
  );
  const names = [
    'peer',
    'layer',
    'call ms',
    'ours ms',
    'slower by (quartiles)',
    'extra MiB',
    'ours MiB',
    'version',
  ];
  return table(
    names.map((name) => ({ title: name })),
    rows,
  );
}

function targetsTable(targets) {
  const rows = targets.map(({ shape, mode, what, wanted, got, reached }) => [
    shape,
    title(mode),
    what,
    number(wanted),
    Number.isNaN(got) ? '' : number(got),
    reached ? 'reached' : 'MISSED',
  ]);
  return table(
    ['batch', 'mode', 'target', 'wanted', 'got', ''].map((name) => ({ title: name })),
    rows,
  );
}

/**
 * Whether times by events are without the host's part; a launch that is enqueued too late waits on
 * an idle device.
 */
function hostLines(groups) {
  return groups
    .filter(({ host }) => host)
    .map(({ dtype, rows, vocab, host: { enqueue, busy } }) => {
      const what =
        `${dtype} ${rows} x ${vocab}: the host enqueues a call in ${number(enqueue)} ms, ` +
        `the device is kept busy for ${number(busy)} ms`;
      return enqueue < busy ? `${what}.` : `${what}: ITS TIMES ARE THE HOST'S, TOO.`;
    });
}

export function report(result) {
  const {
    groups,
    skipped,
    peers,
    targets,
    rounds,
    seconds,
    layers = [],
    layerPeers = [],
    noLayers,
  } = result;
  const bandwidths = groups.map(({ copyBandwidth }) => copyBandwidth / 1e9).sort((a, b) => a - b);
  const missed = targets.filter(({ reached }) => !reached).length;
  return [
    '',
    timesTable(result),
    '',
    `Copy kernel: ${bandwidths[0]?.toFixed(0)} to ${bandwidths.at(-1)?.toFixed(0)} GB/s, ` +
      `read and written. ms: medians of ${rounds} interleaved rounds, by`,
    'events around the work of a call, caches cold. ' +
      'GB/s: the fewest bytes that the mode must move. call ms: by the clock around the call.',
    ...(layers.length > 0
      ? [
          '',
          layersTable(result),
          'fromHidden, rows x hidden size x vocabulary: the clock around the call; ' +
            'TFLOP/s of the products it needs.',
        ]
      : []),
    ...(noLayers === undefined ? [] : [`fromHidden was not measured: ${noLayers}`]),
    ...hostLines(groups),
    ...skipped.map(
      ({ dtype, rows, vocab, reason }) => `Left out: ${dtype} ${rows} x ${vocab} ${reason}.`,
    ),
    ...(layerPeers.length > 0
      ? [
          '',
          layerPeersTable(result),
          'fromHidden with all gradients, by the clock. extra MiB: ' +
            'the most that was allocated over inputs and gradients; ours: the workspace.',
        ]
      : []),
    ...(peers.length > 0
      ? ['', peersTable(result), 'Ours is the dense gradient in a buffer of its own.']
      : layerPeers.length > 0
        ? []
        : ['', 'No peers were measured.']),
    '',
    targets.length > 0
      ? targetsTable(targets)
      : inconclusiveNote([{ n: rounds }]) || 'No target is stated for these shapes.',
    '',
    `${targets.length - missed} of ${targets.length} targets reached (stated for an H200) in ` +
      `${seconds.toFixed(0)} s.`,
  ].join('\n');
}
