// Devices that lack something, or of which only a part is there: the emulation leaves it out in a
// process of its own.
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { cuda } from '../../ts/index.js';
import { compilePackage, type Compiled } from '../support/compiled.js';
import { expectDevice } from '../support/expect-device.js';
import { runScript } from '../support/processes.js';

expectDevice();

const isEmulated = cuda.available && (cuda.devices()[0]?.name.includes('mulat') ?? false);

interface Outcome {
  readonly digest: string;
  readonly error?: { readonly code: string; readonly message: string };
  readonly missing: number;
}

describe.runIf(isEmulated)('a device', () => {
  let compiled: Compiled;
  let whole: Outcome;
  const on = async (environment: NodeJS.ProcessEnv): Promise<Outcome> => {
    const { stdout, stderr } = await runScript(compiled, 'cuda-lacking.mjs', [], [], environment);
    expect(stderr).toBe('');
    return JSON.parse(stdout) as Outcome;
  };
  beforeAll(async () => {
    compiled = compilePackage();
    whole = await on({});
    expect(whole).toMatchObject({ missing: 0 });
    expect(whole.error).toBeUndefined();
  });
  afterAll(() => {
    compiled.remove();
  });

  test.each<[string, NodeJS.ProcessEnv]>([
    ['without cooperative launches', { SIMT_COOPERATIVE: '0' }],
    ['of which a partition holds fewer blocks than it says', { SIMT_PARTITION: '1' }],
    [
      'whose blocks do not all fit together at the first call',
      { SIMT_FAIL: 'cudaLaunchCooperativeKernel:720:0' },
    ],
    ['without clusters of blocks', { SIMT_CLUSTERS: '0' }],
    ['without clusters or cooperative launches', { SIMT_CLUSTERS: '0', SIMT_COOPERATIVE: '0' }],
    ['of which a partition holds no cluster', { SIMT_FAIL: 'cudaLaunchKernelExC:912:0' }],
    ['that has no resources for a cluster', { SIMT_FAIL: 'cudaLaunchKernelExC:701:0' }],
    [
      'that does not tell how many clusters it holds',
      { SIMT_FAIL: 'cudaOccupancyMaxActiveClusters:801:0:99' },
    ],
    ['without memory pools', { SIMT_POOLS: '0' }],
  ])('%s gives the same bits, and its memory back', async (_, environment) => {
    expect(await on(environment)).toEqual(whole);
  });

  test.each<[string, number]>([
    ['cudaErrorNoKernelImageForDevice', 209],
    ['cudaErrorInvalidDeviceFunction', 98],
    ['cudaErrorUnsupportedPtxVersion', 222],
  ])('that the build has no code for is told so: %s', async (name, code) => {
    const { error } = await on({
      SIMT_FAIL: `cudaOccupancyMaxActiveBlocksPerMultiprocessor:${code}:0:99`,
      SIMT_CAPABILITY: '87',
    });
    expect(error?.code).toBe('ERR_DIRALIGN_DEVICE');
    for (const part of [name, 'machine code for emulation', 'compute capability 8.7', '--cuda 8.7'])
      expect(error?.message).toContain(part);
  });

  test('whose multiprocessors hold no block of a kernel is refused', async () => {
    const { error } = await on({ SIMT_OCCUPANCY: '0' });
    expect(error?.code).toBe('ERR_DIRALIGN_DEVICE');
    expect(error?.message).toContain('no block of the loss kernel fits');
  });

  test('that refuses a cluster for another reason fails', async () => {
    const { error } = await on({ SIMT_FAIL: 'cudaLaunchKernelExC:46:0' });
    expect(error?.code).toBe('ERR_DIRALIGN_DEVICE');
    expect(error?.message).toContain('cudaErrorDevicesUnavailable');
  });

  test('that refuses a cooperative launch for another reason fails', async () => {
    const { error } = await on({ SIMT_FAIL: 'cudaLaunchCooperativeKernel:701:0' });
    expect(error?.code).toBe('ERR_DIRALIGN_DEVICE');
    expect(error?.message).toContain('cudaErrorLaunchOutOfResources');
  });
});
