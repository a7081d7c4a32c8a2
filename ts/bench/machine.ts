import { createRequire } from 'node:module';
import os from 'node:os';
import { native } from '../native/interface.js';

/** What a figure has to be read with. */
export interface Machine {
  readonly cpu: string;
  readonly cores: number;
  /** Instruction set that the kernels use here. */
  readonly isa: string;
  readonly system: string;
  readonly node: string;
  readonly diralign: string;
  /** ISO 8601. */
  readonly date: string;
}

export function thisMachine(): Machine {
  const { version } = createRequire(import.meta.url)('../../package.json') as { version: string };
  return {
    cpu: os.cpus()[0]?.model.trim() ?? process.arch,
    cores: os.availableParallelism(),
    isa: native().cpuInfo().isa,
    system: `${os.type()} ${os.release()}`,
    node: process.versions.node,
    diralign: version,
    date: new Date().toISOString(),
  };
}
