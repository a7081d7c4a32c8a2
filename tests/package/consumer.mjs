// Runs in a project that has nothing but diralign installed; tests/package/package.test.ts reads
// what it prints.
import { createRequire } from 'node:module';
import * as esm from 'diralign';
import { collatePairs } from 'diralign/data';
import * as reference from 'diralign/reference';
import { readSafetensors, writeSafetensors } from 'diralign/safetensors';

const require = createRequire(import.meta.url);
const cjs = require('diralign');

function tensorsReturn() {
  writeSafetensors('weights.safetensors', {
    weight: { dtype: 'F32', shape: [1, 2], data: Float32Array.of(1, 2) },
  });
  return readSafetensors('weights.safetensors').get('weight')?.data?.[1] === 2;
}

const report = {
  sameClass: esm.DirAlignError === cjs.DirAlignError,
  version: require('diralign/package.json').version,
  reference: Object.keys(reference).length > 0,
  safetensors: tensorsReturn(),
  data: collatePairs([{ prompt: [1], chosen: [2], rejected: [3] }], { pad: 0 }).sequences === 2,
  cuda: esm.cuda.reason ?? 'available',
};
try {
  const batch = { logits: new Float32Array(2), shape: [1, 1, 2], labels: Int32Array.of(0) };
  report.loss = esm.dirAlignLoss('sft')(batch).loss;
} catch (error) {
  report.error = {
    code: error.code,
    message: error.message,
    isDirAlignError: error instanceof esm.DirAlignError,
  };
}
console.log(JSON.stringify(report));
