// The sections of `gpu:check`, one after the other, and what they found.
import { determinism } from './determinism.mjs';
import { failure } from './failure.mjs';
import { hidden } from './hidden.mjs';
import { huge } from './huge.mjs';
import { independence } from './independence.mjs';
import { mistakes } from './mistakes.mjs';
import { ranks } from './ranks.mjs';
import { reference } from './reference.mjs';
import { sanitizer } from './sanitizer.mjs';
import { Misses } from './support.mjs';
import { vectors } from './vectors.mjs';

/** These take most of the memory of the device, or wait for what others leave of it. */
const takesAll = new Set(['huge', 'mistakes', 'sanitizer']);

/**
 * Thrown by `progress` where the time is over: the section ends, and what it has found until then
 * is reported.
 */
export class TimeIsOver extends Error {}

/** Name, what it checks, and how; `alone`: not beside others. */
export const sections = [
  ['vectors', 'reference cases, every way onto the device', vectors],
  ['reference', 'vocabularies of all sizes against float64', reference],
  ['determinism', 'the same bits in every run', determinism],
  ['independence', 'the same bits in any batch', independence],
  ['hidden', 'the fused output layer against float64, the same bits in any workspace', hidden],
  ['ranks', 'columns over cards, exchanged by the host and by NCCL', ranks],
  ['huge', 'more than 2^31 elements', huge],
  ['mistakes', 'refusals, failures, and a good call after them', mistakes],
  ['failure', 'a device that fails for good: promises reject', failure],
  ['sanitizer', 'compute-sanitizer', sanitizer],
].map(([name, title, run]) => ({ name, title, run, alone: takesAll.has(name) }));

/**
 * Runs one section. Its status is `'ok'`, `'MISS'`, `'cut off'` where the time was over, or `'not
 * run'` where it said why it looked at nothing.
 *
 * @param {object} context subject, scale, device and what sections take besides
 */
export async function runSection(section, context, progress = () => undefined) {
  const misses = new Misses();
  const notes = [];
  const start = performance.now();
  const native = context.nativeSeconds?.() ?? 0;
  let isCut = false;
  try {
    await section.run({ ...context, misses, progress, note: (text) => notes.push(text) });
  } catch (error) {
    isCut = error instanceof TimeIsOver;
    if (isCut) notes.push(`cut off ${error.message}`);
    else misses.require(false, () => `ended with ${error.stack ?? error}`);
  }
  const seconds = (performance.now() - start) / 1000;
  return {
    section: section.name,
    title: section.title,
    status:
      misses.list.length > 0 ? 'MISS' : isCut ? 'cut off' : misses.checked > 0 ? 'ok' : 'not run',
    checked: misses.checked,
    worst: misses.worst,
    seconds,
    ...(context.nativeSeconds && { javascript: seconds - (context.nativeSeconds() - native) }),
    notes,
    misses: [...misses.list],
  };
}

/** The result of a section that was not begun. */
export function notStarted({ name, title }) {
  const nothing = { checked: 0, worst: 0, seconds: 0, misses: [] };
  return {
    section: name,
    title,
    status: 'cut off',
    ...nothing,
    notes: ['not started: the time was over'],
  };
}

/** A section that looked at nothing and does not say why has not passed. */
export function failed(results) {
  return results.some(
    ({ status, notes }) => status === 'MISS' || (status === 'not run' && notes.length === 0),
  );
}
