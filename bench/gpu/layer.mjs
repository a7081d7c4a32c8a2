// Times of `fromHidden`: by the clock around the call, which returns when the device is done. A
// call takes milliseconds, nearly all of them in matrix products, so caches and the host's part do
// not matter.
import { interleave, spread, timeOf } from '../../dist/bench/rounds.js';
import { makeBlock, makeLabels, makeNumbers } from './data.mjs';
import { shapeOf } from './plan.mjs';

const dtype = 'bfloat16';

/** What is computed; `out` without the weight's gradient is a frozen output layer. */
const modes = [
  { name: 'loss only', run: { gradient: 'none' } },
  { name: 'hidden states only', run: {}, frozen: true },
  { name: 'all gradients', run: {} },
];

/** Device memory of a layer's arrays and gradients, and of the workspace. */
export const neededByLayer = ({ rows, size, vocab }) =>
  4 * rows * size + 6 * vocab * size + 2 ** 31;

/** A buffer of the numbers over and over. */
function filled(device, elements, numbers) {
  const bytes = 2 * elements;
  const buffer = device.alloc(bytes);
  buffer.copyFrom(numbers.subarray(0, Math.min(elements, numbers.length)));
  const { cuda } = device.native;
  for (let done = numbers.byteLength; done < bytes; done *= 2) {
    const count = Math.min(done, bytes - done);
    cuda.copyOnDevice(
      device.index,
      device.stream.handle,
      buffer.ptr + BigInt(done),
      buffer.ptr,
      count,
    );
  }
  device.stream.synchronize();
  return buffer;
}

/** A layer in device memory, with places for its gradients. */
export function makeLayer(device, { rows, size, vocab }) {
  const { sequences, tokens } = shapeOf(rows);
  const shape = [sequences, tokens, vocab];
  // Numbers of their own, whose counts have no common factor: rows neither repeat soon nor resemble
  // rows of the other. The logits have a deviation of 2.5.
  const numbers = {
    hidden: makeNumbers(65521, 1, 1),
    weight: makeNumbers(65519, 2.5 / Math.sqrt(size), 2),
  };
  const hidden = filled(device, rows * size, numbers.hidden);
  const weight = filled(device, vocab * size, numbers.weight);
  const gradHidden = device.alloc(2 * rows * size);
  const gradWeight = device.alloc(4 * vocab * size);
  const block = makeBlock(vocab, dtype);
  const given = new Map();
  return {
    dtype,
    rows,
    size,
    vocab,
    shape,
    numbers,
    gradHidden,
    gradWeight,
    /**
     * The batch with a fraction of its rows scored, and a reference near its own log-probabilities.
     */
    given: (fraction) => {
      if (!given.has(fraction)) {
        const labels = makeLabels(block, { sequences, tokens, vocab }, fraction);
        const batch = {
          hidden: hidden.tensor(dtype),
          weight: weight.tensor(dtype),
          dtype,
          hiddenSize: size,
          shape,
          labels,
        };
        const reference = device.subject
          .sequenceLogps(batch)
          .logps.map((logp, b) => logp + 3 * Math.sin(b));
        given.set(fraction, { ...batch, reference });
      }
      return given.get(fraction);
    },
    /** `run.out` for all gradients, or for those of a frozen layer. */
    out: (frozen = false) => ({
      gradHidden: gradHidden.tensor(dtype),
      gradWeight: frozen ? false : gradWeight.tensor('float32'),
    }),
    dispose: () =>
      [hidden, weight, gradHidden, gradWeight].forEach((buffer) => device.release(buffer)),
  };
}

/**
 * All modes and fractions of one layer in interleaved rounds.
 * @returns {Promise<object[]>} times in milliseconds, workspace in bytes, TFLOP/s of the products
 *   that are needed
 */
export async function measureLayer(device, layer, { rounds, fractions, progress }) {
  const { rows, size, vocab } = layer;
  const [sequences, tokens] = layer.shape;
  const cases = [];
  const entries = [];
  for (const fraction of fractions) {
    const batch = layer.given(fraction);
    for (const mode of modes) {
      const run =
        mode.run.gradient === 'none' ? mode.run : { ...mode.run, out: layer.out(mode.frozen) };
      const call = () => device.dpo.fromHidden(batch, run);
      const { memory } = call();
      const scoredRows = sequences * Math.round(tokens * fraction);
      const products = mode.run.gradient === 'none' ? 1 : mode.frozen ? 2 : 3;
      const name = `${mode.name}@${fraction}`;
      cases.push({ name, run: () => timeOf(call) });
      entries.push({
        name,
        dtype,
        rows,
        size,
        vocab,
        fraction,
        scoredRows,
        mode: mode.name,
        memory,
        flop: 2 * products * scoredRows * size * vocab,
      });
    }
  }
  const times = await interleave(cases, rounds, () => undefined, progress);
  return entries.map(({ name, ...entry }) => ({ ...entry, wall: spread(times.get(name)) }));
}
