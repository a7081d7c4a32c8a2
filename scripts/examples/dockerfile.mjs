// Carries out a Dockerfile without Docker, on this system in place of its image: in a folder whose
// `root` stands for the image's /.
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';

/** [instruction, the rest of it] of each. */
export function instructions(text) {
  return text
    .split('\n')
    .filter((line) => !/^\s*#/.test(line))
    .join('\n')
    .replace(/\\\n/g, ' ')
    .split('\n')
    .filter((line) => line.trim() !== '')
    .map((line) => /^([A-Z]+)\s+(.*?)\s*$/.exec(line).slice(1));
}

function copy(patterns, to, context) {
  for (const pattern of patterns) {
    const expression = pattern.split('*').map((part) => part.replace(/\W/g, '\\$&'));
    const files = fs
      .readdirSync(context)
      .filter((f) => new RegExp(`^${expression.join('.*')}$`).test(f));
    if (files.length === 0) throw new Error(`COPY ${pattern}: there is no such file`);
    for (const file of files) fs.cpSync(path.join(context, file), path.join(to, file));
  }
}

/**
 * Does what the instructions say, and returns what the command prints.
 *
 * @param {string} PATH what its commands may find
 * @throws Error for an instruction that it does not know, and for a command that fails
 */
export function carryOut(text, { context, root, PATH }) {
  const env = { PATH, HOME: root };
  let folder = root;
  let uid;
  const run = (command, args) => {
    const { status, stdout, stderr, error } = spawnSync(command, args, {
      cwd: folder,
      encoding: 'utf8',
      env,
      uid,
    });
    if (status !== 0) throw new Error(`${args.join(' ')}: ${error ?? stdout + stderr}`);
    return stdout;
  };
  for (const [name, rest] of instructions(text)) {
    switch (name) {
      case 'FROM':
        break;
      case 'WORKDIR':
        folder = path.join(root, rest);
        fs.mkdirSync(folder, { recursive: true });
        break;
      case 'COPY': {
        const words = rest.split(/\s+/);
        copy(words.slice(0, -1), path.resolve(folder, words.at(-1)), context);
        break;
      }
      case 'ENV': {
        const [, key, value] = /^(\w+)=(\S*)$/.exec(rest);
        env[key] = value;
        break;
      }
      case 'USER':
        // Somebody who owns nothing of it, where this process may become one.
        if (process.getuid?.() === 0) uid = 65534;
        break;
      case 'RUN':
        run('/bin/sh', ['-c', rest]);
        break;
      case 'CMD': {
        const [command, ...args] = JSON.parse(rest);
        return run(command, args);
      }
      default:
        throw new Error(`${name} is not known here`);
    }
  }
  throw new Error('there is no CMD');
}
