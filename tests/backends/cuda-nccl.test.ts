// NCCL, by what stands for it on the emulation: ranks of one process, each on a device of its own,
// and real processes under mpirun.
import path from 'node:path';
import { afterAll, afterEach, describe, expect, test } from 'vitest';
import { cuda, DirAlignError, dirAlignLoss } from '../../ts/index.js';
import { nccl, type Communicator, type NativeCommunicator } from '../../ts/distributed/index.js';
import { dtypes, randomBatch } from '../support/batches.js';
import { compilePackage } from '../support/compiled.js';
import { expectDevice } from '../support/expect-device.js';
import { randomHidden } from '../support/hidden.js';
import { launch, launchers } from '../support/launchers.js';
import { sameBits } from '../support/numbers.js';
import {
  boundaries,
  differences,
  hiddenOnDevice,
  hiddenOverVocab,
  onDevice,
  overVocab,
  within,
  type Compute,
  type ComputeHidden,
} from '../support/ranks.js';

expectDevice();
const isEmulated = cuda.available && (cuda.devices()[0]?.name.includes('mulat') ?? false);
const old = path.join(process.env.DIRALIGN_PREBUILD ?? '', '../tests/simt/nccl-old/libnccl.so.2');
const dpo = dirAlignLoss('dpo', 0.1);

/** Rank r on device r. */
const each: Compute = (objective, batch, run, rank) =>
  onDevice({ device: rank })(objective, batch, run, rank);
const eachHidden: ComputeHidden = (objective, batch, run, rank = 0) =>
  hiddenOnDevice(0, rank)(objective, batch, run);

const join = (options: object = {}, controls: readonly Communicator[] = within(2)) =>
  Promise.all(controls.map((control, device) => nccl(control, { device, ...options })));

async function codeOf(call: Promise<unknown>): Promise<string> {
  try {
    await call;
    return 'ok';
  } catch (error) {
    expect(error).toBeInstanceOf(DirAlignError);
    return (error as DirAlignError).code;
  }
}
const codesOf = (calls: readonly Promise<unknown>[]) => Promise.all(calls.map(codeOf));

describe.runIf(isEmulated)('NCCL', () => {
  afterEach(() => {
    delete process.env.SIMT_NCCL;
    delete process.env.SIMT_FAIL;
  });

  const reasonsOf = async (calls: readonly Promise<unknown>[]): Promise<DirAlignError[]> =>
    (await Promise.allSettled(calls)).map(
      (one) => (one as PromiseRejectedResult).reason as DirAlignError,
    );

  // First: a library is opened once.
  test.each([
    ['/nowhere/libnccl.so.2', '/nowhere/libnccl.so.2'],
    [old, 'is version 21304, expected at least 21400'],
  ])('the library %s', async (library, words) => {
    const reasons = await reasonsOf(
      within(2).map((control, device) => nccl(control, { device, library })),
    );
    for (const { code, message } of reasons) {
      expect(code).toBe('ERR_DIRALIGN_ENGINE');
      expect(message).toContain(words);
    }
  });

  test('a rank that cannot join: the others hear why', async () => {
    const [a, b] = within(2) as [Communicator, Communicator];
    const [own, others] = await reasonsOf([nccl(a, { device: 7 }), nccl(b, { device: 1 })]);
    expect(own?.code).toBe('ERR_DIRALIGN_DEVICE');
    expect(others?.code).toBe('ERR_DIRALIGN_PEER');
    expect(others?.message).toContain(
      `rank 0 of 2 failed: ERR_DIRALIGN_DEVICE: ${own?.message ?? ''}`,
    );
  });

  test('options', async () => {
    const [control] = within(1) as [Communicator];
    expect(await codeOf(nccl(control, { device: 7 }))).toBe('ERR_DIRALIGN_DEVICE');
    expect(await codeOf(nccl(control, { timeout: 0 }))).toBe('ERR_DIRALIGN_OPTION');
    expect(await codeOf(nccl(control, { library: 3 } as never))).toBe('ERR_DIRALIGN_OPTION');
    expect(await codeOf(nccl({} as never))).toBe('ERR_DIRALIGN_OPTION');
    const one = await nccl(control);
    expect(one).toMatchObject({ rank: 0, size: 1, engine: { name: 'NCCL', version: '2.22.3' } });
    expect(one.engine.library).toContain('libnccl.so.2');
    expect([...(await one.allGather(Uint8Array.of(5)))]).toEqual([5]);
    expect(await codeOf(one.split(0, 0))).toBe('ERR_DIRALIGN_OPTION');
    expect(await codeOf(nccl(control, { library: '/nowhere/else.so' }))).toBe(
      'ERR_DIRALIGN_ENGINE',
    );
    await one.close();
    await one.close();
  });

  // Whoever carries bytes adds nothing up: an exchange of the wrong pieces, or in another order.
  test.each(dtypes)('%s: the bits of exchanges through the hosts', async (dtype) => {
    const vocab = 300;
    const cuts = boundaries(vocab, 2);
    const run = { metrics: ['entropy', 'logits/chosen'] } as const;
    const communicators = await join();
    const batch = randomBatch({ seed: 1, sequences: 4, tokens: 5, vocab, dtype, peaked: true });
    const hosts = await overVocab(dpo, batch, cuts, run, 0, each);
    const devices = await overVocab(dpo, batch, cuts, run, 0, each, communicators);
    expect(differences(devices, hosts)).toEqual([]);
    expect(sameBits(devices.gradLogits, hosts.gradLogits)).toBe(true);

    const layer = randomHidden({ seed: 2, sequences: 4, tokens: 5, vocab, size: 7, dtype });
    for (const given of [{}, { memory: 12_000 }, { wire: 'native' as const }]) {
      const asked = { ...run, ...given };
      const a = await hiddenOverVocab(dpo, layer, cuts, asked, 0, eachHidden);
      const b = await hiddenOverVocab(dpo, layer, cuts, asked, 0, eachHidden, communicators);
      const same = ['loss', 'logps', 'coefficients', 'metrics'];
      const memory = 'memory' in given ? given.memory : undefined;
      expect(differences(b, a, memory ? same : [...same, 'gradHidden'])).toEqual([]);
      expect(b.memory).toBeLessThanOrEqual(memory ?? Infinity);
    }
    await Promise.all(communicators.map((one) => one.close()));
  });

  test('several calls at once, an empty shard, and a rank that aborts between them', async () => {
    const communicators = await join();
    const batch = randomBatch({ seed: 3, sequences: 2, tokens: 3, vocab: 50 });
    const call = (signal?: AbortSignal) =>
      communicators.map((vocab, rank) => {
        const own =
          rank === 0
            ? { ...batch, shard: { first: 0, vocab: 50 } }
            : { ...batch, logits: new Float32Array(), shape: [2, 3, 0] as const };
        const given = { ...own, shard: { first: rank * 50, vocab: 50 } };
        return each(dpo, given, { parallel: { vocab }, ...(rank && { signal }) }, rank);
      });
    const calls = [call(), call(AbortSignal.abort()), call()];
    expect(await Promise.all(calls.map(codesOf))).toEqual([
      ['ok', 'ok'],
      ['ERR_DIRALIGN_PEER', 'ERR_DIRALIGN_ABORTED'],
      ['ok', 'ok'],
    ]);
  });

  describe('fails', () => {
    const batch = randomBatch({ seed: 4, sequences: 2, tokens: 3, vocab: 50 });
    const call = (communicators: readonly Communicator[]) =>
      communicators.map((vocab, rank) => {
        const half = batch.logits as Float32Array<ArrayBuffer>;
        const logits = Float32Array.from({ length: 150 }, (_, i) => half[i] ?? 0);
        const own = { ...batch, logits, shape: [2, 3, 25] as const };
        const shard = { first: 25 * rank, vocab: 50 };
        return each(dpo, { ...own, shard }, { parallel: { vocab } }, rank);
      });
    test.each([
      ['a call of the library', { SIMT_FAIL: 'ncclAllGather:2:0' }, 'ERR_DIRALIGN_ENGINE'],
      ['an error that comes later', { SIMT_NCCL: 'broken' }, 'ERR_DIRALIGN_ENGINE'],
      ['an exchange that does not end', { SIMT_NCCL: 'silent' }, 'ERR_DIRALIGN_TIMEOUT'],
    ] as const)('%s', async (_, environment, code) => {
      const controls = within(2);
      const communicators = await join({ timeout: 700 }, controls);
      expect(await codesOf(call(communicators))).toEqual(['ok', 'ok']);
      Object.assign(process.env, environment);
      const [a, b] = await codesOf(call(communicators));
      // A rank may hear of the other's failure before it has its own.
      expect([code, 'ERR_DIRALIGN_PEER']).toContain(a);
      expect([code, 'ERR_DIRALIGN_PEER']).toContain(b);
      expect([a, b]).toContain(code);
      for (const name of Object.keys(environment)) Reflect.deleteProperty(process.env, name);
      const again = await codesOf(call(communicators));
      expect(again.every((one) => one !== 'ok')).toBe(true);
      // The hosts still reach each other.
      expect(await codesOf(call(controls))).toEqual(['ok', 'ok']);
    });

    test('a rank that does not come to join', async () => {
      const [a] = within(2) as [Communicator];
      const stuck: Communicator = {
        ...a,
        // The other has answered and left.
        allGather: (bytes) => Promise.resolve(Uint8Array.from([...bytes, ...bytes])),
      };
      expect(await codeOf(nccl(stuck, { timeout: 300 }))).toBe('ERR_DIRALIGN_TIMEOUT');
    });

    test('tensors on another device, and one rank without NCCL', async () => {
      const controls = within(2);
      const communicators = await join({}, controls);
      const first = communicators.map((vocab, rank) =>
        each(dpo, { ...batch, shard: { first: 0, vocab: 50 } }, { parallel: { vocab } }, 1 - rank),
      );
      expect(await codesOf(first)).toEqual(['ERR_DIRALIGN_DEVICE', 'ERR_DIRALIGN_DEVICE']);
      const mixed = [communicators[0], controls[1]] as [NativeCommunicator, Communicator];
      expect(await codesOf(call(mixed))).toEqual([
        'ERR_DIRALIGN_DISAGREE',
        'ERR_DIRALIGN_DISAGREE',
      ]);
      expect(await codesOf(call(communicators))).toEqual(['ok', 'ok']);
    });
  });

  describe('real processes', () => {
    const compiled = compilePackage();
    afterAll(() => {
      compiled.remove();
    });
    test.each(launchers)('$name: the bits of MPI', async (launcher) => {
      const prints = new Set<string>();
      for (const story of ['device', 'nccl']) {
        const { code, text } = await launch(launcher, 2, 'stories.mjs', [compiled.url, story]);
        expect(code, text).toBe(0);
        const found = [...text.matchAll(/FINGERPRINT (\w+)/g)].map(([, print]) => print ?? '');
        expect(found, text).toHaveLength(2);
        for (const print of found) prints.add(print);
      }
      expect(prints.size).toBe(1);
    });
  });
});
