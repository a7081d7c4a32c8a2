// Command lines that nobody would type, and some that somebody does.
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import fc from 'fast-check';
import { benchCommand } from '../../ts/cli/bench.js';
import type { Command } from '../../ts/cli/command.js';
import { infoCommand } from '../../ts/cli/info.js';
import { lossCommand } from '../../ts/cli/loss.js';
import { methodsCommand } from '../../ts/cli/methods.js';
import { plotCommand } from '../../ts/cli/plot.js';
import { verifyCommand } from '../../ts/cli/verify.js';
import { methods } from '../../ts/index.js';
import { compileProgram, example, program } from '../support/cli.js';
import { Fault } from './fault.js';
import { inFolder, ownFolder } from './folder.js';
import { isSanitized } from '../support/sanitizers.js';

type Words = readonly string[];
const oneOf = (...all: readonly fc.Arbitrary<Words>[]): fc.Arbitrary<Words> => fc.oneof(...all);

/** Words of a command line; `{name}` is a file of the folder that is made for it. */
export interface CommandLinePlan {
  readonly words: Words;
}

// `build` compiles: it has tests of its own.
const commands: readonly Command[] = [
  ...[lossCommand, plotCommand, methodsCommand, infoCommand, benchCommand, verifyCommand],
];

const names = [...methods().map(({ name }) => name), 'all', 'ipo,dpo', 'dop', 'dpo,', ',', ''];
const files = [
  ...[
    '{example}',
    '{cut}',
    '{flipped}',
    '{empty}',
    '{folder}',
    '{loop}',
    '{missing}',
    '{unspeakable}',
  ],
  ...['-', '', '/dev/null', '/dev/zero', '/dev/full', '/proc/self/mem', '{folder}/missing/x'],
];
const outputs = ['{out}.svg', '{out}.png', '{out}.html', '{out}.safetensors', '{out}'];
const numbers = [
  ...['0', '1', '2', '-1', '0.1', '0.5', '1e3', '1e308', '1e-320', 'NaN', 'Infinity', '-Infinity'],
  ...['', ' ', '-0', '0x10', '1,2', '1,2,8', '0,1', '-5,5', '1,0', '１', '1_000', '1e9', '201'],
  ...['99999999999999999999', '1,1,2147483648', 'abc', '__proto__', 'constructor', '{out}'],
];
const words = ['dense', 'factored', 'none', 'cpu', 'cuda', 'token', 'js', 'alpha', 'margin'];

/** Any option that the command's own help names, with a value or without. */
function optionsOf({ usage }: Command): fc.Arbitrary<Words> {
  const known = [...new Set(usage.match(/--[a-z-]+\b/g) ?? [])].filter((one) => one !== '--help');
  const name = fc.oneof(
    { weight: 20, arbitrary: fc.constantFrom(...known) },
    { weight: 1, arbitrary: fc.constantFrom('--nope', '--labelSmoothing', '-x', '--', '--json=1') },
  );
  const value = fc.constantFrom(...numbers, ...words, ...names, ...files, ...outputs);
  return oneOf(
    fc.tuple(name),
    fc.tuple(name, value),
    fc.tuple(name, value).map(([option, text]) => [`${option}=${text}`]),
    fc.constantFrom<Words[]>(
      ['--json'],
      ['--method', 'dpo'],
      ['--beta', '0.1'],
      ['--out', '{out}.svg'],
    ),
  );
}

/** What keeps a command short. */
const first: Readonly<Record<string, fc.Arbitrary<Words>>> = {
  loss: oneOf(
    fc.constant([]),
    fc.constantFrom(...files).map((file) => [file]),
  ),
  plot: oneOf(
    fc.constant([]),
    fc.constantFrom(...names).map((name) => [name]),
  ),
  methods: oneOf(
    fc.constant([]),
    fc.constantFrom(...names).map((name) => [name]),
  ),
  bench: fc.constant(['--rounds', '1', '--peers', 'none', '--shape', '1,2,16']),
  verify: oneOf(
    fc.constant(['--method', 'dpo']),
    fc.constantFrom(...files).map((file) => [file]),
  ),
};

const ofCommand = (command: Command): fc.Arbitrary<Words> =>
  fc
    .tuple(first[command.name] ?? fc.constant([]), fc.array(optionsOf(command), { maxLength: 4 }))
    .map(([begin, options]) => [command.name, ...begin, ...options.flat()]);
const others = fc.constantFrom<Words[]>(
  ['--version'],
  ['--help'],
  [],
  ['lose'],
  ['help', 'loss'],
  [''],
);

export const commandLinePlans: fc.Arbitrary<CommandLinePlan> = fc.record({
  words: fc.oneof(
    { weight: 4, arbitrary: ofCommand(lossCommand) },
    ...commands.map((command) => ({ weight: 1, arbitrary: ofCommand(command) })),
    { weight: 1, arbitrary: others },
  ),
});

let paths: Readonly<Record<string, string>> | undefined;
/** The program and the files, once they are needed. */
function prepare(): Readonly<Record<string, string>> {
  compileProgram();
  const bytes = fs.readFileSync(example);
  const flipped = Buffer.from(bytes);
  flipped[60] = (flipped[60] ?? 0) ^ 4;
  // A name that moves the cursor of a terminal it is printed on.
  const unspeakable = 'na\u001b]0;x\u0007me';
  const contents = { example: bytes, cut: bytes.subarray(0, 3000), flipped, empty: '' };
  for (const [name, data] of Object.entries({ ...contents, [unspeakable]: bytes }))
    fs.writeFileSync(inFolder(name), data);
  fs.symlinkSync(inFolder('loop'), inFolder('loop'));
  const named = [...Object.keys(contents), 'loop', 'missing', 'out'];
  return {
    folder: ownFolder,
    unspeakable: inFolder(unspeakable),
    ...Object.fromEntries(named.map((name) => [name, inFolder(name)])),
  };
}

const minute = 60_000;
/**
 * A tiny file cannot ask for gigabytes. The sanitizers take terabytes and have a limit of their
 * own.
 */
const limited =
  process.platform === 'linux' && !isSanitized ? ['prlimit', '--data=8000000000'] : [];

/**
 * Throws where a command line ends otherwise than with a status of the program's own, and words of
 * its own.
 */
export function checkCommandLine({ words: planned }: CommandLinePlan): Promise<void> {
  const known = (paths ??= prepare());
  const args = planned.map((word) =>
    word.replace(/\{(\w+)\}/g, (_, name: string) => known[name] ?? name),
  );
  const [command = '', ...rest] = [...limited, process.execPath, program, ...args];
  const { status, signal, stdout, stderr } = spawnSync(command, rest, {
    cwd: ownFolder,
    encoding: 'utf8',
    // All that `verify` checks is minutes of emulated CUDA under sanitizers.
    env: { ...process.env, NO_COLOR: '1', ...(args[0] === 'verify' && { SIMT_DEVICES: '0' }) },
    timeout: 8 * minute,
    maxBuffer: 2 ** 28,
  });
  const ended = `${String(signal ?? status)}: ${stderr.trim().slice(0, 500)}`;
  if (status === null || status > 2) throw new Fault(`ended with ${ended}`);
  if (/should not happen|^\s+at .*[(:]|node:internal/m.test(stderr))
    throw new Fault(`not in its own words: ${ended}`);
  // oxlint-disable-next-line no-control-regex -- it is what must not be there
  if (/[\u0000-\u0009\u000b-\u001f]/.test(stderr))
    throw new Fault(`control characters: ${JSON.stringify(ended)}`);
  // Where `-` is a file, standard output is it.
  if (
    args.includes('--json') &&
    status === 0 &&
    !args.some((arg) => arg === '-' || arg.endsWith('=-'))
  ) {
    try {
      JSON.parse(stdout);
    } catch {
      throw new Fault(`no JSON: ${stdout.slice(0, 200)}`);
    }
  }
  return Promise.resolve();
}
