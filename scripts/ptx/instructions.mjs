// What each PTX instruction is in C++, over tests/simt/ptx.h. An instruction that no rule matches
// whole, modifiers included, is refused by name.
import { bitsOf, typeOf, unsigned, wordTypes } from './types.mjs';

const integer = '[usb](?:16|32|64)';
const comparisons = { eq: '==', ne: '!=', lt: '<', le: '<=', gt: '>', ge: '>=', lo: '<', ls: '<=' };
Object.assign(comparisons, { hi: '>', hs: '>=' });
const roundings = { rzi: 'std::trunc', rni: 'std::nearbyint', rmi: 'std::floor', rpi: 'std::ceil' };
const bitwise = { and: '&', or: '|', xor: '^' };
const arithmetic = { add: '+', sub: '-', mul: '*', div: '/', rem: '%' };
const any = '[usbf](?:8|16|32|64)';
const vector = '(?:\\.v([24]))?';
// How long a line stays in a cache changes no value.
const cached = '(?:\\.(?:ca|cg|cs|lu|wb|wt|nc))?';

/** What stands between brackets of any kind, separated by commas. */
const list = (text) =>
  text
    .slice(1, -1)
    .split(',')
    .map((each) => each.trim())
    .filter(Boolean);
const elements = (operand) => (operand.startsWith('{') ? list(operand) : undefined);
const values = (c, operands, type) => operands.map((each) => c.value(each, type)).join(', ');

/**
 * [pattern of the whole opcode, (context, operands, match) => C++ statement], undefined where the
 * operands are unknown. The context gives `value(operand, type)`, an expression of `typeOf(type)`;
 * `set(register, expression)`, a statement; `address(operand, space, bytes)`, a `char*`;
 * `name(symbol)`.
 */
const rules = [
  ['bra(?:\\.uni)?', (c, [label]) => `goto ${c.name(label)};`],
  ['ret(?:\\.uni)?', () => 'return;'],
  ['call(?:\\.uni)?', (c, operands) => call(c, operands)],
  ['bar\\.sync', (c, operands) => (operands.join() === '0' ? '__syncthreads();' : undefined)],
  ['bar\\.warp\\.sync', (c, [mask]) => `__syncwarp(${c.value(mask, 'u32')});`],
  ['nanosleep\\.u32', (c, [time]) => `__nanosleep(${c.value(time, 'u32')});`],
  [
    'shfl\\.sync\\.(up|down|bfly|idx)\\.b32',
    (c, [to, ...from], [, mode]) => {
      const [result, inRange] = to.split('|');
      const shuffled = `const auto s = ptx::shuffle<ptx::${mode}>(${values(c, from, 'u32')});`;
      const flag = inRange ? c.set(inRange, 's.in_range') : '';
      return `{ ${shuffled} ${c.set(result, 's.value')} ${flag} }`;
    },
  ],

  [
    `(ld|st)(\\.acquire\\.gpu)?(?:\\.(global|shared|param|local))?${cached}${vector}\\.(${any})`,
    access,
  ],
  [
    'atom(?:\\.global)?\\.add(\\.acq_rel\\.gpu)?(?:\\.global)?\\.u32',
    (c, [to, address, addend], [, ordered]) => {
      const at = `ptx::aligned<uint32_t>(${c.address(address, 'global', 4)})`;
      const add = ordered ? 'simt::atomic_add_acq_rel' : 'atomicAdd';
      return c.set(to, `${add}(${at}, ${c.value(addend, 'u32')})`);
    },
  ],
  [
    'cvta\\.(?:to\\.)?(?:global|param|local)\\.u64',
    (c, [to, from]) => c.set(to, c.value(from, 'u64')),
  ],
  [
    'cvta\\.shared\\.u64',
    (c, [to, from]) =>
      c.set(to, `uint64_t(ptx::shared(shared_variables, ${c.value(from, 'u64')}, 0))`),
  ],
  [
    'cvta\\.to\\.shared\\.u64',
    (c, [to, from]) => c.set(to, `ptx::to_shared(shared_variables, ${c.value(from, 'u64')})`),
  ],

  // Clusters: addresses in the shared memory of one are 32-bit ones, too.
  [
    'mapa\\.shared::cluster\\.u32',
    (c, [to, ...from]) => c.set(to, `ptx::cluster_address(${values(c, from, 'u32')})`),
  ],
  ['barrier\\.cluster\\.arrive\\.release\\.aligned', () => 'simt::cluster_arrive();'],
  ['barrier\\.cluster\\.wait\\.acquire\\.aligned', () => 'simt::cluster_wait();'],
  ['fence\\.mbarrier_init\\.release\\.cluster', () => ';'],
  [
    'mbarrier\\.init\\.shared::cta\\.b64',
    (c, [box, count]) => `simt::mbarrier_init(${mbarrier(c, box)}, ${c.value(count, 'u32')});`,
  ],
  [
    'mbarrier\\.arrive\\.expect_tx\\.shared::cta\\.b64',
    (c, [state, box, bytes]) =>
      state === '_'
        ? `simt::mbarrier_arrive_expect_tx(${mbarrier(c, box)}, ${c.value(bytes, 'u32')});`
        : undefined,
  ],
  [
    'mbarrier\\.try_wait\\.parity\\.acquire\\.cluster\\.shared::cta\\.b64',
    (c, [to, box, parity]) =>
      c.set(to, `ptx::try_wait(${mbarrier(c, box)}, ${c.value(parity, 'u32')})`),
  ],
  [
    `st\\.async\\.weak\\.shared::cluster\\.mbarrier::complete_tx::bytes${vector}\\.b32`,
    (c, [place, from, box], [, count]) => {
      const words = count ? elements(from) : [from];
      const bytes = 4 * words.length;
      const to = `ptx::check_alignment<${bytes}>(${c.address(place, 'cluster', bytes)})`;
      const at = mbarrier(c, box, 'cluster');
      const message = `const uint32_t v[] = {${values(c, words, 'b32')}};`;
      return `{ ${message} simt::store_async(${to}, v, ${bytes}, ${at}); }`;
    },
  ],

  [
    'cp\\.async\\.cg\\.shared\\.global',
    (c, [to, from, bytes]) =>
      bytes === '16'
        ? `simt::copy_async16(${c.address(to, 'shared', 16)}, ${c.address(from, 'global', 16)});`
        : undefined,
  ],
  ['cp\\.async\\.wait_all', () => 'simt::copy_async_wait_all();'],

  [`mov\\.(pred|[usbf](?:16|32|64))`, move],
  [`cvt(?:\\.(rn|rzi|rni|rmi|rpi))?\\.(\\w+)\\.(\\w+)`, convert],
  [
    'selp\\.([usbf](?:16|32|64))',
    (c, [to, yes, no, which], [, type]) =>
      c.set(to, `${c.value(which, 'pred')} ? ${c.value(yes, type)} : ${c.value(no, type)}`),
  ],
  [`setp\\.(\\w+)\\.([usbf](?:16|32|64))`, compare],

  [`(add|sub|mul|div)(?:\\.rn)?\\.(f32|f64)`, binary((op) => arithmetic[op])],
  [`(add|sub|mul)(?:\\.lo)?\\.(${integer})`, wrapping],
  [`(div|rem)\\.([us](?:16|32|64))`, binary((op) => arithmetic[op])],
  [
    `(mul|mad)\\.(lo|hi|wide)\\.([us](?:16|32|64))`,
    (c, [to, x, y, z], [, op, part, type]) => {
      const product = `ptx::product<ptx::${part}>(${c.value(x, type)}, ${c.value(y, type)})`;
      if (op === 'mul') return c.set(to, product);
      const bits = part === 'wide' ? 2 * bitsOf(type) : bitsOf(type);
      return c.set(to, `${product} + ${c.value(z, `u${bits}`)}`);
    },
  ],
  [
    'fma\\.rn\\.(f32|f64)',
    (c, [to, ...of], [, type]) => c.set(to, `std::fma(${values(c, of, type)})`),
  ],
  [`(min|max)\\.([usf](?:16|32|64))`, apply((op) => `ptx::${op}imum`)],
  [
    '(min|max)(\\.NaN)?\\.(bf16x2|f16x2)',
    (c, [to, ...of], [, op, nan, type]) => {
      const halves = `ptx::each_half<ptx::${type.slice(0, -2)}, ${Boolean(nan)}>`;
      return c.set(to, `${halves}(ptx::${op}imum<float>, ${values(c, of, 'b32')})`);
    },
  ],
  [
    `(neg)\\.(s(?:16|32|64))`,
    (c, [to, x], [, , type]) => c.set(to, `0 - ${c.value(x, unsigned(type))}`),
  ],
  [`(neg|abs)\\.(f32|f64)`, apply((op) => `ptx::${op === 'neg' ? 'negated' : 'magnitude'}`)],
  [
    'copysign\\.(f32|f64)',
    (c, [to, sign, size], [, type]) =>
      c.set(to, `std::copysign(${c.value(size, type)}, ${c.value(sign, type)})`),
  ],
  ['rcp\\.rn\\.(f32|f64)', (c, [to, x], [, type]) => c.set(to, `1 / ${c.value(x, type)}`)],
  ['sqrt\\.rn\\.(f32|f64)', (c, [to, x], [, type]) => c.set(to, `std::sqrt(${c.value(x, type)})`)],
  [
    'rcp\\.approx\\.ftz\\.f64',
    (c, [to, x]) => c.set(to, `ptx::reciprocal_of_high_word(${c.value(x, 'f64')})`),
  ],
  [
    'rcp\\.approx\\.ftz\\.f32',
    (c, [to, x]) => c.set(to, `diralign::cuda::reciprocal_approx(${c.value(x, 'f32')})`),
  ],
  [
    'ex2\\.approx\\.ftz\\.f32',
    (c, [to, x]) => c.set(to, `ptx::exp2_approx_ftz(${c.value(x, 'f32')})`),
  ],

  ['(and|or|xor)\\.(pred|b16|b32|b64)', binary((op) => bitwise[op])],
  ['not\\.(b16|b32|b64)', (c, [to, x], [, type]) => c.set(to, `~${c.value(x, type)}`)],
  ['not\\.pred', (c, [to, x]) => c.set(to, `!${c.value(x, 'pred')}`)],
  [
    '(shl|shr)\\.([usb](?:16|32|64))',
    (c, [to, x, by], [, op, type]) => {
      const shift = op === 'shl' ? 'ptx::left' : 'ptx::right';
      return c.set(to, `${shift}(${c.value(x, type)}, ${c.value(by, 'u32')})`);
    },
  ],
  [
    'shf\\.(l|r)\\.wrap\\.b32',
    (c, [to, ...of], [, way]) => c.set(to, `__funnelshift_${way}(${values(c, of, 'u32')})`),
  ],
  ['prmt\\.b32', (c, [to, ...of]) => c.set(to, `__byte_perm(${values(c, of, 'u32')})`)],
].map(([pattern, write]) => [new RegExp(`^${pattern}$`), write]);

function binary(operator) {
  return (c, [to, x, y], [, op, type]) =>
    c.set(to, `${c.value(x, type)} ${operator(op)} ${c.value(y, type)}`);
}
function apply(name) {
  return (c, [to, ...of], [, op, type]) => c.set(to, `${name(op)}(${values(c, of, type)})`);
}
/** Modulo 2^bits, signed or not: what overflows is no error in PTX. */
function wrapping(c, [to, x, y], [, op, type]) {
  const wide = (operand) => `uint64_t(${c.value(operand, unsigned(type))})`;
  return c.set(to, `${wide(x)} ${arithmetic[op]} ${wide(y)}`);
}

function mbarrier(c, operand, space = 'shared') {
  return `ptx::aligned<uint64_t>(${c.address(operand, space, 8)})`;
}

function call(c, operands) {
  const results = operands[0].startsWith('(') ? list(operands.shift()) : [];
  const [callee, given = '()'] = operands;
  const passed = [...list(given), ...results].map((each) => c.name(each));
  return `${c.name(callee)}(${passed.join(', ')});`;
}

function access(c, operands, [, op, acquire, space = 'generic', count, type]) {
  const load = op === 'ld';
  const [data, place] = load ? operands : [operands[1], operands[0]];
  const registers = count ? elements(data) : [data];
  const bytes = (bitsOf(type) / 8) * registers.length;
  const at = c.address(place, space, bytes);
  if (acquire) {
    if (!load || count || type !== 'u32') return undefined;
    return c.set(data, `simt::load_acquire(ptx::aligned<uint32_t>(${at}))`);
  }
  const each = registers.map((register, i) => {
    if (register === '_') return '';
    if (load) return c.set(register, `ptx::get<${typeOf(type)}>(a, ${i})`);
    return `ptx::put<${typeOf(type)}>(a, ${i}, ${c.value(register, type)});`;
  });
  return `{ char* const a = ptx::check_alignment<${bytes}>(${at}); ${each.join(' ')} }`;
}

function move(c, [to, from], [, type]) {
  const parts = elements(to);
  if (parts) {
    const bits = bitsOf(type) / parts.length;
    const taken = parts.map((part, i) =>
      part === '_' ? '' : c.set(part, `${wordTypes[bits]}(v >> ${i * bits})`),
    );
    return `{ const auto v = ${c.value(from, `b${bitsOf(type)}`)}; ${taken.join(' ')} }`;
  }
  const joined = elements(from);
  if (!joined) return c.set(to, c.value(from, type));
  const bits = bitsOf(type) / joined.length;
  return c.set(
    to,
    joined.map((part, i) => `uint64_t(${c.value(part, `b${bits}`)}) << ${i * bits}`).join(' | '),
  );
}

function convert(c, [to, from, second], [, rounding, target, source]) {
  const short = /^(bf16|f16)(x2)?$/.exec(target);
  if (short && rounding === 'rn' && source === 'f32') {
    const half = (operand) => `ptx::from_float<ptx::${short[1]}>(${c.value(operand, 'f32')})`;
    // The first operand is the upper half.
    return c.set(to, short[2] ? `uint32_t(${half(from)}) << 16 | ${half(second)}` : half(from));
  }
  if (/^b?f16$/.test(source) && target === 'f32' && !rounding)
    return c.set(to, `ptx::to_float<ptx::${source}>(${c.value(from, 'b16')})`);
  const [toFloat, fromFloat] = [target, source].map((type) => /^f(32|64)$/.test(type));
  const known = [target, source].every((type) => /^([us](8|16|32|64)|f(32|64))$/.test(type));
  if (!known) return undefined;
  const value = c.value(from, source);
  if (fromFloat && !toFloat)
    return rounding in roundings
      ? c.set(to, `ptx::to_integer<${typeOf(target)}>(${roundings[rounding]}(${value}))`)
      : undefined;
  const rounds = toFloat && !(source === 'f32' && target === 'f64');
  if ((rounds ? 'rn' : undefined) !== rounding || source === target) return undefined;
  return c.set(to, `${typeOf(target)}(${value})`);
}

function compare(c, [to, x, y], [, comparison, type]) {
  const [a, b] = [c.value(x, type), c.value(y, type)];
  const isFloat = type.startsWith('f');
  const unordered = isFloat && `ptx::unordered(${a}, ${b})`;
  if (to.includes('|')) return undefined;
  if (isFloat && comparison === 'nan') return c.set(to, unordered);
  if (isFloat && comparison === 'num') return c.set(to, `!${unordered}`);
  const [, ordered, orUnordered] = /^(..)(u?)$/.exec(comparison) ?? [];
  if (!(ordered in comparisons) || (orUnordered && !isFloat)) return undefined;
  const holds = `${a} ${comparisons[ordered]} ${b}`;
  if (orUnordered) return c.set(to, `${unordered} || ${holds}`);
  // Of the comparisons that are false for NaN, this one alone is true in C++.
  return c.set(to, isFloat && ordered === 'ne' ? `!${unordered} && ${holds}` : holds);
}

/** The C++ statement for an instruction; undefined where no rule knows it. */
export function instruction(context, opcode, operands) {
  for (const [pattern, write] of rules) {
    const match = pattern.exec(opcode);
    if (match) return write(context, [...operands], match);
  }
  return undefined;
}
