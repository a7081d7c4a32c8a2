// The translation of PTX to C++ (scripts/ptx) keeps to what it understands. What its C++ computes
// is tested in tests/native/ptx_test.cc, and the kernels' own PTX by `npm run test:ptx`.
import { expect, test } from 'vitest';
// @ts-expect-error: plain JavaScript, without types
import * as ptx from '../../scripts/ptx/translate.mjs';

const { translate } = ptx as { translate: (source: string, file: string) => Map<string, string> };

const kernel = (body: string): string => `.version 9.0
.target sm_90
.address_size 64
.shared .align 8 .b8 buffer[64];
.extern .shared .align 16 .b8 more[];
.visible .entry k(.param .align 8 .b8 k_param_0[24])
{
.reg .pred %p<4>;
.reg .f32 %f<4>;
.reg .b32 %r<4>;
.reg .b64 %rd<4>;
${body}
}`;
const cpp = (body: string): string => translate(kernel(body), 'a.ptx').get('k') ?? '';

test.each([
  ['tanh.approx.f32', '%f1, %f2'],
  ['add.rz.f32', '%f1, %f2, %f3'],
  ['add.ftz.f32', '%f1, %f2, %f3'],
  ['add.sat.s32', '%r1, %r2, %r3'],
  ['ex2.approx.f32', '%f1, %f2'],
  ['sin.approx.ftz.f32', '%f1, %f2'],
  ['fma.rm.f32', '%f1, %f2, %f3, %f1'],
  ['ld.volatile.global.u32', '%r1, [%rd1]'],
  ['ld.acquire.sys.global.u32', '%r1, [%rd1]'],
  ['ld.shared::cluster.u32', '%r1, [%r2]'],
  ['barrier.cluster.arrive.relaxed.aligned', ''],
  ['mbarrier.try_wait.parity.relaxed.cluster.shared::cta.b64', '%p1, [%r1], %r2'],
  ['st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.b64', '[%r1], %rd1, [%r2]'],
  ['cp.async.ca.shared.global', '[%r1], [%rd1], 16'],
  ['cp.async.cg.shared.global', '[%r1], [%rd1], 8'],
  ['cp.async.wait_group', '1'],
  ['atom.add.acq_rel.sys.global.u32', '%r1, [%rd1], 1'],
  ['atom.shared.add.u32', '%r1, [%r2], 1'],
  ['membar.gl', ''],
  ['bar.sync', '1, 64'],
  ['cvt.u32.f32', '%r1, %f1'],
  ['cvt.f32.f64', '%f1, %rd1'],
  ['cvt.rzi.sat.u8.f32', '%r1, %f1'],
  ['setp.lt.and.f32', '%p1, %f1, %f2, %p2'],
  ['setp.ltu.s32', '%p1, %r1, %r2'],
  ['setp.lt.f32', '%p1|%p2, %f1, %f2'],
])('%s is refused by its name and its line', (opcode, operands) => {
  expect(() => cpp(`mov.u32 %r1, 0;\n${opcode} ${operands};`)).toThrow(
    `a.ptx:13: the instruction ${opcode} has no translation`,
  );
});

test.each([
  ['mov.u32 %r1, %r9;', 'the operand %r9'],
  ['mov.u32 %r1, %clock;', 'the operand %clock'],
  ['mov.u32 %r1, %tid.y;', 'the operand %tid.y'],
  ['mov.u32 %r9, 1;', 'no register %r9'],
  ['ld.global.u32 %r1, [%rd1+%r2];', 'the address [%rd1+%r2]'],
  ['.maxnreg 32;', 'the directive'],
  ['call.uni elsewhere, ();', 'elsewhere is called and not there'],
])('%s is refused', (body, message) => {
  expect(() => cpp(body)).toThrow(message);
});

test.each([
  [
    'add.f32 %f1, %f2, 0f3F800000;',
    'ptx::as<float>(uint32_t(r_f2)) + ptx::as<float>(uint32_t(0x3F800000u))',
  ],
  ['@!%p1 bra $L__BB0_1;\n$L__BB0_1:', 'if (!r_p1) goto l_L__BB0_1;'],
  ['setp.neu.f32 %p1, %f1, %f2;', 'ptx::unordered('],
  ['mov.u32 %r1, buffer;', 'ptx::shared_window * 1'],
  ['mov.u32 %r1, more;', 'ptx::shared_window * 2'],
  ['cp.async.cg.shared.global [%r1], [%rd1], 16;', 'simt::copy_async16(ptx::shared('],
  ['mov.u32 %r1, -1;', '18446744073709551615ull'],
  ['ld.global.cs.v4.u32 {%r0,%r1,%r2,%r3}, [%rd1+16];', 'check_alignment<16>'],
])('%s is translated', (body, expected) => {
  expect(cpp(body)).toContain(expected);
});

test('a register of a block hides that of the function', () => {
  expect(cpp('{\n.reg .b16 %r1;\nmov.b16 %r1, 7;\n}\nmov.b32 %r1, 7;')).toMatch(
    /r_r1 = uint16_t\([^]*\}\n[^]*r_r1 = uint32_t\(/,
  );
});

test('statements stay on their lines', () => {
  const lines = cpp('\n\nbar.sync 0;').split('\n');
  const marker = lines.findIndex((line) => line.startsWith('#line 14'));
  expect(lines[marker + 1]).toBe('__syncthreads();');
});
