import { spawnSync } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { processPeer } from './process-peer.mjs';

const here = path.dirname(fileURLToPath(import.meta.url));
const beta = 0.1;
const shapeOf = ({ shape }) => shape.map(String);
const works = (command, args) => spawnSync(command, args, { stdio: 'ignore' }).status === 0;

/**
 * Keeps freed memory in the heap instead of returning it, as tuned deployments do: no page faults
 * from the second pass on.
 */
export const heapReuse = {
  MALLOC_MMAP_MAX_: '0',
  MALLOC_TRIM_THRESHOLD_: String(2 ** 40),
  MALLOC_TOP_PAD_: String(2 ** 26),
};

/** The system's Python, where the distribution puts its torch, unless PYTHON names another. */
export const python = process.env.PYTHON ?? '/usr/bin/python3';

function torch(name, title, { dtype = 'float32', env = {}, against = 'out' } = {}) {
  const description = {
    name,
    title,
    against,
    bfloat16: dtype === 'bfloat16',
    install: 'apt-get install python3-torch',
  };
  return processPeer(description, (directory, batch, threads) => {
    if (!works(python, ['-c', 'import torch'])) return undefined;
    const args = [
      path.join(here, 'torch_dpo.py'),
      directory,
      ...shapeOf(batch),
      String(threads),
      String(beta),
      dtype,
    ];
    return { command: python, args, env };
  });
}

const oneDnn = processPeer(
  {
    name: 'onednn',
    title: 'oneDNN log-softmax',
    against: 'out',
    install: 'apt-get install libdnnl-dev g++',
  },
  (directory, batch, threads) => {
    const build = path.join(here, '../../build/bench');
    mkdirSync(build, { recursive: true });
    const program = path.join(build, 'log_softmax_dpo');
    const source = path.join(here, 'onednn/log_softmax_dpo.cpp');
    if (!works('g++', ['-std=c++17', '-O2', '-fopenmp', source, '-o', program, '-ldnnl']))
      return undefined;
    return {
      command: program,
      args: [directory, ...shapeOf(batch), String(threads), String(beta)],
    };
  },
);

/** Implementations outside Node. */
export const processPeers = [
  torch('torch', 'PyTorch'),
  torch('torch-heap', 'PyTorch, heap reuse', { env: heapReuse }),
  torch('torch-bf16', 'PyTorch bfloat16, heap reuse', {
    dtype: 'bfloat16',
    env: heapReuse,
    against: 'out-bf16',
  }),
  oneDnn,
];
