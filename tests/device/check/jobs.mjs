// Sections as processes side by side. A section of `gpu:check` spends most of its time in
// JavaScript, on one thread.
import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const script = fileURLToPath(new URL('../check.mjs', import.meta.url));

/**
 * Runs every section by `run`, at most `jobs` at a time in their order; those that are to be
 * `alone` after the others, one by one. Those that had not begun when `isOver()` are given to
 * `skip`. `done` is told each result as it comes.
 * @returns the results in the order of the sections
 */
export async function sideBySide(sections, { jobs, run, skip, isOver, done }) {
  const results = new Map();
  const take = async (section) => {
    const result = isOver() ? skip(section) : await run(section);
    results.set(section, result);
    await done(result);
  };
  const waiting = sections.filter(({ alone }) => !alone);
  const worker = async () => {
    for (let next; (next = waiting.shift());) await take(next);
  };
  await Promise.all(Array.from({ length: jobs }, worker));
  for (const section of sections.filter(({ alone }) => alone)) await take(section);
  return sections.map((section) => results.get(section));
}

/** A result of a section that another process was to give and did not. */
const lost = ({ name, title }, seconds, why) => ({
  section: name,
  title,
  status: 'MISS',
  checked: 0,
  worst: 0,
  seconds,
  notes: [],
  misses: [why],
});

/** One section in a process of its own. */
export async function inProcess(section, { scale, minutes }) {
  const folder = mkdtempSync(path.join(os.tmpdir(), 'diralign-gpu-check-'));
  const json = path.join(folder, 'result.json');
  const start = performance.now();
  const args = [script, '--scale', scale, '--only', section.name, '--json', json, '--no-results'];
  if (Number.isFinite(minutes)) args.push('--minutes', String(minutes));
  try {
    const child = spawn(process.execPath, args, { stdio: ['ignore', 'ignore', 'pipe'] });
    let complaints = '';
    child.stderr.on('data', (data) => (complaints = `${complaints}${data}`.slice(-4000)));
    const ended = await new Promise((resolve) => {
      child.on('error', (error) => resolve(error.message));
      child.on('close', (code, signal) => resolve(signal ?? `code ${code}`));
    });
    try {
      return JSON.parse(readFileSync(json, 'utf8')).sections[0];
    } catch {
      return lost(
        section,
        (performance.now() - start) / 1000,
        `its process ended with ${ended}: ${complaints.trim()}`,
      );
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
