import type { LogitsBatch } from '../batch/types.js';
import { isLikelihood } from '../catalogue.js';
import { contract } from '../contract.generated.js';
import { DirAlignError } from '../errors.js';
import type { RunOptions } from '../loss/options.js';
import { native } from '../native/interface.js';
import { readBatch } from '../safetensors.js';
import { paint, print, printJson } from '../text/terminal.js';
import { batchFor, fieldsIn, lackOf, type Lack } from './batch-fields.js';
import { optionHelp, usualBetas, type Built } from './choice.js';
import { CommandError, type Command } from './command.js';
import { fieldHelp } from './field-help.js';
import { alike, norm, writeGradient } from './loss-gradient.js';
import {
  describe,
  effortOf,
  headline,
  jsonOf,
  showMany,
  showOne,
  type Outcome,
  type Skipped,
} from './loss-output.js';
import { readRequest, type LossCommandRequest } from './loss-request.js';
import { outcomeOf, statusOf, withOutput, type Output } from './output.js';
import { shortPath } from './package.js';
import { recipeNames } from './recipes.js';

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
  return withOutput('out', request.out, (output) => computeAndTell(request, output));
}

function computeAndTell(request: LossCommandRequest, output: Output | undefined): number {
  const read = readBatch(request.file);
  const batch: LogitsBatch =
    request.ignoreIndex === undefined ? read : { ...read, ignoreIndex: request.ignoreIndex };
  const { possible, skipped } = sortOut(request, batch);
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
  if (request.json) {
    const failure = write();
    printJson({
      file: request.file,
      batch: about,
      backend: outcome.result.backend,
      gradient,
      results: outcomes.map(jsonOf),
      skipped,
      ...outcomeOf(output, failure),
    });
    return statusOf('loss', failure);
  }
  print(headline(request, about));
  const effort = effortOf(request, outcomes, computer);
  if (possible.length === 1) print(showOne(outcome, batchFor(outcome.objective, batch), effort));
  else print(`${showMany(outcomes, skipped, gradient, request)}\n${paint('dim', effort)}`);
  const failure = write();
  if (output && !failure) print(`${paint('green', 'wrote')} ${shortPath(output.file)}`);
  return statusOf('loss', failure);
}

/** What the batch is enough for; of `all` the rest is left out, of names it is refused. */
function sortOut(
  { all, built, file }: LossCommandRequest,
  batch: LogitsBatch,
): { readonly possible: readonly Built[]; readonly skipped: readonly Skipped[] } {
  const lacks = new Map(built.map((each) => [each, lackOf(each.objective, batch)]));
  const possible = built.filter((each) => lacks.get(each) === undefined);
  const skipped = [...lacks].flatMap(([{ info }, lack]) =>
    lack ? [{ method: info.name, reason: lack.reason }] : [],
  );
  for (const [each, lack] of lacks)
    if (lack && !(all && possible.length > 0)) throw refused(each, lack, file);
  return { possible, skipped };
}

function refused({ info, recipe }: Built, lack: Lack, file: string): CommandError {
  const { missing, reason, code } = lack;
  const who = `'${recipe ?? info.name}'`;
  const [first] = missing;
  if (first === 'reference')
    return new CommandError(
      `reference: ${who} needs the reference model's log-probability of each sequence; ` +
        `add a tensor "reference" to ${shortPath(file)} or pass --reference-free`,
      { code: 'ERR_DIRALIGN_REFERENCE' },
    );
  if (first !== undefined)
    return new CommandError(
      `${first}: ${who} needs it; add ${missing.map(inWords).join(' and ')} to ${shortPath(file)}`,
      { code },
    );
  return new CommandError(`${shortPath(file)}: ${reason}; ${who} cannot be computed`, { code });
}

/** A tensor that is to be added, with what it means. */
function inWords(tensor: string): string {
  const meaning = contract.fields.find(({ name }) => name === tensor)?.meaning;
  const other = tensor === 'kl' ? ', or "kl.logps" and "kl.reference"' : '';
  return `a tensor "${tensor}"${other} (${meaning ?? 'offsets of the groups over the sequences'})`;
}

/**
 * The logits of a single method are not needed again: their array takes the gradient. Of several,
 * one array takes them all. A single one is given all that the file has, of several each what it
 * takes.
 */
function computeAll(
  { gradient, threads, built, file }: LossCommandRequest,
  possible: readonly Built[],
  batch: LogitsBatch,
): Outcome[] {
  const target =
    gradient === 'none'
      ? {}
      : possible.length === 1
        ? { inPlace: true }
        : { out: alike(batch.logits) };
  const run: RunOptions = { gradient, ...target, ...(threads !== undefined && { threads }) };
  try {
    return possible.map((each) =>
      compute(each, built.length === 1 ? batch : batchFor(each.objective, batch), run),
    );
  } catch (error) {
    throw ofFields(error, batch) ? inFile(error as DirAlignError, file) : error;
  }
}

/** Whether an error is about a field: it is the file that is to be mended, not the command line. */
function ofFields(error: unknown, batch: LogitsBatch): boolean {
  const name = error instanceof DirAlignError ? /^\w+/.exec(error.message)?.[0] : undefined;
  return name !== undefined && (fieldsIn(batch) as readonly string[]).includes(name);
}

function inFile(error: DirAlignError, file: string): CommandError {
  return new CommandError(`${shortPath(file)}: ${error.message}`, {
    code: error.code,
    cause: error,
  });
}

export const lossCommand: Command = {
  name: 'loss',
  summary: 'loss, metrics and gradient of a batch in a safetensors file, by one method or all',
  usage: `diralign loss: loss, metrics and gradient of a batch of pairs, single sequences or groups

${paint('bold', 'Usage')}
  diralign loss [METHOD[,METHOD...]|all] [FILE.safetensors] [options]
  diralign loss --recipe NAME [FILE.safetensors] [options]

Without FILE, the example that comes with the package. Without METHOD, all. FILE may also be the
index of shards (model.safetensors.index.json), or a directory that holds either.

${paint('bold', 'Tensors of FILE')}
  logits      [sequences, tokens, vocab] F32, F16 or BF16; or packed, [rows, vocab]
  labels      one per row, I32 or I64: row t of the logits scores label t; -100 where a row is not
              scored
  reference   one per sequence, F64 or F32: log-probability under the reference model, where the
              method needs it
  offsets     packed only: sequences + 1 row numbers, I32 or I64
  sftLabels   labels of the likelihood term, where they differ
Methods of pairs take the first half of the sequences as the chosen, the second as the rejected.

${paint('bold', 'Fields of FILE')}, under these names or in snake_case;
'diralign methods NAME' has those of a method
${fieldHelp()}
One METHOD is given all of them, and refuses what means nothing to it; of several, each is given
what it takes. 'all' leaves out methods that lack something.

${paint('bold', 'Options')}
  --method NAME        the same as METHOD
  --beta X             temperature, for all; without it the usual one of each method
                       (${usualBetas})
  --recipe NAME        a loss that trainers have a name for: ${recipeNames.join(', ')};
                       --beta, --normalize and options of its methods take the place of its own
  --preset SETUP       the best betas of a setup of arXiv 2502.01237, such as
                       ultrafeedback-llama-3.1-8b; 'diralign methods NAME' has them
  --normalize, --no-normalize
                       per scored token or not; without it the method's original setting
  --gradient MODE      dense (default), factored or none
  --out FILE           write the gradient: gradLogits, in the dtype and shape of the logits, and
                       rowScale if factored
  --threads N          at most so many; the result does not depend on it
  --ignore-index N     label of rows that are not scored (default -100)
  --json               everything as JSON, numbers per unit and per sequence included

${paint('bold', 'Options of the methods')}, also as in the library (--labelSmoothing), or for one:
METHOD=X
${optionHelp()}

${paint('bold', 'Examples')}
  diralign loss
  diralign loss dpo
  diralign loss dpo batch.safetensors --beta 0.1
  diralign loss simpo,orpo batch.safetensors --sft-weight 0.2
  diralign loss --recipe mpo
  diralign loss kto labelled.safetensors --desirable-weight 1.33
  diralign loss all --alpha alphapo=0.5,r_dpo=0.01
  diralign loss dpo batch.safetensors --gradient factored --out gradient.safetensors
  diralign loss all --json | jq '.results[] | [.method, .loss]'`,
  run,
};
