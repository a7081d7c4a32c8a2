// Calls among processes, as ranks of this process on the cards that there are, each on the next: by
// the host, and, with two cards or more, by NCCL.
import { nccl } from '../../../dist/distributed/index.js';
import {
  boundaries,
  dtypes,
  onRankDevice,
  overVocab,
  randomBatch,
  sameBits,
  within,
} from './support.mjs';

const common = ['loss', 'losses', 'logps', 'rewards', 'coefficients', 'metrics'];

function requireSame(misses, what, actual, expected) {
  for (const name of common) {
    const [a, b] = [actual[name], expected[name]];
    const same = ArrayBuffer.isView(a) ? sameBits(a, b) : JSON.stringify(a) === JSON.stringify(b);
    misses.require(same, () => `${what}: other ${name}`);
  }
  misses.require(sameBits(actual.gradLogits, expected.gradLogits), () => `${what}: the gradient`);
}

export async function ranks({ subject, misses, scale, progress, note }) {
  const devices = subject.cuda.devices().length;
  const size = Math.max(2, devices);
  const dpo = subject.dirAlignLoss('dpo', 0.1);
  const each = (objective, batch, run, rank) =>
    onRankDevice({ device: rank % devices })(objective, batch, run, rank);
  let communicators;
  if (devices < 2) note('one card: NCCL was not tried');
  else {
    try {
      communicators = await Promise.all(
        within(devices).map((control, device) => nccl(control, { device })),
      );
      note(`NCCL ${communicators[0].engine.version} between ${devices} cards`);
    } catch (error) {
      note(`NCCL was not tried: ${error.message}`);
    }
  }
  try {
    const cases = scale.repeated.flatMap(({ vocab }) => dtypes.map((dtype) => ({ vocab, dtype })));
    for (const [i, { vocab: least, dtype }] of cases.entries()) {
      const columnGrid = dtype === 'float32' ? 1024 : 2048;
      const vocab = Math.max(least, size * columnGrid + 1); // something for every rank
      const batch = randomBatch({ seed: 1, sequences: 4, tokens: 8, vocab, dtype, peaked: true });
      const over = (cuts, ...rest) => overVocab(dpo, batch, cuts, { columnGrid }, 0, each, ...rest);
      const what = `V = ${vocab}, ${dtype}, ${size} ranks`;
      const one = await over([0, vocab]);
      const cuts = boundaries(vocab, size, false, columnGrid);
      requireSame(misses, `${what}, by the host`, await over(cuts), one);
      if (communicators)
        requireSame(misses, `${what}, by NCCL`, await over(cuts, communicators), one);
      await progress((i + 1) / cases.length);
    }
  } finally {
    await Promise.all((communicators ?? []).map((one) => one.close()));
  }
}
