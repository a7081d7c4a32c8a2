import { cuda } from '../device/cuda.js';
import { DirAlignError } from '../errors.js';
import { native } from '../native/interface.js';
import { paint, print, printJson, Progress } from '../text/terminal.js';
import { syntheticBatches } from '../verification/cases.js';
import {
  backwardLibrary,
  checkBackward,
  checkHiddenBackward,
  prepareBackward,
  prepareHiddenBackward,
} from '../verification/backward.js';
import { isMix, nameOf, objectiveOf, type LossConfig } from '../verification/objectives.js';
import { checkHiddenObjective, prepareHidden } from '../verification/hidden.js';
import {
  checkDifferences,
  checkExpected,
  checkObjective,
  prepare,
  type Tally,
} from '../verification/verification.js';
import { parse } from './arguments.js';
import { availableWays, whyNoCuda, type Way } from './backends.js';
import { batchFor } from './batch-fields.js';
import { CommandError, failed, type Command } from './command.js';
import { expectedValuesOf } from './expected-values.js';
import { methodNamed } from './choice.js';
import { outcomeOf, statusOf, withOutput } from './output.js';
import { exampleFile } from './package.js';
import { missesOf, toJson, toJUnit, toText, type Checked, type Outcome } from './verify-output.js';
import {
  checkedBatch,
  fileBatch,
  listFiles,
  makeHiddenPlans,
  makePlans,
  type Chosen,
  type HiddenPlan,
  type Plan,
} from './verify-plans.js';

/** The row of the table that a loss is in. */
const rowOf = (config: LossConfig): string => (isMix(config) ? 'mixLosses' : config.method);

/** What the outcomes of a plan on a backend have in common. */
const timer =
  (suite: string, backend: string) =>
  (method: string, label: string, check: () => Tally): Outcome => {
    const start = performance.now();
    const tally = check();
    const seconds = (performance.now() - start) / 1000;
    return { suite, backend, method, label, tally, seconds };
  };

/** What a device does not compute yet is no case of it. */
function* offered(outcomes: Iterable<() => Outcome>, backend: Way['backend']): Generator<Outcome> {
  for (const outcome of outcomes) {
    try {
      yield outcome();
    } catch (error) {
      const isRefused = error instanceof DirAlignError && error.code === 'ERR_DIRALIGN_BACKEND';
      if (backend === 'cpu' || !isRefused) throw error;
    }
  }
}

function* execute(plan: Plan, ways: readonly Way[]): Generator<Outcome> {
  const { suite, configs, isSmooth, expected } = plan;
  const prepared = prepare(plan.batch);
  for (const { name, backend, library: lib } of ways) {
    const timed = timer(suite, name);
    const objectives = configs.map((config) => () => {
      return timed(rowOf(config), nameOf(config), () => {
        const own = { ...prepared, batch: checkedBatch(config, plan.batch) };
        const tally = checkObjective(lib, config, own, backend);
        // From log-probabilities on, there is one backend.
        if (backend === 'cpu' && isSmooth(config)) checkDifferences(tally, lib, config, own);
        return tally;
      });
    });
    yield* offered(objectives, backend);
    for (const [i, wanted] of (expected?.cases ?? []).entries()) {
      yield timed(wanted.call.method, `expected values ${i}: ${nameOf(wanted.call)}`, () =>
        checkExpected(
          lib,
          batchFor(objectiveOf(wanted.call), plan.batch),
          { ...wanted, logps: expected?.logps, counts: expected?.counts },
          backend,
        ),
      );
    }
  }
  if (plan.backward.length === 0) return;
  const rows = prepareBackward(plan.batch);
  const timed = timer(suite, 'cpu');
  for (const one of plan.backward)
    yield timed('logpsBackward', one.label, () => checkBackward(backwardLibrary, one, rows));
}

function* executeHidden(
  { suite, hidden, configs, backward }: HiddenPlan,
  ways: readonly Way[],
): Generator<Outcome> {
  const prepared = prepareHidden(hidden);
  for (const { name, backend, hidden: lib } of ways) {
    if (!lib) continue;
    const timed = timer(suite, name);
    const objectives = configs.map((config) => () => {
      const check = () => checkHiddenObjective(lib, config, prepared, backend);
      return timed(rowOf(config), nameOf(config), check);
    });
    yield* offered(objectives, backend);
  }
  if (backward.length === 0) return;
  const rows = prepareHiddenBackward(hidden);
  const timed = timer(suite, 'cpu');
  for (const one of backward)
    yield timed('logpsBackward', one.label, () => checkHiddenBackward(backwardLibrary, one, rows));
}

function run(args: string[]): Promise<number> {
  const { values, positionals } = parse(
    'verify',
    args,
    { method: 'string', json: 'boolean', junit: 'string' },
    Infinity,
  );
  const names = values.method?.split(',').map((name) => methodNamed(name.trim()).name);
  const chosen = names && new Set<string>(names);
  return withOutput('junit', values.junit, (output) => {
    const checked = check(positionals, chosen);
    const write = (): CommandError | undefined => output?.write(toJUnit(checked.outcomes));
    let failure: CommandError | undefined;
    if (values.json) {
      failure = write();
      printJson({ ...toJson(checked), ...(failure && outcomeOf(undefined, failure)) });
    } else {
      print(toText(checked));
      failure = write();
    }
    const status = statusOf('verify', failure);
    return missesOf(checked).length === 0 ? status : failed;
  });
}

function check(given: readonly string[], chosen: Chosen): Checked {
  const start = performance.now();
  // Before anything long: a missing addon or file should say so at once.
  const { isa, threads } = native().cpuInfo();
  const ways = availableWays();
  const files = listFiles(given);
  const plans: (Plan | HiddenPlan)[] = syntheticBatches().flatMap((batch) =>
    makePlans(batch, chosen),
  );
  plans.push(...makeHiddenPlans(chosen));
  for (const file of [exampleFile, ...files]) {
    const named = fileBatch(file);
    plans.push(...makePlans(named, chosen, expectedValuesOf(file, named.batch)));
  }

  const progress = new Progress(plans.reduce((sum, { work }) => sum + work, 0));
  const outcomes: Outcome[] = [];
  let done = 0;
  for (const plan of plans) {
    progress.update(done, plan.suite);
    const step = plan.work / (plan.configs.length * ways.length + plan.backward.length || 1);
    for (const outcome of 'hidden' in plan ? executeHidden(plan, ways) : execute(plan, ways)) {
      outcomes.push(outcome);
      done += step;
      progress.update(done, `${plan.suite}: ${outcome.label}`);
    }
  }
  progress.end();
  if (outcomes.length === 0) throw new CommandError('nothing was checked');
  const noCuda = whyNoCuda();
  const devices = cuda.devices().map((device) => device.name);
  const seconds = (performance.now() - start) / 1000;
  return {
    outcomes,
    batches: plans.length,
    seconds,
    cpu: { isa, threads },
    cuda: noCuda === undefined ? { devices } : { off: noCuda },
  };
}

export const verifyCommand: Command = {
  name: 'verify',
  summary:
    'losses and gradients of every method against a float64 reference and finite differences',
  usage: `diralign verify: losses and gradients of every method against a float64 reference and
finite differences

${paint('bold', 'Usage')}
  diralign verify [FILE.safetensors|DIR ...] [--method NAME[,NAME...]] [--json] [--junit FILE]

Every method in every setting, in every dtype, padded and packed, with a dense, an in-place and a
factored gradient, on every backend that is available (CUDA twice: with the data on the device, and
with host arrays): on small batches with edges (ignored rows of NaN, empty sequences, certain rows,
vocabularies of 1 to 513, weights of tokens, scaled and capped logits), on the example that comes
with the package, and on the batches of FILEs and DIRs. Large files are taken in their own dtype and
layout only. On small output layers, too (fromHidden). Mixtures (mixLosses) and gradients of losses
of one's own (logpsBackward, with what tokenLogps finds) have rows of their own in the table.

A FILE may hold the fields of 'diralign loss --help'. Each method is checked with those that it
takes; the check makes up what a method needs and the file lacks, but no reference. Reference values
are those of the file's fields.

A file NAME.expected.json beside NAME.safetensors (or expected.json with "file": "NAME.safetensors")
adds reference values:
  { "cases": [ { "call": { "method": "dpo", "beta": 0.1 }, "loss": 0.693, "losses": [...],
                 "gradient": { "at": [[0, 3, 17]], "value": [0.01] } } ],
    "logps": [...], "counts": [...] }
of which losses, gradient, logps and counts may be left out.

${paint('bold', 'Options')}
  --method NAME   only these methods, and mixtures of them
  --json          one JSON document
  --junit FILE    also JUnit XML, a test case for each setting on each batch

${paint('bold', 'Examples')}
  diralign verify
  diralign verify --method dpo,cal_dpo
  diralign verify batches/ --junit report.xml

The exit status is 1 where a bound is missed.`,
  run,
};
