/** Pairs of conversations: what of them is the prompt, wherever the file has it. */
import { isDeepStrictEqual } from 'node:util';
import { Refusal, type ConversationalPreference, type Message } from './records.js';
import { findWords, squeezed } from './text.js';

type Turns = readonly Message[];

const isSystem = ({ role }: Message): boolean => /^(system|developer)$/i.test(role);
const answers =
  /^(assistant|model|gpt|bot|chatbot|ai|agent|tool.*|function.*|ipython|observation|environment)$/i;
/** Whoever is neither the model nor its tools nor the system asks. */
const isQuestion = (message: Message): boolean => !isSystem(message) && !answers.test(message.role);

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

/**
 * The turns that both conversations begin with. Where one of the two ends with them, only those up
 * to the last question: equal conversations have an answer each, too.
 */
function sharedTurns(chosen: Turns, rejected: Turns): Turns {
  const most = Math.min(chosen.length, rejected.length);
  let length = 0;
  while (length < most && isShared(chosen[length] as Message, rejected[length] as Message))
    length++;
  const shared = chosen.slice(0, length);
  return length < most ? shared : shared.slice(0, shared.findLastIndex(isQuestion) + 1);
}

function preference(prompt: Turns, chosen: Turns, rejected: Turns): ConversationalPreference {
  for (const [name, turns] of Object.entries({ chosen, rejected })) {
    if (turns.length === 0)
      throw new Refusal(
        'completion',
        `${name}: has no message after the ${prompt.length} of the prompt`,
      );
  }
  return { prompt, chosen, rejected };
}

/** The first turns of both as the prompt. */
function splitAfter(shared: Turns, chosen: Turns, rejected: Turns): ConversationalPreference {
  return preference(shared, chosen.slice(shared.length), rejected.slice(shared.length));
}

function implicit(chosen: Turns, rejected: Turns): ConversationalPreference {
  const shared = sharedTurns(chosen, rejected);
  if (shared.some(isQuestion)) return splitAfter(shared, chosen, rejected);
  const why = isShared(chosen[0] as Message, rejected[0] as Message)
    ? 'share no turn of a user'
    : 'begin with different messages';
  throw new Refusal('prompt', `prompt: is missing, and chosen and rejected ${why}`);
}

/** What a chat template writes around the turns, and punctuation. */
const templateText =
  /<[^<>\s]{1,64}>|\[\/?\w{1,16}\]|\b(?:system|user|human|assistant|model|bot|instruction|question|answer|response)\b|[^\p{L}\p{N}]/giu;

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
interface Completion {
  readonly system: Turns;
  readonly turns: Turns;
}

/** A prompt of its own, before completions that may repeat it, with or without a system message. */
function explicit(
  given: Turns,
  isText: boolean,
  chosen: Turns,
  rejected: Turns,
): ConversationalPreference {
  const own = given.slice(0, systemLength(given));
  const asked = given.slice(own.length);
  const common = sharedTurns(chosen, rejected);
  const earlier = earlierTurns(asked, common.slice(systemLength(common)));
  for (const side of [chosen, rejected]) {
    const turns = side.slice(systemLength(side));
    // What begins with a question is a conversation. Where the other side has not its turns, there
    // is no prompt that both follow.
    const own = turns.slice(0, 1).some(isQuestion) ? earlierTurns(asked, turns) : [];
    if (own.length > earlier.length) {
      throw new Refusal(
        'prompt',
        'prompt: only one of chosen and rejected repeats it, after turns that the other has not',
      );
    }
  }
  const [first, second] = [chosen, rejected].map((side): Completion => {
    const system = side.slice(0, systemLength(side));
    const turns = side.slice(system.length + earlier.length);
    const repeated = repeatedLength(asked, turns);
    const repeatsSystem = system.length > 0 && isRepeatedBy(own, system);
    // Text has no place among turns, but after the system message. Messages have theirs.
    return isText || repeated > 0 || repeatsSystem
      ? { system, turns: turns.slice(repeated) }
      : { system: [], turns: side };
  }) as [Completion, Completion];

  const system = own.length > 0 ? own : first.system;
  const agrees = (side: Completion): boolean =>
    isRepeatedBy(system, side.system) || (own.length > 0 && side.system.length === 0);
  if (!agrees(first) || !agrees(second)) {
    throw new Refusal(
      'prompt',
      'prompt: chosen and rejected have different system messages before it',
    );
  }
  const prompt = [...system, ...earlier, ...asked];
  // What both go on with is context, too, where the prompt asks nothing, or is text, which may be
  // less than all of it.
  const shared = isText || !asked.some(isQuestion) ? sharedTurns(first.turns, second.turns) : [];
  const { length } = shared.some(isQuestion) ? shared : [];
  return preference(
    [...prompt, ...shared.slice(0, length)],
    first.turns.slice(length),
    second.turns.slice(length),
  );
}

/**
 * @param prompt text, messages, or undefined where there is none
 * @throws Refusal where there is no prompt, or no completion after it
 */
export function conversationOf(
  prompt: string | Turns | undefined,
  chosen: Turns,
  rejected: Turns,
): ConversationalPreference {
  if (typeof prompt === 'object') return explicit(prompt, false, chosen, rejected);
  // An empty text is what stores of columns write where there is none.
  if (prompt === undefined || prompt.trim() === '') return implicit(chosen, rejected);
  const shared = sharedTurns(chosen, rejected);
  switch (stands(prompt, shared)) {
    case 'whole':
      return splitAfter(shared, chosen, rejected);
    case 'not':
      return explicit([{ role: 'user', content: prompt }], true, chosen, rejected);
    case 'more':
      throw new Refusal(
        'prompt',
        'prompt: is text that has more than the turns of chosen and rejected; give it as messages, or leave it out',
      );
  }
}
