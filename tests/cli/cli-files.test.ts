// What a user can do to the command line with files, devices and pipes is told in one line, is
// never called a fault of the program, and costs nobody a file. Each case is in a process of its
// own.
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { writeSafetensors } from '../../ts/safetensors.js';
import { compileProgram, diralign, example, program } from '../support/cli.js';

const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'diralign-cli-files-'));
const inFolder = (...names: string[]): string => path.join(folder, ...names);
const nobody = process.getuid?.() === 0 ? 65534 : undefined;

beforeAll(() => {
  compileProgram();
  fs.chmodSync(folder, 0o777);
}, 120_000);
afterAll(() => {
  fs.rmSync(folder, { recursive: true, force: true });
});

/** Exit status 1 or 2, one line, and no talk of a fault of the program. */
function refused(args: readonly string[], surroundings?: Parameters<typeof diralign>[1]): string {
  const { status, stderr } = diralign(args, surroundings);
  expect(stderr).toMatch(/^diralign[^\n]*: [^\n]+\n$/);
  expect(stderr).not.toContain('should not happen');
  expect([1, 2]).toContain(status);
  return stderr.trim();
}

const bench = [
  'bench',
  '--rounds',
  '1',
  '--peers',
  'none',
  '--shape',
  '1,2,16',
  '--modes',
  'forward',
];
/** Every option that names a file to write, and the beginning of what is written. */
const writers: readonly (readonly [
  option: string,
  command: readonly string[],
  written: RegExp,
  numbers: RegExp,
])[] = [
  ['--out', ['loss', '--method', 'dpo', '--beta', '0.1'], /gradLogits/, /rewards\/margins/],
  ['--out', ['plot', 'dpo', '--points', '3'], /^<svg/, /objective/],
  ['--junit', ['verify', '--method', 'sft'], /^<\?xml/, /all within bounds/],
  ['--html', bench, /^<!doctype html>/, /memory loop/],
];

describe.each(writers)('%s of %j', (option, command, written, numbers) => {
  const file = inFolder('file.svg');
  beforeEach(() => {
    fs.rmSync(file, { force: true });
  });

  test.each([
    ['a folder that is not there', inFolder('none', 'x.svg'), /ENOENT/],
    ['a folder', `${folder}/`, /EISDIR|neither/],
    ['a loop of links', inFolder('loop.svg'), /ELOOP/],
    ['a name that is too long', `${'x'.repeat(300)}.svg`, /ENAMETOOLONG/],
    ['no name', '', /names no file|neither/],
  ])('%s is refused before the work', { timeout: 60_000 }, (_, target, reason) => {
    fs.rmSync(inFolder('loop.svg'), { force: true });
    fs.symlinkSync('loop.svg', inFolder('loop.svg'));
    const { status, stdout, stderr } = diralign([...command, option, target]);
    expect(stdout).toBe('');
    expect([1, 2]).toContain(status);
    expect(stderr).toMatch(/^diralign[^\n]*: [^\n]+\n$/);
    expect(stderr).toMatch(reason);
    expect(stderr).toContain(option);
  });

  test('what was there is replaced, with its mode; a link stays one', { timeout: 60_000 }, () => {
    fs.writeFileSync(inFolder('target'), 'x'.repeat(1e6), { mode: 0o640 });
    fs.symlinkSync('target', file);
    expect(diralign([...command, option, file])).toMatchObject({ status: 0, stderr: '' });
    expect(fs.readFileSync(inFolder('target'), 'latin1')).toMatch(written);
    expect(fs.statSync(inFolder('target')).size).toBeLessThan(1e6);
    expect(fs.statSync(inFolder('target')).mode & 0o777).toBe(0o640);
    expect(fs.lstatSync(file).isSymbolicLink()).toBe(true);
    expect(fs.readdirSync(folder).filter((name) => name.endsWith('.tmp'))).toEqual([]);
    fs.rmSync(inFolder('target'));
  });

  test(
    'a disk that is full takes no numbers with it, nor what was there',
    { timeout: 60_000 },
    () => {
      // A limit of 512 bytes on what is written stands for it; a signal would say the same less
      // kindly.
      fs.writeFileSync(file, 'before');
      const limited = `trap '' XFSZ; ulimit -f 1; exec "$0" "$@"`;
      const { status, stdout, stderr } = spawnSync(
        'bash',
        ['-c', limited, process.execPath, program, ...command, option, file],
        {
          encoding: 'utf8',
        },
      );
      expect(stderr).toMatch(
        /^diralign[^\n]*: --\w+: \S+file\.svg cannot be written: [^\n]*EFBIG[^\n]*\n$/,
      );
      expect({ status, stdout }).toEqual({
        status: 1,
        stdout: expect.stringMatching(numbers) as string,
      });
      expect(fs.readFileSync(file, 'utf8')).toBe('before');
      expect(fs.readdirSync(folder).filter((name) => name.endsWith('.tmp'))).toEqual([]);
    },
  );

  test.runIf(nobody !== undefined)(
    'without the right to write there, that is said first',
    { timeout: 60_000 },
    () => {
      fs.writeFileSync(file, 'before', { mode: 0o444 });
      fs.chmodSync(file, 0o444);
      expect(refused([...command, option, file], { uid: nobody })).toMatch(/EACCES/);
      expect(fs.readFileSync(file, 'utf8')).toBe('before');
    },
  );
});

describe('what is there stays where the work fails', () => {
  test.each([
    ['loss', '--method', 'dpo', '--out'],
    ['verify', '--method', 'sft', '--junit'],
  ])('%s opens what it writes before it reads', (command, ...options) => {
    const line = refused([
      command,
      inFolder('missing.safetensors'),
      ...options,
      inFolder('none', 'x'),
    ]);
    expect(line).toContain(options.at(-1));
    expect(line).not.toContain('missing.safetensors');
  });

  test.each([
    ['loss', '--method', 'dpo', '--out'],
    ['verify', '--method', 'sft', '--junit'],
  ])('%s', (command, ...options) => {
    const [kept, fresh] = [inFolder('kept.svg'), inFolder('fresh.svg')];
    fs.writeFileSync(kept, 'before');
    for (const file of [kept, fresh])
      refused([command, inFolder('missing.safetensors'), ...options, file]);
    expect(fs.readFileSync(kept, 'utf8')).toBe('before');
    expect(fs.existsSync(fresh)).toBe(false);
  });

  test('plot, where the renderer fails', () => {
    const [kept, fresh] = [inFolder('kept.png'), inFolder('fresh.png')];
    fs.writeFileSync(kept, 'before');
    for (const file of [kept, fresh])
      refused(['plot', 'dpo', '--points', '3', '--out', file, '--font', '/dev/null']);
    expect(fs.readFileSync(kept, 'utf8')).toBe('before');
    expect(fs.existsSync(fresh)).toBe(false);
  });
});

describe('files that are read', () => {
  const none = { data: new Float32Array(0), dtype: 'F32' } as const;

  test.each([
    ['a loop of links', (name: string) => (fs.symlinkSync(name, name), name)],
    ['a link to nowhere', (name: string) => (fs.symlinkSync('nowhere', name), name)],
    ['a pipe', (name: string) => (spawnSync('mkfifo', [name]), name)],
    ['a device', () => '/dev/zero'],
    ['no name', () => ''],
    [
      'a folder of unreadable files',
      (name: string) => {
        fs.mkdirSync(name);
        fs.symlinkSync('a', `${name}/a.safetensors`);
        return name;
      },
    ],
    [
      'control characters in its name',
      (name: string) => (
        fs.writeFileSync(`${name}\u001b]0;x\u0007\n`, 'x'),
        `${name}\u001b]0;x\u0007\n`
      ),
    ],
  ])('%s', (what, make) => {
    const file = make(inFolder(what.replaceAll(' ', '-')));
    for (const command of ['loss', 'verify']) {
      const line = refused([command, file]);
      // oxlint-disable-next-line no-control-regex -- they would command the reader's terminal
      expect(line).not.toMatch(/[\u0000-\u001f]/);
    }
  });

  test('a few bytes that claim a huge batch cost nothing', () => {
    for (const [i, shape] of [
      [2 ** 31, 0, 5],
      [2 ** 40, 0, 5],
      [2, 2 ** 31, 0],
    ].entries()) {
      const file = inFolder(`claim-${i}.safetensors`);
      const rows = shape.slice(0, 2);
      const labels = rows.includes(0)
        ? { dtype: 'I32' as const, shape: rows, data: new Int32Array(0) }
        : undefined;
      writeSafetensors(file, { logits: { ...none, shape }, ...(labels && { labels }) });
      for (const command of [
        ['loss'],
        ['loss', '--method', 'simpo'],
        ['verify', '--method', 'sft'],
      ]) {
        const limited = spawnSync(
          'prlimit',
          ['--as=4000000000', process.execPath, program, ...command, file],
          {
            encoding: 'utf8',
          },
        );
        expect(limited.stderr).toMatch(/^diralign[^\n]*\n$/);
        expect({ status: limited.status, stdout: limited.stdout }).toEqual({
          status: 1,
          stdout: '',
        });
        expect(limited.stderr).not.toContain('should not happen');
      }
    }
  });

  test.each([
    '{"cases":[{"call":{"method":"nope"},"loss":1}]}',
    '{"cases":[{"call":{"method":"dpo","beta":"x"},"loss":1}]}',
    '{"cases":[{"call":{"method":"sft"},"loss":1,"gradient":{"at":[[99,99,99]],"value":[1]}}]}',
    '{"cases":[{"call":{"method":"sft"},"loss":1,"gradient":{"at":[[0]],"value":[]}}]}',
    '{"cases":[{"call":{"method":"sft"},"loss":1,"losses":[1]}],"logps":[1],"counts":[1]}',
    '{"cases":[null]}',
    '{"cases":{}}',
    '\u0000',
  ])('expected values %s name their file', (text) => {
    const file = inFolder('batch.safetensors');
    fs.copyFileSync(example, file);
    fs.writeFileSync(inFolder('batch.expected.json'), text);
    expect(refused(['verify', file, '--method', 'sft'])).toContain('batch.expected.json');
  });
});

describe('numbers that are too large', () => {
  test.each([
    [
      ['bench', '--shape', '99999,99999,99999'],
      /takes [\d.e+]+ GiB of memory or more, and this machine has/,
    ],
    [['bench', '--rounds', '1e15'], /not a whole number from 1 to 10000/],
    [['plot', 'dpo', '--points', '1e9'], /not a whole number from 2 to 100000/],
    [['plot', 'dpo', '--tokens', '1e12,1'], /not a whole number from 1 to 2147483647/],
    [['bench', '--threads', '1e3'], /--threads: '1e3' is not a whole number from 1 to \d+;/],
    [['loss', '--threads', '1e15'], /--threads|threads/],
    [['loss', '--ignore-index', '1e15'], /ignoreIndex/],
  ])('%j', (args, message) => {
    expect(refused(args)).toMatch(message);
  });
});

describe.runIf(process.platform === 'linux')('standard streams', () => {
  /** A command of bash, in which `diralign` is the program. */
  function shell(command: string): { status: number | null; stderr: string } {
    const script = `set -o pipefail
      diralign() { "${process.execPath}" "${program}" "$@"; }
      ${command}`;
    const { status, stderr } = spawnSync('bash', ['-c', script], { encoding: 'utf8' });
    return { status, stderr };
  }

  test.each(['info', 'loss', 'loss --json', 'methods', '--help', 'plot dpo --out -'])(
    '%s on a full disk: one line, status 1',
    (args) => {
      const { status, stderr } = shell(`diralign ${args} > /dev/full`);
      expect(stderr).toMatch(/^diralign[^\n]*: the output cannot be written: ENOSPC[^\n]*\n$/);
      expect(status).toBe(1);
    },
  );

  test.each(['info', 'loss --json', 'methods', '--help'])(
    '%s: a reader that leaves, and streams that are closed',
    (args) => {
      expect(shell(`diralign ${args} | true`)).toEqual({ status: 0, stderr: '' });
      for (const closed of ['>&-', '2>&-', '<&-', '>&- 2>&- <&-', '2> /dev/full']) {
        expect(shell(`diralign ${args} ${closed}`)).toMatchObject({ stderr: '', status: 0 });
      }
    },
  );

  test('a failure is not forgotten where the reader left, or nothing could be said', () => {
    const missing = inFolder('missing.safetensors');
    for (const how of ['| true', '2>&-', '> /dev/full 2>&1', '--json | true']) {
      expect(shell(`diralign loss ${missing} ${how}`).status).toBe(1);
    }
  });
});

describe('--json', () => {
  test.each([
    [['los'], 'ERR_DIRALIGN_OPTION', 2],
    [['loss', '--nope'], 'ERR_DIRALIGN_OPTION', 2],
    [['loss', '--beta', '0'], 'ERR_DIRALIGN_OPTION', 2],
    [['loss', '/nonexistent'], 'ERR_DIRALIGN_FILE', 1],
    [['loss', '--method', 'dpo', '--out', '/nonexistent/x'], 'ERR_DIRALIGN_FILE', 1],
    [['verify', '/nonexistent'], 'ERR_DIRALIGN_FILE', 1],
    [['plot', 'dpo', '--out', '/nonexistent/x.svg'], 'ERR_DIRALIGN_FILE', 1],
    [[...bench, '--html', '/nonexistent/x'], 'ERR_DIRALIGN_FILE', 1],
    [['bench', '--shape', '99999,99999,99999'], 'ERR_DIRALIGN_MEMORY', 1],
    [['methods', 'dop'], 'ERR_DIRALIGN_OPTION', 2],
  ])('%j: the error is the document', (args, code, status) => {
    const ended = diralign([...args, '--json']);
    expect(ended.status).toBe(status);
    const { error } = JSON.parse(ended.stdout) as {
      readonly error: { readonly code: string; readonly message: string };
    };
    expect(error.code).toBe(code);
    expect(ended.stderr).toContain(error.message);
  });

  test('numbers whose file cannot be written are still there, with the error', () => {
    const { status, stdout } = diralign([
      'loss',
      '--method',
      'dpo',
      '--out',
      '/dev/full',
      '--json',
    ]);
    expect(status).toBe(1);
    const { results, error } = JSON.parse(stdout) as {
      readonly results: unknown[];
      readonly error: { readonly message: string };
    };
    expect(results).toHaveLength(1);
    expect(error.message).toContain('ENOSPC');
  });
});
