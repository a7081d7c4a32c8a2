#!/usr/bin/env node
import { DirAlignError } from '../errors.js';
import { closest } from './arguments.js';
import { CommandError, failed, misused, ok, UsageError, type Command } from './command.js';
import { packageVersion } from './package.js';
import { list } from '../text/table.js';
import { paint, painter, print } from '../text/terminal.js';

/** Each is imported when it is asked for: `build` must work where nothing else does. */
const commands: Readonly<Record<string, () => Promise<Command>>> = {
  loss: async () => (await import('./loss.js')).lossCommand,
  verify: async () => (await import('./verify.js')).verifyCommand,
  bench: async () => (await import('./bench.js')).benchCommand,
  plot: async () => (await import('./plot.js')).plotCommand,
  methods: async () => (await import('./methods.js')).methodsCommand,
  info: async () => (await import('./info.js')).infoCommand,
  build: async () => (await import('./build.js')).buildCommand,
};

async function overview(): Promise<string> {
  const entries = await Promise.all(
    Object.entries(commands).map(async ([name, load]) => [name, (await load()).summary] as const),
  );
  return `diralign: losses of preference training with exact gradients

${paint('bold', 'Usage')}
  diralign COMMAND [options]

${paint('bold', 'Commands')}
${list(entries).replace(/^/gm, '  ')}

${paint('bold', 'Options')}
  --help, -h     of every command, with examples
  --version, -v
  --json         with every command: one JSON document on standard output

${paint('bold', 'Examples')}
  diralign loss --method all                      every loss on the example batch that comes with the package
  diralign loss batch.safetensors --method dpo --beta 0.1 --out gradient.safetensors
  diralign verify                                 the kernels against a float64 reference

Exit status: ${ok} all well, ${failed} a check failed or nothing could be computed, ${misused} the command line is wrong.`;
}

async function main([name, ...args]: string[]): Promise<number> {
  if (name === undefined || name === '--help' || name === '-h' || name === 'help') {
    const [topic] = args;
    if (name === 'help' && topic !== undefined) return await main([topic, '--help']);
    print(await overview());
    return name === undefined ? misused : ok;
  }
  if (name === '--version' || name === '-v') {
    print(packageVersion());
    return ok;
  }
  if (!Object.hasOwn(commands, name)) {
    const near = closest(name, Object.keys(commands));
    throw new UsageError(`'${name}' is no command${near === undefined ? '' : `; did you mean '${near}'?`}`);
  }
  const command = await commands[name]?.();
  if (command === undefined) return misused;
  const end = args.indexOf('--');
  if ((end < 0 ? args : args.slice(0, end)).some((arg) => arg === '--help' || arg === '-h')) {
    print(command.usage);
    return ok;
  }
  return await command.run(args);
}

/** One line: what is wrong, and where to read on. Messages that name their own remedy are left as they are. */
function report(error: unknown, command: string): number {
  const isOfLibrary = error instanceof DirAlignError;
  const isMisuse = error instanceof UsageError || (isOfLibrary && error.code === 'ERR_DIRALIGN_OPTION');
  const isKnown = isMisuse || isOfLibrary || error instanceof CommandError;
  const who = Object.hasOwn(commands, command) ? `diralign ${command}` : 'diralign';
  let line = (error instanceof Error ? error.message : String(error)).replace(/\s*\n\s*/g, ' ').replace(/\.$/, '');
  if (!isKnown) line += ' (this should not happen: please report it)';
  else if (isOfLibrary && error.code === 'ERR_DIRALIGN_REFERENCE')
    line += '; mend the tensor "reference" or pass --reference-free';
  else if (!(error instanceof CommandError) && !(isOfLibrary && error.code === 'ERR_DIRALIGN_LOAD')) {
    line += line.endsWith('?') ? ` See: ${who} --help` : `; see: ${who} --help`;
  }
  process.stderr.write(`${painter(process.stderr)('red', `${who}:`)} ${line}\n`);
  return isMisuse ? misused : failed;
}

// `diralign ... | head` closes the pipe when it has seen enough.
for (const stream of [process.stdout, process.stderr]) {
  stream.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code !== 'EPIPE') throw error;
    process.exit();
  });
}

const args = process.argv.slice(2);
try {
  process.exitCode = await main(args);
} catch (error) {
  process.exitCode = report(error, args[0] ?? '');
}
