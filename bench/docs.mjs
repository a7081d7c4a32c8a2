import {
  digits,
  machineLine,
  markdownReport,
  ratioText,
  settingLine,
} from '../dist/bench/report.js';

/**
 * The figures that were aimed at, for two pairs of 2 x 256 tokens and a vocabulary of 32000 on two
 * threads.
 */
const targets = [
  ['loss only, float32, over the reading loop', '<= 1.25', ratio('forward / read')],
  ['loss only, bfloat16, over float32', '<= 1.15', ratio('bfloat16 forward / float32 forward')],
  ['dense, in place, over reading + scaling loop', '<= 1.10', ratio('in place / (read + scale)')],
  ['factored, in place, over the scaling loop', '<= 1.50', ratio('factored / scale')],
  [
    'dense into a reused array, over reading loop + memcpy',
    '<= 1.10',
    ratio('out / (read + copy)'),
  ],
  ['half of the rows ignored, loss only, over all rows', '0.5', ratio('forward@0.5 / forward')],
  ['PyTorch 1.13 eager as users run it, over ours', '>= 12', peer('torch')],
  ['the same with heap reuse forced', '>= 3.5', peer('torch-heap')],
  ['oneDNN log-softmax forward and backward, over ours', '>= 2.2', peer('onednn')],
  ['onnxruntime forward, over ours', '>= 2', peer('onnx')],
  ['plain JavaScript, over ours', '>= 50', peer('js')],
  ['TensorFlow.js wasm, over ours', '>= 95', peer('tfjs-wasm')],
  ['extra memory in place', 'O(rows)', memory('in-place')],
  ['cost of a call beyond its kernel', '< 15 us', call('loss and gradient')],
];

function ratio(name) {
  return ({ ratios }) => withQuartiles(ratios.find((each) => each.name === name));
}
function peer(name) {
  return ({ peers }) => withQuartiles(peers.find((each) => each.name === name)?.ratio);
}
function withQuartiles(found) {
  return found ? ratioText(found) : 'not measured';
}
function memory(mode) {
  return ({ memory: all }) => {
    const found = all.find((each) => each.mode === mode);
    return found ? `${found.extraMiB.toFixed(1)} MiB for ${found.rows} rows` : 'not measured';
  };
}
function call(title) {
  return ({ calls }) => `${digits(calls.find((each) => each.title === title).microseconds)} us`;
}

/** docs/performance.md with what stands between its markers replaced by the figures of a run. */
export function performanceFigures(text, result) {
  const summary = [
    `${machineLine(result.machine)}. ${settingLine(result)}.`,
    '',
    '| what | target | measured (quartiles over rounds) |',
    '| --- | --- | --- |',
    ...targets.map(([what, target, measured]) => `| ${what} | ${target} | ${measured(result)} |`),
  ].join('\n');
  return replaceBetween(
    replaceBetween(text, 'summary', summary),
    'tables',
    markdownReport(result).trim(),
  );
}

function replaceBetween(text, marker, content) {
  const begin = `<!-- ${marker} -->`;
  const end = `<!-- /${marker} -->`;
  const from = text.indexOf(begin);
  const to = text.indexOf(end);
  if (from < 0 || to < from) throw new Error(`docs/performance.md: no ${begin} ... ${end}`);
  return `${text.slice(0, from + begin.length)}\n\n${content}\n\n${text.slice(to)}`;
}
