import { table, type Column } from '../text/table.js';
import { paint } from '../text/terminal.js';
import type { Machine } from './machine.js';
import { fewestRounds, type Ratio, type Spread } from './rounds.js';
import type { BenchResult } from './run.js';
import type { SweepPoint } from './sweep.js';

/** Three digits, or whole numbers from 100 on. */
export function digits(x: number): string {
  if (!Number.isFinite(x)) return String(x);
  return Math.abs(x) >= 100 ? x.toFixed(0) : x.toPrecision(3);
}

export function machineLine({ cpu, cores, isa, system, node, diralign, date }: Machine): string {
  return (
    `${cpu}, ${cores} cores (${isa}), ${system}, Node ${node}, diralign ${diralign}, ` +
    date.slice(0, 10)
  );
}

export function settingLine({
  setting: { pairs, tokens, vocab, rows, threads, rounds },
}: BenchResult): string {
  return (
    `DPO, ${pairs} ${pairs === 1 ? 'pair' : 'pairs'} of 2 x ${tokens} tokens, ` +
    `vocabulary ${vocab}: ${rows} rows; ` +
    `${threads} ${threads === 1 ? 'thread' : 'threads'}, ${rounds} interleaved rounds, caches cold`
  );
}

export const bandwidthLine = ({ loops }: BenchResult): string =>
  loops
    .map(
      ({ name, gigabytesPerSecond }) =>
        `${name.slice('loop-'.length)} ${digits(gigabytesPerSecond)} GB/s`,
    )
    .join(', ');

export const percent = (share: number): string => `${(100 * share).toFixed(0)} %`;

/** Whether anything is concluded from so many rounds. */
export const isConclusive = ({ n }: { readonly n: number }): boolean => n >= fewestRounds;

export const quartiles = ({ q1, q3 }: Pick<Spread, 'q1' | 'q3'>, write = digits): string =>
  `${write(q1)} - ${write(q3)}`;

/** A ratio with its quartiles, or these alone where nothing is concluded. */
export function ratioText(found: Ratio, write = digits): string {
  const value = isConclusive(found) ? write(found.value) : 'no conclusion';
  return `${value} (${quartiles(found, write)})`;
}

/** Said where figures are left out. */
export function inconclusiveNote(all: readonly { readonly n: number }[]): string {
  return all.every(isConclusive)
    ? ''
    : `Of fewer than ${fewestRounds} rounds there are quartiles, and no conclusion.`;
}

/** A table for people: a heading and rows of cells. */
export interface Table {
  readonly title: string;
  readonly head: readonly string[];
  readonly rows: readonly (readonly string[])[];
  /** What one has to know to read it. */
  readonly note?: string;
}

const sentences = (...all: readonly string[]): string => all.filter(Boolean).join(' ');

export function tablesOf(result: BenchResult): Table[] {
  const tables: Table[] = [
    {
      title: 'Modes',
      head: [
        'mode',
        'logits',
        'rows scored',
        'median ms',
        'min',
        'quartiles',
        'ns/logit',
        'GB/s',
        'of bandwidth',
      ],
      rows: [
        ...result.loops.map(({ name, ms, gigabytesPerSecond }) => [
          `memory loop: ${name.slice('loop-'.length)}`,
          'float32',
          '',
          digits(ms.median),
          digits(ms.min),
          quartiles(ms),
          '',
          digits(gigabytesPerSecond),
          '',
        ]),
        ...result.modes.map((mode) => [
          mode.title,
          mode.dtype,
          percent(mode.fraction),
          digits(mode.ms.median),
          digits(mode.ms.min),
          quartiles(mode.ms),
          digits(mode.nanosecondsPerLogit),
          digits(mode.gigabytesPerSecond),
          isConclusive(mode.ms) ? percent(mode.share) : '',
        ]),
      ],
      note: sentences(
        'GB/s counts the bytes that a mode must at least move; ' +
          'the last column is what the loops of this run need for them.',
        inconclusiveNote(result.modes.map(({ ms }) => ms)),
      ),
    },
    {
      title: 'Ratios',
      head: ['ratio', 'of medians', 'quartiles over rounds'],
      rows: result.ratios.map((each) => [
        each.name,
        isConclusive(each) ? each.value.toFixed(3) : '',
        quartiles(each, (x) => x.toFixed(3)),
      ]),
      note: inconclusiveNote(result.ratios),
    },
  ];
  if (result.others) {
    const all = [result, ...result.others];
    const ofEach = (cell: (of: BenchResult) => string): string[] => all.map(cell);
    tables.push({
      title: 'Ratios by instruction set',
      head: ['ratio', ...ofEach(({ machine }) => machine.isa)],
      rows: [
        ...result.ratios.map(({ name }) => [
          name,
          ...ofEach(({ ratios }) => {
            const found = ratios.find((each) => each.name === name);
            return found ? ratioText(found, (x) => x.toFixed(2)) : '';
          }),
        ]),
        ...result.calls.map(({ title }) => [
          `a call: ${title}`,
          ...ofEach(({ calls }) => {
            const found = calls.find((each) => each.title === title);
            return found ? `${digits(found.microseconds)} us` : '';
          }),
        ]),
      ],
      note: sentences(
        'Each has the loops of its own process beneath it, with its own instructions.',
        inconclusiveNote(all.flatMap(({ ratios }) => ratios)),
      ),
    });
  }
  if (result.peers.length > 0) {
    tables.push({
      title: 'Peers',
      head: [
        'peer',
        'version',
        'work',
        'median ms',
        'ours',
        'times slower',
        'quartiles',
        'extra MiB',
      ],
      rows: result.peers.map((peer) => [
        peer.title,
        peer.version,
        peer.work,
        digits(peer.ms.median),
        peer.against,
        isConclusive(peer.ratio) ? digits(peer.ratio.value) : '',
        quartiles(peer.ratio),
        peer.extraMiB === undefined ? '' : digits(peer.extraMiB),
      ]),
      note: sentences(
        'Their losses and gradients agree with ours.',
        inconclusiveNote(result.peers.map((peer) => peer.ratio)),
      ),
    });
  }
  if (result.missingPeers.length > 0) {
    tables.push({
      title: 'Peers that are not installed',
      head: ['peer', 'to have it'],
      rows: result.missingPeers.map(({ title, install }) => [title, install]),
    });
  }
  tables.push({
    title: 'Cost of a call (1 pair of 1 token, vocabulary 16)',
    head: ['call', 'microseconds'],
    rows: result.calls.map(({ title, microseconds }) => [title, digits(microseconds)]),
  });
  if (result.memory.length > 0) {
    tables.push({
      title: 'Extra memory, in a process of its own',
      head: ['mode', 'rows', 'MiB over the logits', 'MiB of logits'],
      rows: result.memory.map(({ mode, rows, extraMiB, logitsMiB }) => [
        mode,
        String(rows),
        extraMiB.toFixed(1),
        logitsMiB.toFixed(1),
      ]),
    });
  }
  if (result.sweep) {
    const rows = (points: readonly SweepPoint[]): string[][] =>
      points.map(({ vocab, rows: n, forward, inPlace }) => [
        ...[String(vocab), String(n)],
        ...[forward, inPlace].flatMap((ns) => [digits(ns.median), quartiles(ns)]),
      ]);
    tables.push({
      title: 'Linearity, nanoseconds per logit',
      head: ['vocabulary', 'rows', 'loss only', 'quartiles', 'in place', 'quartiles'],
      rows: [...rows(result.sweep.overVocab), ...rows(result.sweep.overRows)],
    });
  }
  return tables;
}

/** Everything as text. */
export function textReport(result: BenchResult): string {
  const parts = [
    machineLine(result.machine),
    settingLine(result),
    `Memory: ${bandwidthLine(result)}`,
  ];
  for (const { title, head, rows, note } of tablesOf(result)) {
    const columns = head.map((name, i): Column => {
      const numeric = rows.every((row) => /^[\d.\- %]*$/.test(row[i] ?? ''));
      return { title: name, align: numeric ? 'right' : 'left' };
    });
    parts.push(
      '',
      paint('bold', title),
      table(columns, rows),
      ...(note ? [paint('dim', note)] : []),
    );
  }
  return parts.join('\n');
}

/** The tables in Markdown. */
export function markdownReport(result: BenchResult): string {
  const parts = [
    machineLine(result.machine),
    '',
    `${settingLine(result)}.`,
    '',
    `Memory: ${bandwidthLine(result)}.`,
  ];
  for (const { title, head, rows, note } of tablesOf(result)) {
    const line = (cells: readonly string[]): string => `| ${cells.join(' | ')} |`;
    parts.push(
      '',
      `### ${title}`,
      '',
      line(head),
      line(head.map(() => '---')),
      ...rows.map(line),
      ...(note ? ['', note] : []),
    );
  }
  return `${parts.join('\n')}\n`;
}
