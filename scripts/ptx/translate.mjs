// From PTX, as nvcc writes it, to C++ that runs on the emulation of CUDA (tests/simt): statement by
// statement, each on the line that it has in the PTX, so that the emulation's messages point there.
// What is not understood, an instruction above all, is an error that names it.
import { instruction } from './instructions.mjs';
import { operandsOf, parse, variable } from './parse.mjs';
import { bitsOf, typeOf, wordTypes } from './types.mjs';

const specialRegisters = {
  '%tid.x': 'threadIdx.x',
  '%ntid.x': 'blockDim.x',
  '%ctaid.x': 'blockIdx.x',
  '%nctaid.x': 'gridDim.x',
  '%laneid': 'simt::self->lane',
};

/** Registers are lower case r_, labels l_: no name of PTX is one of C++. */
const cppName = (name) => name.replaceAll('%', 'r_').replaceAll('$', 'l_');

function signature({ name, parameters, results }) {
  const taken = [...parameters, ...results].map((each) => `char* ${cppName(each.name)}`);
  return `static void ${cppName(name)}(${taken.join(', ')})`;
}

/** Reads operands in the scopes of one function; inner registers hide outer ones. */
class Context {
  constructor(fn, shared) {
    this.shared = shared;
    this.scopes = [new Map()];
    this.symbols = new Set([...fn.parameters, ...fn.results].map(({ name }) => name));
  }
  name(symbol) {
    return cppName(symbol);
  }
  /** `bool`, or the unsigned type of the register; undefined for what is none. */
  register(name) {
    return this.scopes.findLast((scope) => scope.has(name))?.get(name);
  }
  set(register, expression) {
    const type = this.register(register);
    if (!type) throw new Error(`there is no register ${register}`);
    return `${cppName(register)} = ${type}(ptx::bits(${expression}));`;
  }
  value(operand, type) {
    const word = type === 'pred' ? 'bool' : wordTypes[bitsOf(type)];
    const bits = `${word}(${this.word(operand)})`;
    const wanted = typeOf(type);
    return wanted === word ? bits : `ptx::as<${wanted}>(${bits})`;
  }
  word(operand) {
    if (this.register(operand)) return cppName(operand);
    if (operand in specialRegisters) return specialRegisters[operand];
    if (/^0[fFdD][0-9A-Fa-f]+$/.test(operand)) return `0x${operand.slice(2)}u`;
    const integer = /^(-?)(0x[0-9A-Fa-f]+|\d+)U?$/.exec(operand);
    if (integer) return `${BigInt.asUintN(64, BigInt(integer[2]) * (integer[1] ? -1n : 1n))}ull`;
    const slot = this.shared.findIndex(({ name }) => name === operand);
    if (slot >= 0) return `ptx::shared_window * ${slot + 1}`;
    if (this.symbols.has(operand)) return `reinterpret_cast<uintptr_t>(${cppName(operand)})`;
    throw new Error(`the operand ${operand} is not understood`);
  }
  address(operand, space, bytes) {
    const match = /^\[([\w$%.]+)(?: ?\+ ?(-?\d+))?\]$/.exec(operand);
    if (!match) throw new Error(`the address ${operand} is not understood`);
    const at = `${this.value(match[1], 'u64')} + uint64_t(${match[2] ?? 0}ll)`;
    if (space === 'shared') return `ptx::shared(shared_variables, ${at}, ${bytes})`;
    if (space === 'cluster') return `ptx::in_cluster(shared_variables, ${at}, ${bytes})`;
    return `ptx::pointer(${at})`;
  }
}

function declaration(context, text) {
  const registers = /^\.reg \.(\w+) (.*)$/.exec(text);
  if (registers) {
    const [, type, names] = registers;
    const word = type === 'pred' ? 'bool' : wordTypes[bitsOf(type)];
    const all = names.split(',').flatMap((each) => {
      const [, prefix, count] = /^([%\w$]+?)(?:<(\d+)>)?$/.exec(each.trim());
      return count === undefined
        ? [prefix]
        : Array.from({ length: Number(count) }, (_, i) => `${prefix}${i}`);
    });
    for (const name of all) context.scopes.at(-1).set(name, word);
    return `${word} ${all.map(cppName).join(', ')};`;
  }
  if (/^\.(param|local) /.test(text)) {
    const { name, bytes } = variable(text);
    context.symbols.add(name);
    return `alignas(16) char ${cppName(name)}[${bytes}];`;
  }
  if (/^\.(pragma|loc) /.test(text)) return '';
  throw new Error('the directive is not understood');
}

function statement(context, text) {
  if (text === '{') {
    context.scopes.push(new Map());
    return '{';
  }
  if (text === '}') {
    context.scopes.pop();
    return '}';
  }
  if (text.endsWith(':')) return `${cppName(text)};`;
  if (text.startsWith('.')) return declaration(context, text);
  const [, not, predicate, opcode, rest] = /^(?:@(!?)(%\w+) )?(\S+) ?(.*)$/.exec(text);
  const translated = instruction(context, opcode, operandsOf(rest));
  if (translated === undefined) throw new Error(`the instruction ${opcode} has no translation`);
  return predicate ? `if (${not}${cppName(predicate)}) ${translated}` : translated;
}

/** What an entry calls, itself last: only that is compiled with it. */
function reachable(entry, functions) {
  const found = new Set();
  const visit = (fn) => {
    if (found.has(fn)) return;
    found.add(fn);
    for (const { text } of fn.body) {
      const callee = /^(?:@!?%\w+ )?call(?:\.uni)? (?:\([^)]*\) ?, ?)?([\w$]+)/.exec(text)?.[1];
      if (callee === undefined) continue;
      const called = functions.find(({ name }) => name === callee);
      if (!called) throw new Error(`PTX: ${callee} is called and not there`);
      visit(called);
    }
  };
  visit(entry);
  return functions.filter((fn) => found.has(fn));
}

/** The functions of one program in a namespace of its own; `file` is the PTX's name in messages. */
function program(space, { entry, functions, shared }, file) {
  const used = reachable(entry, functions);
  const variables = shared.map(
    ({ name, bytes, alignment }) => `{${bytes}, ${alignment}}, // ${name}`,
  );
  const lines = [
    `namespace ${space} {`,
    'static const ptx::SharedVariable shared_variables[] = {',
    ...variables,
    '{0, 1}};',
    ...used.map((fn) => `${signature(fn)};`),
  ];
  for (const fn of used) {
    const context = new Context(fn, shared);
    lines.push(`#line ${fn.line} ${JSON.stringify(file)}`, `${signature(fn)} {`);
    let at = fn.line + 1;
    for (const { text, line } of fn.body) {
      if (line !== at) lines.push(`#line ${line}`);
      at = line + 1;
      try {
        lines.push(statement(context, text));
      } catch (error) {
        throw new Error(`${file}:${line}: ${error.message}, in "${text}"`, { cause: error });
      }
    }
    lines.push('}');
  }
  return [...lines, '}'];
}

const entryOf = (module, name, what) => {
  const entry = module.functions.find((fn) => fn.kind === 'entry' && fn.name === name);
  if (!entry) throw new Error(`${what} has no kernel ${name}`);
  return { entry, ...module };
};

/**
 * @param {string} source PTX of a module
 * @param {string} file its name in messages
 * @param {Record<string, Record<string, string>>} mutants by kernel and by name: PTX with a fault
 * @returns {Map<string, string>} for each kernel, C++ that defines a function of the kernel's own
 *   symbol. Where DIRALIGN_PTX_MUTANT names a mutant it does what that does.
 */
export function translate(source, file, mutants = {}) {
  const module = parse(source);
  const entries = module.functions.filter(({ kind }) => kind === 'entry');
  return new Map(
    entries.map(({ name, parameters }) => {
      const faulty = Object.entries(mutants[name] ?? {});
      const types = parameters.map(
        ({ bytes, alignment }) => `ptx::Parameter<${bytes}, ${alignment}>`,
      );
      const call = `${cppName(name)}(${types.map((_, i) => `p${i}.bytes`).join(', ')});`;
      return [
        name,
        [
          '#include "ptx.h"',
          ...program('translated', entryOf(module, name, file), file),
          ...faulty.flatMap(([, text], i) =>
            program(`mutant_${i}`, entryOf(parse(text), name, 'a mutant'), file),
          ),
          '#line 1 "the entry of the kernel"',
          `extern "C" void ${name}(${types.map((type, i) => `${type} p${i}`).join(', ')}) {`,
          `  static const bool first = ptx::entered("${name}");`,
          '  (void)first;',
          ...faulty.flatMap(([mutant], i) => [
            `  static const bool is_mutant_${i} = ptx::is_mutant("${mutant}");`,
            `  if (is_mutant_${i}) return mutant_${i}::${call}`,
          ]),
          `  translated::${call}`,
          '}',
          '',
        ].join('\n'),
      ];
    }),
  );
}
