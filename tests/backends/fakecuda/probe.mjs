// Prints what a process knows of CUDA, and that it computes all the same. argv: URL of the
// package's entry
const { cuda, dirAlignLoss } = await import(process.argv[2]);
const { nativePath } = await import(new URL('native/interface.js', process.argv[2]));
const batch = { logits: new Float32Array(2), shape: [1, 1, 2], labels: Int32Array.of(0) };
const objective = dirAlignLoss('sft');
const report = {
  file: nativePath(),
  available: cuda.available,
  reason: cuda.reason,
  devices: cuda.devices(),
  loss: objective(batch).loss,
};
try {
  objective(batch, { backend: 'cuda' });
} catch ({ code, message }) {
  report.refused = { code, message };
}
console.log(JSON.stringify(report));
