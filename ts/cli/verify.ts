import fs from 'node:fs';
import path from 'node:path';
import { methods } from '../catalogue.js';
import { native } from '../native.js';
import type { ReferenceConfig } from '../reference.js';
import { readBatch, readSafetensors } from '../safetensors.js';
import type { Dtype, HiddenBatch, LogitsBatch } from '../types.js';
import {
  allConfigs,
  converted,
  convertedHidden,
  nameOf,
  packed,
  syntheticBatches,
  syntheticHiddenBatches,
  type NamedBatch,
} from '../verification-cases.js';
import { checkHiddenObjective, prepareHidden } from '../verification-hidden.js';
import { checkDifferences, checkExpected, checkObjective, kinds, prepare, Tally, type Kind, type Miss } from '../verification.js';
import { parse } from './arguments.js';
import { cuda } from '../cuda.js';
import { availableWays, whyNoCuda, type Way } from './backends.js';
import { CommandError, failed, ok, type Command } from './command.js';
import { expectedValuesOf, type ExpectedValues } from './expected-values.js';
import { junit, type JUnitSuite } from './junit.js';
import { methodNamed } from './methods.js';
import { exampleFile, shortPath } from './package.js';
import { digits, plural, table, type Cell } from '../text/table.js';
import { paint, print, printJson, Progress } from '../text/terminal.js';

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

interface Outcome {
  readonly suite: string;
  /** Of the {@link Way}. */
  readonly backend: string;
  readonly config: ReferenceConfig;
  readonly label: string;
  readonly tally: Tally;
  readonly seconds: number;
}

const dtypes: readonly Dtype[] = ['float32', 'float16', 'bfloat16'];
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
  if (elements > largeBatch) configs = configs.filter(({ method }, i) => configs.findIndex((c) => c.method === method) === i);
  const plan = (dtype: Dtype, layout: string, form: LogitsBatch): Plan => {
    const isGiven = dtype === given && form.shape === batch.shape;
    return {
      suite: `${name}, ${dtype}, ${layout}`,
      batch: form,
      configs,
      isSmooth: isGiven ? isSmooth : () => false,
      expected:
        isGiven && expected ? { ...expected, cases: expected.cases.filter(({ call }) => chosen.has(call.method)) } : undefined,
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
    const work = ((4 * labels.length * weight.length) / (hidden.length || 1) + 2000) * (configs.length + 4);
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
    const found = fs
      .readdirSync(name)
      .filter((entry) => entry.endsWith('.safetensors'))
      .sort()
      .map((entry) => path.join(name, entry));
    // A folder may hold other tensors, too; what is named must be a batch.
    const batches = found.filter((file) => readSafetensors(file).has('logits'));
    if (batches.length === 0)
      throw new CommandError(`${name}: holds no *.safetensors with logits; name a file or another folder`);
    return batches;
  });
}

function fileBatch(file: string): NamedBatch {
  const batch = readBatch(file);
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
      return sequences >= 2 && sequences % 2 === 0 && (!lacksReference.has(config.method) || config.referenceFree === true);
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
      return { suite, backend: name, config, label, tally, seconds: (performance.now() - start) / 1000 };
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
        checkExpected(lib, plan.batch, { ...wanted, logps: expected?.logps, counts: expected?.counts }, backend),
      );
    }
  }
}

function* executeHidden({ suite, hidden, configs }: HiddenPlan, ways: readonly Way[]): Generator<Outcome> {
  const prepared = prepareHidden(hidden);
  for (const { name, backend, hidden: lib } of ways) {
    if (!lib) continue;
    for (const config of configs) {
      const start = performance.now();
      const tally = checkHiddenObjective(lib, config, prepared, backend);
      yield { suite, backend: name, config, label: nameOf(config), tally, seconds: (performance.now() - start) / 1000 };
    }
  }
}

interface Summary {
  readonly method: string;
  readonly backend: string;
  cases: number;
  misses: number;
  readonly tally: Tally;
}

function summarize(outcomes: readonly Outcome[]): Summary[] {
  const summaries = new Map<string, Summary>();
  for (const { config, backend, tally } of outcomes) {
    const key = `${config.method} ${backend}`;
    const summary = summaries.get(key) ?? { method: config.method, backend, cases: 0, misses: 0, tally: new Tally() };
    summaries.set(key, summary);
    summary.cases++;
    if (tally.count > 0) summary.misses++;
    summary.tally.merge(tally);
  }
  return [...summaries.values()];
}

/** An error as a share of its bound. */
function share(value: number): Cell {
  if (value > 1) return { text: value === Infinity ? 'FAIL' : `${digits(value, 3)} x`, style: 'red' };
  if (value === 0) return { text: '0', style: 'dim' };
  return value < 0.0001 ? { text: '<0.01 %', style: 'dim' } : `${(100 * value).toFixed(value < 0.01 ? 2 : 1)} %`;
}

const titles: Readonly<Record<Kind, string>> = {
  loss: 'loss',
  logps: 'log-probs',
  label: 'label',
  others: 'other logits',
  sums: 'row sums',
  layer: 'output layer',
  differences: 'differences',
};

function missText({ what, actual, expected, bound }: Miss): string {
  return `${what}: ${String(actual)}, expected ${String(expected)} within ${digits(bound, 3)}`;
}

function showTable(summaries: readonly Summary[], ways: readonly Way[]): string {
  const manyBackends = ways.length > 1;
  const rows = summaries.map(({ method, backend, cases, misses, tally }): Cell[] => [
    { text: method, style: 'bold' },
    ...(manyBackends ? [backend] : []),
    String(cases),
    ...kinds.map((kind) => share(tally.worst[kind])),
    misses === 0 ? { text: 'ok', style: 'green' } : { text: `FAIL (${misses})`, style: 'red' },
  ]);
  return table(
    [
      { title: 'method' },
      ...(manyBackends ? [{ title: 'backend' }] : []),
      { title: 'cases', align: 'right' as const },
      ...kinds.map((kind) => ({ title: titles[kind], align: 'right' as const })),
      { title: 'result' },
    ],
    rows,
  );
}

function toJUnit(outcomes: readonly Outcome[]): string {
  const suites = new Map<string, JUnitSuite & { cases: JUnitSuite['cases'][number][] }>();
  for (const { suite, backend, config, label, tally, seconds } of outcomes) {
    const entry = suites.get(suite) ?? { name: suite, cases: [] };
    suites.set(suite, entry);
    const failure =
      tally.count === 0 ? undefined : `${plural(tally.count, 'value')} out of bounds\n${tally.misses.map(missText).join('\n')}`;
    entry.cases.push({ name: `${label} (${backend})`, className: `diralign.${config.method}`, seconds, failure });
  }
  return junit('diralign verify', [...suites.values()]);
}

function run(args: string[]): Promise<number> {
  const { values, positionals } = parse('verify', args, { method: 'string', json: 'boolean', junit: 'string' }, Infinity);
  const start = performance.now();
  const ways = availableWays();
  const noCuda = whyNoCuda();
  const deviceNames = cuda.devices().map((device) => device.name);
  const names = values.method?.split(',').map((name) => methodNamed(name.trim())) ?? methods();
  const chosen = new Set<string>(names.map((info) => info.name));
  // Before anything long: a missing addon or file should say so at once.
  const { isa, threads } = native().cpuInfo();
  if (values.junit !== undefined) writeFile(values.junit, '');
  const files = listFiles(positionals);
  const plans: (Plan | HiddenPlan)[] = syntheticBatches().flatMap((batch) => makePlans(batch, chosen));
  plans.push(...makeHiddenPlans(chosen));
  for (const file of [exampleFile, ...files]) plans.push(...makePlans(fileBatch(file), chosen, expectedValuesOf(file)));

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

  const summaries = summarize(outcomes);
  if (outcomes.length === 0) throw new CommandError('nothing was checked');
  const missed = outcomes.filter(({ tally }) => tally.count > 0);
  const seconds = (performance.now() - start) / 1000;
  if (values.junit !== undefined) writeFile(values.junit, toJUnit(outcomes));
  if (values.json) {
    printJson({
      passed: missed.length === 0,
      cases: outcomes.length,
      failed: missed.length,
      seconds,
      backends: { cpu: { isa, threads }, cuda: noCuda === undefined ? { devices: deviceNames } : { off: noCuda } },
      methods: summaries.map(({ method, backend, cases, misses, tally }) => ({
        method,
        backend,
        cases,
        failed: misses,
        worst: tally.worst,
      })),
      misses: missed.map(({ suite, backend, label, tally }) => ({
        suite,
        backend,
        case: label,
        count: tally.count,
        first: tally.misses,
      })),
    });
    return Promise.resolve(missed.length === 0 ? ok : failed);
  }
  const other = noCuda === undefined ? `, cuda (${deviceNames[0] ?? ''})` : `; cuda is off: ${noCuda}`;
  print(`${paint('dim', `backend cpu (${isa}, ${plural(threads, 'thread')})${other}`)}\n`);
  print(showTable(summaries, ways));
  print(
    `\n${paint('dim', 'The worst error met, as a share of its bound: of losses; log-probabilities and rewards; the gradient at labels and\nelsewhere, dense, in place and factored; sums of its rows; gradients of output layers; dLoss/dlogps against finite differences.')}`,
  );
  const shown = 8;
  for (const { suite, backend, label, tally } of missed.slice(0, shown)) {
    print(`\n${paint('red', 'FAIL')} ${label} on ${suite}, ${backend}: ${plural(tally.count, 'value')} out of bounds`);
    for (const miss of tally.misses) print(`     ${missText(miss)}`);
  }
  if (missed.length > shown) print(`\nand ${plural(missed.length - shown, 'more case')}; --json has all`);
  const verdict =
    missed.length === 0 ? paint('green', 'all within bounds') : paint('red', `${missed.length.toLocaleString('en')} failed`);
  print(
    `\n${plural(outcomes.length, 'case')} on ${plural(plans.length, 'batch').replace(/batchs$/, 'batches')} in ${seconds.toFixed(1)} s: ${verdict}`,
  );
  return Promise.resolve(missed.length === 0 ? ok : failed);
}

function writeFile(file: string, text: string): void {
  try {
    fs.writeFileSync(file, text);
  } catch (error) {
    throw new CommandError(`--junit: ${(error as Error).message}; name a file that can be written`);
  }
}

export const verifyCommand: Command = {
  name: 'verify',
  summary: 'losses and gradients of every method against a float64 reference and finite differences',
  usage: `diralign verify: losses and gradients of every method against a float64 reference and finite differences

${paint('bold', 'Usage')}
  diralign verify [FILE.safetensors|DIR ...] [--method NAME[,NAME...]] [--json] [--junit FILE]

Every method in every setting, in every dtype, padded and packed, with a dense, an in-place and a factored gradient, on every
backend that is available (CUDA twice: with the data on the device, and with host arrays): on small batches with edges (ignored
rows of NaN, empty sequences, certain rows, vocabularies of 1 to 513), on the example that comes with the package, and on the
batches of FILEs and DIRs. Large files are taken in their own dtype and layout only. On small output layers, too (fromHidden).

A file NAME.expected.json beside NAME.safetensors (or expected.json with "file": "NAME.safetensors") adds reference values:
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
