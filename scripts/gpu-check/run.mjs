// The sections of `gpu:check`, one after the other, and what they found.
import { determinism } from './determinism.mjs';
import { hidden } from './hidden.mjs';
import { huge } from './huge.mjs';
import { independence } from './independence.mjs';
import { mistakes } from './mistakes.mjs';
import { reference } from './reference.mjs';
import { sanitizer } from './sanitizer.mjs';
import { vectors } from './vectors.mjs';

/** Name, what it checks, and how. */
export const sections = [
  ['vectors', 'reference cases, every way onto the device', vectors],
  ['reference', 'vocabularies of all sizes against float64', reference],
  ['determinism', 'the same bits in every run', determinism],
  ['independence', 'the same bits in any batch', independence],
  ['hidden', 'the fused output layer against float64, the same bits in any workspace', hidden],
  ['huge', 'more than 2^31 elements', huge],
  ['mistakes', 'refusals, failures, and a good call after them', mistakes],
  ['sanitizer', 'compute-sanitizer', sanitizer],
].map(([name, title, run]) => ({ name, title, run }));

/**
 * Runs one section. Its status is `'ok'`, `'MISS'`, or `'not run'` where it said why it looked at nothing.
 *
 * @param {object} context subject, scale, device and what loadSupport gives: what sections take
 */
export async function runSection(section, context, progress = () => undefined) {
  const misses = new context.Misses();
  const notes = [];
  const start = performance.now();
  try {
    await section.run({ ...context, misses, progress, note: (text) => notes.push(text) });
  } catch (error) {
    misses.require(false, () => `ended with ${error.stack ?? error}`);
  }
  return {
    section: section.name,
    title: section.title,
    status: misses.list.length > 0 ? 'MISS' : misses.checked > 0 ? 'ok' : 'not run',
    checked: misses.checked,
    worst: misses.worst,
    seconds: (performance.now() - start) / 1000,
    notes,
    misses: [...misses.list],
  };
}

/** A section that looked at nothing and does not say why has not passed. */
export function failed(results) {
  return results.some(({ status, notes }) => status === 'MISS' || (status === 'not run' && notes.length === 0));
}
