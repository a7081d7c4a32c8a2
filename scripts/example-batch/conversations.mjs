// A grammar: questions about small household tasks, with helpful answers and answers nobody wants.
import { pick, random } from './arithmetic.mjs';

export const topics = [
  [
    'boil an egg',
    [
      'fill a small pot with water',
      'bring the water to a boil',
      'lower the egg in with a spoon',
      'wait seven minutes',
    ],
  ],
  [
    'cook rice',
    [
      'rinse the rice until the water runs clear',
      'add two cups of water',
      'cover the pot and turn the heat low',
      'let it rest',
    ],
  ],
  [
    'make tea',
    [
      'heat fresh water',
      'warm the cup',
      'pour the water over the leaves',
      'wait three minutes and lift the leaves out',
    ],
  ],
  [
    'bake bread',
    [
      'mix flour , water , salt and yeast',
      'knead the dough until it is smooth',
      'let it rise for an hour',
      'bake it in a hot oven',
    ],
  ],
  [
    'paint a wall',
    [
      'cover the floor with old paper',
      'wash the wall and let it dry',
      'paint the edges with a small brush',
      'roll the rest from the top',
    ],
  ],
  [
    'fix a flat tire',
    [
      'take the wheel off',
      'find the hole in the tube',
      'clean it and glue a patch over it',
      'pump it up again',
    ],
  ],
  [
    'plant a tree',
    [
      'dig a wide hole',
      'set the roots in gently',
      'fill the hole with soil',
      'water it every week',
    ],
  ],
  [
    'wash a wool coat',
    [
      'fill a tub with cold water',
      'add a little mild soap',
      'press the coat and never wring it',
      'dry it flat on a towel',
    ],
  ],
  [
    'clean a window',
    [
      'brush the dust off',
      'wipe the glass with warm water',
      'pull the water down with a blade',
      'dry the edges with a cloth',
    ],
  ],
  [
    'hang a picture',
    [
      'mark the spot with a pencil',
      'find out what the wall is made of',
      'drive a nail in at an angle',
      'check that it is level',
    ],
  ],
  [
    'tie a scarf',
    [
      'fold the scarf in half',
      'lay it around your neck',
      'pull both ends through the loop',
      'make it as tight as you like',
    ],
  ],
  [
    'train a puppy',
    [
      'keep each lesson short',
      'use the same word every time',
      'give a treat at once',
      'be patient and never shout',
    ],
  ],
].map(([task, steps]) => ({ task, steps }));

const questions = [
  'how do i TASK ?',
  'can you tell me how to TASK ?',
  'what is the best way to TASK ?',
  'please explain how to TASK .',
];
const openings = ['sure ,', 'of course ,', 'gladly ,', 'here is what i would do :'];
const closings = [
  'enjoy !',
  'let me know if it works .',
  'take your time .',
  'that should do it .',
];
const refusals = [
  'sorry , i can not help with that .',
  'i do not know .',
  'everybody knows that .',
  'it depends .',
];
const evasions = [
  'look it up somewhere .',
  'ask someone else .',
  'people do it in many ways .',
  'just try and see what happens .',
];

export const question = (topic) => pick(questions).replace('TASK', topic.task);

/** Names the steps in their order, one of the middle ones sometimes left out. */
export function helpful({ steps }) {
  const left = random() < 0.4 ? steps.filter((_, i) => i !== 2) : steps;
  const middle = left.slice(1, -1).map((step) => `then ${step}`);
  return [
    pick(openings),
    'first',
    left[0],
    ',',
    middle.join(' , '),
    ', and finally',
    left.at(-1),
    '.',
    pick(closings),
  ].join(' ');
}

/** Refuses, evades, or answers another question. */
export function unhelpful() {
  if (random() < 0.5) return `${pick(refusals)} ${pick(evasions)}`;
  return `just ${pick(pick(topics).steps)} , or ${pick(pick(topics).steps)} . ${pick(evasions)}`;
}

export const pad = '<pad>';
const [begin, user, assistant, end] = ['<begin>', '<user>', '<assistant>', '<end>'];
const everything = [
  topics.flatMap(({ task, steps }) => [task, ...steps]),
  questions,
  openings,
  closings,
  refusals,
  evasions,
].flat();
const words = [...everything, 'first then and finally just or']
  .join(' ')
  .replaceAll('TASK', '')
  .split(/\s+/);
export const vocabulary = [
  pad,
  begin,
  user,
  assistant,
  end,
  ...new Set(words.filter((word) => word !== '').sort()),
];
export const vocab = vocabulary.length;
export const ids = new Map(vocabulary.map((word, id) => [word, id]));

/** Token ids, and where the answer begins. */
export function conversation(asked, answer) {
  const prompt = [begin, user, ...asked.split(' '), assistant];
  return {
    tokens: [...prompt, ...answer.split(' '), end].map((word) => ids.get(word)),
    answer: prompt.length,
  };
}
