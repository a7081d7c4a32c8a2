// Times of `fromHidden`: by the clock around the call, which returns when the device is done. A call takes milliseconds, nearly all of them
// in matrix products, so caches and the host's part do not matter.
import { interleave, spread, timeOf } from '../../dist/bench/rounds.js';
import { makeBlock, makeLabels } from './data.mjs';
import { shapeOf } from './plan.mjs';

const dtype = 'bfloat16';

/** What is computed; `out` without the weight's gradient is a frozen output layer. */
const modes = [
  { name: 'loss only', run: { gradient: 'none' } },
  { name: 'hidden states only', run: {}, frozen: true },
  { name: 'all gradients', run: {} },
];

/** Device memory of a layer's arrays and gradients, and of the workspace. */
export const neededByLayer = ({ rows, size, vocab }) => 4 * rows * size + 6 * vocab * size + 2 ** 31;

/** Numbers that look random and cost nothing to make: a block of them, over and over. */
function filled(device, elements, deviation) {
  const buffer = device.alloc(2 * elements);
  const block = makeBlock(1024, dtype).logits.slice(0, 4093);
  const scaled = block.map((bits) => {
    const exponent = (bits >> 7) & 0xff;
    // Logits have a deviation near 2.5: a factor of a power of two is an addition to the exponent.
    const shifted = Math.max(1, exponent + Math.round(Math.log2(deviation / 2.5)));
    return (bits & 0x807f) | (shifted << 7);
  });
  const { cuda } = device.native;
  const bytes = 2 * elements;
  buffer.copyFrom(scaled.subarray(0, Math.min(elements, scaled.length)));
  for (let done = scaled.byteLength; done < bytes; done *= 2) {
    const count = Math.min(done, bytes - done);
    cuda.copyOnDevice(device.index, device.stream.handle, buffer.ptr + BigInt(done), buffer.ptr, count);
  }
  device.stream.synchronize();
  return buffer;
}

/**
 * All modes and fractions of one layer in interleaved rounds.
 * @returns {Promise<object[]>} times in milliseconds, workspace in bytes, TFLOP/s of the products that are needed
 */
export async function measureLayer(device, { rows, size, vocab }, { rounds, fractions, progress }) {
  const { sequences, tokens } = shapeOf(rows);
  const hidden = filled(device, rows * size, 1);
  const weight = filled(device, vocab * size, 2 / Math.sqrt(size));
  const gradHidden = device.alloc(2 * rows * size);
  const gradWeight = device.alloc(4 * vocab * size);
  const cases = [];
  const entries = [];
  for (const fraction of fractions) {
    const labels = makeLabels(makeBlock(vocab, dtype), { sequences, tokens, vocab }, fraction);
    const batch = {
      hidden: hidden.tensor(dtype),
      weight: weight.tensor(dtype),
      hiddenSize: size,
      shape: [sequences, tokens, vocab],
      labels,
    };
    const reference = device.subject.sequenceLogps(batch).logps.map((logp, b) => logp + 3 * Math.sin(b));
    for (const mode of modes) {
      const out = { gradHidden: gradHidden.tensor(dtype), gradWeight: mode.frozen ? false : gradWeight.tensor('float32') };
      const run = mode.run.gradient === 'none' ? mode.run : { ...mode.run, out };
      const call = () => device.dpo.fromHidden({ ...batch, reference }, run);
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
  for (const buffer of [hidden, weight, gradHidden, gradWeight]) device.release(buffer);
  return entries.map(({ name, ...entry }) => ({ ...entry, wall: spread(times.get(name)) }));
}
