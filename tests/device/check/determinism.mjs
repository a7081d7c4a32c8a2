// The same bits in every run of every mode, also while the device works on something else.
import { Copy, dtypes, randomBatch, requireSame, sameBits } from './support.mjs';

const modes = [
  { name: 'loss only', run: { gradient: 'none' } },
  { name: 'dense', run: { gradient: 'dense' }, out: true },
  { name: 'dense in place', run: { gradient: 'dense', inPlace: true } },
  { name: 'factored', run: { gradient: 'factored' }, out: true },
  { name: 'factored in place', run: { gradient: 'factored', inPlace: true } },
];

export async function determinism({ subject, misses, scale, progress }) {
  const { cuda } = subject;
  const [mine, other] = [cuda.stream(), cuda.stream()];
  const noiseBatch = randomBatch({
    peaked: true,
    seed: 3,
    sequences: 2,
    tokens: scale.repeated[0].tokens,
    vocab: scale.repeated[0].vocab,
  });
  const noise = new Copy(noiseBatch.logits, 'float32', { stream: other.handle }, cuda);
  const simpo = subject.dirAlignLoss('simpo', 2);
  /** Work on the second stream that lasts into what follows. */
  const disturb = () =>
    Array.from({ length: 3 }, () =>
      simpo.async({ ...noiseBatch, logits: noise.tensor }, { gradient: 'none' }),
    );

  const cases = scale.repeated.flatMap((size) => dtypes.map((dtype) => ({ ...size, dtype })));
  for (const [i, { vocab, tokens, dtype }] of cases.entries()) {
    const batch = randomBatch({
      peaked: true,
      seed: vocab + tokens,
      sequences: 8,
      tokens,
      vocab,
      dtype,
    });
    const logits = new Copy(batch.logits, dtype, { shift: 1, stream: mine.handle }, cuda);
    const out = new Copy(batch.logits, dtype, { shift: 3, stream: mine.handle }, cuda);
    const onDevice = { ...batch, logits: logits.tensor };
    const objective = subject.dirAlignLoss('dpo', 0.1);
    for (const { name, run, out: separate } of modes) {
      let first;
      for (let turn = 0; turn < scale.runs; turn++) {
        if (run.inPlace) logits.write(batch.logits);
        if (separate) out.write(batch.logits);
        const pending = turn % 2 === 1 ? disturb() : [];
        const options = { ...run, ...(separate && { out: out.tensor }) };
        const result =
          turn % 4 === 3 ? await objective.async(onDevice, options) : objective(onDevice, options);
        await Promise.all(pending);
        const gradLogits = run.inPlace ? logits.read() : separate ? out.read() : undefined;
        const all = gradLogits ? { ...result, gradLogits } : result;
        first ??= all;
        requireSame(misses, `V = ${vocab}, ${dtype}, ${name}, run ${turn + 1}`, all, first);
      }
      if (run.inPlace) logits.write(batch.logits);
    }
    checkLogps(subject, misses, `V = ${vocab}, ${dtype}`, onDevice, scale.runs);
    logits.dispose();
    out.dispose();
    await progress((i + 1) / cases.length);
  }
  noise.dispose();
  mine.dispose();
  other.dispose();
}

function checkLogps({ sequenceLogps, tokenLogps, dirAlignLoss }, misses, what, batch, runs) {
  const [sequences, tokens] = [sequenceLogps(batch), tokenLogps(batch)];
  for (let turn = 1; turn < runs; turn++) {
    misses.require(
      sameBits(sequenceLogps(batch).logps, sequences.logps),
      `${what}, sequenceLogps, run ${turn + 1}`,
    );
    const again = tokenLogps(batch);
    for (const key of ['logps', 'logsumexp', 'entropy'])
      misses.require(
        sameBits(again[key], tokens[key]),
        `${what}, tokenLogps.${key}, run ${turn + 1}`,
      );
  }
  // The policy's numbers and the reference's come from one kernel: the margin of a model against
  // itself is exactly 0.
  const own = dirAlignLoss('dpo', 0.1)(
    { ...batch, reference: sequences.logps },
    { gradient: 'none' },
  );
  misses.require(
    sameBits(own.logps, sequences.logps),
    `${what}: the loss has other log-probabilities than sequenceLogps`,
  );
  misses.require(
    own.loss === Math.LN2,
    `${what}: policy = reference has the loss ${own.loss}, not ln 2`,
  );
}
