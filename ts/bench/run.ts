import { dirAlignLoss } from '../objective.js';
import { Buffers } from './buffers.js';
import { makeBatch, roundedToBfloat16, rowsOf, type BenchBatch } from './data.js';
import { thisMachine, type Machine } from './machine.js';
import { extraMemory, type ExtraMemory } from './memory.js';
import {
  beta,
  floorBytes,
  floorTime,
  loopCases,
  loopNames,
  modeCase,
  modes as allModes,
  type Floor,
  type ModeCase,
} from './modes.js';
import { callCosts, type CallCost } from './overhead.js';
import { sumOfSizes, type LoadedPeer, type Peer, type PeerResult } from './peers.js';
import {
  fewestRounds,
  interleave,
  ratio,
  spread,
  type Ratio,
  type Spread,
  type TimedCase,
  type Times,
} from './rounds.js';
import { sweep, type Sweep } from './sweep.js';

export interface BenchOptions {
  readonly shape: readonly [pairs: number, tokens: number, vocab: number];
  readonly threads: number;
  readonly rounds: number;
  /** Names of modes. */
  readonly modes: readonly string[];
  readonly peers: readonly Peer[];
  /** Shares of the rows that are scored. */
  readonly fractions: readonly number[];
  readonly sweep: boolean;
  /** Told what is being done, and what share of it is done. */
  readonly progress?: (doing: string, done: number) => void;
}

export interface LoopFigures {
  readonly name: string;
  readonly ms: Spread;
  /** Bytes read and bytes written, by the median. */
  readonly gigabytesPerSecond: number;
}

export interface ModeFigures {
  readonly name: string;
  readonly title: string;
  readonly dtype: string;
  /** Share of the rows that are scored. */
  readonly fraction: number;
  readonly ms: Spread;
  /** By scored logit. */
  readonly nanosecondsPerLogit: number;
  /** Of the bytes that the mode must at least move. */
  readonly gigabytesPerSecond: number;
  /** What the loops of the same run need to move them. */
  readonly floorMs: number;
  /** floorMs over the median: share of the measured bandwidth. */
  readonly share: number;
  readonly loss?: number;
}

export interface RatioFigures extends Ratio {
  readonly name: string;
}

export interface PeerFigures {
  readonly name: string;
  readonly title: string;
  readonly version: string;
  readonly work: string;
  readonly ms: Spread;
  /** The mode of ours that it is compared with. */
  readonly against: string;
  /** Its time over ours: how many times faster ours is. */
  readonly ratio: Ratio;
  readonly loss: number;
  readonly extraMiB?: number;
}

export interface BenchResult {
  readonly machine: Machine;
  readonly setting: {
    readonly method: 'dpo';
    readonly beta: number;
    readonly pairs: number;
    readonly tokens: number;
    readonly vocab: number;
    readonly rows: number;
    readonly threads: number;
    readonly rounds: number;
  };
  readonly loops: readonly LoopFigures[];
  readonly modes: readonly ModeFigures[];
  readonly ratios: readonly RatioFigures[];
  readonly peers: readonly PeerFigures[];
  readonly missingPeers: readonly {
    readonly name: string;
    readonly title: string;
    readonly install: string;
  }[];
  readonly calls: readonly CallCost[];
  readonly memory: readonly ExtraMemory[];
  readonly sweep?: Sweep;
  /** The same with other instruction sets, without peers. */
  readonly others?: readonly BenchResult[];
}

/** A peer does not run, or computed something else, so that its time says nothing. */
export class PeerProblem extends Error {}

/** The ratios worth watching: a mode over loops, or over another mode. */
const watched: readonly (readonly [name: string, over: string, under: readonly string[]])[] = [
  ['forward / read', 'forward', ['loop-read']],
  ['sequenceLogps / read', 'logps', ['loop-read']],
  ['bfloat16 forward / float32 forward', 'forward-bf16', ['forward']],
  ['float16 forward / float32 forward', 'forward-f16', ['forward']],
  ['in place / (read + scale)', 'in-place', ['loop-read', 'loop-scale']],
  ['factored / scale', 'factored', ['loop-scale']],
  ['out / (read + copy)', 'out', ['loop-read', 'loop-copy']],
  ['bfloat16 out / float32 out', 'out-bf16', ['out']],
  ['fresh / out', 'fresh', ['out']],
  ['lent / out', 'lent', ['out']],
];

export async function runBench(options: BenchOptions): Promise<BenchResult> {
  const { shape, threads, rounds, fractions } = options;
  const [pairs, tokens, vocab] = shape;
  const progress = options.progress ?? (() => undefined);
  progress('making the batch', 0);
  const machine = thisMachine();
  const batch = makeBatch(pairs, tokens, vocab);
  const buffers = new Buffers(batch, threads);
  const loaded = await loadPeers(options.peers, batch, threads, progress);
  try {
    const wanted = new Set([...options.modes, ...loaded.map(({ peer }) => peer.against)]);
    const modeCases = allModes
      .filter(({ name }) => wanted.has(name))
      .flatMap((mode) =>
        [1, ...(mode.fractions ? fractions : [])]
          .filter((fraction, i, all) => all.indexOf(fraction) === i)
          .map((fraction) => modeCase(buffers, mode, fraction)),
      );
    const peerCases = loaded.map(({ peer, run }): TimedCase => ({
      name: `peer ${peer.name}`,
      run: () => run.run(),
      ...(peer.slow && { most: fewestRounds }),
    }));
    const times = await interleave(
      [...loopCases(buffers), ...modeCases, ...peerCases],
      rounds,
      async () => {
        // Threads of a peer spin for a while after its work.
        if (peerCases.length > 0) await new Promise((resolve) => setTimeout(resolve, 10));
        buffers.makeCold();
      },
      (done) => {
        progress(`${rounds} rounds`, done);
      },
    );
    checkModes(modeCases, tokens);
    const peers: PeerFigures[] = [];
    for (const each of loaded) peers.push(await peerFigures(each, times));

    progress('the cost of a call', 0);
    const calls = await callCosts(threads);
    const memory: ExtraMemory[] = [];
    for (const mode of ['forward', 'in-place', 'factored', 'fresh']) {
      progress('extra memory', memory.length / 4);
      const found = await extraMemory(mode, shape, threads);
      if (found) memory.push(found);
    }
    const swept = options.sweep
      ? await sweep(buffers, Math.min(rounds, fewestRounds), (done) => {
          progress('linearity', done);
        })
      : undefined;
    return {
      machine,
      setting: { method: 'dpo', beta, pairs, tokens, vocab, rows: rowsOf(batch), threads, rounds },
      loops: loopFigures(times, batch),
      modes: modeFigures(modeCases, times, batch),
      ratios: ratioFigures(modeCases, times),
      peers,
      missingPeers: options.peers
        .filter((peer) => !loaded.some((each) => each.peer === peer))
        .map(({ name, title, install = '' }) => ({ name, title, install })),
      calls,
      memory,
      ...(swept && { sweep: swept }),
    };
  } finally {
    for (const { run } of loaded) await run.close?.();
  }
}

interface ReadyPeer {
  readonly peer: Peer;
  readonly run: LoadedPeer;
  /** What it has to compute. */
  readonly expected: Required<PeerResult>;
}

async function loadPeers(
  peers: readonly Peer[],
  batch: BenchBatch,
  threads: number,
  progress: (doing: string, done: number) => void,
): Promise<ReadyPeer[]> {
  const results = new Map<boolean, Required<PeerResult>>();
  const ready: ReadyPeer[] = [];
  try {
    for (const [i, peer] of peers.entries()) {
      progress(`making ${peer.name} ready`, i / peers.length);
      const { bfloat16 = false } = peer;
      const expected =
        results.get(bfloat16) ??
        ours(bfloat16 ? { ...batch, logits: roundedToBfloat16(batch.logits) } : batch);
      results.set(bfloat16, expected);
      const run = await started(peer, () => peer.load(batch, threads));
      if (!run) continue;
      const each = { peer, run, expected };
      ready.push(each);
      await started(peer, () => run.run());
      await checkPeer(each);
    }
  } catch (error) {
    for (const { run } of ready) await run.close?.();
    throw error;
  }
  return ready;
}

/** What another package throws while it loads, or on its first call, is about its installation. */
async function started<T>({ name }: Peer, start: () => T | Promise<T>): Promise<T> {
  try {
    return await start();
  } catch (cause) {
    throw new PeerProblem(
      `${name} does not run here: ${(cause as Error).message}; leave it out with --peers`,
      { cause },
    );
  }
}

function ours(batch: BenchBatch): Required<PeerResult> {
  const { loss, gradLogits } = dirAlignLoss('dpo', beta)(batch);
  return { loss, gradientSum: sumOfSizes(gradLogits) };
}

/**
 * All must have done the same work: the loss to 1e-4, and the size of the gradient (16-bit ones are
 * rounded) to 1e-2.
 */
async function checkPeer({ peer, run, expected }: ReadyPeer): Promise<number> {
  const { loss, gradientSum } = await run.result();
  const check = (what: string, got: number | undefined, want: number, tolerance: number): void => {
    if (got !== undefined && Math.abs(got - want) <= tolerance * Math.abs(want)) return;
    throw new PeerProblem(
      `${peer.name}: its ${what} is ${got}, ours ${want}: it did not do the same work`,
    );
  };
  check('loss', loss, expected.loss, 1e-4);
  if (peer.work !== 'loss')
    check('gradient (sum of sizes)', gradientSum, expected.gradientSum, 1e-2);
  return loss;
}

/**
 * The modes agree among each other: every bit in float32; 16-bit logits are other numbers, close
 * by.
 */
function checkModes(cases: readonly ModeCase[], tokens: number): void {
  // bfloat16 moves logits of about 4 by 2^-8 of them, at random in each row of a pair.
  const rounding = 0.05 + beta * 4 * 2 ** -8 * Math.sqrt(2 * tokens);
  const first = new Map<number, number>();
  for (const each of cases) {
    const loss = each.loss();
    if (loss === undefined) continue;
    const want = first.get(each.fraction) ?? loss;
    first.set(each.fraction, want);
    const tolerance = each.mode.dtype === 'float32' ? 0 : rounding;
    if (!(Math.abs(loss - want) <= tolerance * want))
      throw new Error(`${each.name}: loss ${loss}, other modes have ${want}`);
  }
}

async function peerFigures(each: ReadyPeer, times: Times): Promise<PeerFigures> {
  const { peer, run } = each;
  return {
    name: peer.name,
    title: peer.title,
    version: run.version,
    work: peer.work,
    ms: spread(times.get(`peer ${peer.name}`) ?? []),
    against: peer.against,
    ratio: ratio(times, `peer ${peer.name}`, [peer.against]),
    loss: await checkPeer(each),
    ...(run.extraMiB !== undefined && { extraMiB: run.extraMiB }),
  };
}

const loopPasses = { 'loop-read': 1, 'loop-scale': 2, 'loop-copy': 2 } as const;

function loopFigures(times: Times, batch: BenchBatch): LoopFigures[] {
  return loopNames.map((name) => {
    const ms = spread(times.get(name) ?? []);
    return {
      name,
      ms,
      gigabytesPerSecond: (loopPasses[name] * batch.logits.byteLength) / ms.median / 1e6,
    };
  });
}

function modeFigures(cases: readonly ModeCase[], times: Times, batch: BenchBatch): ModeFigures[] {
  const median = (name: string): number => spread(times.get(name) ?? []).median;
  const loops: Floor = {
    read: median('loop-read'),
    scale: median('loop-scale'),
    copy: median('loop-copy'),
  };
  const logits = batch.logits.length;
  return cases.map((each) => {
    const { mode, fraction, name } = each;
    const ms = spread(times.get(name) ?? []);
    const floorMs = floorTime(mode, fraction, loops);
    const loss = each.loss();
    return {
      name,
      title: mode.title,
      dtype: mode.dtype,
      fraction,
      ms,
      nanosecondsPerLogit: (ms.median * 1e6) / (fraction * logits),
      gigabytesPerSecond: floorBytes(mode, fraction, logits) / ms.median / 1e6,
      floorMs,
      share: floorMs / ms.median,
      ...(loss !== undefined && { loss }),
    };
  });
}

function ratioFigures(cases: readonly ModeCase[], times: Times): RatioFigures[] {
  const partial = cases
    .filter((each) => each.name !== each.mode.name)
    .map(({ name, mode }) => [`${name} / ${mode.name}`, name, [mode.name]] as const);
  return [...watched, ...partial]
    .filter(([, over, under]) => [over, ...under].every((name) => times.has(name)))
    .map(([name, over, under]) => ({ name, ...ratio(times, over, under) }));
}
