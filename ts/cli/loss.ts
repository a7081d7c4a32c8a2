import type { LogitsBatch } from '../batch/types.js';
import { isLikelihood } from '../catalogue.js';
import type { RunOptions } from '../loss/options.js';
import { native } from '../native/interface.js';
import { readBatch } from '../safetensors.js';
import { paint, print, printJson } from '../text/terminal.js';
import { build, optionHelp, usesReference, usualBetas, type Built } from './choice.js';
import { CommandError, type Command } from './command.js';
import { alike, norm, writeGradient } from './loss-gradient.js';
import {
  describe,
  effortOf,
  headline,
  jsonOf,
  showMany,
  showOne,
  type Outcome,
} from './loss-output.js';
import { readRequest, type LossCommandRequest } from './loss-request.js';
import { outcomeOf, statusOf, withOutput, type Output } from './output.js';
import { shortPath } from './package.js';

function compute(built: Built, batch: LogitsBatch, run: RunOptions): Outcome {
  // The likelihood itself has one set of labels.
  const { sftLabels, ...withoutSftLabels } = batch;
  const start = performance.now();
  const result = built.objective(
    isLikelihood(built.info) && sftLabels ? withoutSftLabels : batch,
    run,
  );
  const milliseconds = performance.now() - start;
  return { ...built, result, milliseconds, gradientNorm: result.gradLogits && norm(result, batch) };
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
  const lacking = lackingReference(request, built, batch);
  const possible = built.filter((candidate) => !lacking.includes(candidate));
  // Loaded before the clock starts.
  const computer = native().cpuInfo();
  const outcomes = computeAll(request, possible, batch);
  const [outcome] = outcomes;
  if (!outcome) throw new CommandError('no method is left to compute');
  const { gradient } = request;
  const write = (): CommandError | undefined =>
    output?.write((to) => {
      writeGradient(to, outcome, batch, gradient);
    });
  const about = describe(batch, outcome.result);
  const skipped = lacking.map(({ info }) => info.name);
  if (request.json) {
    const failure = write();
    printJson({
      file: request.file,
      batch: about,
      backend: outcome.result.backend,
      gradient,
      results: outcomes.map(jsonOf),
      skipped: skipped.map((method) => ({ method, reason: 'the batch has no reference' })),
      ...outcomeOf(output, failure),
    });
    return statusOf('loss', failure);
  }
  print(headline(request, about));
  const effort = effortOf(request, outcomes, computer);
  if (possible.length === 1) print(showOne(outcome, effort));
  else print(`${showMany(outcomes, skipped, gradient, request)}\n${paint('dim', effort)}`);
  const failure = write();
  if (output && !failure) print(`${paint('green', 'wrote')} ${shortPath(output.file)}`);
  return statusOf('loss', failure);
}

/** Those that need a reference which the batch lacks: all leaves them out, others are refused. */
function lackingReference(
  { all, file }: LossCommandRequest,
  built: readonly Built[],
  batch: LogitsBatch,
): readonly Built[] {
  const lacking = batch.reference ? [] : built.filter(usesReference);
  const [first] = lacking;
  if (first && !(all && lacking.length < built.length)) {
    throw new CommandError(
      `reference: '${first.info.name}' needs the reference model's log-probability of each sequence; add a tensor "reference" to ${shortPath(file)} or pass --reference-free`,
      { code: 'ERR_DIRALIGN_REFERENCE' },
    );
  }
  return lacking;
}

/**
 * The logits of a single method are not needed again: their array takes the gradient. Of several,
 * one array takes them all.
 */
function computeAll(
  { gradient, threads }: LossCommandRequest,
  built: readonly Built[],
  batch: LogitsBatch,
): Outcome[] {
  const target =
    gradient === 'none'
      ? {}
      : built.length === 1
        ? { inPlace: true }
        : { out: alike(batch.logits) };
  const run: RunOptions = { gradient, ...target, ...(threads !== undefined && { threads }) };
  return built.map((candidate) => compute(candidate, batch, run));
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
