/**
 * The files of a model's tokenizer, of bytes and few special tokens, and conversations, in the
 * working directory.
 */
import fs from 'node:fs';

/**
 * Bytes as byte-level tokenizers write them: printable ones as themselves, the others from U+0100
 * on.
 */
function byteLetters(): string[] {
  const isPrintable = (byte: number): boolean =>
    (byte > 32 && byte < 127) || (byte > 160 && byte !== 173);
  let others = 0;
  return Array.from({ length: 256 }, (_, byte) =>
    String.fromCharCode(isPrintable(byte) ? byte : 256 + others++),
  );
}

const special = ['<|im_start|>', '<|im_end|>', '<pad>'];
const letters = byteLetters();
const tokenizer = {
  version: '1.0',
  added_tokens: special.map((content, i) => ({
    id: letters.length + i,
    content,
    single_word: false,
    lstrip: false,
    rstrip: false,
    normalized: false,
    special: true,
  })),
  normalizer: null,
  pre_tokenizer: {
    type: 'ByteLevel',
    add_prefix_space: false,
    trim_offsets: true,
    use_regex: true,
  },
  post_processor: null,
  decoder: { type: 'ByteLevel', add_prefix_space: true, trim_offsets: true, use_regex: true },
  model: {
    type: 'BPE',
    vocab: Object.fromEntries(letters.map((letter, id) => [letter, id])),
    merges: [],
  },
};
const config = {
  tokenizer_class: 'GPT2Tokenizer',
  bos_token: '<|im_start|>',
  eos_token: '<|im_end|>',
  pad_token: '<pad>',
  chat_template:
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + " +
    "message['content'] + '<|im_end|>' + '\n' }}{% endfor %}" +
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
};
const pairs = [
  ['Is tea hot?', 'Usually.', 'No!'],
  ['Two and two?', 'Four.', 'Five.'],
  ['A colour?', 'Blue.', 'Tuesday.'],
].map(([question, good, bad]) => ({
  prompt: [{ role: 'user', content: question }],
  chosen: [{ role: 'assistant', content: good }],
  rejected: [{ role: 'assistant', content: bad }],
}));

fs.writeFileSync('tokenizer.json', JSON.stringify(tokenizer));
fs.writeFileSync('tokenizer_config.json', JSON.stringify(config));
fs.writeFileSync('pairs.jsonl', pairs.map((pair) => `${JSON.stringify(pair)}\n`).join(''));
fs.rmSync('reference.safetensors', { force: true });
