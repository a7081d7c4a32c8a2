/** The outcome of `diralign verify`, as a table, as JSON and as JUnit XML. */
import { digits, plural, table, type Cell } from '../text/table.js';
import { paint } from '../text/terminal.js';
import { kinds, Tally, type Kind, type Miss } from '../verification/verification.js';
import { junit, type JUnitSuite } from './junit.js';

export interface Outcome {
  readonly suite: string;
  /** Of the {@link Way}. */
  readonly backend: string;
  /** What the table sums up by: a method, `mixLosses` or `logpsBackward`. */
  readonly method: string;
  readonly label: string;
  readonly tally: Tally;
  readonly seconds: number;
}

export interface Checked {
  readonly outcomes: readonly Outcome[];
  readonly batches: number;
  readonly seconds: number;
  readonly cpu: { readonly isa: string; readonly threads: number };
  readonly cuda: { readonly devices: readonly string[] } | { readonly off: string };
}

export function missesOf({ outcomes }: Checked): Outcome[] {
  return outcomes.filter(({ tally }) => tally.count > 0);
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
  for (const { method, backend, tally } of outcomes) {
    const key = `${method} ${backend}`;
    const summary = summaries.get(key) ?? {
      method,
      backend,
      cases: 0,
      misses: 0,
      tally: new Tally(),
    };
    summaries.set(key, summary);
    summary.cases++;
    if (tally.count > 0) summary.misses++;
    summary.tally.merge(tally);
  }
  return [...summaries.values()];
}

/** An error as a share of its bound. */
function share(value: number): Cell {
  if (value > 1)
    return { text: value === Infinity ? 'FAIL' : `${digits(value, 3)} x`, style: 'red' };
  if (value === 0) return { text: '0', style: 'dim' };
  return value < 0.0001
    ? { text: '<0.01 %', style: 'dim' }
    : `${(100 * value).toFixed(value < 0.01 ? 2 : 1)} %`;
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

function showTable(summaries: readonly Summary[]): string {
  const manyBackends = new Set(summaries.map(({ backend }) => backend)).size > 1;
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

export function toJUnit(outcomes: readonly Outcome[]): string {
  const suites = new Map<string, JUnitSuite & { cases: JUnitSuite['cases'][number][] }>();
  for (const { suite, backend, method, label, tally, seconds } of outcomes) {
    const entry = suites.get(suite) ?? { name: suite, cases: [] };
    suites.set(suite, entry);
    const failure =
      tally.count === 0
        ? undefined
        : `${plural(tally.count, 'value')} out of bounds\n${tally.misses.map(missText).join('\n')}`;
    entry.cases.push({
      name: `${label} (${backend})`,
      className: `diralign.${method}`,
      seconds,
      failure,
    });
  }
  return junit('diralign verify', [...suites.values()]);
}

export function toJson(checked: Checked): object {
  const { outcomes, seconds, cpu, cuda } = checked;
  const missed = missesOf(checked);
  return {
    passed: missed.length === 0,
    cases: outcomes.length,
    failed: missed.length,
    seconds,
    backends: { cpu, cuda },
    methods: summarize(outcomes).map(({ method, backend, cases, misses, tally }) => ({
      ...{ method, backend, cases, failed: misses, worst: tally.worst },
    })),
    misses: missed.map(({ suite, backend, label, tally }) => ({
      ...{ suite, backend, case: label, count: tally.count, first: tally.misses },
    })),
  };
}

const shownMisses = 8;

const legend =
  'The worst error met, as a share of its bound: of losses; log-probabilities and rewards; ' +
  'the gradient at labels and\nelsewhere, dense, in place and factored; sums of its rows; ' +
  'gradients of output layers; dLoss/dlogps against finite differences.';

export function toText(checked: Checked): string {
  const { outcomes, batches, seconds, cpu, cuda } = checked;
  const other = 'off' in cuda ? `; cuda is off: ${cuda.off}` : `, cuda (${cuda.devices[0] ?? ''})`;
  const lines = [
    `${paint('dim', `backend cpu (${cpu.isa}, ${plural(cpu.threads, 'thread')})${other}`)}\n`,
    showTable(summarize(outcomes)),
    `\n${paint('dim', legend)}`,
  ];
  const missed = missesOf(checked);
  for (const { suite, backend, label, tally } of missed.slice(0, shownMisses)) {
    lines.push(
      `\n${paint('red', 'FAIL')} ${label} on ${suite}, ${backend}: ` +
        `${plural(tally.count, 'value')} out of bounds`,
    );
    for (const miss of tally.misses) lines.push(`     ${missText(miss)}`);
  }
  if (missed.length > shownMisses)
    lines.push(`\nand ${plural(missed.length - shownMisses, 'more case')}; --json has all`);
  const verdict =
    missed.length === 0
      ? paint('green', 'all within bounds')
      : paint('red', `${missed.length.toLocaleString('en')} failed`);
  const where = plural(batches, 'batch').replace(/batchs$/, 'batches');
  lines.push(
    `\n${plural(outcomes.length, 'case')} on ${where} in ${seconds.toFixed(1)} s: ${verdict}`,
  );
  return lines.join('\n');
}
