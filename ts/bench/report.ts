import { table, type Column } from '../text/table.js';
import { paint } from '../text/terminal.js';
import type { Machine } from './machine.js';
import type { BenchResult } from './run.js';
import type { SweepPoint } from './sweep.js';

/** Three digits, or whole numbers from 100 on. */
export function digits(x: number): string {
  if (!Number.isFinite(x)) return String(x);
  return Math.abs(x) >= 100 ? x.toFixed(0) : x.toPrecision(3);
}

export function machineLine({ cpu, cores, isa, system, node, diralign, date }: Machine): string {
  return `${cpu}, ${cores} cores (${isa}), ${system}, Node ${node}, diralign ${diralign}, ${date.slice(0, 10)}`;
}

export function settingLine({ setting: { pairs, tokens, vocab, rows, threads, rounds } }: BenchResult): string {
  return (
    `DPO, ${pairs} ${pairs === 1 ? 'pair' : 'pairs'} of 2 x ${tokens} tokens, vocabulary ${vocab}: ${rows} rows; ` +
    `${threads} ${threads === 1 ? 'thread' : 'threads'}, ${rounds} interleaved rounds, caches cold`
  );
}

export const bandwidthLine = ({ loops }: BenchResult): string =>
  loops.map(({ name, gigabytesPerSecond }) => `${name.slice('loop-'.length)} ${digits(gigabytesPerSecond)} GB/s`).join(', ');

export const percent = (share: number): string => `${(100 * share).toFixed(0)} %`;

/** A table for people: a heading and rows of cells. */
export interface Table {
  readonly title: string;
  readonly head: readonly string[];
  readonly rows: readonly (readonly string[])[];
  /** What one has to know to read it. */
  readonly note?: string;
}

export function tablesOf(result: BenchResult): Table[] {
  const tables: Table[] = [
    {
      title: 'Modes',
      head: ['mode', 'logits', 'rows scored', 'median ms', 'min', 'quartiles', 'ns/logit', 'GB/s', 'of bandwidth'],
      rows: [
        ...result.loops.map(({ name, ms, gigabytesPerSecond }) => [
          `memory loop: ${name.slice('loop-'.length)}`,
          'float32',
          '',
          digits(ms.median),
          digits(ms.min),
          `${digits(ms.q1)} - ${digits(ms.q3)}`,
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
          `${digits(mode.ms.q1)} - ${digits(mode.ms.q3)}`,
          digits(mode.nanosecondsPerLogit),
          digits(mode.gigabytesPerSecond),
          percent(mode.share),
        ]),
      ],
      note: 'GB/s counts the bytes that a mode must at least move; the last column is what the loops of this run need for them.',
    },
    {
      title: 'Ratios',
      head: ['ratio', 'of medians', 'quartiles over rounds'],
      rows: result.ratios.map(({ name, value, q1, q3 }) => [name, value.toFixed(3), `${q1.toFixed(3)} - ${q3.toFixed(3)}`]),
    },
  ];
  if (result.peers.length > 0) {
    tables.push({
      title: 'Peers',
      head: ['peer', 'version', 'work', 'median ms', 'ours', 'times slower', 'quartiles', 'extra MiB'],
      rows: result.peers.map((peer) => [
        peer.title,
        peer.version,
        peer.work,
        digits(peer.ms.median),
        peer.against,
        digits(peer.ratio.value),
        `${digits(peer.ratio.q1)} - ${digits(peer.ratio.q3)}`,
        peer.extraMiB === undefined ? '' : digits(peer.extraMiB),
      ]),
      note: 'Their losses and gradients agree with ours.',
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
      points.map(({ vocab, rows: n, forward, inPlace }) => [String(vocab), String(n), digits(forward), digits(inPlace)]);
    tables.push({
      title: 'Linearity, nanoseconds per logit',
      head: ['vocabulary', 'rows', 'loss only', 'in place'],
      rows: [...rows(result.sweep.overVocab), ...rows(result.sweep.overRows)],
    });
  }
  return tables;
}

/** Everything as text. */
export function textReport(result: BenchResult): string {
  const parts = [machineLine(result.machine), settingLine(result), `Memory: ${bandwidthLine(result)}`];
  for (const { title, head, rows, note } of tablesOf(result)) {
    const columns = head.map((name, i): Column => {
      const numeric = rows.every((row) => /^[\d.\- %]*$/.test(row[i] ?? ''));
      return { title: name, align: numeric ? 'right' : 'left' };
    });
    parts.push('', paint('bold', title), table(columns, rows), ...(note ? [paint('dim', note)] : []));
  }
  return parts.join('\n');
}

/** The tables in Markdown. */
export function markdownReport(result: BenchResult): string {
  const parts = [machineLine(result.machine), '', `${settingLine(result)}.`, '', `Memory: ${bandwidthLine(result)}.`];
  for (const { title, head, rows, note } of tablesOf(result)) {
    const line = (cells: readonly string[]): string => `| ${cells.join(' | ')} |`;
    parts.push('', `### ${title}`, '', line(head), line(head.map(() => '---')), ...rows.map(line), ...(note ? ['', note] : []));
  }
  return `${parts.join('\n')}\n`;
}
