import fs from 'node:fs';
import path from 'node:path';
import { methods } from '../catalogue.js';
import { cuda } from '../device/cuda.js';
import { native } from '../native/interface.js';
import { sequenceLogps } from '../logps.js';
import type { ReferenceConfig } from '../verification/reference.js';
import { isIndex, readBatch, readSafetensors, shardsOfIndex } from '../safetensors.js';
import { paint, print, printJson, Progress } from '../text/terminal.js';
import type { HiddenBatch, LogitsBatch } from '../batch/types.js';
import { dtypes, type Dtype } from '../dtype.js';
import {
  allConfigs,
  converted,
  convertedHidden,
  nameOf,
  packed,
  syntheticBatches,
  syntheticHiddenBatches,
  type NamedBatch,
} from '../verification/cases.js';
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
import { CommandError, failed, type Command } from './command.js';
import { expectedValuesOf, type ExpectedValues } from './expected-values.js';
import { methodNamed } from './methods.js';
import { outcomeOf, statusOf, withOutput } from './output.js';
import { exampleFile, shortPath } from './package.js';
import { missesOf, toJson, toJUnit, toText, type Checked, type Outcome } from './verify-output.js';

/** A batch in one of its forms, and what is to be checked on it. */
interface Plan {
  readonly suite: string;
  readonly batch: LogitsBatch;
  readonly configs: readonly ReferenceConfig[];
  readonly isSmooth: (config: ReferenceConfig) => boolean;
  readonly expected?: ExpectedValues | undefined;
  /** Elements of the logits, and for how many passes: the work ahead. */
  readonly work: number;
}

/** The same for hidden states. */
interface HiddenPlan {
  readonly suite: string;
  readonly hidden: HiddenBatch;
  readonly configs: readonly ReferenceConfig[];
  readonly work: number;
}

/** Batches of more logits than this are taken as they are, in their own dtype and layout. */
const smallBatch = 2 ** 18;
/** Of more than this, each method in its default setting only. */
const largeBatch = 2 ** 20;

function makePlans(
  { name, batch, isSmooth, isChecked }: NamedBatch,
  chosen: ReadonlySet<string>,
  expected?: ExpectedValues,
): Plan[] {
  const given = batch.dtype ?? 'float32';
  const elements = batch.logits.length;
  let configs = allConfigs().filter((config) => chosen.has(config.method) && isChecked(config));
  if (elements > largeBatch)
    configs = configs.filter(
      ({ method }, i) => configs.findIndex((c) => c.method === method) === i,
    );
  const plan = (dtype: Dtype, layout: string, form: LogitsBatch): Plan => {
    const isGiven = dtype === given && form.shape === batch.shape;
    return {
      suite: `${name}, ${dtype}, ${layout}`,
      batch: form,
      configs,
      isSmooth: isGiven ? isSmooth : () => false,
      expected:
        isGiven && expected
          ? { ...expected, cases: expected.cases.filter(({ call }) => chosen.has(call.method)) }
          : undefined,
      work: (elements + 2000) * (configs.length + 4),
    };
  };
  const layout = batch.shape.length === 2 ? 'packed' : 'padded';
  if (elements > smallBatch) return [plan(given, layout, batch)];
  return dtypes.flatMap((dtype) => {
    const form = converted(batch, dtype);
    const own = plan(dtype, layout, form);
    return layout === 'packed' ? [own] : [own, plan(dtype, 'packed', packed(form))];
  });
}

function makeHiddenPlans(chosen: ReadonlySet<string>): HiddenPlan[] {
  return syntheticHiddenBatches().flatMap(({ name, batch, isChecked }) => {
    const configs = allConfigs().filter((config) => chosen.has(config.method) && isChecked(config));
    const { hidden, weight, labels } = batch;
    const work =
      ((4 * labels.length * weight.length) / (hidden.length || 1) + 2000) * (configs.length + 4);
    return dtypes.map((dtype) => ({
      suite: `${name}, ${dtype}`,
      hidden: dtype === 'float32' ? batch : convertedHidden(batch, dtype),
      configs,
      work,
    }));
  });
}

/** FILEs, and the batches of DIRs. */
function listFiles(names: readonly string[]): string[] {
  return names.flatMap((name) => {
    const isDirectory = fs.statSync(name, { throwIfNoEntry: false })?.isDirectory() ?? false;
    if (!isDirectory) return [name];
    const entries = fs
      .readdirSync(name)
      .sort()
      .map((entry) => path.join(name, entry));
    const indexes = entries.filter((entry) => isIndex(entry) && entry.includes('.safetensors.'));
    const shards = new Set(indexes.flatMap(shardsOfIndex).map(({ file }) => file));
    const files = entries.filter((file) => file.endsWith('.safetensors') && !shards.has(file));
    // A folder may hold other tensors, too; what is named must be a batch.
    const batches = [...files, ...indexes].filter((file) =>
      readSafetensors(file, []).has('logits'),
    );
    if (batches.length === 0)
      throw new CommandError(
        `${name}: holds no *.safetensors with logits; name a file or another folder`,
      );
    return batches;
  });
}

function fileBatch(file: string): NamedBatch {
  const batch = readBatch(file);
  // A call checks the batch: the reference implementation believes its shape, and allocates by it.
  const { logits, dtype, shape, offsets, labels } = batch;
  sequenceLogps({ logits, shape, labels, ...(dtype && { dtype }), ...(offsets && { offsets }) });
  const sequences = batch.offsets ? batch.offsets.length - 1 : batch.shape[0];
  const lacksReference = new Set<string>(
    batch.reference
      ? []
      : methods()
          .filter((info) => info.reference)
          .map((info) => info.name),
  );
  return {
    name: shortPath(file),
    batch,
    // Differences take a few hundred losses for every sequence.
    isSmooth: () => sequences <= 64,
    isChecked: (config) => {
      if (config.method === 'sft') return batch.sftLabels === undefined;
      return (
        sequences >= 2 &&
        sequences % 2 === 0 &&
        (!lacksReference.has(config.method) || config.referenceFree === true)
      );
    },
  };
}

function* execute(plan: Plan, ways: readonly Way[]): Generator<Outcome> {
  const { suite, configs, isSmooth, expected } = plan;
  const prepared = prepare(plan.batch);
  for (const { name, backend, library: lib } of ways) {
    const timed = (config: ReferenceConfig, label: string, check: () => Tally): Outcome => {
      const start = performance.now();
      const tally = check();
      return {
        suite,
        backend: name,
        config,
        label,
        tally,
        seconds: (performance.now() - start) / 1000,
      };
    };
    for (const config of configs) {
      yield timed(config, nameOf(config), () => {
        const tally = checkObjective(lib, config, prepared, backend);
        // From log-probabilities on, there is one backend.
        if (backend === 'cpu' && isSmooth(config)) checkDifferences(tally, lib, config, prepared);
        return tally;
      });
    }
    for (const [i, wanted] of (expected?.cases ?? []).entries()) {
      yield timed(wanted.call, `expected values ${i}: ${nameOf(wanted.call)}`, () =>
        checkExpected(
          lib,
          plan.batch,
          { ...wanted, logps: expected?.logps, counts: expected?.counts },
          backend,
        ),
      );
    }
  }
}

function* executeHidden(
  { suite, hidden, configs }: HiddenPlan,
  ways: readonly Way[],
): Generator<Outcome> {
  const prepared = prepareHidden(hidden);
  for (const { name, backend, hidden: lib } of ways) {
    if (!lib) continue;
    for (const config of configs) {
      const start = performance.now();
      const tally = checkHiddenObjective(lib, config, prepared, backend);
      yield {
        suite,
        backend: name,
        config,
        label: nameOf(config),
        tally,
        seconds: (performance.now() - start) / 1000,
      };
    }
  }
}

function run(args: string[]): Promise<number> {
  const { values, positionals } = parse(
    'verify',
    args,
    { method: 'string', json: 'boolean', junit: 'string' },
    Infinity,
  );
  const names = values.method?.split(',').map((name) => methodNamed(name.trim())) ?? methods();
  const chosen = new Set<string>(names.map((info) => info.name));
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

function check(given: readonly string[], chosen: ReadonlySet<string>): Checked {
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
    const step = plan.work / (plan.configs.length * ways.length || 1);
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
  usage: `diralign verify: losses and gradients of every method against a float64 reference and finite
differences

${paint('bold', 'Usage')}
  diralign verify [FILE.safetensors|DIR ...] [--method NAME[,NAME...]] [--json] [--junit FILE]

Every method in every setting, in every dtype, padded and packed, with a dense, an in-place and a
factored gradient, on every backend that is available (CUDA twice: with the data on the device, and
with host arrays): on small batches with edges (ignored rows of NaN, empty sequences, certain rows,
vocabularies of 1 to 513), on the example that comes with the package, and on the batches of FILEs
and DIRs. Large files are taken in their own dtype and layout only. On small output layers, too
(fromHidden).

A file NAME.expected.json beside NAME.safetensors (or expected.json with "file": "NAME.safetensors")
adds reference values:
  { "cases": [ { "call": { "method": "dpo", "beta": 0.1 }, "loss": 0.693, "losses": [...],
                 "gradient": { "at": [[0, 3, 17]], "value": [0.01] } } ],
    "logps": [...], "counts": [...] }
of which losses, gradient, logps and counts may be left out.

${paint('bold', 'Options')}
  --method NAME   only these methods
  --json          one JSON document
  --junit FILE    also JUnit XML, a test case for each setting on each batch

${paint('bold', 'Examples')}
  diralign verify
  diralign verify --method dpo,cal_dpo
  diralign verify batches/ --junit report.xml

The exit status is 1 where a bound is missed.`,
  run,
};
