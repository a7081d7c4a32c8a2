#!/usr/bin/env node
// What share of the copy kernel's bandwidth the loss kernels should reach on an H200: an event
// model of one multiprocessor, which takes instructions, loads in flight and resident blocks from
// docs/gpu-sass.md. It predicts, within some 8 points; only a GPU measures. Usage: model.mjs
// [--write] compares the table in docs/gpu-performance.md, or writes it
import { readFileSync, writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { formatted } from '../../scripts/formatted.mjs';

/**
 * An H200, from its data sheet and what is known of Hopper; the two columns bound what is not
 * known.
 */
const machine = {
  bytesPerNs: 4300 / 132, // a multiprocessor's share of what a copy reaches
  clock: 1.8, // GHz
  schedulers: 4, // of an instruction a clock each
  warpIssue: 0.5, // instructions a clock of one warp, which waits for its own results
};
const assumed = {
  kind: { latency: 550, combine: 250, fence: 600, read: 250, message: 250, finish: 4000 }, // ns
  unkind: { latency: 800, combine: 350, fence: 900, read: 350, message: 450, finish: 8000 },
};
const launch = 4000; // ns, from the end of a kernel to the work of the next
const threads = 256;
const warps = threads / 32;
const maxSteps = 8;

/**
 * Bytes a ns that a multiprocessor reads and writes. Each block loads its part (`trips` waits for
 * memory, one after another), then its warps issue `instructions`, then `serial` ns pass with
 * nothing in flight for the block, then warps issue `after` and store `stored` bytes. Of a row of
 * several parts that wait for each other, `others` are elsewhere: they take as long as some of the
 * turns that were seen here. `ahead`: what is next is asked for once the warps have issued the
 * first instructions, and not in its own turn. `counting`: ns that the first warp takes to count
 * the part before, once its loads are there.
 */
function simulate(
  {
    blocks,
    bytes,
    trips,
    instructions,
    serial,
    after = 0,
    stored = 0,
    others = 0,
    ahead = false,
    counting = 0,
  },
  latency,
) {
  const step = 4; // ns
  const random = (
    (state) => () =>
      (state = (state * 48271) % 2147483647) / 2147483647
  )(1);
  const queue = []; // what the memory is asked for, in order
  const returning = [];
  const state = Array.from({ length: blocks }, () => ({
    phase: 'idle',
    until: random() * 2000,
    warps: [],
  }));
  const request = (block, warp, amount, isStore) =>
    queue.push({ block, warp, left: amount, isStore, at: now + latency / 2 });
  const turns = []; // how long the last of them took until the block had its sums
  const waitsFor = (own) => {
    if (others === 0) return 0;
    if (turns.length === 200) turns.shift();
    turns.push(own);
    const drawn = Array.from({ length: others }, () => turns[Math.floor(random() * turns.length)]);
    return Math.max(0, ...drawn.map((each) => each - own));
  };
  const ask = (block) => {
    block.next = Array.from({ length: warps }, (_, i) => ({
      trip: 0,
      left: undefined,
      begins: 0,
      counting: i === 0 ? counting : 0,
    }));
    for (const warp of block.next) request(block, warp, bytes / warps / trips, false);
  };
  const load = (block) => {
    if (!block.next) ask(block);
    block.phase = 'work';
    block.warps = block.next;
    block.next = undefined;
  };
  let now = 0;
  let moved = 0;
  const warmUp = 40_000;
  const end = 240_000;
  for (; now < end; now += step) {
    let budget = machine.bytesPerNs * step;
    while (budget > 0 && queue.length > 0 && queue[0].at <= now) {
      const first = queue[0];
      const part = Math.min(budget, first.left);
      first.left -= part;
      budget -= part;
      if (now >= warmUp) moved += part;
      if (first.left > 1e-9) break;
      queue.shift();
      if (!first.isStore) returning.push({ ...first, at: now + latency / 2 });
    }
    while (returning.length > 0 && returning[0].at <= now) {
      const { block, warp } = returning.shift();
      if (++warp.trip < trips) request(block, warp, bytes / warps / trips, false);
      else [warp.left, warp.begins] = [instructions, now + warp.counting];
    }
    for (let scheduler = 0; scheduler < machine.schedulers; scheduler++) {
      const ready = state.flatMap((block) =>
        block.warps.filter(
          (warp, i) => i % machine.schedulers === scheduler && warp.left > 0 && warp.begins <= now,
        ),
      );
      const each =
        Math.min(machine.warpIssue, 1 / Math.max(1, ready.length)) * machine.clock * step;
      for (const warp of ready) warp.left -= each;
    }
    for (const block of state) {
      const done = block.warps.every((warp) => warp.left <= 0);
      if (block.phase === 'work' && done) {
        block.phase = 'serial';
        if (ahead) ask(block);
        block.until = now + waitsFor(now - block.since) + serial * (0.8 + 0.4 * random());
      } else if (block.phase === 'serial' && now >= block.until) {
        block.phase = 'write';
        block.since = now;
        for (const warp of block.warps) warp.left = after;
      } else if (block.phase === 'write' && done) {
        if (stored > 0) request(block, undefined, stored, true);
        load(block);
      } else if (block.phase === 'idle' && now >= block.until) {
        block.since = now;
        load(block);
      }
    }
  }
  return moved / (end - warmUp);
}

const page = new URL('../../docs/gpu-performance.md', import.meta.url);
const [, sass] = /\n## sm_90\n([^]*?)(?:\n## |$)/.exec(
  readFileSync(new URL('../../docs/gpu-sass.md', import.meta.url), 'utf8'),
);
const cells = sass
  .split('\n')
  .map((line) => line.split('|').map((cell) => cell.trim().replace(/[*`]/g, '')));
function kernel(name) {
  const blocks = Number(cells.find((row) => row[1] === name && row.length === 6)[4]);
  const parts = cells.filter((row) => row[1] === name && row.length > 6);
  return {
    blocks,
    part: (what) =>
      ((row) => row && { loads: Number(row[3]), slots: Number(row[5]) })(
        parts.find((row) => row[2] === what),
      ),
  };
}

/** How rows are cut: cuda/row_cut.h. */
function cut(vocab, bytes) {
  const steps = Math.ceil(vocab / ((threads * 16) / bytes));
  const parts = Math.ceil(steps / maxSteps);
  return { parts, steps: Math.ceil(steps / parts) };
}

const kernelOf = {
  forward: 'logps',
  dense: 'dense',
  factored: 'factored, clusters',
  'factored without clusters': 'factored',
};

/** The share of the copy kernel's bandwidth on the floor's bytes, for `rows` rows. */
function share(mode, type, vocab, rows, given) {
  const size = type === 'float' ? 4 : 2;
  const { parts, steps } = cut(vocab, size);
  const { blocks, part } = kernel(`<${type}, ${kernelOf[mode]}, ${type}>`);
  const clusters = mode === 'factored';
  const elements = (steps * 16) / size;
  const bytes = (vocab * size) / parts;
  const unaligned = (vocab * size) % 16 === 0 ? 0 : 1 - size / 16; // of the rows
  const mix = (what, of) => {
    const shifted = part(`${what}, unaligned`) ?? part(what);
    return (1 - unaligned) * of(part(what) ?? shifted) + unaligned * of(shifted);
  };
  const instructions = (what) => mix(what, ({ slots }) => slots * elements);
  const copies = part('copies'); // of the next part, all of them at once
  const trips = copies ? 1 : Math.round(mix('sums', ({ loads }) => Math.ceil(steps / loads)));
  const reduce = {
    blocks,
    bytes,
    trips,
    instructions: instructions('sums'),
    serial: given.combine,
    counting: given.fence,
  };
  const copy = machine.bytesPerNs;
  const rate = (stage) => simulate(stage, given.latency) / copy;
  let time; // in units of reading the logits at the copy's speed
  if (mode === 'forward') time = 1 / rate(reduce);
  else if (mode === 'dense') {
    // A ticket's record, the state of its group, and then what the group and the row have left for
    // it. Where it counts a part, that is charged to the ticket of the part.
    const gradient = {
      blocks,
      bytes,
      trips,
      instructions: instructions('gradient'),
      serial: 3 * given.read,
      stored: bytes,
    };
    time = 1 / rate(reduce) + 2 / rate(gradient);
  } else {
    // The parts of a row wait for each other, for messages or through memory, where the ticket and
    // its record come after. Unaligned rows are read again, from L2, unless they were copied.
    const between = clusters ? given.message : 2 * given.fence + 2 * given.read;
    const wait = { serial: given.combine + between, counting: 0, others: parts - 1, stored: bytes };
    if (copies) {
      const sums = reduce.instructions + copies.slots * elements;
      const after = part('gradient from a copy').slots * elements;
      time = 2 / rate({ ...reduce, ...wait, instructions: sums, after, ahead: true });
    } else {
      const from =
        part('gradient from registers').slots * (1 - unaligned) +
        part('gradient, unaligned').slots * unaligned;
      const serial = wait.serial + unaligned * given.read;
      time = 2 / rate({ ...reduce, ...wait, serial, after: from * elements });
    }
  }
  const floor = { forward: 1, dense: 3 }[mode] ?? 2;
  const ns = (rows * vocab * size) / (copy * 132);
  return (floor * ns) / (time * ns + given.finish + (clusters ? launch : 0));
}

const shapes = [
  ['Bfloat16', 32000],
  ['Bfloat16', 50257],
  ['Bfloat16', 128256],
  ['float', 128256],
];
/** What should be predicted before a GPU is there, for each shape. */
const targets = {
  forward: [88, 86, 94, 92],
  dense: [88, 85, 91, 90],
  factored: [84, 82, 92, 90],
};
const percent = (value) => String(Math.round(100 * value));
const line = (mode) => {
  const ranges = shapes.map(([type, vocab], i) => {
    const ends = [assumed.unkind, assumed.kind].map((given) =>
      share(mode, type, vocab, 8192, given),
    );
    const [low, high] = ends.sort((a, b) => a - b).map(percent);
    const target = targets[mode]?.[i];
    return `${low} to ${high} %${target === undefined ? '' : ` (${target})`}`;
  });
  return `| ${mode} | ${ranges.join(' | ')} |`;
};
const heads = shapes.map(
  ([type, vocab]) => `${vocab} ${type === 'float' ? 'float32' : 'bfloat16'}`,
);
const table = `| | ${heads.join(' | ')} |
| --- | ${shapes.map(() => '---').join(' | ')} |
${Object.keys(kernelOf).map(line).join('\n')}`;

const [begin, end] = ['<!-- made by bench/gpu/model.mjs -->', '<!-- end -->'];
const text = readFileSync(page, 'utf8');
const at = text.indexOf(begin);
if (at < 0) throw new Error(`docs/gpu-performance.md has no ${begin}`);
const made =
  `${text.slice(0, at)}${begin}\n\n${await formatted(page.pathname, table)}\n` +
  `${text.slice(text.indexOf(end, at))}`;
if (parseArgs({ options: { write: { type: 'boolean' } } }).values.write) writeFileSync(page, made);
else if (made !== text) {
  console.error(
    'model: the predictions in docs/gpu-performance.md are out of date: ' +
      'node bench/gpu/model.mjs --write',
  );
  process.exitCode = 1;
}
console.log(table);
