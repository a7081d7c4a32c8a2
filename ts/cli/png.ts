import { CommandError } from './command.js';

export interface PngOptions {
  /** Pixels to a unit of the SVG, which is 840 wide. */
  readonly scale: number;
  /** A font file to use instead of the system's fonts. */
  readonly font?: string | undefined;
}

type Renderer = Pick<typeof import('@resvg/resvg-js'), 'Resvg'>;

async function loadRenderer(load: () => Promise<Renderer>): Promise<Renderer> {
  try {
    return await load();
  } catch (error) {
    throw new CommandError(
      '--out: PNG is drawn by @resvg/resvg-js, which cannot be loaded ' +
        `(${(error as Error).message.split('\n')[0]}); ` +
        'npm install @resvg/resvg-js, or write .svg',
    );
  }
}

/** A word on its own: it has an extent if there is a font to write it with. */
const word =
  '<svg xmlns="http://www.w3.org/2000/svg" width="99" height="99">' +
  '<text y="50" font-family="sans-serif">loss</text></svg>';

/**
 * A figure as PNG, in its light scheme.
 *
 * @param load brings the renderer, an optional dependency
 * @throws CommandError if the renderer is not installed, or there is no font: words would be
 *   missing without a word
 */
export async function toPng(
  svg: string,
  { scale, font }: PngOptions,
  load: () => Promise<Renderer> = () => import('@resvg/resvg-js'),
): Promise<Buffer> {
  const { Resvg } = await loadRenderer(load);
  const fonts =
    font === undefined ? { loadSystemFonts: true } : { loadSystemFonts: false, fontFiles: [font] };
  if (!new Resvg(word, { font: fonts }).getBBox()) {
    throw new CommandError(
      font === undefined
        ? '--out: this machine has no fonts to write PNG with; install some ' +
            '(on Debian: fonts-dejavu-core), name one by --font FILE, or write .svg'
        : `--font: '${font}' is not a font that can be read; name a TrueType or OpenType file`,
    );
  }
  return new Resvg(svg, { font: fonts, fitTo: { mode: 'zoom', value: scale } }).render().asPng();
}
