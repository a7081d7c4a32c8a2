/** Conversations of one prompt: what of them is the prompt, wherever the file has it. */
import { isDeepStrictEqual } from 'node:util';
import { Refusal, type Answered, type Message, type Side } from './records.js';
import { anyOf, findWords, squeezed } from './text.js';

type Turns = readonly Message[];
type Sides = readonly Side<Turns>[];

export const isSystem = ({ role }: Message): boolean => /^(system|developer)$/i.test(role);
const answers =
  /^(assistant|model|gpt|bot|chatbot|ai|agent|tool.*|function.*|ipython|observation|environment)$/i;
/** Whoever is neither the model nor its tools nor the system asks. */
export const isQuestion = (message: Message): boolean =>
  !isSystem(message) && !answers.test(message.role);

/** Number of system messages that turns begin with. */
function systemLength(turns: Turns): number {
  const first = turns.findIndex((message) => !isSystem(message));
  return first < 0 ? turns.length : first;
}

/** A question is the same whatever its whitespace; fields that only one has make it another. */
function isShared(a: Message, b: Message): boolean {
  const plain = (message: Message): Message => ({ ...message, content: squeezed(message.content) });
  return isDeepStrictEqual(a, b) || (isQuestion(a) && isDeepStrictEqual(plain(a), plain(b)));
}

/** The sides as a message names them. */
function named(sides: Sides): string {
  const names = sides.map(({ name }) => name);
  return names.length > 2 ? `${names[0]} to ${names.at(-1)}` : names.join(' and ');
}

/**
 * The turns that all conversations begin with. Where one of them ends with them, only those up to
 * the last question: equal conversations have an answer each, too, and a single one has its own.
 */
function sharedTurns(conversations: readonly Turns[]): Turns {
  const [first = [], ...others] = conversations;
  const most = others.reduce((least, turns) => Math.min(least, turns.length), first.length);
  let length = 0;
  while (
    length < most &&
    others.every((turns) => isShared(first[length] as Message, turns[length] as Message))
  )
    length++;
  const shared = first.slice(0, length);
  return length < most ? shared : shared.slice(0, shared.findLastIndex(isQuestion) + 1);
}

/**
 * The turns that may have the prompt, where there is one apart. Of a single conversation that
 * begins with an answer there are none: what comes after the answer is part of the completion.
 */
function repeatableTurns(sides: Sides): Turns {
  const conversations = sides.map(({ said }) => said);
  const [first = [], ...others] = conversations;
  const start = first[systemLength(first)];
  const isAnswer = others.length === 0 && start !== undefined && !isQuestion(start);
  return isAnswer ? [] : sharedTurns(conversations);
}

/** The first turns of all as the prompt, or as the end of one. */
function splitAfter(shared: Turns, sides: Sides, before: Turns = []): Answered<Turns> {
  const prompt = [...before, ...shared];
  const completions = sides.map(({ name, said }) => {
    const rest = said.slice(shared.length);
    if (rest.length > 0) return rest;
    throw new Refusal(
      'completion',
      `${name}: has no message after the ${prompt.length} of the prompt`,
    );
  });
  return { prompt, completions };
}

function implicit(sides: Sides): Answered<Turns> {
  const shared = sharedTurns(sides.map(({ said }) => said));
  if (shared.some(isQuestion)) return splitAfter(shared, sides);
  const [first, ...others] = sides.map(({ said }) => said[0] as Message);
  const areAlike = others.every((other) => isShared(first as Message, other));
  const why = !areAlike
    ? 'begin with different messages'
    : `${others.length > 0 ? 'share' : 'has'} no turn of a user`;
  throw new Refusal('prompt', `prompt: is missing, and ${named(sides)} ${why}`);
}

/** What a chat template writes around the turns, and punctuation. */
const templateText = anyOf(
  'giu',
  /<[^<>\s]{1,64}>/,
  /\[\/?\w{1,16}\]/,
  /\b(?:system|user|human|assistant|model|bot|instruction|question|answer|response)\b/,
  /[^\p{L}\p{N}]/u,
);

/**
 * Whether the turns have all of a prompt that is text: a question does, or they are what a chat
 * template made the prompt of. `more` where the prompt has their questions and further text.
 */
function stands(prompt: string, turns: Turns): 'whole' | 'more' | 'not' {
  const given = squeezed(prompt);
  const texts = turns.map((message) => ({
    isAsked: isQuestion(message),
    text: squeezed(message.content),
  }));
  const present = texts.filter(({ text }) => text !== '');
  const questions = present.filter(({ isAsked }) => isAsked);
  if (questions.length === 0) return 'not';
  if (questions.some(({ text }) => findWords(text, given) >= 0)) return 'whole';
  let end = 0;
  let rest = '';
  for (const { isAsked, text } of present) {
    const at = findWords(given, text, end);
    if (at < 0 && isAsked) return 'not';
    if (at < 0) continue;
    rest += `${given.slice(end, at)}\n`;
    end = at + text.length;
  }
  return (rest + given.slice(end)).replace(templateText, '') === '' ? 'whole' : 'more';
}

/**
 * Whether a completion has a turn of the prompt again, up to whitespace, the name of who asks, and
 * fields that only one has.
 */
function isRepeated(ofPrompt: Message, ofCompletion: Message): boolean {
  if (isDeepStrictEqual(ofPrompt, ofCompletion)) return true;
  const text = squeezed(ofPrompt.content);
  if (text === '' || text !== squeezed(ofCompletion.content)) return false;
  const compared =
    isQuestion(ofPrompt) && isQuestion(ofCompletion) ? ['role', 'content'] : ['content'];
  const others = Object.entries(ofCompletion).filter(
    ([key]) => !compared.includes(key) && Object.hasOwn(ofPrompt, key),
  );
  return others.every(([key, value]) =>
    isDeepStrictEqual(value, (ofPrompt as unknown as Record<string, unknown>)[key]),
  );
}

const isRepeatedBy = (prompt: Turns, turns: Turns): boolean =>
  prompt.length === turns.length &&
  prompt.every((message, i) => isRepeated(message, turns[i] as Message));

/** Number of turns with which a prompt ends and a completion begins, a question among them. */
function repeatedLength(prompt: Turns, turns: Turns): number {
  for (let length = Math.min(prompt.length, turns.length); length > 0; length--) {
    const first = turns.slice(0, length);
    if (isRepeatedBy(prompt.slice(-length), first) && first.some(isQuestion)) return length;
  }
  return 0;
}

/**
 * What both conversations have before the prompt's turns, where these stand in both after earlier
 * ones.
 */
function earlierTurns(prompt: Turns, shared: Turns): Turns {
  if (!prompt.some(isQuestion)) return [];
  const at = shared.findIndex((_, i) => isRepeatedBy(prompt, shared.slice(i, i + prompt.length)));
  return shared.slice(0, Math.max(0, at));
}

/**
 * A completion without what it repeats of the prompt, and the system message that stood before
 * that.
 */
interface Completion extends Side<Turns> {
  readonly system: Turns;
}

/** A prompt of its own, before completions that may repeat it, with or without a system message. */
function explicit(given: Turns, isText: boolean, sides: Sides): Answered<Turns> {
  const own = given.slice(0, systemLength(given));
  const asked = given.slice(own.length);
  const common = repeatableTurns(sides);
  const earlier = earlierTurns(asked, common.slice(systemLength(common)));
  const apart = sides.filter(({ said }) => {
    const turns = said.slice(systemLength(said));
    // What begins with a question is a conversation. Where the others have not its turns, there is
    // no prompt that all follow.
    const own = turns.slice(0, 1).some(isQuestion) ? earlierTurns(asked, turns) : [];
    return own.length > earlier.length;
  });
  if (apart.length > 0) {
    throw new Refusal(
      'prompt',
      'prompt: is repeated after other turns by only ' +
        `${apart.length === 1 ? 'one' : apart.length} of ${named(sides)}`,
    );
  }
  const completions = sides.map(({ name, said }): Completion => {
    const system = said.slice(0, systemLength(said));
    const turns = said.slice(system.length + earlier.length);
    const repeated = repeatedLength(asked, turns);
    const repeatsSystem = system.length > 0 && isRepeatedBy(own, system);
    // Text has no place among turns, but after the system message. Messages have theirs.
    return isText || repeated > 0 || repeatsSystem
      ? { name, system, said: turns.slice(repeated) }
      : { name, system: [], said };
  });

  const system = own.length > 0 ? own : (completions[0]?.system ?? []);
  const agrees = (side: Completion): boolean =>
    isRepeatedBy(system, side.system) || (own.length > 0 && side.system.length === 0);
  if (!completions.every(agrees)) {
    throw new Refusal(
      'prompt',
      `prompt: different system messages come before it in ${named(sides)}`,
    );
  }
  const prompt = [...system, ...earlier, ...asked];
  // What all go on with is context, too, where the prompt asks nothing, or is text, which may be
  // less than all of it.
  const shared = !asked.some(isQuestion)
    ? sharedTurns(completions.map(({ said }) => said))
    : isText
      ? repeatableTurns(completions)
      : [];
  return splitAfter(shared.some(isQuestion) ? shared : [], completions, prompt);
}

/**
 * @param prompt text, messages, or undefined where there is none
 * @param sides the completions, each with its name: two of a pair, or any other number
 * @throws Refusal where there is no prompt, or no completion after it
 */
export function conversationOf(prompt: string | Turns | undefined, sides: Sides): Answered<Turns> {
  if (typeof prompt === 'object') return explicit(prompt, false, sides);
  // An empty text is what stores of columns write where there is none.
  if (prompt === undefined || prompt.trim() === '') return implicit(sides);
  const shared = repeatableTurns(sides);
  switch (stands(prompt, shared)) {
    case 'whole':
      return splitAfter(shared, sides);
    case 'not':
      return explicit([{ role: 'user', content: prompt }], true, sides);
    case 'more':
      throw new Refusal(
        'prompt',
        `prompt: is text that has more than the turns of ${named(sides)}; ` +
          'give it as messages, or leave it out',
      );
  }
}
