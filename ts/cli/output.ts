/**
 * Files that commands write: opened before the work, replaced when it is done, and as they were
 * where it fails.
 */
import fs from 'node:fs';
import path from 'node:path';
import { complain } from '../text/terminal.js';
import { CommandError, failed, ok, UsageError } from './command.js';

export interface Output {
  readonly file: string;
  /**
   * Puts the content, or what the function writes to the file that it is given, in the place of
   * what was there.
   *
   * @returns what went wrong: the numbers that were computed are still worth printing. The file is
   *   as it was, then, if there was one.
   */
  write(content: string | Uint8Array | ((file: string) => void)): CommandError | undefined;
}

/**
 * Opens the file, lets `work` write it, and removes what was made for it where `work` does not get
 * that far.
 *
 * @param option that named it, for messages.
 * @param file undefined where none was named; `work` is not given any then.
 * @throws CommandError where it cannot be written, before the work
 */
export async function withOutput<T>(
  option: string,
  file: string | undefined,
  work: (output: Output | undefined) => T | Promise<T>,
): Promise<T> {
  if (file === undefined) return await work(undefined);
  const before = open(option, file);
  let made = before === undefined ? [file] : [];
  const output: Output = {
    file,
    write(content) {
      const save = (to: string): void => {
        if (typeof content === 'function') content(to);
        else fs.writeFileSync(to, content);
      };
      try {
        if (!(before?.isFile() === true && before.size > 0 && replace(file, before, save)))
          save(file);
        made = [];
        return undefined;
      } catch (error) {
        return unwritable(option, file, error);
      }
    },
  };
  try {
    return await work(output);
  } finally {
    for (const each of made) fs.rmSync(each, { force: true });
  }
}

/** Makes the file where there is none, and changes none that is there. */
function open(option: string, file: string): fs.Stats | undefined {
  if (file === '') throw new UsageError(`--${option}: '' names no file`);
  if (file === '-')
    throw new UsageError(`--${option}: the standard output has the numbers; name a file`);
  try {
    const before = fs.statSync(file, { throwIfNoEntry: false });
    // Opening a pipe would wait for its reader, and closing it would leave the reader with nothing.
    if (before?.isFIFO() === true || before?.isSocket() === true)
      fs.accessSync(file, fs.constants.W_OK);
    else fs.closeSync(fs.openSync(file, fs.constants.O_WRONLY | fs.constants.O_CREAT, 0o666));
    return before;
  } catch (error) {
    throw unwritable(option, file, error);
  }
}

function unwritable(option: string, file: string, error: unknown): CommandError {
  const { message } = error as Error;
  return new CommandError(`--${option}: ${file} cannot be written: ${message}`, { cause: error });
}

/**
 * Writes beside the file, and then over it: a disk that is full half way through leaves what was
 * there.
 *
 * @returns false where its folder takes no other file
 */
function replace(file: string, before: fs.Stats, save: (file: string) => void): boolean {
  const target = fs.realpathSync(file);
  const temporary = path.join(path.dirname(target), `.diralign-${process.pid}.tmp`);
  try {
    fs.closeSync(fs.openSync(temporary, 'wx', before.mode));
  } catch {
    return false;
  }
  try {
    try {
      save(temporary);
    } catch (error) {
      throw new Error((error as Error).message.replaceAll(temporary, file), { cause: error });
    }
    put(temporary, target, before);
  } finally {
    fs.rmSync(temporary, { force: true });
  }
  return true;
}

/** In its place, or into it where it has another name or owner, or is mounted by itself. */
function put(temporary: string, target: string, { mode, nlink, uid }: fs.Stats): void {
  if (nlink === 1 && uid === process.geteuid?.()) {
    try {
      fs.chmodSync(temporary, mode);
      fs.renameSync(temporary, target);
      return;
    } catch {
      // Then as the others.
    }
  }
  fs.copyFileSync(temporary, target);
}

/** The exit status of a command that has printed its numbers, and could write its file or not. */
export function statusOf(command: string, failure: CommandError | undefined): number {
  if (failure) complain(`diralign ${command}`, failure.message);
  return failure ? failed : ok;
}

/** What a JSON document says of the file. */
export function outcomeOf(output: Output | undefined, failure: CommandError | undefined): object {
  if (failure) return { error: { code: failure.code, message: failure.message } };
  return output ? { out: output.file } : {};
}
