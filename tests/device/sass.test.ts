import { describe, expect, it } from 'vitest';

interface Part {
  slots: Record<string, number>;
  total: number;
  loads: number;
}
const { functionsOf, partsOf } = (await import(
  new URL('../../scripts/sass.mjs', import.meta.url).href
)) as {
  functionsOf: (text: string) => object[];
  partsOf: (
    code: object | undefined,
    options: { elements: number; keeps?: boolean },
  ) => Record<string, Part>;
};

/**
 * A kernel of two vectors of two elements: what the counts must be can be read off the comments.
 */
function kernel({ secondLoad = 'LDG.E.128 R8, desc[UR4][R2.64+0x1000]', extra = '' } = {}) {
  return codeOf([
    'ISETP.NE.AND P0, PT, R0, RZ, PT',
    '@!P0 BRA `(.L_x_9)', // another work
    'LDG.E.128 R4, desc[UR4][R2.64]', // 1, the part begins
    secondLoad, // 2
    extra,
    'FADD R20, R4, -R12', // 3
    'MUFU.EX2 R20, R20', // 4
    'MUFU.EX2 R21, R5', // 5
    '@P1 BRA `(.L_x_3)', // 6
    'FFMA R30, R30, R30, R30', // the rare branch
    'FFMA R31, R31, R31, R31',
    '.L_x_3:',
    'MUFU.EX2 R22, R8', // 7
    'MUFU.EX2 R23, R9', // 8
    'BAR.SYNC.DEFER_BLOCKING 0x0', // 9
    'FADD R1, R1, R1',
    '.L_x_9:',
    'EXIT',
  ]);
}

function codeOf(lines: readonly string[]) {
  const body = lines
    .filter((line) => line !== '')
    .map((line, i) =>
      line.startsWith('.L')
        ? line
        : `        /*${(16 * i).toString(16).padStart(4, '0')}*/                   ${line} ;`,
    );
  return functionsOf(['.text._Z4loss:', ...body].join('\n'))[0];
}

describe('machine code, as scripts/check-sass.mjs counts it', () => {
  it('counts a whole part from its first load to the barrier, without rare branches', () => {
    const slots = { fma: 1 / 4, alu: 0, xu: 4 / 4, memory: 2 / 4, fp64: 0, other: 2 / 4 };
    expect(partsOf(kernel(), { elements: 4 })).toEqual({ sums: { slots, total: 9 / 4, loads: 2 } });
  });

  it('counts the loads before the first use, and not those after it', () => {
    expect(partsOf(kernel(), { elements: 4 }).sums?.loads).toBe(2);
    const early = kernel({
      secondLoad: 'FADD R20, R7, R7',
      extra: 'LDG.E.128 R8, desc[UR4][R2.64+0x1000]',
    });
    expect(partsOf(early, { elements: 4 }).sums?.loads).toBe(1);
  });

  it('tells rows that are shifted into place, and those that are written', () => {
    expect(
      Object.keys(partsOf(kernel({ extra: 'SHF.R.W.U32 R13, R14, R15, R16' }), { elements: 4 })),
    ).toEqual(['sums, unaligned']);
    expect(
      Object.keys(partsOf(kernel({ extra: 'STG.E.128 desc[UR4][R2.64], R12' }), { elements: 4 })),
    ).toEqual(['gradient']);
  });

  it('ends a part where it waits for messages of a cluster, and where the next one begins', () => {
    const sums = ['LDG.E.128 R4, desc[UR4][R2.64]', 'MUFU.EX2 R20, R4', 'MUFU.EX2 R21, R5'];
    const cluster = codeOf([
      '.L_x_1:',
      ...sums,
      'BAR.SYNC.DEFER_BLOCKING 0x0',
      'SYNCS.PHASECHK.TRANS64.TRYWAIT P0, [R6+URZ], R3',
      'MUFU.EX2 R22, R4', // from registers: 1
      'MUFU.EX2 R23, R5', // 2
      'STG.E.128 desc[UR4][R2.64], R12', // 3
      'FADD R1, R1, R1', // 4
      ...sums,
      'BAR.SYNC.DEFER_BLOCKING 0x0',
      'EXIT',
    ]);
    const parts = partsOf(cluster, { elements: 2, keeps: true });
    expect(Object.keys(parts).sort()).toEqual(['gradient from registers', 'sums']);
    expect(parts.sums?.total).toBe(4 / 2);
    expect(parts['gradient from registers']?.total).toBe(4 / 2);
    const readAgain = codeOf([...sums, 'STG.E.128 desc[UR4][R2.64], R12', ...sums, 'EXIT']);
    expect(partsOf(readAgain, { elements: 2 }).gradient?.total).toBe(4 / 2);
  });

  it('tells copies of the next part, and a gradient from the one before', () => {
    const copying = codeOf([
      '.L_x_1:',
      'LDGDEPBAR',
      'DEPBAR.LE SB0, 0x0',
      'LDS.128 R4, [R2]', // sums: 1
      'MUFU.EX2 R20, R4', // 2
      'MUFU.EX2 R21, R5', // 3
      'BAR.SYNC.DEFER_BLOCKING 0x0', // 4
      '@P0 BRA `(.L_x_2)', // copies: 1
      'FMNMX R7, R8, R9, !PT', // another warp adds up what there is
      '.L_x_2:',
      '@P1 LDGSTS.E.BYPASS.128 [R13], desc[UR4][R16.64]', // 2
      '@P2 LDGSTS.E.BYPASS.128 [R13+0x1000], desc[UR4][R16.64+0x1000]', // 3
      'SYNCS.PHASECHK.TRANS64.TRYWAIT P0, [R6+URZ], R3', // 4
      'LDS.128 R4, [R2]', // gradient: 1
      'MUFU.EX2 R22, R4', // 2
      'MUFU.EX2 R23, R5', // 3
      'STG.E.128 desc[UR4][R2.64], R12', // 4
      '@P3 BRA `(.L_x_1)', // 5, and the end
      'EXIT',
    ]);
    const parts = partsOf(copying, { elements: 2, keeps: true });
    expect(Object.keys(parts).sort()).toEqual(['copies', 'gradient from a copy', 'sums']);
    expect(parts.sums).toMatchObject({ total: 4 / 2, loads: 0 });
    expect(parts.copies).toMatchObject({ total: 4 / 2, loads: 2 });
    expect(parts['gradient from a copy']?.total).toBe(6 / 2);
  });

  it('sees no part where too few exponentials are computed', () => {
    expect(partsOf(kernel(), { elements: 5 })).toEqual({});
  });

  it('refuses an instruction whose pipe it does not know', () => {
    expect(() => partsOf(kernel({ extra: 'QUUX R1, R2' }), { elements: 4 })).toThrow(
      /which pipe takes QUUX/,
    );
  });
});
