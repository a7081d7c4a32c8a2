// NVIDIA's tools, which come with the CUDA toolkit and not with the driver.
import { existsSync, readdirSync } from 'node:fs';
import path from 'node:path';

/** Where Nsight Compute is installed by itself, one folder a version. */
const nsight = '/opt/nvidia/nsight-compute';

/** The file of a tool, or undefined. */
export function toolPath(name) {
  const versions = existsSync(nsight) ? readdirSync(nsight).sort().reverse() : [];
  const folders = [
    ...(process.env.PATH ?? '').split(path.delimiter),
    ...[process.env.CUDA_HOME, '/usr/local/cuda']
      .filter(Boolean)
      .map((home) => path.join(home, 'bin')),
    ...versions.map((version) => path.join(nsight, version)),
  ];
  return folders
    .filter((folder) => folder !== '')
    .map((folder) => path.join(folder, name))
    .find((file) => existsSync(file));
}
