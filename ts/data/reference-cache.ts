/**
 * The reference model's numbers, computed once and kept in a safetensors file that says what they
 * belong to.
 */
import { createHash, randomUUID } from 'node:crypto';
import fs from 'node:fs';
import { dirname, join } from 'node:path';
import { checkArray } from '../batch/arrays.js';
import { DirAlignError, rangeError, typeError } from '../errors.js';
import { checkObject, describe, readProperties, messageOf } from '../given.js';
import { readSafetensorsFile, writeSafetensors } from '../safetensors.js';
import type { SequenceLogps } from '../loss/results.js';

/** What the numbers belong to. */
export interface CachedReferenceOptions {
  /** Of the data and the model, in their order, as {@link fingerprint} makes it. */
  readonly fingerprint: string | PromiseLike<string>;
}

const format = 'diralign reference 1';

function defect(file: string, what: string, cause?: unknown): DirAlignError {
  return rangeError(
    'ERR_DIRALIGN_FILE',
    `${file}: ${what}`,
    cause === undefined ? undefined : { cause },
  );
}

/** What tells a damaged file: the numbers and what they belong to. */
function checksum(fingerprint: string, { logps, counts }: SequenceLogps): string {
  const hash = createHash('sha256').update(
    `${format}\n${JSON.stringify(fingerprint)}\n${logps.length}\n`,
  );
  for (const view of [logps, counts])
    hash.update(new Uint8Array(view.buffer, view.byteOffset, view.byteLength));
  return hash.digest('hex');
}

/** @returns undefined where there is no such file. */
function read(file: string, fingerprint: string): SequenceLogps | undefined {
  try {
    if (fs.statSync(file, { throwIfNoEntry: false }) === undefined) return undefined;
  } catch (error) {
    throw defect(file, `cannot be opened: ${messageOf(error)}`, error);
  }
  const tensors = readSafetensorsFile(file);
  const { metadata } = tensors;
  if (metadata.get('format') !== format) {
    throw defect(
      file,
      `its format is ${describe(metadata.get('format'))}; expected '${format}', ` +
        'a file of cachedReference',
    );
  }
  const logps = tensors.get('logps')?.data;
  const counts = tensors.get('counts')?.data;
  if (
    !(
      logps instanceof Float64Array &&
      counts instanceof Int32Array &&
      logps.length === counts.length
    )
  ) {
    throw defect(file, 'expected tensors "logps" of F64 and "counts" of I32, of one length');
  }
  const found = metadata.get('fingerprint') ?? '';
  if (checksum(found, { logps, counts }) !== metadata.get('checksum')) {
    throw defect(
      file,
      'its checksum does not fit its content: the file is damaged; ' +
        'delete it to have the numbers computed again',
    );
  }
  if (found !== fingerprint) {
    throw rangeError(
      'ERR_DIRALIGN_REFERENCE',
      `${file}: its numbers have fingerprint '${found}'; expected '${fingerprint}': ` +
        'the data or the model is not the one they were computed from. ' +
        'Delete the file, or name another, to have them computed',
    );
  }
  return { logps, counts };
}

/** What `compute` gave, in memory of its own. */
function checkComputed(value: unknown): SequenceLogps {
  if (typeof value !== 'object' || value === null) {
    throw typeError(
      'ERR_DIRALIGN_REFERENCE',
      `compute: expected to give { logps, counts }, not ${describe(value)}`,
    );
  }
  const given = value as Record<keyof SequenceLogps, unknown>;
  const logps = checkArray('logps', given.logps, ['Float64Array'], 'ERR_DIRALIGN_REFERENCE');
  const counts = checkArray('counts', given.counts, ['Int32Array'], 'ERR_DIRALIGN_REFERENCE');
  if (logps.length !== counts.length) {
    throw rangeError(
      'ERR_DIRALIGN_REFERENCE',
      `counts: length ${counts.length}; expected ${logps.length}, that of logps`,
    );
  }
  const infinite = logps.findIndex((logp) => !Number.isFinite(logp));
  if (infinite >= 0) {
    throw rangeError(
      'ERR_DIRALIGN_REFERENCE',
      `logps: ${String(logps[infinite])} at index ${infinite} is not finite`,
    );
  }
  const negative = counts.findIndex((count) => count < 0);
  if (negative >= 0) {
    throw rangeError(
      'ERR_DIRALIGN_REFERENCE',
      `counts: ${String(counts[negative])} at index ${negative} is less than 0`,
    );
  }
  return { logps: logps.slice(), counts: counts.slice() };
}

/**
 * What the system says where data did not arrive. Anything else means that it cannot flush here:
 * network file systems, Windows.
 */
const lossCodes = ['EIO', 'ENOSPC', 'EDQUOT'];

/** Has the system write back what it holds of a file or a folder. @throws where that lost data */
function flush(path: string, flags: string): void {
  try {
    const descriptor = fs.openSync(path, flags);
    try {
      fs.fsyncSync(descriptor);
    } finally {
      fs.closeSync(descriptor);
    }
  } catch (error) {
    if (lossCodes.includes((error as NodeJS.ErrnoException).code ?? '')) throw error;
  }
}

function quietly(action: () => void): void {
  try {
    action();
  } catch {
    // It was worth a try; what counts has been done, or is about to be said.
  }
}

/** Whole or not at all: into a file beside it, which then takes its name. */
function write(file: string, fingerprint: string, numbers: SequenceLogps): void {
  // Not named after it: with more letters its name could be too long.
  const part = join(dirname(file), `.diralign-${randomUUID()}.part`);
  const shape = [numbers.logps.length];
  try {
    writeSafetensors(
      part,
      {
        logps: { dtype: 'F64', shape, data: numbers.logps },
        counts: { dtype: 'I32', shape, data: numbers.counts },
      },
      { format, fingerprint, checksum: checksum(fingerprint, numbers) },
    );
    flush(part, 'r+');
    fs.renameSync(part, file);
  } catch (error) {
    quietly(() => {
      fs.rmSync(part, { force: true });
    });
    throw defect(file, `cannot be written: ${messageOf(error)}`, error);
  }
  quietly(() => {
    flush(dirname(file), 'r');
  });
}

/** Before hours of computing: that there is a place for what comes of it. */
function checkPlace(file: string): void {
  try {
    fs.accessSync(dirname(file), fs.constants.W_OK);
  } catch (error) {
    throw defect(file, `cannot be written: ${messageOf(error)}`, error);
  }
}

/**
 * Keeps what was computed. Another process may have been at the same work: then its numbers stand.
 * Where the file cannot be written, or holds something else by now, the numbers are good all the
 * same: they are given with a warning, since they took hours.
 */
function keep(file: string, fingerprint: string, numbers: SequenceLogps): SequenceLogps {
  try {
    const theirs = read(file, fingerprint);
    if (theirs !== undefined) return theirs;
    write(file, fingerprint, numbers);
  } catch (error) {
    const message =
      `${messageOf(error)}. The numbers were computed and are given, but not kept: ` +
      'the next run computes them again.';
    process.emitWarning(message, { type: 'DirAlignWarning', code: 'DIRALIGN_CACHE' });
  }
  return numbers;
}

/**
 * The reference model's numbers of a data set: from `file` where it exists, else from `compute`,
 * whose result is then written there, whole or not at all. Both ways give the same bits. What was
 * computed is never lost: where it cannot be written after all, the numbers are given, and a
 * warning with the code `DIRALIGN_CACHE` says why they were not kept.
 *
 * @param file a safetensors file: `logps` [sequences] of F64 and `counts` [sequences] of I32, with
 *   fingerprint and checksum
 * @param compute called at most once, and only where there is no file: {@link SequenceLogps} as
 *   `sequenceLogps` returns them, per sequence, in any order that the fingerprint stands for. The
 *   numbers must be finite.
 * @throws DirAlignError (as a rejection) with code ERR_DIRALIGN_REFERENCE for a file of another
 *   fingerprint, which is neither used nor overwritten, and for a result of `compute` that is not
 *   such numbers; ERR_DIRALIGN_FILE for a file that is damaged, is something else or cannot be
 *   read, and for a folder that cannot be written to, before anything is computed;
 *   ERR_DIRALIGN_OPTION for arguments. What `compute` throws, it rejects with.
 */
export async function cachedReference(
  file: string,
  options: CachedReferenceOptions,
  compute: () => SequenceLogps | PromiseLike<SequenceLogps>,
): Promise<SequenceLogps> {
  if (typeof file !== 'string' || file === '') {
    throw typeError('ERR_DIRALIGN_OPTION', `file: expected a path, not ${describe(file)}`);
  }
  if (typeof compute !== 'function') {
    throw typeError(
      'ERR_DIRALIGN_OPTION',
      `compute: expected a function, not ${describe(compute)}`,
    );
  }
  checkObject('options', options, 'ERR_DIRALIGN_OPTION', '{ fingerprint }');
  const fingerprint: unknown = await readProperties('options', options, ['fingerprint'])
    .fingerprint;
  if (typeof fingerprint !== 'string' || fingerprint === '') {
    throw typeError(
      'ERR_DIRALIGN_OPTION',
      `fingerprint: expected a string, as of fingerprint(), not ${describe(fingerprint)}`,
    );
  }
  const cached = read(file, fingerprint);
  if (cached !== undefined) return cached;
  checkPlace(file);
  return keep(file, fingerprint, checkComputed(await compute()));
}
