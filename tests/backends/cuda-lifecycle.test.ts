// The life of work and memory on a device: workers and processes that end in mid-computation, the
// collector, and failures of CUDA planted by the emulation.
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { cuda } from '../../ts/index.js';
import { compilePackage, type Compiled } from '../support/compiled.js';
import { expectDevice } from '../support/expect-device.js';
import { runScript, type Ended } from '../support/processes.js';

expectDevice();

const isEmulated = cuda.devices()[0]?.name.includes('mulat') ?? false;

let compiled: Compiled;
beforeAll(() => {
  compiled = compilePackage();
});
afterAll(() => {
  compiled.remove();
});

const run = (
  name: string,
  ...rest: readonly [string[]?, string[]?, NodeJS.ProcessEnv?]
): Promise<Ended> => runScript(compiled, name, ...rest);

describe.runIf(cuda.available)('processes and workers', () => {
  test('20 workers terminated while a device computes for them', async () => {
    expect(await run('cuda-terminate.mjs', ['20'])).toEqual({
      stdout: 'terminated 20',
      stderr: '',
      code: 0,
    });
  });

  test('the same with a device that is late', async () => {
    const ended = await run('cuda-terminate.mjs', ['8'], [], { SIMT_DELAY: '3000' });
    expect(ended).toEqual({ stdout: 'terminated 8', stderr: '', code: 0 });
  });

  test.each(['0', '5000'])('process.exit() while a device computes, %s us late', async (delay) => {
    expect(await run('cuda-exit.mjs', [], [], { SIMT_DELAY: delay })).toEqual({
      stdout: 'leaving',
      stderr: '',
      code: 3,
    });
  });

  test('a pending computation keeps the process alive, buffers and streams do not', async () => {
    const { stdout, stderr } = await run('cuda-pending.mjs');
    expect(stdout).toMatch(/^loss \d+\.\d+$/);
    expect(stderr).toBe('');
  });

  test('what was forgotten is collected, with one warning; what is in use is not', async () => {
    const { stdout, code } = await run('cuda-collect.mjs', [], ['--expose-gc', '--no-warnings']);
    expect(code).toBe(0);
    const report = JSON.parse(stdout) as Record<string, unknown>;
    expect(report).toMatchObject({ afterDisposal: 0, isFreed: true });
    expect(report.warnings).toEqual([
      {
        name: 'DirAlignWarning',
        code: 'DIRALIGN_LEAK',
        message: expect.stringMatching(/dispose\(\).*`using`/) as string,
      },
    ]);
  });

  test.runIf(isEmulated)('the collector knows how much is at stake', async () => {
    const { stdout, stderr } = await run('cuda-pressure.mjs', [], ['--no-warnings'], {
      SIMT_MEMORY: String(2 ** 28),
    });
    expect([stdout, stderr]).toEqual(['collected', '']);
  });
});

interface Failure {
  readonly name: string;
  readonly code: string;
  readonly message: string;
  readonly cause?: { readonly name: string; readonly code: number };
}
interface Report {
  readonly first?: Failure;
  readonly left?: number;
  readonly again?: Failure;
  readonly onCpu: boolean;
}

// On a device, memory that is full is part of gpu:check.
describe.runIf(isEmulated)('failures of CUDA', () => {
  const fail = async (what: string, how: string): Promise<Report> => {
    const { stdout, stderr, code } = await run('cuda-failure.mjs', [what, how]);
    expect([stderr, code]).toEqual(['', 0]);
    return JSON.parse(stdout) as Report;
  };
  const outOfMemory = { name: 'cudaErrorMemoryAllocation', code: 2 };
  const illegal = { name: 'cudaErrorIllegalAddress', code: 700 };

  test.each([
    [
      'cudaMalloc:2:0:2',
      'alloc',
      /allocating 100 bytes on device 0: cudaMalloc: cudaErrorMemoryAllocation: out of memory/,
    ],
    ['cudaMalloc:2:0:2', 'sync', /allocating 3200 bytes on device 0/],
    [
      'cudaMallocFromPoolAsync:2:0:2',
      'sync',
      /computing on the device: cudaMallocFromPoolAsync: cudaErrorMemoryAllocation/,
    ],
    ['cudaMallocFromPoolAsync:2:0:2', 'async', /computing on the device/],
    ['cudaMallocFromPoolAsync:2:0:2', 'staged', /computing on the device/],
    ['cudaMallocFromPoolAsync:2:0:2', 'staged async', /computing on the device/],
    ['cudaHostAlloc:2:0', 'copy async', /copying 1048576 bytes to the device/],
    ['cudaHostRegister:2:0', 'pin', /page-locking 64 bytes/],
  ])('out of memory, %s: %s', async (what, how, words) => {
    const { first, left, again, onCpu } = await fail(what, how);
    expect(first).toMatchObject({
      name: 'DirAlignError',
      code: 'ERR_DIRALIGN_DEVICE',
      cause: outOfMemory,
    });
    expect(first?.message).toMatch(words);
    // The same call works when there is memory again.
    expect(left).toBeLessThanOrEqual(0);
    expect(again).toBeUndefined();
    expect(onCpu).toBe(true);
  });

  test('other errors keep their names', async () => {
    const { first, again } = await fail('cudaStreamCreateWithFlags:46:0', 'stream');
    expect(first).toMatchObject({
      code: 'ERR_DIRALIGN_DEVICE',
      cause: { name: 'cudaErrorDevicesUnavailable', code: 46 },
    });
    expect(first?.message).toMatch(/creating a stream/);
    expect(again).toBeUndefined();
  });

  test('a notification that cannot be had', async () => {
    const { first, again } = await fail('cudaStreamAddCallback:400:0', 'async');
    expect(first).toMatchObject({
      code: 'ERR_DIRALIGN_DEVICE',
      cause: { name: 'cudaErrorInvalidResourceHandle', code: 400 },
    });
    expect(again).toBeUndefined();
  });

  test.each(['sync', 'async', 'staged', 'staged async'])(
    'a kernel that fails, %s: on the call that caused it; the device is lost, the process is not',
    async (how) => {
      const { first, again, onCpu } = await fail('kernel:700:0', how);
      expect(first).toMatchObject({
        name: 'DirAlignError',
        code: 'ERR_DIRALIGN_DEVICE',
        cause: illegal,
      });
      expect(first?.message).toMatch(/illegal memory access/);
      expect(again).toMatchObject({ code: 'ERR_DIRALIGN_DEVICE', cause: illegal });
      expect(onCpu).toBe(true);
    },
  );

  test('a device that is really full', async () => {
    const { stdout, stderr } = await run('cuda-full.mjs', [], [], {
      SIMT_MEMORY: String(2 ** 22),
      SIMT_DEVICES: '1',
    });
    expect(stderr).toBe('');
    const { left, ...report } = JSON.parse(stdout) as Record<string, unknown>;
    expect(report).toEqual({
      code: 'ERR_DIRALIGN_DEVICE',
      cause: 'cudaErrorMemoryAllocation',
      same: true,
    });
    // CUDA empties its pools before it gives up.
    expect(left).toBeLessThanOrEqual(0);
  });
});
