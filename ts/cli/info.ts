import os from 'node:os';
import path from 'node:path';
import { availability } from '../device/status.js';
import { cuda } from '../device/cuda.js';
import { DirAlignError } from '../errors.js';
import { native, nativePath, type CudaStatus } from '../native/interface.js';
import { environment, libc } from '../native/system.js';
import type { DeviceInfo } from '../device/info.js';
import { parse } from './arguments.js';
import { whyNoCuda } from './backends.js';
import { failed, ok, type Command } from './command.js';
import { packageRoot, packageVersion, shortPath } from './package.js';
import { list, plural } from '../text/table.js';
import { paint, print, printJson } from '../text/terminal.js';

interface Addon {
  readonly path: string;
  /** Where it comes from: the package, a build on this machine, or the environment's choice. */
  readonly origin: 'prebuilt' | 'built' | 'DIRALIGN_ADDON';
  readonly isa: string;
  readonly threads: number;
}

function loadAddon(): Addon | { readonly error: string } {
  try {
    const file = nativePath();
    return { path: file, origin: originOf(file), ...native().cpuInfo() };
  } catch (error) {
    if (error instanceof DirAlignError) return { error: error.message };
    throw error;
  }
}

function originOf(file: string): Addon['origin'] {
  if (environment('DIRALIGN_ADDON') !== undefined) return 'DIRALIGN_ADDON';
  return path.basename(path.resolve(file, '../..')) === 'prebuilds' ? 'prebuilt' : 'built';
}

const origins: Readonly<Record<Addon['origin'], string>> = {
  prebuilt: 'prebuilt',
  built: 'built from source',
  DIRALIGN_ADDON: 'named by DIRALIGN_ADDON',
};

/** How people write what `cpuInfo` reports. */
const isaNames: Readonly<Record<string, string>> = {
  avx512_bf16: 'AVX-512 with BF16',
  avx512: 'AVX-512',
  avx2: 'AVX2',
  baseline:
    process.arch === 'arm64' ? 'NEON, which every arm64 has' : 'SSE2, which every x86-64 has',
};

const gigabytes = (bytes: number): string => `${(bytes / 2 ** 30).toFixed(1)} GiB`;
const cudaVersion = (number: number): string =>
  `${Math.floor(number / 1000)}.${Math.floor((number % 1000) / 10)}`;

interface CudaInfo {
  readonly available: boolean;
  readonly reason?: string;
  /** Why output layers (fromHidden) cannot be computed on a device that is there. */
  readonly hiddenReason?: string;
  /** Of the build: the architectures that it has code for, and its CUDA. */
  readonly architectures?: readonly string[];
  readonly runtime?: string;
  /** The newest CUDA of the driver. */
  readonly driver?: string;
  readonly devices?: readonly DeviceInfo[];
  readonly error?: string;
}

/** `90` is machine code; `90 PTX` is for later devices, which translate it. */
const codeOf = ({ architectures, ptx }: CudaStatus): string[] =>
  [...architectures.split(','), ...ptx.split(',').map((name) => name && `${name} PTX`)].filter(
    (name) => name !== '',
  );

function gatherCuda(): CudaInfo {
  const { status } = availability();
  const build = {
    ...(status?.compiled && {
      architectures: codeOf(status),
      runtime: cudaVersion(status.runtime),
      ...(status.driver > 0 && { driver: cudaVersion(status.driver) }),
    }),
  };
  const reason = whyNoCuda();
  if (reason !== undefined) return { available: false, reason, ...build };
  try {
    const { hiddenReason } = cuda;
    return {
      available: true,
      ...build,
      ...(hiddenReason !== undefined && { hiddenReason }),
      devices: cuda.devices(),
    };
  } catch (error) {
    // A device that is there and does not answer is what this command is asked about.
    if (error instanceof DirAlignError)
      return { available: true, ...build, devices: [], error: error.message };
    throw error;
  }
}

function gather() {
  const addon = loadAddon();
  const processors = os.cpus();
  return {
    version: packageVersion(),
    package: packageRoot,
    addon,
    node: process.versions.node,
    napi: process.versions.napi,
    platform: `${process.platform}-${process.arch}`,
    libc: libc(),
    system: `${os.type()} ${os.release()}`,
    cpu: {
      model: processors[0]?.model.trim() ?? 'unknown',
      processors: processors.length,
      // Older versions of Node do not know the quotas of control groups.
      available: 'error' in addon ? os.availableParallelism() : addon.threads,
      memoryBytes: os.totalmem(),
    },
    backends: {
      cpu: 'error' in addon ? { available: false, reason: addon.error } : { available: true },
      cuda: gatherCuda(),
    },
  };
}

function run(args: string[]): Promise<number> {
  const { values } = parse('info', args, { json: 'boolean' }, 0);
  const info = gather();
  const { addon, cpu, backends } = info;
  const status = 'error' in addon ? failed : ok;
  if (values.json) {
    printJson(info);
    return Promise.resolve(status);
  }
  const backend = (name: keyof typeof backends, details: string): string => {
    const { available } = backends[name];
    return available
      ? `${paint('green', 'on')}   ${details}`
      : `${paint('yellow', 'off')}  ${details}`;
  };
  const { cuda: gpu } = backends;
  const built = gpu.architectures ? paint('dim', `for ${gpu.architectures.join(', ')}`) : '';
  const cudaDetails = gpu.available
    ? [
        gpu.error ?? plural(gpu.devices?.length ?? 0, 'device'),
        `CUDA ${gpu.runtime ?? ''}, driver for ${gpu.driver ?? ''}`,
        built,
      ].join('  ')
    : `${gpu.reason ?? ''}  ${built}`.trim();
  const devices = (gpu.devices ?? []).map((device): [string, string] => [
    `device ${device.index}`,
    `${device.name}, compute capability ${device.computeCapability}, ` +
      `${plural(device.multiprocessors, 'multiprocessor')}, ` +
      `${gigabytes(device.memory)} (${gigabytes(device.freeMemory)} free)`,
  ]);
  const vectors = 'error' in addon ? '' : (isaNames[addon.isa] ?? addon.isa);
  const threads = 'error' in addon ? '' : `, ${plural(addon.threads, 'thread')}`;
  print(
    list([
      ['diralign', `${info.version}  ${paint('dim', shortPath(packageRoot) || '.')}`],
      [
        'addon',
        'error' in addon
          ? paint('red', addon.error)
          : `${shortPath(addon.path)}  ${paint('dim', origins[addon.origin])}`,
      ],
      ['node', `${info.node}, Node-API ${info.napi ?? 'unknown'}, ${info.platform}`],
      ['system', `${info.system}${info.libc === undefined ? '' : `, ${info.libc}`}`],
      [
        'processor',
        `${cpu.model}, ${cpu.available} of ${cpu.processors} processors, ` +
          gigabytes(cpu.memoryBytes),
      ],
      [
        'cpu',
        backend('cpu', 'error' in addon ? 'the addon is not loaded' : `${vectors}${threads}`),
      ],
      ['cuda', backend('cuda', cudaDetails)],
      ...(gpu.hiddenReason === undefined
        ? []
        : [['fromHidden', `not on a device: ${gpu.hiddenReason}`] as [string, string]]),
      ...devices,
    ]),
  );
  return Promise.resolve(status);
}

export const infoCommand: Command = {
  name: 'info',
  summary: 'versions, the addon in use, processor features, backends and why one is off',
  usage: `diralign info: versions, the addon in use, processor features, backends and why one is off

${paint('bold', 'Usage')}
  diralign info [--json]

The exit status is 1 where the addon cannot be loaded.

${paint('bold', 'Examples')}
  diralign info
  diralign info --json > machine.json`,
  run,
};
