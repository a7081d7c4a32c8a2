/** Loads the addon. Where that fails, the error says what is so and what to do about it. */
// Not `{ createRequire }`: webpack puts a function of its own in place of that, which finds nothing
// here.
import Module from 'node:module';
import path from 'node:path';
import { findAddon, loadError } from './find.js';
import type { Native } from './interface.js';
import { environment } from './system.js';
import { remedy, whyNotLoaded } from './why-not-loaded.js';

/** @throws DirAlignError with code ERR_DIRALIGN_LOAD */
export function loadAddon(revision: string): { readonly addon: Native; readonly file: string } {
  const chosen = environment('DIRALIGN_ADDON');
  const file = chosen === undefined ? findAddon() : path.resolve(chosen);
  const named = chosen === undefined ? file : `${file}, which DIRALIGN_ADDON names,`;
  let addon: Native;
  try {
    addon = Module.createRequire(file)(file) as Native;
  } catch (cause) {
    throw loadError(`${named} could not be loaded. ${whyNotLoaded(cause)}`, cause);
  }
  if (addon.revision !== revision)
    throw loadError(`${named} was built from other sources than this package. ${remedy}`);
  return { addon, file };
}
