import { randomUUID } from 'node:crypto';
import { mkdir, open, type FileHandle } from 'node:fs/promises';
import { hostname } from 'node:os';
import path from 'node:path';
import { typeError } from '../errors.js';
import { describe } from '../given.js';
import { scalarsRecord, versionRecord } from './events.js';
import { QueuedLogger, type Logger, type Sink } from './logger.js';

/**
 * A logger of scalars for TensorBoard: an event file in the directory, which is made where it is
 * not there. Each logger has a file of its own, so that a run that goes on in the same directory
 * loses nothing of what it logged before. TensorBoard stores float32.
 *
 * @throws DirAlignError with code ERR_DIRALIGN_OPTION for a directory that is no path. One that
 *   cannot be written is told of by `flush`,
 *   `close` and the next `log`.
 *
 * @example
 * const logger = tensorBoardLogger('runs/dpo-beta-0.1');
 * logger.log(step, { loss, ...metrics });
 * await logger.close();   // tensorboard --logdir runs
 */
export function tensorBoardLogger(directory: string): Logger {
  if (typeof (directory as unknown) !== 'string' || directory === '') {
    throw typeError(
      'ERR_DIRALIGN_OPTION',
      `directory: expected the path of a directory, not ${describe(directory)}`,
    );
  }
  return new QueuedLogger(eventFile(directory), ({ time, step, values }) =>
    scalarsRecord(time, step, values),
  );
}

function eventFile(directory: string): Sink {
  const start = Date.now() / 1000;
  // TensorBoard reads the files of a directory in the order of their names.
  const own = `${hostname()}.${process.pid}.${randomUUID().slice(0, 8)}`;
  const name = `events.out.tfevents.${Math.floor(start)}.${own}`;
  const file = path.join(directory, name);
  let handle: FileHandle | undefined;
  return {
    name: file,
    write: async (bytes) => {
      if (!handle) {
        await mkdir(directory, { recursive: true });
        handle = await open(file, 'ax');
        await handle.appendFile(versionRecord(start));
      }
      await handle.appendFile(bytes);
    },
    close: async () => {
      await handle?.close();
    },
  };
}
