// Runs CMake and shows how far it is: a line that is drawn over itself on a terminal, a line now
// and then in a log.
import { spawn } from 'node:child_process';

/** Of Ninja, `[12/54] Building CXX object ...`, and of make, `[ 22%] Building CXX object ...`. */
const step = /^\[\s*(\d+)(?:\/(\d+)|%)\] (.*)/;
const logInterval = 20_000;

export class Progress {
  #start = performance.now();
  #logged = this.#start;
  #state = 'configuring';
  #isDrawn = false;
  #timer;

  /** @param {NodeJS.WriteStream} stream */
  constructor(stream) {
    this.stream = stream;
    this.#timer = setInterval(() => this.#show(), 1000);
  }

  line(text) {
    const [, done, total, doing] = step.exec(text) ?? [];
    if (done === undefined) return;
    const file =
      /(?:src|cuda|tests)\/\S+?(?=\.o(?:bj)?$)/.exec(doing)?.[0] ??
      (doing.startsWith('Linking') ? 'linking' : '');
    this.#state = `${total === undefined ? `${done} %` : `${done} of ${total}`} ${file}`.trim();
    this.#show();
  }

  #show() {
    const now = performance.now();
    const text = `diralign: building, ${Math.round((now - this.#start) / 1000)} s: ${this.#state}`;
    if (this.stream.isTTY) {
      this.stream.write(`\r\u001b[K${text.slice(0, (this.stream.columns || 80) - 1)}`);
      this.#isDrawn = true;
    } else if (now - this.#logged >= logInterval) {
      this.#logged = now;
      this.stream.write(`${text}\n`);
    }
  }

  /** Removes the line. */
  end() {
    clearInterval(this.#timer);
    if (this.#isDrawn) this.stream.write('\r\u001b[K');
  }
}

/** Output without the steps that went well. */
export function withoutSteps(output) {
  return output
    .split('\n')
    .filter((line) => !step.test(line))
    .join('\n');
}

/**
 * @returns its status, and all that it said; a signal that ends this process ends the command and
 *   all of its children first
 */
export function run(command, args, { progress, onOutput, ...options }) {
  return new Promise((resolve) => {
    const isPosix = process.platform !== 'win32';
    let child;
    const pass = (signal) => {
      try {
        process.kill(isPosix ? -child.pid : child.pid, signal);
      } catch {
        // It has ended.
      }
      progress.end();
      process.removeAllListeners(signal);
      process.kill(process.pid, signal);
    };
    const signals = ['SIGINT', 'SIGTERM', 'SIGHUP'];
    // Before there is a child: a signal that comes while it starts must reach it, too.
    for (const signal of signals) process.on(signal, pass);
    child = spawn(command, args, {
      ...options,
      stdio: ['ignore', 'pipe', 'pipe'],
      detached: isPosix,
    });
    let output = '';
    let rest = '';
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding('utf8').on('data', (text) => {
        output += text;
        onOutput(text);
        const lines = (rest + text).split('\n');
        rest = lines.pop();
        for (const line of lines) progress.line(line);
      });
    }
    const end = (result) => {
      for (const signal of signals) process.off(signal, pass);
      resolve({ output, ...result });
    };
    child
      .on('error', (error) => end({ status: 1, error }))
      .on('close', (status, signal) => end({ status: status ?? 1, signal }));
  });
}
