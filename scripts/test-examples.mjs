#!/usr/bin/env node
// Runs the notebook and the Dockerfile of examples/: npm run test:examples [-- --write]
//   --write   store in the notebook what its cells print, in place of comparing it
// Both take the packed tarball. The cells run in order in Deno, without Jupyter; what the
// Dockerfile says is done in a folder, on this system in place of its image, and by Docker where
// there is one. Needs a build of the package.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { carryOut } from './examples/dockerfile.mjs';
import { cellsOf, runCells, withOutputs } from './examples/notebook.mjs';
import { npm, packHere } from './pack-here.mjs';

const examples = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../examples');
const temporary = fs.realpathSync(fs.mkdtempSync(path.join(os.tmpdir(), 'diralign-examples-')));
fs.chmodSync(temporary, 0o755);

/** A folder with nothing but these files. */
function folder(name, ...files) {
  const made = path.join(temporary, name);
  fs.mkdirSync(made);
  for (const file of files) fs.copyFileSync(file, path.join(made, path.basename(file)));
  return made;
}

function testNotebook(tarball) {
  const file = path.join(examples, 'notebook.ipynb');
  const notebook = JSON.parse(fs.readFileSync(file, 'utf8'));
  const home = folder('notebook');
  npm(home, 'install', '--no-audit', '--no-fund', tarball);
  const cells = cellsOf(notebook);
  const printed = runCells(cells, home);
  if (process.argv.includes('--write')) {
    const text = JSON.stringify(withOutputs(notebook, printed), undefined, 1);
    fs.writeFileSync(file, `${text}\n`);
    return `${cells.length} cells, written`;
  }
  assert.deepEqual(
    printed,
    cells.map(({ stored }) => stored),
    'the cells print something else than is stored; see --write',
  );
  return `${cells.length} cells`;
}

/** It trains: from log 2 to pairs that are told apart. */
function checkTraining(printed) {
  const lines = printed.trim().split('\n');
  assert.match(lines[0], /^0 0\.6931 /);
  assert.match(lines.at(-1), /^50 0\.\d+ 1\.00$/);
}

function tools(...names) {
  const bin = folder('bin');
  for (const name of names) {
    const { stdout } = spawnSync('/bin/sh', ['-c', `command -v ${name}`], { encoding: 'utf8' });
    const real = name === 'node' ? process.execPath : fs.realpathSync(stdout.trim());
    fs.symlinkSync(real, path.join(bin, name));
  }
  return bin;
}

const context = (tarball) =>
  folder(
    'context',
    tarball,
    ...['Dockerfile', 'plain-trainer.mjs'].map((f) => path.join(examples, f)),
  );

function testDockerfile(tarball) {
  const made = context(tarball);
  const text = fs.readFileSync(path.join(made, 'Dockerfile'), 'utf8');
  const root = folder('image');
  checkTraining(carryOut(text, { context: made, root, PATH: tools('node', 'npm', 'sh', 'rm') }));
  return 'carried out in a folder';
}

function testDocker() {
  const docker = (...args) => spawnSync('docker', args, { encoding: 'utf8' });
  if (docker('info').status !== 0) return 'skipped: there is no Docker here';
  const built = docker('build', '--quiet', path.join(temporary, 'context'));
  assert.equal(built.status, 0, built.stderr);
  const { stdout, stderr } = docker('run', '--rm', built.stdout.trim());
  assert.equal(stderr, '');
  checkTraining(stdout);
  return 'built and run';
}

try {
  const tarball = packHere(path.join(temporary, 'package'));
  console.log(`notebook.ipynb: ${testNotebook(tarball)}`);
  console.log(`Dockerfile: ${testDockerfile(tarball)}`);
  console.log(`Dockerfile, by Docker: ${testDocker()}`);
} finally {
  fs.rmSync(temporary, { recursive: true, force: true });
}
