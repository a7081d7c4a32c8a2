// Fingerprints, and the reference's numbers in a file; at the end a training that uses all of
// diralign/data.
import { createHash } from 'node:crypto';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { afterAll, describe, expect, test, vi } from 'vitest';
import {
  cachedReference,
  collatePairs,
  fingerprint,
  isConversational,
  readPreferences,
  type FingerprintPart,
  type PreferencePair,
} from '../../ts/data/index.js';
import { dirAlignLoss, sequenceLogps, type SequenceLogps } from '../../ts/index.js';
import { readSafetensors, writeSafetensors } from '../../ts/safetensors.js';
import { at, generator, normal, present, sameBits } from '../support/numbers.js';
import {
  detached,
  expectRefusal,
  rejection,
  resizable,
  type Kind,
  type Words,
} from '../support/refusal.js';

const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'diralign-data-'));
afterAll(() => {
  fs.rmSync(folder, { recursive: true });
});
let files = 0;
const freshPath = (extension: string): string => path.join(folder, `${files++}.${extension}`);
function fileOf(content: string | Uint8Array, extension = 'jsonl'): string {
  const file = freshPath(extension);
  fs.writeFileSync(file, content);
  return file;
}

// ----------------------------------------------------------------------------------------------

describe('fingerprint', () => {
  test('by its definition', async () => {
    const parts = createHash('sha256')
      .update('diralign fingerprint 1\nstring:4\n')
      .update(Buffer.from('a\0b\0', 'latin1'))
      .update('Int32Array:8\n')
      .update(Buffer.of(1, 0, 0, 0, 255, 255, 255, 255))
      .update('file:32\n')
      .update(createHash('sha256').update('weights').digest());
    const file = fileOf('weights', 'bin');
    expect(await fingerprint('ab', Int32Array.of(1, -1), { file })).toBe(parts.digest('hex'));
  });

  test('is the same for the same parts', async () => {
    const bytes = new Uint8Array(1e6).map((_, i) => i * i);
    const [a, b] = [fileOf(bytes, 'bin'), fileOf(bytes, 'bin')];
    expect(await fingerprint({ file: a }, 'x')).toBe(
      await fingerprint({ file: pathToFileURL(b) }, 'x'),
    );
    // A view by its elements, not by its buffer; a Buffer is a Uint8Array.
    expect(await fingerprint(bytes.subarray(3, 9))).toBe(
      await fingerprint(Buffer.from(bytes.subarray(3, 9))),
    );
  });

  test('differs with every part, their kinds, their order and where they end', async () => {
    const changed = new Uint8Array(1e6);
    const before = fileOf(changed, 'bin');
    changed[999_999] = 1;
    const lists: FingerprintPart[][] = [
      ['ab'],
      ['a', 'b'],
      ['b', 'a'],
      ['ab', ''],
      ['', 'ab'],
      ['1'],
      [1],
      [0],
      [-0],
      [NaN],
      ['\ud800'],
      ['\ud801'],
      ['\ufffd'],
      [new Float32Array(2)],
      [new Float64Array(1)],
      [new Uint8Array(8)],
      [new ArrayBuffer(8)],
      [new DataView(new ArrayBuffer(8))],
      [new Float32Array(1), new Float32Array(1)],
      [Float32Array.of(0, -0)],
      [{ file: before }],
      [{ file: fileOf(changed, 'bin') }],
      [new Uint8Array(1e6)],
      [createHash('sha256').update(new Uint8Array(1e6)).digest()],
    ];
    const found = await Promise.all(lists.map((parts) => fingerprint(...parts)));
    for (const one of found) expect(one).toMatch(/^[0-9a-f]{64}$/);
    expect(new Set(found).size).toBe(lists.length);
  });

  describe('of files that stand for others', () => {
    let folders = 0;
    const folderOf = (files: Readonly<Record<string, string>>): string => {
      const directory = path.join(folder, `model-${folders++}`);
      fs.mkdirSync(directory);
      for (const [name, content] of Object.entries(files))
        fs.writeFileSync(path.join(directory, name), content);
      return directory;
    };
    const shards = {
      'model-00001-of-00002.safetensors': 'first',
      'model-00002-of-00002.safetensors': 'second',
    };
    const indexName = 'model.safetensors.index.json';
    const [first, second] = Object.keys(shards) as [string, string];
    const index = JSON.stringify({ weight_map: { a: first, b: second, c: first } });

    test.each<[string, Record<string, string>, string]>([
      ['an index', { ...shards, [indexName]: index }, indexName],
      [
        'a variant of it',
        { ...shards, 'model.safetensors.index.fp16.json': index },
        'model.safetensors.index.fp16.json',
      ],
      [
        'a PyTorch index',
        { ...shards, 'pytorch_model.bin.index.json': index },
        'pytorch_model.bin.index.json',
      ],
      ['the folder of an index', { ...shards, [indexName]: index }, '.'],
      ['a folder without one', shards, '.'],
      [
        'a model of TensorFlow.js',
        {
          ...shards,
          'model.json': JSON.stringify({
            weightsManifest: [{ paths: [first] }, { paths: [second] }],
          }),
        },
        'model.json',
      ],
    ])('every shard counts: %s', async (_, files, name) => {
      const found = new Set([await fingerprint({ file: path.join(folderOf(files), name) })]);
      for (const changed of [first, second]) {
        found.add(
          await fingerprint({ file: path.join(folderOf({ ...files, [changed]: 'other' }), name) }),
        );
      }
      expect(found.size).toBe(3);
      // And nothing else: a cache beside the model does not make it another.
      const beside = folderOf({
        ...files,
        'reference.safetensors': 'numbers',
        'README.md': 'text',
      });
      expect(found).toContain(await fingerprint({ file: pathToFileURL(path.join(beside, name)) }));
    });

    // Each file whose bytes the numbers depend on makes another fingerprint; others make none.
    const adapter = {
      'adapter_config.json': '{"lora_alpha":16}',
      'adapter_model.safetensors': 'deltas',
    };
    const base = { 'model.safetensors': 'base' };
    const numbered = (extension: string): Record<string, string> => ({
      [`m-00001-of-00003.${extension}`]: 'a',
      [`m-00002-of-00003.${extension}`]: 'b',
      [`m-00003-of-00003.${extension}`]: 'c',
    });
    const onnx = {
      'model.onnx': 'graph',
      'model.onnx_data': 'a',
      'model.onnx_data_1': 'b',
      'model.onnx.data': 'c',
    };
    test.each<[string, Record<string, string>, string]>([
      ['an adapter, by its weights', adapter, 'adapter_model.safetensors'],
      ['an adapter, by its configuration', adapter, 'adapter_config.json'],
      ['an adapter, by its folder', adapter, '.'],
      ['an adapter and its base, by their folder', { ...adapter, ...base }, '.'],
      ['an adapter and its base in shards', { ...adapter, ...shards, [indexName]: index }, '.'],
      [
        'an adapter of PyTorch',
        { 'adapter_config.json': '{}', 'adapter_model.bin': 'deltas' },
        'adapter_model.bin',
      ],
      [
        'an adapter in shards',
        {
          'adapter_config.json': '{}',
          'adapter_model-1-of-2.safetensors': 'a',
          'adapter_model-2-of-2.safetensors': 'b',
        },
        '.',
      ],
      ['the first shard of GGUF', numbered('gguf'), 'm-00001-of-00003.gguf'],
      ['another shard of GGUF', numbered('gguf'), 'm-00003-of-00003.gguf'],
      ['a folder of GGUF', numbered('gguf'), '.'],
      ['a shard of safetensors', numbered('safetensors'), 'm-00002-of-00003.safetensors'],
      ['a folder of PyTorch', numbered('bin'), '.'],
      ['a graph of ONNX', onnx, 'model.onnx'],
      ['a folder of ONNX', onnx, '.'],
    ])('each file counts, and no other: %s', async (_, files, name) => {
      const of = async (content: Record<string, string>): Promise<string> =>
        fingerprint({ file: path.join(folderOf(content), name) });
      const found = new Set([await of(files)]);
      for (const changed of Object.keys(files)) found.add(await of({ ...files, [changed]: '{ }' }));
      expect(found.size).toBe(Object.keys(files).length + 1);
      const beside = { 'model_q4.onnx_data': 'x', 'README.md': 'text', 'training.log': 'x' };
      expect(found).toContain(await of({ ...files, ...beside }));
    });

    test('a folder of PyTorch is its index, its model, or its only file', async () => {
      const binShards = { 'pytorch_model-1-of-1.bin': 'a', 'training_args.bin': 'x' };
      const binIndex = JSON.stringify({ weight_map: { a: 'pytorch_model-1-of-1.bin' } });
      const cases: [Record<string, string>, string][] = [
        [
          { ...binShards, 'pytorch_model.bin.index.json': binIndex },
          'pytorch_model.bin.index.json',
        ],
        [binShards, 'pytorch_model-1-of-1.bin'],
        [{ 'pytorch_model.bin': 'a', 'optimizer.bin': 'x' }, 'pytorch_model.bin'],
        [{ 'weights.gguf': 'a' }, 'weights.gguf'],
      ];
      for (const [files, name] of cases) {
        const directory = folderOf(files);
        const file = path.join(directory, name);
        expect(await fingerprint({ file: directory })).toBe(await fingerprint({ file }));
      }
    });

    test('by its definition: the index, then its shards as it first names them', async () => {
      const hash = createHash('sha256').update('diralign fingerprint 1\nfiles:96\n');
      for (const content of [index, 'first', 'second'])
        hash.update(createHash('sha256').update(content).digest());
      const directory = folderOf({ ...shards, [indexName]: index });
      expect(await fingerprint({ file: directory })).toBe(hash.digest('hex'));
    });

    test('a folder of one file is that file', async () => {
      const directory = folderOf({
        'model.safetensors': 'all',
        'reference.safetensors': 'numbers',
      });
      expect(await fingerprint({ file: directory })).toBe(
        await fingerprint({ file: path.join(directory, 'model.safetensors') }),
      );
    });

    test('files that only have such a name are what they are', async () => {
      for (const [name, content] of [
        ['search.index.json', '{}'],
        ['model.json', '[1]'],
        ['model.json', 'no JSON'],
      ] as const) {
        const directory = folderOf({ [name]: content, plain: content });
        expect(await fingerprint({ file: path.join(directory, name) })).toBe(
          await fingerprint({ file: path.join(directory, 'plain') }),
        );
      }
    });

    test('refused where a file is missing, elsewhere, or one of several', async () => {
      const outside = { [indexName]: JSON.stringify({ weight_map: { a: '../x' } }) };
      const cases: [Record<string, string>, readonly string[]][] = [
        [{ [first]: 'first', [indexName]: index }, [second, 'ENOENT']],
        [outside, ['"../x"', 'folder']],
        [{ [indexName]: '{' }, ['not JSON']],
        [{ 'README.md': 'text' }, ['holds no']],
        [{ 'a.safetensors': 'a', 'b.safetensors': 'b' }, ['"a.safetensors"', '"b.safetensors"']],
        [{ 'a.gguf': 'a', 'b.gguf': 'b' }, ["'a.gguf', 'b.gguf'; expected one"]],
        [{ 'm-1-of-2.gguf': 'a' }, ['"m-1-of-2.gguf" but not "m-2-of-2.gguf"']],
        [{ ...shards, 'x-1-of-1.safetensors': 'x' }, ['shards of several sets']],
      ];
      for (const [files, words] of cases) {
        const directory = folderOf(files);
        expectRefusal(await rejection(fingerprint({ file: directory })), 'RangeError FILE', [
          'parts[0]',
          directory,
          ...words,
        ]);
      }
    });
  });

  test('refusals', async () => {
    const loose = fingerprint as unknown as (...args: readonly unknown[]) => Promise<string>;
    expectRefusal(await rejection(loose()), 'RangeError OPTION', 'parts | at least one');
    for (const part of [undefined, null, {}, [1], { file: 5 }, () => 'a']) {
      expectRefusal(await rejection(loose('a', part)), 'TypeError OPTION', 'parts[1] | { file }');
    }
    expectRefusal(
      await rejection(loose({ file: 'a', start: 1 })),
      'TypeError OPTION',
      'parts[0].start | file',
    );
    expectRefusal(await rejection(loose(Symbol('x'))), 'TypeError OPTION', 'parts[0] | Symbol(x)');
    for (const gone of [detached(new Int32Array(2)), detached(new Int32Array(2)).buffer]) {
      expectRefusal(await rejection(loose(gone)), 'TypeError SHAPE', 'parts[0] | detached');
    }
    expectRefusal(await rejection(loose(resizable(4))), 'TypeError SHAPE', 'parts[0] | resizable');
    for (const url of ['file://elsewhere/a', 'file:///a%2Fb', 'https://example.org/a']) {
      expectRefusal(
        await rejection(loose({ file: new URL(url) })),
        'RangeError FILE',
        `parts[0] | ${url}`,
      );
    }
    const missing = freshPath('bin');
    expectRefusal(
      await rejection(loose({ file: missing })),
      'RangeError FILE',
      `parts[0] | ${missing} | ENOENT`,
    );
  });
});

// ----------------------------------------------------------------------------------------------

describe('cachedReference', () => {
  const numbers = (): SequenceLogps => ({
    logps: Float64Array.of(-1 / 3, -Number.MIN_VALUE, -1e300, -0),
    counts: Int32Array.of(1, 2, 3, 0),
  });
  const never = (): SequenceLogps => {
    throw new Error('computed again');
  };
  const filled = async (): Promise<string> => {
    const file = freshPath('safetensors');
    await cachedReference(file, { fingerprint: 'f' }, numbers);
    return file;
  };

  test('computes once, and gives the same bits after', async () => {
    const file = freshPath('safetensors');
    let calls = 0;
    const compute = async (): Promise<SequenceLogps> => {
      calls++;
      return Promise.resolve(numbers());
    };
    const first = await cachedReference(
      file,
      { fingerprint: fingerprint('data', 'model') },
      compute,
    );
    const second = await cachedReference(
      file,
      { fingerprint: await fingerprint('data', 'model') },
      compute,
    );
    expect(calls).toBe(1);
    for (const result of [first, second]) {
      expect(Object.keys(result)).toEqual(['logps', 'counts']);
      expect(sameBits(result.logps, numbers().logps)).toBe(true);
      expect(sameBits(result.counts, numbers().counts)).toBe(true);
    }
    expect(fs.readdirSync(folder).filter((name) => name.endsWith('.part'))).toEqual([]);
  });

  test('another fingerprint is refused, and the file stays', async () => {
    const file = await filled();
    const before = fs.readFileSync(file);
    const error = await rejection(cachedReference(file, { fingerprint: 'g' }, numbers));
    expectRefusal(error, 'RangeError REFERENCE', `${file} | 'f' | 'g' | Delete`);
    expect(fs.readFileSync(file)).toEqual(before);
  });

  test('no damage goes unseen: any byte changed, any length', async () => {
    const file = await filled();
    const whole = fs.readFileSync(file);
    const refuses = async (content: Uint8Array): Promise<void> => {
      fs.writeFileSync(file, content);
      // A changed fingerprint is damage too: the checksum covers it.
      expectRefusal(
        await rejection(cachedReference(file, { fingerprint: 'f' }, never)),
        'RangeError FILE',
        file,
      );
      expect(fs.readFileSync(file)).toEqual(content);
    };
    const spaces = whole.lastIndexOf('}}') + 2;
    const data = 8 + Number(whole.readBigUInt64LE(0));
    for (let i = 0; i < whole.length; i++) {
      const content = Buffer.from(whole);
      content[i] = at(content, i) ^ 1;
      // Padding between header and data says nothing; JSON takes no other character there.
      if (!(i >= spaces && i < data && content[i] === 0x20)) await refuses(content);
    }
    for (let length = 0; length < whole.length; length += 7)
      await refuses(whole.subarray(0, length));
    await refuses(Buffer.concat([whole, Buffer.of(0)]));
    fs.writeFileSync(file, whole);
    await cachedReference(file, { fingerprint: 'f' }, never);
  });

  test('other files are refused', async () => {
    const other = freshPath('safetensors');
    writeSafetensors(other, { logps: { dtype: 'F64', shape: [1], data: Float64Array.of(-1) } });
    expectRefusal(
      await rejection(cachedReference(other, { fingerprint: 'f' }, never)),
      'RangeError FILE',
      `${other} | format`,
    );
    const { metadata } = readSafetensors(await filled());
    const wide = { dtype: 'F32', shape: [1], data: Float32Array.of(-1) } as const;
    const counts = { dtype: 'I32', shape: [1], data: Int32Array.of(1) } as const;
    writeSafetensors(other, { logps: wide, counts }, Object.fromEntries(metadata));
    expectRefusal(
      await rejection(cachedReference(other, { fingerprint: 'f' }, never)),
      'RangeError FILE',
      '"logps" | F64',
    );
    expectRefusal(
      await rejection(cachedReference(folder, { fingerprint: 'f' }, never)),
      'RangeError FILE',
      `${folder} | regular`,
    );
  });

  test('nothing is computed where nothing can be written', async () => {
    const file = path.join(folder, 'no', 'such', 'folder.safetensors');
    expectRefusal(
      await rejection(cachedReference(file, { fingerprint: 'f' }, never)),
      'RangeError FILE',
      `${file} | ENOENT`,
    );
  });

  test('a failed computation leaves no file, and can be done again', async () => {
    const file = freshPath('safetensors');
    const cause = new Error('out of memory');
    expect(
      await rejection(cachedReference(file, { fingerprint: 'f' }, () => Promise.reject(cause))),
    ).toBe(cause);
    expect(fs.existsSync(file)).toBe(false);
    await cachedReference(file, { fingerprint: 'f' }, numbers);
    expect(fs.existsSync(file)).toBe(true);
  });

  /** The warnings of the package while `action` runs. */
  async function warnings(action: () => Promise<unknown>): Promise<string[]> {
    const emitted = vi.spyOn(process, 'emitWarning').mockImplementation(() => undefined);
    try {
      await action();
      for (const [, options] of emitted.mock.calls)
        expect(options).toEqual({ type: 'DirAlignWarning', code: 'DIRALIGN_CACHE' });
      return emitted.mock.calls.map(([message]) => String(message));
    } finally {
      emitted.mockRestore();
    }
  }
  const leftovers = (place: string): string[] =>
    fs.readdirSync(place).filter((name) => name.endsWith('.part'));

  // What the file becomes while the numbers are computed, and what its warning says.
  const failures: [string, (file: string) => void, RegExp][] = [
    [
      'its folder is gone',
      (file) => {
        fs.rmdirSync(path.dirname(file));
      },
      /cannot be written: .*ENOENT/,
    ],
    [
      'there is a folder',
      (file) => {
        fs.mkdirSync(file);
      },
      /not a regular file/,
    ],
    [
      'there is another file',
      (file) => {
        fs.writeFileSync(file, 'something else');
      },
      /header of|truncated/,
    ],
  ];
  test.each(failures)(
    'what was computed is given, with a warning, where %s',
    async (_, spoil, reason) => {
      const file = path.join(fs.mkdtempSync(path.join(folder, 'place-')), 'a.safetensors');
      const said = await warnings(async () => {
        const given = await cachedReference(file, { fingerprint: 'f' }, () => {
          spoil(file);
          return numbers();
        });
        expect(sameBits(given.logps, numbers().logps)).toBe(true);
        expect(given.counts).toEqual(numbers().counts);
      });
      expect(said).toEqual([expect.stringMatching(reason)]);
      expect(said[0]).toContain(file);
    },
  );

  test('and where the disk is full or broken: no file stays', async () => {
    const place = fs.mkdtempSync(path.join(folder, 'place-'));
    const full = Object.assign(new Error('ENOSPC: no space left on device'), { code: 'ENOSPC' });
    for (const call of ['writeSync', 'fsyncSync', 'renameSync', 'closeSync'] as const) {
      const file = path.join(place, `${call}.safetensors`);
      const said = await warnings(async () => {
        const given = await cachedReference(file, { fingerprint: 'f' }, () => {
          vi.spyOn(fs, call).mockImplementation(() => {
            throw full;
          });
          return numbers();
        }).finally(() => vi.restoreAllMocks());
        expect(given.logps).toEqual(numbers().logps);
      });
      expect([call, said]).toEqual([call, [expect.stringMatching(/cannot be written: .*ENOSPC/)]]);
      expect(fs.readdirSync(place)).toEqual([]);
    }
  });

  test('a file system that cannot flush costs nothing', async () => {
    const place = fs.mkdtempSync(path.join(folder, 'place-'));
    for (const code of ['EINVAL', 'EPERM', 'ENOTSUP', 'EISDIR']) {
      const file = path.join(place, `${code}.safetensors`);
      const said = await warnings(async () => {
        await cachedReference(file, { fingerprint: 'f' }, () => {
          vi.spyOn(fs, 'fsyncSync').mockImplementation(() => {
            throw Object.assign(new Error(code), { code });
          });
          return numbers();
        }).finally(() => vi.restoreAllMocks());
      });
      expect([code, said, leftovers(place)]).toEqual([code, [], []]);
      expect((await cachedReference(file, { fingerprint: 'f' }, never)).logps).toEqual(
        numbers().logps,
      );
    }
  });

  test('a folder that cannot be flushed costs nothing, whatever it says', async () => {
    const file = freshPath('safetensors');
    const said = await warnings(async () => {
      await cachedReference(file, { fingerprint: 'f' }, () => {
        const { fsyncSync } = fs;
        let calls = 0;
        vi.spyOn(fs, 'fsyncSync').mockImplementation((descriptor) => {
          if (calls++ > 0) throw Object.assign(new Error('EIO'), { code: 'EIO' });
          fsyncSync(descriptor);
        });
        return numbers();
      }).finally(() => vi.restoreAllMocks());
    });
    expect(said).toEqual([]);
    expect((await cachedReference(file, { fingerprint: 'f' }, never)).logps).toEqual(
      numbers().logps,
    );
  });

  test('a name as long as a name can be', async () => {
    const file = path.join(folder, `${'n'.repeat(243)}.safetensors`);
    expect(await warnings(() => cachedReference(file, { fingerprint: 'f' }, numbers))).toEqual([]);
    expect((await cachedReference(file, { fingerprint: 'f' }, never)).logps).toEqual(
      numbers().logps,
    );
  });

  test('results that are no such numbers are refused, and not written', async () => {
    const file = freshPath('safetensors');
    const { logps, counts } = numbers();
    const bad: [unknown, Kind, Words][] = [
      [undefined, 'TypeError REFERENCE', 'compute | undefined'],
      [logps, 'TypeError REFERENCE', 'logps | undefined'],
      [
        { logps: Float32Array.from(logps), counts },
        'TypeError REFERENCE',
        'logps | Float64Array | Float32Array',
      ],
      [{ logps, counts: [1, 2, 3, 0] }, 'TypeError REFERENCE', 'counts | Int32Array | Array'],
      [{ logps, counts: counts.subarray(1) }, 'RangeError REFERENCE', 'counts | 3 | 4'],
      [
        { logps: Float64Array.of(-1, NaN, 0, 0), counts },
        'RangeError REFERENCE',
        'logps | NaN | index 1',
      ],
      [
        { logps: Float64Array.of(-1, 0, -Infinity, 0), counts },
        'RangeError REFERENCE',
        'logps | -Infinity | index 2',
      ],
      [
        { logps, counts: Int32Array.of(1, -1, 0, 0) },
        'RangeError REFERENCE',
        'counts | -1 | index 1',
      ],
    ];
    for (const [result, kind, words] of bad) {
      const error = await rejection(
        cachedReference(file, { fingerprint: 'f' }, () => result as SequenceLogps),
      );
      expectRefusal(error, kind, words);
      expect(fs.existsSync(file)).toBe(false);
    }
  });

  test('what another process wrote meanwhile stands, and is given if it is the same', async () => {
    const theirs = await filled();
    for (const ours of ['f', 'g']) {
      const file = freshPath('safetensors');
      const said = await warnings(async () => {
        const { logps } = await cachedReference(file, { fingerprint: ours }, () => {
          fs.copyFileSync(theirs, file);
          return { logps: Float64Array.of(-7), counts: Int32Array.of(7) };
        });
        expect(logps).toEqual(ours === 'f' ? numbers().logps : Float64Array.of(-7));
      });
      expect(said).toEqual(
        ours === 'f' ? [] : [expect.stringMatching(/fingerprint 'f'; expected 'g'/)],
      );
      expect(fs.readFileSync(file)).toEqual(fs.readFileSync(theirs));
    }
  });

  test('the numbers are its own, not those of compute', async () => {
    const mine = numbers();
    const { logps } = await cachedReference(
      freshPath('safetensors'),
      { fingerprint: 'f' },
      () => mine,
    );
    mine.logps.fill(0);
    expect(logps).toEqual(numbers().logps);
  });

  test('no sequences', async () => {
    const file = freshPath('safetensors');
    const none = (): SequenceLogps => ({ logps: new Float64Array(), counts: new Int32Array() });
    await cachedReference(file, { fingerprint: 'f' }, none);
    expect(await cachedReference(file, { fingerprint: 'f' }, never)).toEqual(none());
  });

  test('arguments', async () => {
    const loose = cachedReference as unknown as (...args: readonly unknown[]) => Promise<unknown>;
    const file = freshPath('safetensors');
    expectRefusal(
      await rejection(loose(5, { fingerprint: 'f' }, never)),
      'TypeError OPTION',
      'file | 5',
    );
    for (const options of [undefined, null, 'f', 5, Symbol('x'), ['f']]) {
      expectRefusal(
        await rejection(loose(file, options, never)),
        'TypeError OPTION',
        'options | { fingerprint }',
      );
    }
    for (const given of [undefined, null, 5, {}, Symbol('x')]) {
      expectRefusal(
        await rejection(loose(file, { fingerprint: given }, never)),
        'TypeError OPTION',
        'fingerprint | string',
      );
    }
    expectRefusal(
      await rejection(loose(file, { fingerPrint: 'f' }, never)),
      'TypeError OPTION',
      "'fingerprint'",
    );
    expectRefusal(
      await rejection(loose(file, { fingerprint: '' }, never)),
      'TypeError OPTION',
      'fingerprint',
    );
    expectRefusal(
      await rejection(loose(file, { fingerprint: 'f' })),
      'TypeError OPTION',
      'compute | undefined',
    );
  });
});

// ----------------------------------------------------------------------------------------------

test.each(['padded', 'packed'] as const)(
  'from a file of text to a trained model, %s',
  async (layout) => {
    // A model of bytes: the logits after a byte are its row of a table. It is to prefer answers in
    // lower case.
    const vocab = 256;
    const random = generator(5);
    const table = Float32Array.from({ length: vocab * vocab }, () => 0.1 * normal(random));
    const initial = table.slice();
    const forward = (weights: Float32Array, ids: Int32Array): Float32Array => {
      const logits = new Float32Array(ids.length * vocab);
      ids.forEach((id, row) => {
        logits.set(weights.subarray(id * vocab, (id + 1) * vocab), row * vocab);
      });
      return logits;
    };

    const words = ['apple', 'pear', 'plum', 'cherry', 'fig', 'quince'];
    const records = words.map((word) => ({
      prompt: `Spell ${word}: `,
      chosen: word,
      rejected: word.toUpperCase(),
    }));
    const file = fileOf(records.map((record) => JSON.stringify(record)).join('\n'));
    const examples: PreferencePair[] = [];
    for await (const record of readPreferences(file)) {
      if (isConversational(record)) throw new Error('expected plain text');
      const ids = (text: string): number[] => [...Buffer.from(text)];
      examples.push({
        prompt: ids(record.prompt),
        chosen: [...ids(record.chosen), 0],
        rejected: [...ids(record.rejected), 0],
      });
    }

    const batchOf = (part: readonly PreferencePair[], weights: Float32Array) => {
      const options = { layout, pad: 0, maxLength: 14, truncation: 'keep_end' } as const;
      const pairs = collatePairs(part, options);
      const shape =
        'tokens' in pairs
          ? ([pairs.sequences, pairs.tokens, vocab] as const)
          : ([pairs.rows, vocab] as const);
      return { ...pairs, logits: forward(weights, pairs.inputIds), shape };
    };

    // The whole data set at once; the batches below pick their sequences' numbers from it.
    let computed = 0;
    const cache = freshPath('safetensors');
    const reference = async (): Promise<SequenceLogps> =>
      cachedReference(
        cache,
        { fingerprint: fingerprint({ file }, initial, 'keep_end', 14) },
        () => {
          computed++;
          return sequenceLogps(batchOf(examples, initial));
        },
      );
    const { logps, counts } = await reference();
    expect(await reference()).toEqual({ logps, counts });
    expect(computed).toBe(1);
    expect([...counts]).toEqual([...words, ...words].map((word) => word.length + 1));

    const dpo = dirAlignLoss('dpo', 0.5);
    const losses: number[] = [];
    for (let step = 0; step < 30; step++) {
      const picked = [0, 1, 2].map((i) => (3 * step + i) % examples.length);
      const batch = batchOf(
        picked.map((i) => present(examples[i])),
        table,
      );
      const numbers = Float64Array.from(
        [...picked, ...picked.map((i) => i + examples.length)],
        (i) => at(logps, i),
      );
      const { loss, gradLogits } = dpo({ ...batch, reference: numbers });
      losses.push(loss);
      const gradient = gradLogits;
      batch.inputIds.forEach((id, row) => {
        for (let v = 0; v < vocab; v++)
          table[id * vocab + v] = at(table, id * vocab + v) - 2 * at(gradient, row * vocab + v);
      });
    }
    // The first batch of an untrained model: policy == reference. The cache is of the whole data
    // set, the numbers the same bits.
    expect(losses[0]).toBe(Math.LN2);
    const trained = dpo({ ...batchOf(examples, table), reference: logps }, { gradient: 'none' });
    expect(trained.loss).toBeLessThan(0.1 * Math.LN2);
    expect(trained.metrics['rewards/accuracies']).toBe(1);
    // A model that has moved is not the one that the cache is of.
    const moved = cachedReference(
      cache,
      { fingerprint: fingerprint({ file }, table, 'keep_end', 14) },
      () => ({ logps, counts }),
    );
    expectRefusal(await rejection(moved), 'RangeError REFERENCE', cache);
  },
);
