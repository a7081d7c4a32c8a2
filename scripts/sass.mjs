// Reads a disassembly of nvdisasm -c: where the time of a kernel goes, as far as instructions tell.
//
// Loops over a part of a row are unrolled, so that a kernel has no loop to count. What is counted
// is a path instead: from the first wide load of a part to the next barrier, the one that computes
// most exponentials, and among those the one of fewest instructions. That is a whole part without
// its rare branches (a label's entry, the ends of a row).

const oneOf = (...names) => new RegExp(`^(${names.join('|')})$`);
/** Pipes of a multiprocessor, by the instructions that they take. */
const pipes = {
  fma: /^(FADD|FMUL|FFMA|FSWZADD|IMAD|HFMA2|HADD2|HMUL2)$/,
  alu: oneOf(
    'FMNMX3?|FSEL|FSET|FSETP|FCHK|F2FP|I2FP|HMNMX2|VHMNMX|HSETP2|HSET2|VIADDMNMX',
    'LOP3|SHF|SHL|SHR|SEL|ISETP|IADD3?|VIADD|LEA|PRMT|PLOP3|MOV|VIMNMX3?|IMNMX|IABS',
    'P2R|R2P|BMSK|SGXT|VOTE|CS2R',
  ),
  xu: /^(MUFU|F2F|F2I|I2F|FRND|POPC|FLO|BREV)$/,
  memory: oneOf(
    'LDG|STG|LD|ST|LDS|STS|LDL|STL|LDC|ATOMG?|ATOMS|RED|SHFL|MEMBAR|CCTL|ERRBAR|CGAERRBAR',
    'MATCH|REDUX|LDGSTS|LDGDEPBAR|QSPC|STAS|SYNCS|FENCE|UCGABAR_(ARV|WAIT)',
  ),
  fp64: /^(DADD|DMUL|DFMA|DSETP|DMNMX)$/,
  other: oneOf(
    'U[A-Z0-9]+|R2UR|S2R|S2UR|NOP|BRA|BRX|JMP|BSSY|BSYNC|BREAK|CALL|RET|EXIT|BAR|WARPSYNC',
    'WARPGROUP|YIELD|NANOSLEEP|ENDCOLLECTIVE|ACQBULK|VOTEU|DEPBAR|BMOV|KILL|PREEXIT|RPCMOV',
  ),
};
export const pipeNames = Object.keys(pipes);

function pipeOf(name) {
  // The scalar unit's names begin with U, and some of other pipes' do as well; these come first.
  const pipe = pipeNames.find((each) => pipes[each].test(name));
  if (pipe === undefined) throw new Error(`which pipe takes ${name}? Add it to scripts/sass.mjs`);
  return pipe;
}

/** Address, predicate, name, modifiers, operands. */
const instructionLine = new RegExp(
  [
    /^\s*\/\*([0-9a-f]+)\*\/\s+/,
    /(?:@(!?U?P\w+)\s+)?/,
    /([A-Z][A-Z0-9_]*)(\.[A-Z0-9_.]+)?\s*([^;]*)/,
  ]
    .map(({ source }) => source)
    .join(''),
);

/**
 * [{ symbol, instructions, labels }] of the functions; calls within a kernel's section are labels
 * of it.
 */
export function functionsOf(text) {
  const found = [];
  let current;
  for (const line of text.split('\n')) {
    const section = /^\.text\.(\S+):/.exec(line);
    if (section) {
      current = { symbol: section[1], instructions: [], labels: new Map() };
      found.push(current);
    }
    if (!current) continue;
    const label = /^\s*(\.L_x_\d+|\$[^:\s]+):/.exec(line);
    if (label) current.labels.set(label[1], current.instructions.length);
    const instruction = instructionLine.exec(line);
    if (!instruction) continue;
    const [, address, predicate, name, modifiers = '', operands] = instruction;
    current.instructions.push({
      address,
      predicate,
      name,
      modifiers,
      operands: operands.trim(),
      line,
    });
  }
  return found;
}

/** Where threads wait: at a barrier, for messages of the cluster, or for what they have copied. */
const isBarrier = ({ name, modifiers }) =>
  name === 'BAR' || name === 'DEPBAR' || (name === 'SYNCS' && modifiers.includes('PHASECHK'));

/** Where an instruction goes on, as indices; a barrier ends a path. */
function successors({ instructions, labels }, i) {
  const { name, modifiers, predicate, operands, line } = instructions[i];
  if (isBarrier(instructions[i])) return [];
  const next = i + 1 < instructions.length ? [i + 1] : [];
  const target = () => {
    const label = /`\(([^)]+)\)/.exec(operands)?.[1];
    if (!labels.has(label)) throw new Error(`no label ${label} for: ${line.trim()}`);
    return labels.get(label);
  };
  switch (name) {
    case 'EXIT':
    case 'RET':
      return predicate ? next : [];
    case 'BRX':
      return [
        .../\(\*"BRANCH_TARGETS ([^"]*)"\*\)/
          .exec(line)[1]
          .split(',')
          .map((label) => labels.get(label.trim())),
      ];
    case 'BRA':
      // Lanes that do not run together: never in this code.
      if (/DIV/.test(modifiers)) return next;
      return predicate || /^!?U?P\w+,/.test(operands) ? [target(), ...next] : [target()];
    default:
      return next;
  }
}

const isWideLoad = ({ name, modifiers }) => name === 'LDG' && modifiers.includes('.128');
const isWideCopy = ({ name, modifiers }) => name === 'LDGSTS' && modifiers.includes('.128');
const isWideStore = ({ name, modifiers }) => name === 'STG' && /\.(128|64)/.test(modifiers);
/** What puts a vector of an unaligned row together. */
const isShift = ({ name, modifiers }) =>
  (name === 'SHFL' && modifiers.startsWith('.DOWN')) ||
  (name === 'SHF' && modifiers.startsWith('.R.W'));

const isMaximum = ({ name }) => ['FMNMX', 'HMNMX2', 'VHMNMX'].includes(name);

/**
 * For each instruction, whether it computes an exponential of a part: the elements at the ends of a
 * row, one at a time, are not meant.
 */
function exponentials({ instructions, labels }) {
  const leaders = new Set(labels.values());
  const fast = ({ name, modifiers }) => name === 'MUFU' && modifiers.startsWith('.EX2');
  // The number that rounds the argument of exp_accurate.
  const accurate = ({ name, operands }) => name === 'FADD' && /-12582912\b/.test(operands);
  const found = new Array(instructions.length).fill(false);
  let block = [];
  const close = () => {
    if (block.length > 1) for (const i of block) found[i] = true;
    block = [];
  };
  instructions.forEach((instruction, i) => {
    if (leaders.has(i)) close();
    if (fast(instruction)) block.push(i);
    else if (accurate(instruction)) found[i] = true;
    if (['BRA', 'BRX', 'EXIT', 'RET'].includes(instruction.name) || isBarrier(instruction)) close();
  });
  close();
  return found;
}

/**
 * From each instruction the path to a barrier that does most: exponentials first, then wide loads,
 * shifts and maxima, or, where those are looked for, wide copies; among equals that of fewest
 * instructions.
 */
function bestPaths(code, { withLoads, copies = false }) {
  const { instructions } = code;
  const isExponential = exponentials(code);
  const best = new Array(instructions.length);
  const own = (i) =>
    (copies
      ? [isWideCopy(instructions[i]), true]
      : [
          isExponential[i],
          isWideLoad(instructions[i]),
          isShift(instructions[i]),
          isMaximum(instructions[i]),
          true,
        ]
    ).map(Number);
  const signs = copies ? [1, -1] : [1, 1, 1, 1, -1];
  const better = (a, b) => {
    const i = a.findIndex((value, each) => value !== b[each]);
    return i >= 0 && signs[i] * (a[i] - b[i]) > 0;
  };
  const settle = (i, edges) => {
    let next;
    for (const to of edges)
      if (
        best[to] &&
        (withLoads || !isWideLoad(instructions[to])) &&
        (next === undefined || better(best[to].score, best[next].score))
      )
        next = to;
    const rest = best[next]?.score ?? signs.map(() => 0);
    best[i] = { next, score: own(i).map((value, each) => value + rest[each]) };
  };
  for (let start = 0; start < instructions.length; start++) {
    if (best[start]) continue;
    const stack = [{ i: start, edges: successors(code, start), at: 0 }];
    const open = new Set([start]);
    while (stack.length > 0) {
      const top = stack.at(-1);
      const to = top.edges[top.at++];
      if (to === undefined) {
        stack.pop();
        open.delete(top.i);
        settle(top.i, top.edges);
      } else if (!best[to] && !open.has(to)) {
        // Neither known nor the way back of a loop.
        open.add(to);
        stack.push({ i: to, edges: successors(code, to), at: 0 });
      }
    }
  }
  return best;
}

function registersOf({ operands }) {
  return [...operands.replace(/desc\[[^\]]*\]/g, '').matchAll(/\bR(\d+)\b/g)].map(([, number]) =>
    Number(number),
  );
}

/** How many wide loads are issued before anything touches what one of them brings. */
function loadsInFlight(path) {
  const pending = new Set();
  let loads = 0;
  for (const instruction of path) {
    const registers = registersOf(instruction);
    if (isWideLoad(instruction)) {
      loads++;
      for (let r = registers[0]; r < registers[0] + 4; r++) pending.add(r);
    } else if (registers.some((r) => pending.has(r))) {
      break;
    }
  }
  return loads;
}

/**
 * What a kernel does with a whole part, by name: { slots: { fma, alu, ... }, total, loads }, slots
 * an element. Of several ways of a name the one of most instructions is told. `elements`: how many
 * a part has for each thread; `keeps`: whether the kernel also writes what it has kept over a
 * barrier, in registers or, where it copies parts, in shared memory.
 */
export function partsOf(code, { elements, keeps = false }) {
  const { instructions } = code;
  const copying = instructions.some(isWideCopy);
  const parts = {};
  const add = (path, copies) => {
    const writes = path.some(isWideStore);
    const loads = path.some(isWideLoad);
    const kept = `gradient from ${copying ? 'a copy' : 'registers'}`;
    const name = copies ? 'copies' : writes ? (loads ? 'gradient' : kept) : 'sums';
    const key = path.some(isShift) ? `${name}, unaligned` : name;
    if (path.length <= (parts[key]?.total ?? 0) * elements) return;
    const slots = Object.fromEntries(pipeNames.map((pipe) => [pipe, 0]));
    for (const instruction of path) slots[pipeOf(instruction.name)] += 1 / elements;
    const inFlight = copies ? path.filter(isWideCopy).length : loadsInFlight(path);
    parts[key] = { slots, total: path.length / elements, loads: inFlight };
  };
  const ways = [
    { withLoads: true },
    keeps && { withLoads: false },
    copying && { withLoads: false, copies: true },
  ].filter(Boolean);
  for (const { withLoads, copies = false } of ways) {
    const best = bestPaths(code, { withLoads, copies });
    const begins = (i) =>
      withLoads ? isWideLoad(instructions[i]) : i > 0 && isBarrier(instructions[i - 1]);
    const enough = copies ? 1 : elements;
    const paths = instructions.flatMap((_, start) => {
      if (!begins(start) || best[start].score[0] < enough) return [];
      const indices = [];
      let stored = false;
      for (let i = start; i !== undefined; i = best[i].next) {
        // The next part, where no barrier lies between.
        if (stored && isWideLoad(instructions[i])) break;
        stored ||= isWideStore(instructions[i]);
        indices.push(i);
      }
      return [indices];
    });
    // A start within another's path is the same part, seen from a later load.
    const within = new Set(paths.flatMap((indices) => indices.slice(1)));
    for (const indices of paths) {
      const path = indices.map((i) => instructions[i]);
      if (within.has(indices[0])) continue;
      if (withLoads || copying || path.some(isWideStore)) add(path, copies);
    }
  }
  return parts;
}
