import { open, type FileHandle } from 'node:fs/promises';
import type { Writable } from 'node:stream';
import { typeError } from '../errors.js';
import { describe, isRevoked } from '../given.js';
import { QueuedLogger, type Entry, type Logger, type Sink } from './logger.js';

/**
 * A logger of JSON lines: `{"step":3,"time":1767225600.123,"loss":0.69,"rewards/margins":0.1}` for
 * each step, `time` in seconds since 1970. JSON knows neither NaN nor infinity: they are null.
 *
 * @param target a file, which is created, or appended to where it is there: a line that a crash cut
 *   off is ended first. Or a stream, which
 *   is waited for where it is slow, and stays open on `close`.
 * @throws DirAlignError with code ERR_DIRALIGN_OPTION for a target of another kind. A file that
 *   cannot be written is told of by `flush`,
 *   `close` and the next `log`.
 *
 * @example
 * const logger = jsonLinesLogger('run/metrics.jsonl');
 * logger.log(step, { loss, ...metrics });
 * await logger.close();
 */
export function jsonLinesLogger(target: string | URL | Writable): Logger {
  if (!isRevoked(target)) {
    if (typeof target === 'string' || target instanceof URL)
      return new QueuedLogger(fileSink(target), encode);
    const isStream = typeof (target as Partial<Writable> | null)?.write === 'function';
    if (typeof target === 'object' && isStream) return new QueuedLogger(streamSink(target), encode);
  }
  throw typeError(
    'ERR_DIRALIGN_OPTION',
    `target: expected the path of a file or a stream, not ${describe(target)}`,
  );
}

function encode({ step, time, values }: Entry): Uint8Array {
  const reserved = values.find(([name]) => name === 'step' || name === 'time');
  if (reserved)
    throw typeError(
      'ERR_DIRALIGN_OPTION',
      `values['${reserved[0]}']: the name is that of a field of the line`,
    );
  return Buffer.from(`${JSON.stringify({ step, time, ...Object.fromEntries(values) })}\n`);
}

function fileSink(file: string | URL): Sink {
  let handle: FileHandle | undefined;
  return {
    name: String(file),
    write: async (bytes) => {
      if (!handle) {
        handle = await open(file, 'a+');
        if (await endsWithinLine(handle)) await handle.appendFile('\n');
      }
      await handle.appendFile(bytes);
    },
    close: async () => {
      await handle?.close();
    },
  };
}

async function endsWithinLine(handle: FileHandle): Promise<boolean> {
  const stat = await handle.stat();
  // What is no file, a terminal or a pipe, has no end to look at.
  if (!stat.isFile() || stat.size === 0) return false;
  const { buffer } = await handle.read(Buffer.alloc(1), 0, 1, stat.size - 1);
  return buffer[0] !== 0x0a;
}

function streamSink(stream: Writable): Sink {
  let failure: unknown;
  const fail = (error: unknown): void => {
    failure ??= error;
  };
  stream.on('error', fail);
  return {
    name: 'the stream',
    write: async (bytes) => {
      if (failure !== undefined) throw failure as Error;
      // The callback comes when the bytes are handed on, or could not be.
      await new Promise<void>((resolve, reject) => {
        stream.write(bytes, (error) => {
          if (error) reject(error);
          else resolve();
        });
      });
    },
    close: async () => {
      stream.off('error', fail);
      await Promise.resolve();
    },
  };
}
