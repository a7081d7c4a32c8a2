// Runs a notebook of Deno's Jupyter kernel without one: its code cells in order, as one module.
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { binary, runtimes } from '../runtimes.mjs';

/** Between the outputs of two cells. */
const border = '--- next cell ---\n';

/** The code cells, each with what it printed when it was stored. */
export function cellsOf(notebook) {
  return notebook.cells
    .filter(({ cell_type }) => cell_type === 'code')
    .map(({ source, outputs }) => ({
      code: source.join(''),
      stored: outputs.flatMap(({ text = [] }) => text).join(''),
    }));
}

/**
 * What each cell prints.
 *
 * @param {string} folder where `diralign` is installed
 * @throws Error with what Deno says where a cell fails
 */
export function runCells(cells, folder) {
  const file = path.join(folder, 'notebook.ts');
  const between = `\nconsole.log(${JSON.stringify(border.trimEnd())});\n`;
  fs.writeFileSync(file, cells.map(({ code }) => code).join(between));
  const [command, ...options] = runtimes.deno.command;
  const { status, stdout, stderr } = spawnSync(
    binary('deno'),
    [command, ...options, '--no-remote', '--node-modules-dir=manual', file],
    { cwd: folder, encoding: 'utf8', env: { ...process.env, NO_COLOR: '1' } },
  );
  if (status !== 0) throw new Error(stderr);
  return stdout.split(border);
}

/** The notebook with what its cells print. */
export function withOutputs(notebook, printed) {
  const lines = (text) => text.split(/(?<=\n)/);
  let i = 0;
  const cells = notebook.cells.map((cell) => {
    if (cell.cell_type !== 'code') return cell;
    const text = printed[i++];
    const outputs =
      text === '' ? [] : [{ name: 'stdout', output_type: 'stream', text: lines(text) }];
    return { ...cell, execution_count: i, outputs };
  });
  return { ...notebook, cells };
}
