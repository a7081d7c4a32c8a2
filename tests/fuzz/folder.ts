import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';

/** What scripts/fuzz.mjs removes in the end, however a process of it ended. */
const folder = process.env.FUZZ_FOLDER ?? fs.mkdtempSync(path.join(os.tmpdir(), 'diralign-fuzz-'));

/** A folder of its own for what a process writes. */
export const ownFolder = fs.mkdtempSync(path.join(folder, 'process-'));
export const inFolder = (name: string): string => path.join(ownFolder, name);

/** What the process is at. */
export const traceFile = path.join(folder, 'trace');
