import { plot } from '../plot/figure.js';
import { plural } from '../text/table.js';
import { paint, print, printJson } from '../text/terminal.js';
import { optionHelp, usualBetas } from './choice.js';
import { ok, type Command, type CommandError } from './command.js';
import { outcomeOf, statusOf, withOutput, type Output } from './output.js';
import { shortPath } from './package.js';
import { jsonOf, summary } from './plot-output.js';
import { defaultScale, readRequest, type PlotRequest } from './plot-request.js';
import { toPng } from './png.js';

async function run(args: string[]): Promise<number> {
  const request = readRequest(args);
  if (request.out === '-') {
    process.stdout.write(plot(request.series, request.options).svg);
    return ok;
  }
  return await withOutput('out', request.out, (output) => drawAndTell(request, output));
}

async function drawAndTell(request: PlotRequest, output: Output | undefined): Promise<number> {
  const { png, json } = request;
  const result = plot(request.series, request.options);
  const file = png === undefined ? Buffer.from(result.svg) : await toPng(result.svg, png);
  const write = (): CommandError | undefined => output?.write(file);
  const curves = result.groups.flatMap((group) => group.curves);
  if (json) {
    const failure = write();
    const { title } = result;
    printJson({
      title,
      curves: curves.map(jsonOf),
      leftOut: request.leftOut,
      ...outcomeOf(output, failure),
    });
    return statusOf('plot', failure);
  }
  print(summary(result, request));
  const failure = write();
  if (output && !failure) {
    const size = `${plural(curves.length, 'curve')}, ${Math.ceil(file.length / 1000)} kB`;
    print(`${paint('green', 'wrote')} ${shortPath(output.file)}, ${size}`);
  }
  return statusOf('plot', failure);
}

export const plotCommand: Command = {
  name: 'plot',
  summary: 'loss and derivatives of methods over the margin or the scores, as SVG or PNG',
  usage: `diralign plot: loss and derivatives of any methods in any settings, as SVG or PNG

${paint('bold', 'Usage')}
  diralign plot [METHOD[,METHOD...]|all] [options]

Pairwise methods over the margin, pointwise ones over each of the two scores. An axis is a
log-ratio to the reference, or a log-probability where the method has no reference: of the whole
sequence in nats, or in nats per token where it is normalised. Derivatives are by the same. Every
point is a pair given to fromLogps. Without METHOD, all.

${paint('bold', 'Options')}
  --beta X[,Y...]      a curve for each; without it the usual one of each method
                       (${usualBetas})
  --preset SETUP       the best betas of a setup of arXiv 2502.01237, such as
                       ultrafeedback-llama-3.1-8b
  --normalize, --no-normalize
                       per scored token or not; without it the method's original setting
  --over AXIS          margin, chosen or rejected, for all methods
  --range A,B          ends of the axis; without it, where the methods bend
  --y-range A,B        ends of the axis of the loss; without it, where it ends
  --log                losses above 0, and sizes of derivatives, on logarithmic scales; without it,
                       curves of which one is more than 50 times as high as another are drawn
                       relative to their greatest value
  --at X               where the sequence stays that does not move; over the margin, the middle of
                       the two (default 0 for log-ratios, below 0 by 0.55 of the range for
                       log-probabilities)
  --tokens W,L         scored tokens of the chosen and the rejected sequence (default 64,64); r_dpo
                       depends on them
  --points N           of each curve (default 201)
  --facets             a part of the figure for each method, as it is with more than six curves
  --out FILE           the figure, a name that ends with .svg or .png; - for SVG on the standard
                       output. Without it, only the summary is printed. PNG needs @resvg/resvg-js
                       beside diralign: npm install @resvg/resvg-js
  --scale X            of PNG: pixels to a unit of the SVG, which is 840 wide (default
                       ${defaultScale})
  --font FILE          of PNG: a TrueType or OpenType file to use instead of the system's fonts
  --json               all points as JSON

${paint('bold', 'Options of the methods')}, also as in the library (--labelSmoothing), or for one:
METHOD=X. Several values with commas, a curve for each.
${optionHelp()}

${paint('bold', 'Examples')}
  diralign plot dpo --beta 0.05,0.1,0.5 --out dpo.svg
  diralign plot dpo,ipo,hinge --beta 0.1 --range -20,40 --out pairwise.svg
  diralign plot apo_zero,nca --beta 0.1 --over margin --out -
  diralign plot dpo --divergence reverse_kl,forward_kl,js --label-smoothing 0,0.1 --out kl.svg
  diralign plot dpo,ipo --range 0,100 --log --out tails.svg
  diralign plot all --out gallery.svg
  diralign plot dpo,simpo --out slides.png --scale 3
  diralign plot simpo --json | jq '.curves[0].loss'`,
  run,
};
