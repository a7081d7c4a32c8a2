/** The pages in their order, but for those of the API, which has a sidebar of its own. */
import type { DefaultTheme } from 'vitepress';
import { methods } from '../../ts/catalogue.js';

const page = (text: string, name: string): DefaultTheme.SidebarItem => ({ text, link: `/${name}` });

const methodItems = (family: 'paper' | 'wider'): DefaultTheme.SidebarItem[] =>
  methods()
    .filter((info) => info.family === family)
    .map(({ name }) => page(name, `methods/${name}`));

export function sidebar(): DefaultTheme.SidebarItem[] {
  return [
    {
      text: 'Start',
      items: [
        page('What it is', ''),
        page('Install', 'install'),
        page('First loss in five minutes', 'first-loss'),
        page('From TRL', 'from-trl'),
      ],
    },
    {
      text: 'Losses',
      items: [
        page('Methods', 'methods'),
        { text: 'In the paper', collapsed: true, items: methodItems('paper') },
        { text: 'The wider family', collapsed: true, items: methodItems('wider') },
        page('How methods relate', 'relations'),
        page('Beta and normalisation', 'beta'),
        page('Fields of a batch', 'fields'),
        page('Mixtures and recipes', 'mixtures'),
      ],
    },
    {
      text: 'Training',
      items: [
        page('End to end', 'end-to-end'),
        page('Trainers', 'trainers'),
        page('Data and the reference', 'data'),
        page('Metrics and logging', 'metrics'),
        page('Accumulation and mixed precision', 'accumulation'),
        page('Losses of your own', 'custom-losses'),
        page('In any autograd', 'any-autograd'),
        page('Without logits', 'output-layer'),
        page('Past one process', 'distributed'),
      ],
    },
    {
      text: 'Running',
      items: [
        page('Platforms', 'platforms'),
        page('On a GPU', 'gpu'),
        page('GPU memory of other libraries', 'gpu-interop'),
        page('Verification in CI', 'ci'),
        page('Troubleshooting', 'troubleshooting'),
      ],
    },
    {
      text: 'Performance',
      items: [
        page('CPU performance', 'performance'),
        page('GPU performance', 'gpu-performance'),
        page('GPU registers', 'gpu-registers'),
        page('GPU machine code', 'gpu-sass'),
      ],
    },
    {
      text: 'Reference',
      items: [
        page('Command line', 'command-line'),
        { text: 'API', link: '/api/' },
        page('Study', 'study'),
      ],
    },
  ];
}
