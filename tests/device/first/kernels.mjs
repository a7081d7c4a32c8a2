#!/usr/bin/env node
// One launch of each kernel that `gpu:first` has ncu look at, and no other launch of the loss
// kernel before the last. Prints a line of JSON for each: what it was, and the bytes that it must
// move. Normal logits: the time of `ex2` and the clocks depend on what is computed.
import { loadSubject, requireDevice } from '../../../scripts/device/machine.mjs';
import { generator, inDtype, normal } from '../check/support.mjs';

const dtype = 'bfloat16';
const distinct = 64;
/** Floors in passes over the logits: read, written. */
const launches = [
  { mode: 'forward', vocab: 128256, run: { gradient: 'none' }, reads: 1, writes: 0 },
  { mode: 'dense', vocab: 128256, run: { gradient: 'dense', inPlace: true }, reads: 2, writes: 1 },
  { mode: 'forward', vocab: 50257, run: { gradient: 'none' }, reads: 1, writes: 0 },
  // The last: in clusters, a second launch finishes what this one leaves.
  {
    mode: 'factored',
    vocab: 128256,
    run: { gradient: 'factored', inPlace: true },
    reads: 1,
    writes: 1,
  },
];

const small = process.argv.includes('--small');
const rows = small ? 64 : 8192;
const { cuda, dirAlignLoss, native } = await loadSubject();
const { index } = requireDevice(cuda);
const dpo = dirAlignLoss('dpo', 0.1);
const tokens = Math.min(1024, rows / 2);
const sequences = rows / tokens;
for (const { mode, run, reads, writes, ...launch } of launches) {
  const vocab = small ? (launch.vocab % 97) + 64 : launch.vocab;
  const random = generator(vocab);
  const block = inDtype(
    Float32Array.from({ length: distinct * vocab }, () => 2.5 * normal(random)),
    dtype,
  );
  const bytes = rows * vocab * block.BYTES_PER_ELEMENT;
  const stream = cuda.stream({ device: index });
  const logits = cuda.alloc(bytes, { device: index, stream });
  logits.copyFrom(block);
  for (let filled = block.byteLength; filled < bytes; filled *= 2)
    native().cuda.copyOnDevice(
      index,
      stream.handle,
      logits.ptr + BigInt(filled),
      logits.ptr,
      Math.min(filled, bytes - filled),
    );
  const labels = Int32Array.from({ length: rows }, () => Math.floor(vocab * random()));
  // Near what the rows have, without a launch that would find it.
  const reference = Float64Array.from(
    { length: sequences },
    (_, b) => -8 * tokens + 3 * Math.sin(b),
  );
  dpo({ logits: logits.tensor(dtype), shape: [sequences, tokens, vocab], labels, reference }, run);
  logits.dispose();
  console.log(
    JSON.stringify({
      mode,
      dtype,
      rows,
      vocab,
      floorRead: reads * bytes,
      floorWritten: writes * bytes,
    }),
  );
}
process.exit(0);
