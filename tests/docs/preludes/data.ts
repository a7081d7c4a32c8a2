/** The files that the snippets about data read, in the working directory, and a tokenizer. */
import fs from 'node:fs';

const pair = { prompt: 'is tea hot?', chosen: 'yes', rejected: 'no' };
fs.writeFileSync(
  'pairs.jsonl',
  `${JSON.stringify(pair)}\n${JSON.stringify({ ...pair, chosen: 'it is' })}\n`,
);
fs.writeFileSync('reference-model.safetensors', 'its bytes are all that counts here');
fs.rmSync('reference.safetensors', { force: true });

export function encode(text: string): number[] {
  return Array.from(text, (character) => character.charCodeAt(0));
}
export const examples = [
  { prompt: encode(pair.prompt), chosen: encode(pair.chosen), rejected: encode(pair.rejected) },
];
