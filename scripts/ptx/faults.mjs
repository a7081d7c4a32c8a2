// One wrong instruction in the PTX of a kernel, to show that scripts/test-ptx.mjs would find it.

/** Pass::tokens: a small kernel, each number of which is compared with float64. */
const entryPattern = /\.entry ([\w$]+PassE1E[\w$]+)\(/;

/** By name: where, one fault in a module; an instruction of the sums; what has it wrong. */
const kinds = {
  'log2(e) is 2^-12 too large': {
    module: 'loss_float16.ptx',
    at: /(mul\.f32\s+(%f\d+), %f\d+, )0f3FB8AA3B(;\s+ex2\.approx\.ftz\.f32 %f\d+, \2;)/,
    wrong: '$10f3FB8B23B$3',
  },
  'an addition subtracts': {
    module: 'loss_bfloat16.ptx',
    at: /(ex2\.approx\.ftz\.f32 (%f\d+), %f\d+;\s+)add(\.f32\s+%f\d+, (?:\2, %f\d+|%f\d+, \2);)/,
    wrong: '$1sub$3',
  },
};

/**
 * @param {Map<string, string>} modules PTX by file name
 * @returns {Map<string, Record<string, Record<string, string>>>} by file, kernel and name of the
 *   fault: the module's PTX with the fault in that kernel
 */
export function faults(modules) {
  const planted = Object.entries(kinds).map(([name, { module, at, wrong }]) => {
    const ptx = modules.get(module)?.replace(/\/\/.*/g, '') ?? '';
    const entry = entryPattern.exec(ptx);
    if (!entry) throw new Error(`no kernel for ${name} in ${module}`);
    const body = ptx.slice(entry.index);
    if (!at.test(body)) throw new Error(`${module} has no place for ${name}`);
    const faulty = ptx.slice(0, entry.index) + body.replace(at, wrong);
    return [module, { [entry[1]]: { [name]: faulty } }];
  });
  return new Map(planted);
}
