import os from 'node:os';
import type { BenchOptions, BenchResult } from '../bench/run.js';
import { digits } from '../text/table.js';
import { print, printJson, Progress } from '../text/terminal.js';
import { oneOf, parse, whole } from './arguments.js';
import { CommandError, ok, UsageError, type Command } from './command.js';
import { outcomeOf, statusOf, withOutput, type Output } from './output.js';

const usage = `diralign bench: speed against what memory allows, and against other implementations

Usage: diralign bench [options]

  --shape B,T,V        pairs, tokens per sequence, vocabulary (default 2,256,32000: 1024 rows,
                       131 MB)
  --threads N          CPU threads (default: all that the process may use)
  --rounds N           rounds, each of which runs every case once (default 15); below nine there are
                       quartiles, and no conclusion
  --modes A,B          forward, forward-bf16, forward-f16, in-place, factored, out, out-bf16, fresh,
                       lent, logps (default: all)
  --fraction F,G       shares of the rows that are scored, the others are ignored as a prompt is
                       (default 1,0.5)
  --peers A,B          js, tfjs-wasm, onnx, or none (default: those that are installed)
  --sweep              also the time per logit over vocabularies of 1000 to 256000, and over rows
  --isa A,B            also with these instruction sets, each in a process of its own: avx512_bf16,
                       avx512, avx2, baseline; or all that the processor has
  --json               the result for a machine, on the standard output
  --html FILE          a page with charts
  --ranks N            among processes instead: starts mpirun with 1, 2, 4, ... N of them, whose
                       words are spread, on a quarter of the rows and on all; threads are those
                       of each rank (default: the processors by N)
  --mpirun COMMAND     with --ranks: what starts them (default: the first that is found)

Every time is a median over rounds, with quartiles. Before each timed call the logits are restored
and the caches filled with other data, for the loops that measure the memory as well. A peer whose
loss or gradient differs from ours makes the run fail.

Examples:
  diralign bench
  diralign bench --shape 4,512,128256 --threads 8 --peers none
  diralign bench --isa all --peers none
  diralign bench --sweep --html bench.html
  diralign bench --ranks 4`;

export const benchCommand: Command = {
  name: 'bench',
  summary: 'measure throughput against memory bandwidth and against peers that are installed',
  usage,
  async run(args) {
    const options = readOptions(args);
    if (options.ranks !== undefined) return await measureRanks(options, options.ranks);
    return await withOutput('html', options.html, (output) => measureAndTell(options, output));
  },
};

async function measureAndTell(
  options: BenchArguments,
  output: Output | undefined,
): Promise<number> {
  // Here, so that `diralign --help` need not read them.
  const [
    { native },
    { benchWith },
    { modes },
    { nodePeers },
    { PeerProblem, runBench },
    { textReport },
    { htmlReport },
  ] = await Promise.all([
    import('../native/interface.js'),
    import('../bench/instruction-sets.js'),
    import('../bench/modes.js'),
    import('../bench/peers.js'),
    import('../bench/run.js'),
    import('../bench/report.js'),
    import('../bench/html.js'),
  ]);
  const { isa, isas, threads } = native().cpuInfo();
  const others = isas.filter((name) => name !== isa);
  const wanted =
    options.isa === undefined || options.isa === 'all'
      ? options.isa && others
      : options.isa.split(',').map((name) => oneOf('isa', name, isas));
  const bar = new Progress(1);
  let result: BenchResult;
  try {
    const asked: BenchOptions = {
      shape: options.shape,
      threads: options.threads ?? threads,
      rounds: options.rounds,
      modes: named('modes', options.modes, modes).map(({ name }) => name),
      peers:
        options.peers === 'none' ? [] : named('peers', options.peers, nodePeers([process.cwd()])),
      fractions: options.fractions,
      sweep: options.sweep,
      progress: (doing, done) => {
        bar.update(done, doing);
      },
    };
    result = await runBench(asked);
    if (wanted) {
      const found: BenchResult[] = [];
      for (const name of wanted) {
        bar.update(found.length / wanted.length, `with ${name}`);
        found.push(await benchWith(name, asked));
      }
      result = { ...result, others: found };
    }
  } catch (error) {
    throw error instanceof PeerProblem
      ? new CommandError(error.message, { code: 'ERR_DIRALIGN_BACKEND' })
      : error;
  } finally {
    bar.end();
  }
  if (options.json) {
    const failure = output?.write(htmlReport(result));
    printJson({ ...result, ...(failure && outcomeOf(undefined, failure)) });
    return statusOf('bench', failure);
  }
  print(textReport(result));
  return statusOf('bench', output?.write(htmlReport(result)));
}

async function measureRanks(options: BenchArguments, ranks: number): Promise<number> {
  const [{ LauncherProblem }, { ranksReport, runRanks }, { native }] = await Promise.all([
    import('../bench/launcher.js'),
    import('../bench/ranks.js'),
    import('../native/interface.js'),
  ]);
  const [pairs, tokens, vocab] = options.shape;
  const bar = new Progress(1);
  let result;
  try {
    result = await runRanks(
      {
        ranks,
        shapes: [
          [2 * pairs, Math.ceil(tokens / 4)],
          [2 * pairs, tokens],
        ],
        vocab,
        threads: options.threads ?? Math.max(1, Math.floor(native().cpuInfo().threads / ranks)),
        rounds: options.rounds,
        mpirun: options.mpirun,
      },
      (doing, done) => {
        bar.update(done, doing);
      },
    );
  } catch (error) {
    throw error instanceof LauncherProblem
      ? new CommandError(error.message, { code: 'ERR_DIRALIGN_ENGINE' })
      : error;
  } finally {
    bar.end();
  }
  if (options.json) printJson(result);
  else print(ranksReport(result));
  return ok;
}

interface BenchArguments {
  readonly shape: readonly [pairs: number, tokens: number, vocab: number];
  readonly threads: number | undefined;
  readonly rounds: number;
  readonly modes: string | undefined;
  readonly peers: string | undefined;
  readonly fractions: readonly number[];
  readonly sweep: boolean;
  readonly isa: string | undefined;
  readonly json: boolean;
  readonly html: string | undefined;
  readonly ranks: number | undefined;
  readonly mpirun: string | undefined;
}

/** More than these are not of one machine. */
const mostRanks = 1024;
/** What ranks have nothing of. */
const ofOneProcess = ['modes', 'fraction', 'peers', 'sweep', 'isa', 'html'] as const;

/** More would take days. */
const mostRounds = 10_000;

function readOptions(args: string[]): BenchArguments {
  const { values } = parse(
    'bench',
    args,
    {
      shape: 'string',
      threads: 'string',
      rounds: 'string',
      modes: 'string',
      peers: 'string',
      fraction: 'string',
      sweep: 'boolean',
      isa: 'string',
      json: 'boolean',
      html: 'string',
      ranks: 'string',
      mpirun: 'string',
    },
    0,
  );
  const other = ofOneProcess.find((name) => values[name] !== undefined);
  if (values.ranks !== undefined && other !== undefined)
    throw new UsageError(`--${other} is not for --ranks; leave one of them out`);
  if (values.ranks === undefined && values.mpirun !== undefined)
    throw new UsageError('--mpirun is for --ranks; say how many');
  return {
    shape: shapeOf(values.shape ?? '2,256,32000'),
    // More would wait for each other, and be measured doing it.
    threads:
      values.threads === undefined
        ? undefined
        : whole('threads', values.threads, 1, os.cpus().length || 1),
    rounds: whole('rounds', values.rounds ?? '15', 1, mostRounds),
    modes: values.modes,
    peers: values.peers,
    fractions: (values.fraction ?? '1,0.5').split(',').map((text) => {
      const share = Number(text);
      if (share > 0 && share <= 1) return share;
      throw new UsageError(
        `--fraction: '${text}' is not a share of the rows; ` +
          'use numbers above 0 and up to 1, for instance 1,0.5',
      );
    }),
    sweep: values.sweep ?? false,
    isa: values.isa,
    json: values.json ?? false,
    html: values.html,
    ranks: values.ranks === undefined ? undefined : whole('ranks', values.ranks, 1, mostRanks),
    mpirun: values.mpirun,
  };
}

function shapeOf(text: string): BenchArguments['shape'] {
  const [pairs, tokens, vocab, ...rest] = text.split(',');
  if (pairs === undefined || tokens === undefined || vocab === undefined || rest.length > 0) {
    throw new UsageError(
      `--shape: '${text}' is not pairs,tokens,vocabulary; for instance 2,256,32000`,
    );
  }
  const shape = [
    whole('shape', pairs, 1),
    whole('shape', tokens, 1),
    whole('shape', vocab, 2),
  ] as const;
  // The logits, a copy to work on, and a gradient.
  const bytes = 3 * 4 * 2 * shape.reduce((product, size) => product * size, 1);
  if (bytes > os.totalmem()) {
    const gibibytes = (value: number): string => `${digits(value / 2 ** 30, 3)} GiB`;
    throw new CommandError(
      `--shape: ${text} takes ${gibibytes(bytes)} of memory or more, ` +
        `and this machine has ${gibibytes(os.totalmem())}; take a smaller one`,
      { code: 'ERR_DIRALIGN_MEMORY' },
    );
  }
  return shape;
}

/** Those of a list separated by commas; all when there is none. */
function named<T extends { readonly name: string }>(
  option: string,
  list: string | undefined,
  all: readonly T[],
): readonly T[] {
  if (list === undefined) return all;
  const names = all.map(({ name }) => name);
  const chosen = list.split(',').map((name) => oneOf(option, name, names));
  return all.filter(({ name }) => chosen.includes(name));
}
