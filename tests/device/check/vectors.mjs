// The reference cases of tests/fixtures/vectors through every public way onto the device.
import {
  checkCase,
  checkFinite,
  checkLogps,
  Copy,
  inHalf,
  loadVectors,
  makeBatch,
  onDevice,
  onHost,
} from './support.mjs';

export async function vectors({ subject, misses, scale, progress, note }) {
  const objective = (c) => subject.dirAlignLoss(c.call);
  const backends = [onDevice(subject.cuda), onHost('cuda')].map((prepare) => ({
    ...{ name: 'cuda', prepare, objective },
  }));
  const all = [...loadVectors().values()].flat();
  // One by one through the list, so that a step meets every method and input.
  const chosen = all.filter((_, i) => i % scale.vectorStep === 0);
  note(
    chosen.length < all.length ? `${chosen.length} of ${all.length} cases` : `${all.length} cases`,
  );
  const inputs = new Set();
  for (const [turn, c] of chosen.entries()) {
    for (const backend of backends)
      if (c.robustnessOnly) checkFinite(misses, c, backend);
      else
        for (const batch of [makeBatch(c), inHalf(c)])
          if (batch) await checkCase(misses, c, batch, backend, { turn });
    if (!inputs.has(c.input)) {
      const copy = new Copy(c.input.logits, 'float32', { shift: 1 }, subject.cuda);
      checkLogps(misses, c.input, 'cuda', copy, subject);
      checkLogps(misses, c.input, 'cuda', undefined, subject);
      copy.dispose();
    }
    inputs.add(c.input);
    await progress((turn + 1) / chosen.length);
  }
}
