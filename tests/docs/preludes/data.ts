/** The files that the snippets about data read, in the working directory, and a tokenizer. */
import fs from 'node:fs';

const pair = { prompt: 'is tea hot?', chosen: 'yes', rejected: 'no' };
fs.writeFileSync(
  'pairs.jsonl',
  `${JSON.stringify(pair)}\n${JSON.stringify({ ...pair, chosen: 'it is' })}\n`,
);
const { prompt } = pair;
fs.writeFileSync(
  'feedback.jsonl',
  `${JSON.stringify({ prompt, completion: 'yes', label: true })}\n` +
    `${JSON.stringify({ prompt, completion: 'no', label: 0 })}\n`,
);
fs.writeFileSync(
  'ratings.jsonl',
  `${JSON.stringify({ prompt, responses: ['yes', 'it is', 'no'], scores: [7, 9.5, 1] })}\n`,
);
fs.writeFileSync('reference-model.safetensors', 'its bytes are all that counts here');
fs.rmSync('reference.safetensors', { force: true });

export function encode(text: string): number[] {
  return Array.from(text, (character) => character.charCodeAt(0));
}
export const examples = [
  { prompt: encode(pair.prompt), chosen: encode(pair.chosen), rejected: encode(pair.rejected) },
];
