// The output layer fused with the loss: against float64, and the same bits whatever fits the
// workspace, in every run and in sequenceLogps.
import {
  checkHiddenObjective,
  deviceHiddenLibrary,
  hiddenLibrary,
  prepareHidden,
} from '../../../dist/verification/hidden.js';
import { Copy, dtypes, generator, inDtype, normal, requireSame, sameBits } from './support.mjs';

const objectives = [
  { method: 'dpo', beta: 0.1 },
  { method: 'orpo', beta: 1, sftWeight: 1 },
  { method: 'simpo', beta: 2 },
  { method: 'aot', beta: 0.1 },
  { method: 'sft', normalize: true },
];

/** Four sequences; a third of the rows is ignored and NaN. */
function randomHidden({ vocab, size, tokens }, dtype, bias) {
  const random = generator(vocab + 31 * size);
  const numbers = (length, deviation) =>
    Float32Array.from({ length }, () => deviation * normal(random));
  const rows = 4 * tokens;
  const labels = Int32Array.from({ length: rows }, (_, row) =>
    row % tokens !== 0 && random() < 0.33 ? -100 : Math.floor(random() * vocab),
  );
  const hidden = numbers(rows * size, 1).map((x, i) =>
    labels[Math.floor(i / size)] === -100 ? NaN : x,
  );
  return {
    hidden: inDtype(hidden, dtype),
    weight: inDtype(numbers(vocab * size, 2 / Math.sqrt(size)), dtype),
    ...(bias && { bias: inDtype(numbers(vocab, 0.5), dtype) }),
    dtype,
    shape: [4, tokens, vocab],
    labels,
    reference: Float64Array.from(
      { length: 4 },
      () => -tokens * Math.log(vocab) * (0.8 + 0.2 * random()),
    ),
  };
}

/** Whether the bits of an element are a NaN's. */
const isNaN = (dtype, x) =>
  dtype === 'float32' ? Number.isNaN(x) : (x & 0x7fff) > (dtype === 'float16' ? 0x7c00 : 0x7f80);

/** From the smallest to that of a large model, among them rows of every alignment. */
export const algorithmLayers = [
  { vocab: 1, size: 1 },
  { vocab: 1001, size: 64 },
  { vocab: 50257, size: 127 },
  { vocab: 128256, size: 4096 },
];

function take(misses, what, tally) {
  misses.checked += 1;
  misses.worst = Math.max(misses.worst, ...Object.values(tally.worst));
  for (const { what: where, actual, expected, bound } of tally.misses) {
    misses.require(false, `${what}: ${where}: ${actual}, expected ${expected} within ${bound}`);
  }
  misses.require(tally.count === 0, `${what}: ${tally.count} out of bounds`);
}

/** What `work` throws has to say how many bytes would do. */
function leastMemory(work) {
  try {
    work(1);
  } catch (error) {
    return Number(/at least (\d+)/.exec(error.message)?.[1]);
  }
  return NaN;
}

/**
 * How many algorithms cuBLASLt has for the logits of each layer, and how many of them may be used
 * for any number of rows.
 */
export function algorithmsOf(native, layers, device) {
  return layers.flatMap(({ vocab, size }) =>
    dtypes.map((dtype, kind) => ({
      what: `${vocab} x ${size} ${dtype}`,
      ...native().cuda.layerAlgorithms(device.index, kind, vocab, size),
    })),
  );
}

/** There must be one for every layer. */
export function checkAlgorithms(found, misses, note) {
  for (const { what, usable, offered } of found)
    misses.require(
      usable > 0,
      `${what}: none of ${offered} algorithms of cuBLASLt serves for any number of rows`,
    );
  note(
    'algorithms for any number of rows: ' +
      `${found.map(({ what, usable, offered }) => `${what} ${usable} of ${offered}`).join(', ')}`,
  );
}

/** The bits of a row's log-probability must not depend on how many rows there are. */
export function checkRowCounts({ tokenLogps, cuda }, misses, { vocab, size, counts }, dtype) {
  const most = Math.max(...counts);
  const batch = randomHidden({ vocab, size, tokens: Math.ceil(most / 4) }, dtype, false);
  const labels = batch.labels.map((label, row) => (label === -100 ? row % vocab : label));
  // The ignored rows are scored here.
  const hidden = batch.hidden.map((x, i) => (isNaN(dtype, x) ? batch.hidden[i % size] : x));
  const [held, weight] = [hidden, batch.weight].map((array) => new Copy(array, dtype, {}, cuda));
  const of = (rows) =>
    tokenLogps({
      ...{ hidden: held.tensor, weight: weight.tensor, dtype, shape: [rows, vocab] },
      ...{ offsets: Int32Array.of(0, rows), labels: labels.subarray(0, rows) },
    }).logps;
  const all = of(most);
  for (const rows of counts) {
    const own = of(rows);
    const first = own.findIndex((logp, row) => !Object.is(logp, all[row]));
    misses.require(
      first < 0,
      () =>
        `V = ${vocab}, H = ${size}, ${dtype}: of ${rows} rows, row ${first} is ${own[first]}, ` +
        `of ${most} it is ${all[first]}`,
    );
  }
  held.dispose();
  weight.dispose();
}

export async function hidden({ subject, misses, scale, device, note, progress }) {
  const { cuda } = subject;
  if (cuda.hiddenReason !== undefined) {
    note(cuda.hiddenReason);
    return;
  }
  checkAlgorithms(algorithmsOf(subject.native, algorithmLayers, device), misses, note);
  for (const layer of scale.rowCounts)
    for (const dtype of dtypes) {
      checkRowCounts(subject, misses, layer, dtype);
      await progress(0);
    }
  let turn = 0;
  for (const layer of scale.layers) {
    for (const dtype of dtypes) {
      const batch = randomHidden(layer, dtype, turn % 2 === 0);
      const config = objectives[turn % objectives.length];
      const what = `V = ${layer.vocab}, H = ${layer.size}, ${dtype}, ${config.method}`;
      const prepared = prepareHidden(batch);
      take(misses, what, checkHiddenObjective(deviceHiddenLibrary, config, prepared, 'cuda'));
      take(
        misses,
        `${what}, staged`,
        checkHiddenObjective(hiddenLibrary, config, prepared, 'cuda'),
      );
      const transformed = prepareHidden({ ...batch, logitSoftcap: 8, temperature: 0.8 });
      take(
        misses,
        `${what}, transformed`,
        checkHiddenObjective(deviceHiddenLibrary, config, transformed, 'cuda'),
      );
      againAndAgain(subject, misses, scale, device, what, batch, subject.dirAlignLoss(config));
      turn++;
      await progress(turn / (scale.layers.length * dtypes.length));
    }
  }
}

function againAndAgain({ cuda, sequenceLogps }, misses, scale, device, what, batch, objective) {
  const resident = ['hidden', 'weight', 'bias']
    .filter((name) => batch[name])
    .map((name) => [name, new Copy(batch[name], batch.dtype, { device: device.index }, cuda)]);
  const given = {
    ...batch,
    ...Object.fromEntries(resident.map(([name, { tensor }]) => [name, tensor])),
  };
  const call = (memory) => {
    const { gradHidden, gradWeight, gradBias, ...values } = objective.fromHidden(
      given,
      memory === undefined ? {} : { memory },
    );
    const gradients = [
      [gradHidden, new batch.hidden.constructor(batch.hidden.length)],
      [gradWeight, new Float32Array(batch.weight.length)],
      [gradBias, new Float32Array(batch.bias?.length ?? 0)],
    ].map(([tensor, copy]) => {
      if (tensor) tensor.copyTo(copy);
      tensor?.dispose();
      return copy;
    });
    return { ...values, gradients };
  };
  const first = call();
  for (let run = 1; run < scale.runs; run++) {
    const again = call();
    requireSame(misses, `${what}, run ${run}`, again, first);
    misses.require(
      again.gradients.every((gradient, i) => sameBits(gradient, first.gradients[i])),
      () => `${what}, run ${run}: a gradient differs in its bits`,
    );
  }
  const least = leastMemory(call);
  misses.require(
    Number.isInteger(least),
    `${what}: memory: 1 is not refused with the bytes that would do`,
  );
  const row = 4 * (batch.shape[2] + batch.weight.length / batch.shape[2]);
  for (const rows of [0, 1, 2.5, 5]) {
    const memory = least + Math.ceil(rows * row);
    const result = call(memory);
    requireSame(misses, `${what}, ${memory} bytes`, result, first);
    misses.require(result.memory <= memory, `${what}: ${result.memory} of ${memory} bytes taken`);
    const { logps } = sequenceLogps({ ...given }, { memory });
    misses.require(
      sameBits(logps, first.logps),
      `${what}, ${memory} bytes: sequenceLogps has other bits`,
    );
  }
  misses.require(
    resident.every(([name, place]) => sameBits(place.read(), batch[name])),
    `${what}: the inputs were written`,
  );
  for (const [, place] of resident) place.dispose();
}
