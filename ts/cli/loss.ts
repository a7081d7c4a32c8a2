import type { LogitsArray, LogitsBatch } from '../batch/types.js';
import type { GradientMode, RunOptions } from '../loss/options.js';
import type { LossResult } from '../loss/results.js';
import { native } from '../native/interface.js';
import { readBatch, writeSafetensors } from '../safetensors.js';
import { plural } from '../text/table.js';
import { paint, print, printJson } from '../text/terminal.js';
import { decoder } from '../verification/verification.js';
import { build, optionHelp, optionsOf, usesReference, usualBetas, type Built } from './choice.js';
import { CommandError, type Command } from './command.js';
import { describe, jsonOf, showMany, showOne, type Outcome } from './loss-output.js';
import { readRequest, type LossCommandRequest } from './loss-request.js';
import { outcomeOf, statusOf, withOutput, type Output } from './output.js';
import { shortPath } from './package.js';

function compute(built: Built, batch: LogitsBatch, run: RunOptions): Outcome {
  // One set of labels is all that `sft` has.
  const { sftLabels, ...withoutSftLabels } = batch;
  const start = performance.now();
  const result = built.objective(
    built.info.name === 'sft' && sftLabels ? withoutSftLabels : batch,
    run,
  );
  const milliseconds = performance.now() - start;
  return { ...built, result, milliseconds, gradientNorm: result.gradLogits && norm(result, batch) };
}

function norm({ gradLogits, rowScale }: LossResult, { shape, dtype }: LogitsBatch): number {
  const vocab = shape.at(-1) ?? 1;
  const values = gradLogits as Float32Array | Uint16Array;
  const decode = decoder(dtype ?? 'float32');
  const scored = rowScale ?? new Float32Array(values.length / vocab).fill(1);
  let sum = 0;
  for (const [row, scale] of scored.entries()) {
    let rowSum = 0;
    for (let i = row * vocab; i < (row + 1) * vocab; i++) rowSum += decode(values[i] ?? NaN) ** 2;
    sum += scale * scale * rowSum;
  }
  return Math.sqrt(sum);
}

function run(args: string[]): Promise<number> {
  const request = readRequest(args);
  const built = request.chosen.map((info) => build(info, request));
  return withOutput('out', request.out, (output) => computeAndTell(request, built, output));
}

function computeAndTell(
  request: LossCommandRequest,
  built: readonly Built[],
  output: Output | undefined,
): number {
  const read = readBatch(request.file);
  const batch: LogitsBatch =
    request.ignoreIndex === undefined ? read : { ...read, ignoreIndex: request.ignoreIndex };
  const file = shortPath(request.file);

  const lacking = batch.reference ? [] : built.filter(usesReference);
  const [first] = lacking;
  if (first && !(request.all && lacking.length < built.length)) {
    throw new CommandError(
      `reference: '${first.info.name}' needs the reference model's log-probability of each sequence; add a tensor "reference" to ${file} or pass --reference-free`,
      { code: 'ERR_DIRALIGN_REFERENCE' },
    );
  }
  const { gradient, threads } = request;
  // The logits of a single method are not needed again: their array takes the gradient. Of several,
  // one array takes them all.
  const possible = built.filter((candidate) => !lacking.includes(candidate));
  const single = possible.length === 1;
  const target =
    gradient === 'none' ? {} : single ? { inPlace: true } : { out: alike(batch.logits) };
  const runOptions: RunOptions = { gradient, ...target, ...(threads !== undefined && { threads }) };
  // Loaded before the clock starts.
  const { isa, threads: available } = native().cpuInfo();
  const outcomes = possible.map((candidate) => compute(candidate, batch, runOptions));
  const milliseconds = outcomes.reduce((sum, outcome) => sum + outcome.milliseconds, 0);

  const [outcome] = outcomes;
  if (!outcome) throw new CommandError('no method is left to compute');
  const write = (): CommandError | undefined =>
    output?.write((to) => {
      writeGradient(to, outcome, batch, gradient);
    });
  const scored = outcome.result.counts.reduce((total, count) => total + count, 0);
  const about = describe(batch, scored);
  if (request.json) {
    const failure = write();
    printJson({
      file: request.file,
      batch: about,
      backend: outcome.result.backend,
      gradient,
      results: outcomes.map(jsonOf),
      skipped: lacking.map(({ info }) => ({
        method: info.name,
        reason: 'the batch has no reference',
      })),
      ...outcomeOf(output, failure),
    });
    return statusOf('loss', failure);
  }
  const count =
    about.sequences % 2 === 0
      ? plural(about.sequences / 2, 'pair')
      : plural(about.sequences, 'sequence');
  const tokens = `${scored.toLocaleString('en')} scored tokens of ${about.rows.toLocaleString('en')}`;
  const layout = `vocabulary ${about.vocab.toLocaleString('en')}, ${about.dtype}${about.packed ? ', packed' : ''}`;
  const hint = request.isExample ? paint('dim', '  the example that comes with diralign') : '';
  const effort = `${milliseconds < 10 ? milliseconds.toFixed(2) : milliseconds.toFixed(0)} ms on the ${outcome.result.backend} backend (${isa}), ${plural(threads ?? available, 'thread')}${gradient === 'none' ? '' : `, ${gradient} gradient`}`;
  print(`${file}${hint}\n${count}, ${tokens}, ${layout}\n`);
  if (single) print(showOne(outcome, effort));
  else
    print(
      `${showMany(
        outcomes,
        lacking.map(({ info }) => info.name),
        gradient,
        request,
      )}\n${paint('dim', effort)}`,
    );
  const failure = write();
  if (output && !failure) print(`${paint('green', 'wrote')} ${shortPath(output.file)}`);
  return statusOf('loss', failure);
}

function alike(logits: LogitsArray): LogitsArray {
  return logits instanceof Float32Array
    ? new Float32Array(logits.length)
    : new Uint16Array(logits.length);
}

function writeGradient(
  path: string,
  { objective, result }: Outcome,
  batch: LogitsBatch,
  gradient: GradientMode,
): void {
  const { shape, dtype = 'float32', offsets } = batch;
  const { gradLogits, rowScale, loss } = result;
  if (!gradLogits) return;
  const dtypes = { float32: 'F32', float16: 'F16', bfloat16: 'BF16' } as const;
  const settings = {
    method: objective.method,
    beta: objective.beta,
    normalize: objective.normalize,
    ...optionsOf(objective),
  };
  writeSafetensors(
    path,
    {
      gradLogits: { dtype: dtypes[dtype], shape, data: gradLogits },
      ...(rowScale && {
        rowScale: {
          dtype: 'F32' as const,
          shape: offsets ? shape.slice(0, 1) : shape.slice(0, 2),
          data: rowScale,
        },
      }),
    },
    { objective: JSON.stringify(settings), gradient, loss: String(loss) },
  );
}

export const lossCommand: Command = {
  name: 'loss',
  summary: 'loss, metrics and gradient of a batch in a safetensors file, by one method or all',
  usage: `diralign loss: loss, metrics and gradient of a batch of preference pairs

${paint('bold', 'Usage')}
  diralign loss [METHOD[,METHOD...]|all] [FILE.safetensors] [options]

Without FILE, the example that comes with the package. Without METHOD, all. FILE may also be the
index of shards (model.safetensors.index.json), or a directory that holds either.

${paint('bold', 'Tensors of FILE')}
  logits      [sequences, tokens, vocab] F32, F16 or BF16; or packed, [rows, vocab]
  labels      one per row, I32 or I64: row t of the logits scores label t; -100 where a row is not
              scored
  reference   one per sequence, F64 or F32: log-probability under the reference model, where the
              method needs it
  offsets     packed only: sequences + 1 row numbers, I32 or I64
  sft_labels  labels of the likelihood term, where they differ
The first half of the sequences are the chosen, the second half the rejected.

${paint('bold', 'Options')}
  --method NAME        the same as METHOD
  --beta X             temperature, for all; without it the usual one of each method
                       (${usualBetas})
  --preset SETUP       the best betas of a setup of arXiv 2502.01237, such as
                       ultrafeedback-llama-3.1-8b; 'diralign methods NAME' has them
  --normalize, --no-normalize
                       per scored token or not; without it the method's original setting
  --gradient MODE      dense (default), factored or none
  --out FILE           write the gradient: gradLogits, in the dtype and shape of the logits, and
                       rowScale if factored
  --threads N          at most so many; the result does not depend on it
  --ignore-index N     label of rows that are not scored (default -100)
  --json               everything as JSON, numbers per pair and per sequence included

${paint('bold', 'Options of the methods')}, also as in the library (--labelSmoothing), or for one: METHOD=X
${optionHelp()}

${paint('bold', 'Examples')}
  diralign loss
  diralign loss dpo
  diralign loss dpo batch.safetensors --beta 0.1
  diralign loss simpo,orpo batch.safetensors --sft-weight 0.2
  diralign loss all --alpha alphapo=0.5,r_dpo=0.01
  diralign loss dpo batch.safetensors --gradient factored --out gradient.safetensors
  diralign loss all --json | jq '.results[] | [.method, .loss]'`,
  run,
};
