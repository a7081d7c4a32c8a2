#!/usr/bin/env node
import { DirAlignError } from '../errors.js';
import { closest } from './arguments.js';
import { CommandError, failed, misused, ok, UsageError, type Command } from './command.js';
import { packageVersion } from './package.js';
import { list } from '../text/table.js';
import { complain, paint, print, printJson } from '../text/terminal.js';

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
  diralign loss                 losses of the example batch that comes with the package
  diralign loss dpo batch.safetensors --beta 0.1 --out gradient.safetensors
  diralign verify               the kernels against a float64 reference

Exit status: ${ok} all well, ${failed} a check failed or nothing could be computed,
${misused} the command line is wrong.`;
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
    throw new UsageError(
      `'${name}' is no command${near === undefined ? '' : `; did you mean '${near}'?`}`,
    );
  }
  const command = await commands[name]?.();
  if (command === undefined) return misused;
  if (optionsIn(args).some((arg) => arg === '--help' || arg === '-h')) {
    print(command.usage);
    return ok;
  }
  return await command.run(args);
}

/** What may be options: all before `--`. */
function optionsIn(args: readonly string[]): readonly string[] {
  const end = args.indexOf('--');
  return end < 0 ? args : args.slice(0, end);
}

/**
 * What an error comes to: its code, a line that says what is wrong and where to read on, and the
 * exit status.
 */
interface Verdict {
  readonly code: string;
  readonly message: string;
  readonly status: number;
}

/** Messages that name their own remedy are left as they are. */
function judge(error: unknown, who: string): Verdict {
  const message = (error instanceof Error ? error.message : String(error)).replace(/\.$/, '');
  const { code = 'ERR_DIRALIGN_INTERNAL' } = error as { readonly code?: string };
  if (error instanceof CommandError) return { code, message, status: failed };
  if (error instanceof UsageError || error instanceof DirAlignError) {
    const status = code === 'ERR_DIRALIGN_OPTION' ? misused : failed;
    if (['ERR_DIRALIGN_LOAD', 'ERR_DIRALIGN_FILE', 'ERR_DIRALIGN_MEMORY'].includes(code))
      return { code, message, status };
    if (code === 'ERR_DIRALIGN_REFERENCE') {
      return {
        code,
        message: `${message}; mend the tensor "reference" or pass --reference-free`,
        status,
      };
    }
    return {
      code,
      message: `${message}${message.endsWith('?') ? ' See' : '; see'}: ${who} --help`,
      status,
    };
  }
  if (isSystemError(error)) return { code, message, status: failed };
  if (isOutOfMemory(error)) {
    return {
      code: 'ERR_DIRALIGN_MEMORY',
      message: `this takes more memory than there is (${message})`,
      status: failed,
    };
  }
  return { code, message: `${message} (this should not happen: please report it)`, status: failed };
}

/** Files, folders, the machine: nothing that the program could do otherwise. */
function isSystemError(error: unknown): boolean {
  return error instanceof Error && 'syscall' in error;
}

function isOutOfMemory(error: unknown): boolean {
  if (!(error instanceof Error)) return false;
  const { code, message } = error as NodeJS.ErrnoException;
  return (
    code === 'ERR_STRING_TOO_LONG' ||
    /allocation failed|bad_alloc/.test(message) ||
    (error instanceof RangeError &&
      /^Invalid (?:typed array|array|string|array buffer) length/i.test(message))
  );
}

let isCut = false;
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (isCut) return;
  isCut = true;
  // `diralign ... | head` closes the pipe when it has seen enough.
  if (error.code === 'EPIPE') return;
  complain(who, `the output cannot be written: ${error.message}`);
  process.on('exit', () => {
    if (process.exitCode === ok) process.exitCode = failed;
  });
});
// There is nowhere left to say it.
process.stderr.on('error', () => undefined);

const args = process.argv.slice(2);
const [command = ''] = args;
const who = Object.hasOwn(commands, command) ? `diralign ${command}` : 'diralign';
try {
  process.exitCode = await main(args);
} catch (error) {
  const { code, message, status } = judge(error, who);
  complain(who, message);
  if (optionsIn(args).includes('--json')) printJson({ error: { code, message } });
  process.exitCode = status;
}
