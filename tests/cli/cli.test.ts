// The command line as a user has it: the built program in a process of its own.
import { spawn, spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { junit } from '../../ts/cli/junit.js';
import {
  cuda,
  dirAlignLoss,
  methods,
  presets,
  type LogitsBatch,
  type Method,
  type WithReference,
} from '../../ts/index.js';
import { digits, table } from '../../ts/text/table.js';
import {
  readBatch,
  readSafetensors,
  writeSafetensors,
  type WritableTensor,
} from '../../ts/safetensors.js';
import {
  compileProgram,
  diralign,
  example,
  output,
  program,
  refusal,
  root,
} from '../support/cli.js';
import { sameBits } from '../support/numbers.js';

type Given = LogitsBatch & WithReference;

const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'diralign-cli-'));
const inFolder = (name: string): string => path.join(folder, name);

interface LossJson {
  readonly batch: { readonly sequences: number; readonly scoredRows: number };
  readonly results: readonly {
    readonly method: string;
    readonly beta?: number;
    readonly betaSource?: string;
    readonly normalize: boolean;
    readonly options: Readonly<Record<string, unknown>>;
    readonly loss: number | string;
    readonly losses: readonly (number | string)[];
    readonly metrics: Readonly<Record<string, number>>;
    readonly gradientNorm?: number;
  }[];
  readonly skipped: readonly { readonly method: string }[];
}

function lossJson(...args: string[]): LossJson {
  return JSON.parse(output('loss', ...args, '--json')) as LossJson;
}

beforeAll(compileProgram, 120_000);

afterAll(() => {
  fs.rmSync(folder, { recursive: true });
});

/** Two pairs over a vocabulary of three. */
function tinyTensors(): Record<string, WritableTensor> {
  return {
    logits: {
      dtype: 'F32',
      shape: [4, 2, 3],
      data: Float32Array.from({ length: 24 }, (_, i) => Math.sin(i)),
    },
    labels: {
      dtype: 'I64',
      shape: [4, 2],
      data: BigInt64Array.from([0n, 1n, 2n, -100n, 1n, 0n, 2n, 2n]),
    },
    reference: { dtype: 'F64', shape: [4], data: Float64Array.of(-2, -1, -2.5, -2) },
  };
}

function write(name: string, tensors: Record<string, WritableTensor>): string {
  writeSafetensors(inFolder(name), tensors);
  return inFolder(name);
}

describe('diralign', () => {
  test('--help names every command; none at all is a misuse', () => {
    const help = output('--help');
    for (const name of ['loss', 'verify', 'bench', 'plot', 'methods', 'info', 'build'])
      expect(help).toContain(`  ${name} `);
    expect(diralign([])).toMatchObject({ status: 2, stdout: help });
    expect(output('help', 'loss')).toBe(output('loss', '--help'));
  });

  test.each(['loss', 'verify', 'bench', 'plot', 'methods', 'info', 'build'])(
    '%s --help has examples',
    (name) => {
      const help = output(name, '--help');
      expect(help).toMatch(/Examples/);
      expect(help).toContain(`diralign ${name}`);
      expect(Math.max(...help.split('\n').map((line) => line.length))).toBeLessThanOrEqual(100);
    },
  );

  test('--version is that of the package', () => {
    const { version } = JSON.parse(fs.readFileSync(path.join(root, 'package.json'), 'utf8')) as {
      version: string;
    };
    expect(output('--version')).toBe(`${version}\n`);
  });

  test('misuse: one line, a suggestion, status 2', () => {
    expect(refusal(2, 'los')).toContain("did you mean 'loss'?");
    expect(refusal(2, 'loss', '--metod', 'dpo')).toContain("'--metod'; did you mean '--method'?");
    expect(refusal(2, 'loss', '--labelSmothing', '0.1')).toContain(
      "'--labelSmothing'; did you mean '--label-smoothing'?",
    );
    expect(refusal(2, 'loss', '--method', 'dpoo')).toContain("did you mean 'dpo'?");
    expect(refusal(2, 'methods', 'simp')).toContain("did you mean 'simpo'?");
    expect(refusal(2, 'loss', '--beta')).toContain("'--beta' needs a value");
    expect(refusal(2, 'loss', '--beta', '1', '--beta', '2')).toContain("'--beta' is given twice");
    expect(diralign(['info', '--json', '--json'])).toMatchObject({
      status: 2,
      stdout: expect.stringContaining("'--json' is given twice") as string,
    });
    expect(refusal(2, 'loss', '--labelSmoothing', '0', '--label-smoothing=0')).toContain(
      "'--label-smoothing' is given twice",
    );
    expect(refusal(2, 'loss', '--json=yes')).toContain("'--json' takes no value");
    expect(refusal(2, 'loss', 'a.safetensors', 'b.safetensors')).toContain("'b.safetensors'");
    expect(refusal(2, 'info', '--colour')).toContain('see: diralign info --help');
  });

  test('--help, build and methods do not need the addon; what needs it says what to do', () => {
    const without = { node: ['--no-addons'] };
    for (const args of [['--help'], ['loss', '--help'], ['build', '--help'], ['methods']]) {
      expect(diralign(args, without)).toMatchObject({ status: 0, stderr: '' });
    }
    const { status, stdout } = diralign(['info'], without);
    expect({ status, named: stdout.includes('--no-addons') }).toEqual({ status: 1, named: true });
    for (const args of [['loss'], ['verify']]) {
      const ended = diralign(args, without);
      expect(ended).toMatchObject({ status: 1, stdout: '' });
      expect(ended.stderr).toMatch(/^[^\n]*--no-addons[^\n]*\n$/);
    }
  });

  test('colours are for terminals, and for nobody who sets NO_COLOR', () => {
    const escape = '\u001b[';
    expect(output('loss')).not.toContain(escape);
    const hasScript = spawnSync('script', ['--version']).status === 0;
    if (!hasScript) return;
    const terminal = (env: NodeJS.ProcessEnv): string =>
      spawnSync('script', ['-qec', `${process.execPath} ${program} info`, '/dev/null'], {
        encoding: 'utf8',
        env: { ...process.env, NO_COLOR: undefined, CI: undefined, TERM: 'xterm-256color', ...env },
      }).stdout;
    expect(terminal({})).toContain(escape);
    expect(terminal({ NO_COLOR: '1' })).not.toContain(escape);
  });

  test('a pipe that closes early is no error', async () => {
    const child = spawn(process.execPath, [program, 'loss', '--json'], {
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    let complaint = '';
    child.stderr.on('data', (data: Buffer) => (complaint += data.toString()));
    // The reader leaves before the first byte is written.
    child.stdout.destroy();
    const status = await new Promise((resolve) => child.on('close', resolve));
    expect({ status, complaint }).toEqual({ status: 0, complaint: '' });
  });
});

/** Those that need no field: the example is of pairs. */
const ofExample = methods()
  .filter(
    ({ arity, fields }) => arity !== 'group' && !Object.values(fields).some(({ needed }) => needed),
  )
  .map(({ name }) => name);

describe('diralign loss', () => {
  test('without anything: every method on the example', () => {
    const text = output('loss');
    expect(text).toContain('8 pairs, 421 scored tokens of 800, vocabulary 217, bfloat16');
    for (const name of ofExample) expect(text).toMatch(new RegExp(`^${name} `, 'm'));
    expect(text).toContain('Left out, for the batch has no desirable and no kl: kto.');
    expect(text).toContain(
      'beta: the usual one of each method (0.1; 1 over log-odds, 2 per token)',
    );
    expect(text).toBe(
      output('loss', '--method', 'all').replace(/^[\d.]+ ms/m, /^[\d.]+ ms/m.exec(text)?.[0] ?? ''),
    );
  });

  test('the settings of one method: its beta, and the options that were given', () => {
    const settings = (...args: string[]): string | undefined =>
      output('loss', '--method', 'dpo', ...args).split('\n')[4];
    expect(settings('--beta', '0.1')).toBe('beta 0.1, not normalised');
    expect(settings('--beta', '0.5', '--normalize', '--label-smoothing', '0.1')).toBe(
      'beta 0.5, normalised, labelSmoothing 0.1',
    );
  });

  test('the numbers are those of the library, whichever way they are printed', () => {
    const batch = readBatch(example);
    const { results, batch: about } = lossJson();
    expect(about).toMatchObject({ sequences: 16, scoredRows: 421 });
    expect(results.map(({ method }) => method)).toEqual(ofExample);
    for (const {
      method,
      beta,
      betaSource,
      normalize,
      loss,
      losses,
      metrics,
      gradientNorm,
    } of results) {
      const result = dirAlignLoss({ method, beta } as { method: Method; beta: number })(batch);
      expect({ loss, losses, metrics }).toEqual({
        loss: result.loss,
        losses: [...result.losses],
        metrics: result.metrics,
      });
      expect(gradientNorm).toBeGreaterThan(0);
      expect(normalize).toBe(methods().find(({ name }) => name === method)?.normalize);
      if (['sft', 'simper'].includes(method)) continue;
      const usual: Readonly<Record<string, number>> = { simpo: 2, alphapo: 2, orpo: 1, asft: 1 };
      expect({ beta, betaSource }).toEqual({ beta: usual[method] ?? 0.1, betaSource: 'usual' });
    }
    const [dpo] = lossJson('--method', 'dpo', '--beta', '0.1').results;
    expect(output('loss', '--method', 'dpo', '--beta', '0.1')).toContain(
      digits(dpo?.loss as number),
    );
  });

  test('--preset: the best betas of a setup of the paper, the usual ones where it has none', () => {
    const setup = 'tldr-llama-3.2-3b';
    for (const { method, beta, betaSource } of lossJson('--preset', setup).results) {
      if (['sft', 'simper'].includes(method)) continue;
      const best = presets.best[setup][method as 'dpo']?.beta;
      if (best === undefined) expect(betaSource).toBe('usual');
      else expect({ beta, betaSource }).toEqual({ beta: best, betaSource: setup });
    }
    expect(output('loss', '--preset', setup)).toContain(
      `* the best beta of the paper's ${setup} setup`,
    );
    expect(refusal(2, 'loss', '--preset', 'llama')).toContain('tldr-llama-3.2-3b');
    expect(refusal(2, 'loss', '--preset', setup, '--beta', '1')).toContain('exclude each other');
  });

  test('methods and the file in any order, as plot and methods take them', () => {
    const wanted = lossJson('--method', 'dpo,simpo', example).results;
    expect(lossJson('dpo,simpo').results).toEqual(wanted);
    expect(lossJson('dpo,simpo', example).results).toEqual(wanted);
    expect(lossJson(example, 'dpo,simpo', '--beta', '0.3').results).toEqual(
      lossJson(example, '--method', 'dpo,simpo', '--beta', '0.3').results,
    );
    for (const args of [['dpoo'], ['dpoo', example], [example, 'dpoo']])
      expect(refusal(2, 'loss', ...args)).toContain(
        "'dpoo' is no file and no method; did you mean 'dpo'?",
      );
    expect(refusal(2, 'loss', 'dpo', '--method', 'ipo')).toContain(
      "'dpo' is one argument too many",
    );
    expect(refusal(2, 'loss', 'dpo', 'ipo')).toContain("'ipo' is one argument too many");
  });

  test('an option that means two things is given to a method', () => {
    const line = refusal(2, 'loss', '--alpha', '0.5');
    expect(line).toContain('alpha of the score (dpo, alphapo) or reward of a token (r_dpo)?');
    const [alphapo, lengths] = lossJson('alphapo,r_dpo --alpha alphapo=0.5,r_dpo=0.01').results;
    expect([alphapo?.options.alpha, lengths?.options.alpha]).toEqual([0.5, 0.01]);
    expect(
      lossJson('all', '--alpha', 'r_dpo=-0.02').results.find(({ method }) => method === 'r_dpo')
        ?.options.alpha,
    ).toBe(-0.02);
    expect(output('loss', 'all', '--alpha', 'alphapo=0.5')).toContain('alpha goes to alphapo.');
    expect(refusal(2, 'loss', '--alpha', 'ipo=1')).toContain(
      "'ipo' is none of the methods that have it: dpo, alphapo, r_dpo",
    );
    expect(refusal(2, 'loss', '--alpha', 'alphapo=x')).toContain("--alpha: 'x' is not a number");
  });

  test('options in either spelling, negative numbers, several methods', () => {
    const [a] = lossJson('--method dpo --beta=0.1 --label-smoothing 0.1 --normalize').results;
    const [b] = lossJson('--method dpo --beta 0.1 --labelSmoothing=0.1 --normalize').results;
    expect(a).toEqual(b);
    expect(a).toMatchObject({
      normalize: true,
      options: { labelSmoothing: 0.1 },
      betaSource: 'given',
    });
    const [alpha] = lossJson('--method', 'alphapo', '--alpha', '-0.5', '--no-normalize').results;
    expect(alpha).toMatchObject({ normalize: false, options: { alpha: -0.5 } });
    const several = lossJson('--method orpo,dpo --beta 0.5 --lambda 0.25 --reference-free').results;
    expect(several).toMatchObject([
      { method: 'orpo', options: { lambda: 0.25 } },
      { method: 'dpo', options: { referenceFree: true } },
    ]);
    expect(output('loss', '--method', 'orpo,dpo', '--lambda', '0.25')).toContain(
      'lambda goes to orpo.',
    );
  });

  test('--gradient and --threads change no loss', () => {
    const norms = ['none', 'dense', 'factored'].map((gradient) => {
      const [result] = lossJson('--method simpo --gradient', gradient, '--threads 1').results;
      expect(result?.loss).toBe(dirAlignLoss('simpo', 2)(readBatch(example)).loss);
      return result?.gradientNorm;
    });
    expect(norms[0]).toBeUndefined();
    // The two are rounded to bfloat16 at different places.
    expect((norms[2] ?? 0) / (norms[1] ?? 0)).toBeCloseTo(1, 3);
  });

  test.each(['dense', 'factored'] as const)(
    '--out: the %s gradient of the library, bit for bit',
    (gradient) => {
      const file = inFolder(`${gradient}.safetensors`);
      expect(
        output('loss', example, '--method ipo --beta 0.1 --gradient', gradient, '--out', file),
      ).toContain('wrote');
      const result = dirAlignLoss('ipo', 0.1)(readBatch(example) as Given, { gradient });
      const tensors = readSafetensors(file);
      const { dtype, shape, data } = tensors.get('gradLogits') ?? {};
      expect({ dtype, shape }).toEqual({ dtype: 'BF16', shape: [16, 50, 217] });
      expect(data && sameBits(data, result.gradLogits as Uint16Array)).toBe(true);
      const rowScale = tensors.get('rowScale');
      expect(rowScale?.shape).toEqual(gradient === 'dense' ? undefined : [16, 50]);
      if (result.rowScale)
        expect(rowScale?.data && sameBits(rowScale.data, result.rowScale)).toBe(true);
      expect(JSON.parse(tensors.metadata.get('objective') ?? '')).toMatchObject({
        method: 'ipo',
        beta: 0.1,
        normalize: false,
      });
    },
  );

  test('packed batches, 64-bit labels, and the shape of what is written', () => {
    const { logits, labels, reference } = tinyTensors();
    const padded = write('tiny.safetensors', tinyTensors());
    const packed = write('packed.safetensors', {
      logits: { ...logits, shape: [8, 3] } as WritableTensor,
      labels: { ...labels, shape: [8] } as WritableTensor,
      reference: reference as WritableTensor,
      offsets: { dtype: 'I32', shape: [5], data: Int32Array.of(0, 2, 4, 6, 8) },
    });
    const args = ['--method', 'dpo', '--beta', '0.1'];
    expect(lossJson(packed, ...args).results).toEqual(lossJson(padded, ...args).results);
    const out = inFolder('packed-gradient.safetensors');
    output('loss', packed, ...args, '--gradient', 'factored', '--out', out);
    expect(readSafetensors(out).get('gradLogits')).toMatchObject({ dtype: 'F32', shape: [8, 3] });
    expect(readSafetensors(out).get('rowScale')).toMatchObject({ dtype: 'F32', shape: [8] });
  });

  test('without a reference: what needs one is left out of all, and refused by name', () => {
    const { logits, labels } = tinyTensors();
    const file = write('no-reference.safetensors', {
      logits: logits as WritableTensor,
      labels: labels as WritableTensor,
    });
    const { results, skipped } = lossJson(file);
    expect(results.map(({ method }) => method)).toEqual([
      'sft',
      'simpo',
      'orpo',
      'asft',
      'cpo',
      'alphapo',
      'simper',
    ]);
    expect(skipped.length + results.length).toBe(methods().length);
    expect(output('loss', file)).toContain('the batch has no reference: dpo, ipo');
    const line = refusal(1, 'loss', file, '--method', 'dpo', '--beta', '0.1');
    expect(line).toContain("reference: 'dpo' needs");
    expect(line).toContain('--reference-free');
    expect(
      lossJson(file, '--method', 'dpo', '--beta', '0.1', '--reference-free').results,
    ).toHaveLength(1);
  });

  test('numbers that are not finite have names in JSON', () => {
    const { logits, ...others } = tinyTensors();
    const data = Float32Array.from(logits?.data as Float32Array);
    data[0] = NaN;
    const file = write('nan.safetensors', {
      logits: { ...logits, data } as WritableTensor,
      ...others,
    });
    const [result] = lossJson(file, '--method', 'dpo', '--beta', '0.1').results;
    expect(result).toMatchObject({
      loss: 'NaN',
      losses: ['NaN', expect.any(Number)],
      metrics: { nonfinite: 1 },
    });
    expect(output('loss', file)).toContain('NaN or infinite logits');
  });

  test('settings that cannot be: status 2', () => {
    expect(refusal(2, 'loss', '--beta', '0')).toContain(
      'beta: 0 is not a finite number greater than 0',
    );
    expect(refusal(2, 'loss', '--beta', 'abc')).toContain("--beta: 'abc' is not a number");
    expect(refusal(2, 'loss', '--method', 'dpo', '--gamma', '1')).toContain(
      '--gamma: dpo has no such option',
    );
    expect(refusal(2, 'loss', '--method', 'dpo', '--label-smoothing', '2')).toContain(
      'labelSmoothing: 2',
    );
    expect(refusal(2, 'loss', '--method', 'dpo', '--divergence', 'kl')).toContain(
      "divergence: 'kl'",
    );
    expect(refusal(2, 'loss', '--gradient', 'dens')).toContain("did you mean 'dense'?");
    expect(refusal(2, 'loss', '--threads', '0')).toContain('--threads');
    expect(refusal(2, 'loss', '--normalize', '--no-normalize')).toContain('exclude each other');
    expect(refusal(2, 'loss', '--out', inFolder('x'))).toContain('--method');
    expect(
      refusal(2, 'loss', '--method', 'dpo', '--gradient', 'none', '--out', inFolder('x')),
    ).toContain('--gradient none');
    expect(fs.existsSync(inFolder('x'))).toBe(false);
  });

  test('a batch in shards, by its index and by its folder', () => {
    const tensors = tinyTensors();
    const shards = inFolder('shards');
    fs.mkdirSync(shards);
    for (const [name, tensor] of Object.entries(tensors)) {
      writeSafetensors(path.join(shards, `${name}.safetensors`), { [name]: tensor });
    }
    const map = Object.fromEntries(
      Object.keys(tensors).map((name) => [name, `${name}.safetensors`]),
    );
    const index = path.join(shards, 'model.safetensors.index.json');
    fs.writeFileSync(index, JSON.stringify({ weight_map: map }));
    const whole = lossJson(write('whole.safetensors', tensors), '--method', 'dpo').results;
    expect(whole[0]?.loss).toBeGreaterThan(0);
    for (const place of [index, shards])
      expect(lossJson(place, '--method', 'dpo').results).toEqual(whole);
    for (const place of [index, shards])
      expect(output('verify', place, '--method', 'dpo')).toContain('all within bounds');
  });

  test(
    'a file without a byte of tensors allocates nothing for the shapes it has',
    { timeout: 60_000 },
    () => {
      const header = (sequences: number): string => {
        const [logits, labels] = [
          ['F32', [sequences, 0, 5]],
          ['I32', [sequences, 0]],
        ].map(([dtype, shape]) => {
          return { dtype, shape, data_offsets: [0, 0] };
        });
        return JSON.stringify({ logits, labels });
      };
      for (const sequences of [2 ** 31, 2 ** 40]) {
        const json = Buffer.from(header(sequences));
        const length = Buffer.alloc(8);
        length.writeBigUInt64LE(BigInt(json.length));
        fs.writeFileSync(inFolder('empty.safetensors'), Buffer.concat([length, json]));
        for (const command of ['loss', 'verify']) {
          const said = refusal(1, command, inFolder('empty.safetensors'), '--method', 'simpo');
          expect(said).toContain(`shape: ${sequences} sequences of no tokens`);
        }
      }
    },
  );

  test('files that cannot be: status 1', () => {
    expect(refusal(1, 'loss', inFolder('missing.safetensors'))).toContain('ENOENT');
    expect(refusal(1, 'loss', path.join(root, 'docs'))).toContain('holds no *.safetensors');
    expect(refusal(1, 'loss', path.join(root, 'package.json'))).toContain(
      'not a safetensors file?',
    );
    fs.writeFileSync(inFolder('cut.safetensors'), fs.readFileSync(example).subarray(0, 200_000));
    expect(refusal(1, 'loss', inFolder('cut.safetensors'))).toContain('cut.safetensors');

    const tensors = tinyTensors();
    const changed = (name: string, tensor: Partial<WritableTensor>): string => {
      return write('changed.safetensors', {
        ...tensors,
        [name]: { ...tensors[name], ...tensor } as WritableTensor,
      });
    };
    const doubles = changed('logits', { dtype: 'F64', data: new Float64Array(24) });
    expect(refusal(1, 'loss', doubles)).toContain('dtype F64; expected F32, F16 or BF16');
    expect(
      refusal(1, 'loss', changed('labels', { dtype: 'F32', data: new Float32Array(8) })),
    ).toContain('I32 or I64');
    expect(
      refusal(1, 'loss', changed('labels', { data: new BigInt64Array(8).fill(3n) })),
    ).toContain('labels[0]: 3 is neither');
    expect(
      refusal(1, 'loss', changed('reference', { data: Float64Array.of(-1, NaN, -1, -1) })),
    ).toMatch(/reference: NaN at index 1 is not finite.*--reference-free/);
    expect(
      refusal(1, 'loss', changed('reference', { shape: [2], data: new Float64Array(2) })),
    ).toContain('expected [4]');
    const out = path.join(folder, 'no', 'such', 'folder.safetensors');
    expect(refusal(1, 'loss', '--method', 'dpo', '--out', out)).toContain('cannot be written');
  });
});

describe('diralign verify', () => {
  test('everything is within bounds: a table, JUnit XML and status 0', () => {
    const report = inFolder('report.xml');
    const text = output('verify', '--junit', report);
    for (const { name } of methods()) expect(text).toMatch(new RegExp(`^${name} .* ok$`, 'm'));
    expect(text).toMatch(/[\d,]{5,} cases on \d+ batches in [\d.]+ s: all within bounds/);
    const xml = fs.readFileSync(report, 'utf8');
    const cases = xml.match(/<testcase /g)?.length;
    expect(cases).toBeGreaterThan(5000);
    expect(xml).toContain(
      `<testsuites name="diralign verify" tests="${String(cases)}" failures="0"`,
    );
  });

  test('--json, --method, and reference values beside a file', () => {
    const batches = inFolder('batches');
    fs.mkdirSync(batches);
    const file = path.join(batches, 'tiny.safetensors');
    writeSafetensors(file, tinyTensors());
    writeSafetensors(path.join(batches, 'other.safetensors'), {
      weight: { dtype: 'F32', shape: [1], data: new Float32Array(1) },
    });
    const { loss, losses } = dirAlignLoss('ipo', 0.1)(readBatch(file) as Given);
    const call = { method: 'ipo', beta: 0.1 };
    const expected = path.join(batches, 'tiny.expected.json');
    const verify = (json: unknown) => {
      fs.writeFileSync(expected, JSON.stringify(json));
      const { status, stdout, stderr } = diralign(['verify', batches, '--method', 'ipo', '--json']);
      return {
        status,
        stderr,
        report: stdout === '' ? undefined : (JSON.parse(stdout) as Record<string, unknown>),
      };
    };
    const backends = cuda.available ? ['cpu', 'cuda', 'cuda, host arrays'] : ['cpu'];
    expect(verify({ cases: [{ call, loss, losses: [...losses] }] })).toMatchObject({
      status: 0,
      report: {
        passed: true,
        failed: 0,
        methods: backends.map((backend) => ({ method: 'ipo', backend, failed: 0 })),
        misses: [],
      },
    });
    expect(verify({ cases: [{ call, loss: loss * 1.00001 }] })).toMatchObject({
      status: 1,
      report: {
        passed: false,
        failed: backends.length,
        misses: backends.map((backend) => ({
          backend,
          case: 'expected values 0: ipo, beta 0.1',
          count: 1,
        })),
      },
    });
    const broken = verify({ cases: [{ call, loss: 'small' }] });
    expect(broken).toMatchObject({ status: 1, report: { error: { code: 'ERR_DIRALIGN_FILE' } } });
    expect(broken.stderr).toContain('cases[0].loss: "small" is not a number');
  });

  test('a miss: the table, the value, and JUnit say so', () => {
    const file = write('missed.safetensors', tinyTensors());
    fs.writeFileSync(
      inFolder('missed.expected.json'),
      JSON.stringify({ cases: [{ call: { method: 'sft' }, loss: 100 }] }),
    );
    const report = inFolder('missed.xml');
    const { status, stdout } = diralign(['verify', file, '--method', 'sft', '--junit', report]);
    expect(status).toBe(1);
    expect(stdout).toMatch(/^sft .*FAIL \(1\)$/m);
    expect(stdout).toMatch(/FAIL expected values 0: sft on .*missed\.safetensors/);
    expect(stdout).toContain('expected 100 within 1.00e-4');
    expect(fs.readFileSync(report, 'utf8')).toMatch(/<failure message="1 value out of bounds">/);
  });

  test('refusals', () => {
    expect(refusal(1, 'verify', inFolder('missing.safetensors'))).toContain('ENOENT');
    expect(refusal(1, 'verify', path.join(root, 'docs'))).toContain('no *.safetensors');
    expect(refusal(1, 'verify', '--junit', path.join(folder, 'no', 'report.xml'))).toContain(
      '--junit',
    );
    expect(refusal(2, 'verify', '--method', 'dpp')).toContain("did you mean 'dpo'?");
  });
});

describe('diralign methods', () => {
  test('the catalogue', () => {
    const text = output('methods');
    for (const { name } of methods()) expect(text).toMatch(new RegExp(`^${name} `, 'm'));
    expect(JSON.parse(output('methods', '--json'))).toEqual(methods());
  });

  test.each(methods().map((info) => [info.name, info] as const))('%s in detail', (name, info) => {
    const text = output('methods', name);
    for (const part of [info.formula, info.source, ...info.betaGrid.map(String)])
      expect(text).toContain(part);
    for (const { meaning } of Object.values(info.options)) expect(text).toContain(meaning);
  });
});

describe('diralign info and build', () => {
  test('info', () => {
    const info = JSON.parse(output('info', '--json')) as Record<string, unknown>;
    expect(info).toMatchObject({
      node: process.versions.node,
      backends: { cpu: { available: true }, cuda: { available: cuda.available } },
    });
    const text = output('info');
    expect(text).toMatch(/^addon +\S+\.node {2}\S/m);
    const { addon } = info as { addon: { path: string } };
    expect(diralign(['info'], { env: { DIRALIGN_ADDON: addon.path } }).stdout).toMatch(
      /^addon +\S+\.node {2}named by DIRALIGN_ADDON$/m,
    );
    if (cuda.reason === undefined) {
      expect(text).toMatch(/^cuda +on {3}\d+ devices? /m);
      for (const { index, name } of cuda.devices())
        expect(text).toMatch(new RegExp(`^device ${index} +${name}`, 'm'));
    } else expect(text).toMatch(new RegExp(`^cuda +off {2}${cuda.reason}`, 'm'));
  });

  test('build passes on what the script says, and its status', () => {
    const { status, stderr } = diralign(['build', '--no-such-option']);
    expect(status).toBe(1);
    expect(stderr).toContain("Unknown option '--no-such-option'");
    const captured = diralign(['build', '--no-such-option', '--json']);
    expect(captured.status).toBe(1);
    expect(JSON.parse(captured.stdout)).toMatchObject({ built: false, status: 1 });
  });
});

describe('what the output is made of', () => {
  test('columns stand by their decimal points', () => {
    const columns = [{ title: 'name' }, { title: 'value', align: 'point' as const }];
    const rows = [
      ['a', '-1.5'],
      ['long name', '12'],
      ['b', '3.25e-7'],
      ['c', '-'],
    ];
    expect(table(columns, rows).split('\n')).toEqual([
      'name          value',
      'a          -1.5',
      'long name  12',
      'b           3.25e-7',
      'c           -',
    ]);
  });

  test('what is wider than the screen goes below, with the first column', () => {
    const columns = ['name', 'one', 'two', 'three'].map((title) => ({ title }));
    const rows = [['a', '11111', '22222', '33333']];
    const split = (width: number): string[][] =>
      table(columns, rows, width)
        .split('\n\n')
        .map((part) => (part.split('\n')[0] ?? '').trim().split(/ +/));
    expect(split(25)).toEqual([['name', 'one', 'two', 'three']]);
    expect(split(24)).toEqual([
      ['name', 'one', 'two'],
      ['name', 'three'],
    ]);
    expect(split(11)).toEqual([
      ['name', 'one'],
      ['name', 'two'],
      ['name', 'three'],
    ]);
    // However narrow, one column stands beside the first.
    expect(split(1)).toHaveLength(3);
  });

  test.each([
    'loss',
    'loss dpo',
    'loss sft',
    'loss --preset ultrafeedback-llama-3.1-8b',
    'methods',
    'methods dpo',
    'plot',
    'plot dpo',
  ])('%s fits 100 columns', (command) => {
    const wide = output(...command.split(' '))
      .split('\n')
      .filter((line) => line.length > 100);
    expect(wide).toEqual([]);
  });

  test('digits', () => {
    expect([0, 1, -0.5, 123456.7, 1234567, 1e-5, NaN, -Infinity].map((x) => digits(x))).toEqual([
      '0',
      '1.00000',
      '-0.500000',
      '123457',
      '1.23457e+6',
      '1.00000e-5',
      'NaN',
      '-Infinity',
    ]);
  });

  test('JUnit XML escapes what XML cannot hold', () => {
    const xml = junit('<&">', [
      {
        name: 's',
        cases: [{ name: 'a\u0000b', className: 'c', seconds: 0.5, failure: 'x < 1\n"y"' }],
      },
    ]);
    expect(xml).toContain(
      'name="&lt;&amp;&quot;&gt;" tests="1" failures="1" errors="0" time="0.500"',
    );
    expect(xml).toContain('name="a\ufffdb"');
    expect(xml).toContain('<failure message="x &lt; 1">x &lt; 1&#10;&quot;y&quot;</failure>');
  });
});
