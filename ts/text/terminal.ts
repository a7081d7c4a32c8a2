import { styleText } from 'node:util';

export type Style = 'bold' | 'dim' | 'red' | 'green' | 'yellow' | 'cyan';
export type Paint = (style: Style, text: string) => string;

/**
 * Colours where a terminal shows them and nobody objects: a tty knows about NO_COLOR, FORCE_COLOR
 * and TERM itself.
 */
export function painter(stream: NodeJS.WriteStream): Paint {
  const colours = stream.isTTY && stream.hasColors();
  return (style, text) => (colours && text !== '' ? styleText(style, text) : text);
}

export const paint = painter(process.stdout);

/**
 * Columns of the terminal; what fits most of them where there is none, so that a file does not
 * depend on who makes it.
 */
export function screenWidth(): number {
  return process.stdout.isTTY && process.stdout.columns > 0 ? process.stdout.columns : 100;
}

export function print(text: string): void {
  process.stdout.write(`${text}\n`);
}

/** Without what would command a terminal: names of files may hold anything. */
export function harmless(text: string): string {
  const escaped = (c: string): string => `\\x${c.charCodeAt(0).toString(16).padStart(2, '0')}`;
  // oxlint-disable-next-line no-control-regex -- these are what it is about
  return text.replace(/[\u0000-\u001f\u007f-\u009f]/g, escaped);
}

/** One line on the standard error. */
export function complain(who: string, message: string): void {
  const line = harmless(message.replace(/\s*\n\s*/g, ' '));
  process.stderr.write(`${painter(process.stderr)('red', `${who}:`)} ${line}\n`);
}

/**
 * One document. JSON has no numbers that are not finite: they are the strings NaN, Infinity and
 * -Infinity.
 */
export function printJson(document: unknown): void {
  const plain = (_: string, value: unknown): unknown => {
    if (typeof value === 'number' && !Number.isFinite(value)) return String(value);
    return ArrayBuffer.isView(value) ? Array.from(value as Float64Array) : value;
  };
  print(JSON.stringify(document, plain, 2));
}

/** A line that is drawn over itself; on anything but a terminal, nothing at all. */
export class Progress {
  private drawn = 0;
  constructor(
    private readonly total: number,
    private readonly stream: NodeJS.WriteStream = process.stderr,
  ) {}

  update(done: number, what: string): void {
    const now = performance.now();
    // Ten a second: drawing must not cost more than the work.
    if (!this.stream.isTTY || now - this.drawn < 100) return;
    this.drawn = now;
    const share = Math.min(1, this.total === 0 ? 1 : done / this.total);
    const width = 30;
    const full = Math.round(share * width);
    const bar = `${'━'.repeat(full)}${' '.repeat(width - full)}`;
    const line = `${bar} ${String(Math.round(100 * share)).padStart(3)} %  ${what}`;
    this.stream.write(`\r\u001b[K${line.slice(0, (this.stream.columns || 80) - 1)}`);
  }

  /** Removes the line. */
  end(): void {
    if (this.drawn > 0) this.stream.write('\r\u001b[K');
  }
}
