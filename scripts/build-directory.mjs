// Where a build may work, and what may be removed there: only what a build has made.
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import path from 'node:path';

const marker = '.diralign-build';

/** Of a path that need not be there to its end. */
function realPath(file) {
  try {
    return realpathSync(file);
  } catch (error) {
    if (error.code !== 'ENOENT' || path.dirname(file) === file) throw error;
    return path.join(realPath(path.dirname(file)), path.basename(file));
  }
}

function contains(folder, file) {
  const relative = path.relative(folder, file);
  return !relative.startsWith(`..${path.sep}`) && relative !== '..' && !path.isAbsolute(relative);
}

/** Whether CMake was run there for the sources in `root`. */
function isBuildOf(root, directory) {
  try {
    const cache = readFileSync(path.join(directory, 'CMakeCache.txt'), 'utf8');
    const home = /^CMAKE_HOME_DIRECTORY:INTERNAL=(.*)$/m.exec(cache)?.[1];
    return home !== undefined && realpathSync(home) === root;
  } catch {
    return false;
  }
}

/**
 * @param {string | undefined} given as it was typed, from the current folder; the package's own
 *   build/cmake without it
 * @param {string} packageRoot
 * @returns the real path of a directory that is new, empty, or of an earlier build; it is marked as
 *   such from now on
 * @throws Error for any other
 */
export function openBuildDirectory(given, packageRoot, { clean }) {
  const root = realpathSync(packageRoot);
  if (given?.trim() === '') throw new Error("--build-dir: '' names no directory");
  const named = given === undefined ? 'build/cmake' : `--build-dir: ${given}`;
  const directory = realPath(
    given === undefined ? path.join(root, 'build/cmake') : path.resolve(given),
  );
  for (const inside of given === undefined ? [] : [process.cwd(), root]) {
    if (contains(directory, realpathSync(inside)))
      throw new Error(`${named} has ${inside} in it; name a new directory`);
  }
  const stat = statSync(directory, { throwIfNoEntry: false });
  if (stat && !stat.isDirectory()) throw new Error(`${named} is no directory; name a new one`);
  const entries = stat ? readdirSync(directory) : [];
  const isMarked = entries.includes(marker);
  const isOwn = isMarked || (given === undefined && contains(root, directory));
  if (entries.length > 0 && !isOwn && (clean || !isBuildOf(root, directory))) {
    const why = clean
      ? 'no build of this version has made it, so --clean does not remove it'
      : 'it holds other things';
    throw new Error(
      `${named} is not empty and ${why}; remove it yourself, or name a new directory`,
    );
  }
  // The mark last: what could not be removed can be tried again.
  if (clean)
    for (const entry of [...entries.filter((each) => each !== marker), marker])
      remove(path.join(directory, entry));
  mkdirSync(directory, { recursive: true });
  if (!existsSync(path.join(directory, marker))) {
    writeFileSync(
      path.join(directory, marker),
      'Made by a build of diralign; `--clean` removes all that is here.\n',
    );
  }
  return directory;
}

function remove(file) {
  rmSync(file, { recursive: true, force: true });
}
