// Breaks the device for this process, while a call is enqueued behind, and says what becomes of it
// and of later ones: a line each.
import { cuda, dirAlignLoss } from '../../../dist/index.js';
import { native } from '../../../dist/native/interface.js';

const [sequences, tokens, vocab] = [2, 4, 64];
const elements = sequences * tokens * vocab;
const stream = cuda.stream();
const logits = cuda.alloc(4 * elements, { stream });
logits.copyFrom(Float32Array.from({ length: elements }, (_, i) => Math.sin(i)));
const labels = Int32Array.from({ length: sequences * tokens }, (_, i) => i % vocab);
const batch = {
  logits: logits.tensor('float32'),
  shape: [sequences, tokens, vocab],
  labels,
  reference: Float64Array.of(-1, -2),
};
const dpo = dirAlignLoss('dpo', 0.1);

async function tell(what, work) {
  let outcome = { code: 'resolved', message: '' };
  try {
    await work();
  } catch ({ code, message }) {
    outcome = { code, message };
  }
  console.log(JSON.stringify({ what, ...outcome }));
}

await tell('a good call', () => dpo.async(batch, { gradient: 'none' }));
const large = cuda.alloc(2 ** 26, { stream });
const { copyKernel, copyOnDevice } = native().cuda;
// The device is kept busy, so that the call is enqueued before the failure.
for (let i = 0; i < 64; i++)
  copyOnDevice(0, stream.handle, large.ptr, large.ptr + BigInt(2 ** 25), 2 ** 25);
copyKernel(0, stream.handle, 0x2000n, 0x1000n, 4096);
const pending = dpo.async(batch, { gradient: 'none' });
await tell('a call behind the failure', () => pending);
await tell('a call after it', () => dpo.async(batch, { gradient: 'none' }));
await tell('a synchronous call after it', () => dpo(batch, { gradient: 'none' }));
await tell('an allocation after it', () => cuda.alloc(4096));
process.exit(0);
