/** Texts of one prompt: where the prompt stands in the completions too, it is taken off them. */
import { Refusal, type Answered } from './records.js';
import { afterWords, anyOf, commonStart, findWords, squeezed } from './text.js';

/**
 * Headers of turns in dialogues that are one text, as in HH-RLHF and in what chat templates make.
 */
const questionHeader = anyOf(
  'i',
  /(?:^|\n)[ \t#]*(?:human|user)[ \t]*:/,
  /<\|im_start\|>user/,
  /<\|user\|>/,
  /<\|start_header_id\|>user</,
  /<start_of_turn>user/,
  /\[INST\]/,
);
const answerHeader = anyOf(
  'gi',
  /(?:^|\n)[ \t#]*assistant[ \t]*:/,
  /<\|im_start\|>assistant\n/,
  /<\|assistant\|>\n?/,
  /<\|start_header_id\|>assistant<\|end_header_id\|>\n\n/,
  /<start_of_turn>model\n/,
  /\[\/INST\]/,
);

/**
 * Length of the dialogue that all texts begin with, through the header of the answer that they give
 * it; 0 where there is none.
 */
function dialogueLength([first = '', ...others]: readonly string[]): number {
  const length = others.reduce(
    (least, text) => Math.min(least, commonStart(first, text)),
    first.length,
  );
  const common = first.slice(0, length);
  const header = [...common.matchAll(answerHeader)].at(-1);
  if (header === undefined || !questionHeader.test(common.slice(0, header.index))) return 0;
  return header.index + header[0].length;
}

/**
 * The text after the prompt, where the text begins with it and goes on as another text would: after
 * whitespace, or after a prompt that ends in whitespace or like a header.
 */
function restAfter(text: string, prompt: string, words: readonly string[]): string | undefined {
  const end = afterWords(text, words);
  if (end < 0) return undefined;
  const rest = text.slice(end);
  if (/\s$/.test(prompt)) return rest.trimStart();
  return rest === '' || /^\s/.test(rest) || /[:>\]]$/.test(prompt) ? rest : undefined;
}

/**
 * @param prompt undefined where there is none: then the completions are dialogues that begin with
 *   the same turns
 * @throws Refusal where there is no prompt
 */
export function plainOf(prompt: string | undefined, texts: readonly string[]): Answered<string> {
  const dialogue = dialogueLength(texts);
  const [common = ''] = texts.map((text) => text.slice(0, dialogue));
  if (dialogue > 0 && (prompt === undefined || findWords(squeezed(common), squeezed(prompt)) >= 0))
    return { prompt: common, completions: texts.map((text) => text.slice(dialogue)) };
  if (prompt === undefined) {
    throw new Refusal(
      'prompt',
      'prompt: is missing; only conversations and dialogues of "Human:" and "Assistant:" ' +
        'may have it implicitly',
    );
  }
  const words = prompt.split(/\s+/).filter(Boolean);
  // Answers to a single word may begin with it, as one greeting with another.
  const rests = words.length > 1 ? texts.map((text) => restAfter(text, prompt, words)) : [];
  const isRepeated = rests.every((rest) => rest !== undefined) && rests.some(Boolean);
  return { prompt, completions: isRepeated ? rests : texts };
}
