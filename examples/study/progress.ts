/**
 * How far a run is: one line that is rewritten on a terminal, a line every ten seconds elsewhere.
 */
import type { RunnerStatus } from './runner.js';

export interface ProgressOptions {
  readonly stream: NodeJS.WriteStream;
  readonly workers: number;
  readonly status: () => RunnerStatus;
}

const [terminalPeriod, logPeriod] = [250, 10_000];
const barWidth = 24;

export class Progress {
  readonly #options: ProgressOptions;
  readonly #start = Date.now();
  readonly #timer: NodeJS.Timeout;

  constructor(options: ProgressOptions) {
    this.#options = options;
    this.#timer = setInterval(
      () => {
        this.#draw();
      },
      options.stream.isTTY ? terminalPeriod : logPeriod,
    );
    this.#timer.unref();
  }

  /** Prints a line of its own, above the progress. */
  log(line: string): void {
    this.#clear();
    this.#options.stream.write(`${line}\n`);
  }

  stop(): void {
    clearInterval(this.#timer);
    this.#clear();
  }

  #draw(): void {
    const { stream, status, workers } = this.#options;
    const line = progressLine(status(), (Date.now() - this.#start) / 1000, workers);
    if (!stream.isTTY) stream.write(`${line}\n`);
    else stream.write(`\r\u001b[2K${line.slice(0, stream.columns - 1)}`);
  }

  #clear(): void {
    if (this.#options.stream.isTTY) this.#options.stream.write('\r\u001b[2K');
  }
}

export function progressLine(status: RunnerStatus, elapsed: number, workers: number): string {
  const { done, known, reused, running, remaining } = status;
  const filled = known === 0 ? 0 : Math.floor((barWidth * done) / known);
  const bar = '#'.repeat(filled).padEnd(barWidth, '.');
  const stages = running
    .map(({ stage, share }) => (share > 0 ? `${stage} ${Math.floor(100 * share)} %` : stage))
    .join(', ');
  const parts = [
    `[${bar}] ${done} of ${known} tasks${reused > 0 ? `, ${reused} from before` : ''}`,
    duration(elapsed),
    // What experiments ask for next is not in it.
    ...(remaining === undefined || running.length === 0
      ? []
      : [`at least ${duration(remaining / workers)} left`]),
    ...(stages === '' ? [] : [stages]),
  ];
  return parts.join(' | ');
}

/** 42 s, 3 min 05 s, 1 h 02 min. */
export function duration(seconds: number): string {
  const whole = Math.round(seconds);
  const two = (value: number): string => String(value).padStart(2, '0');
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${two(whole % 60)} s`;
  return `${Math.floor(whole / 3600)} h ${two(Math.floor((whole % 3600) / 60))} min`;
}
