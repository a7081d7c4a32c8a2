const meanDecay = 0.9;
const squareDecay = 0.999;
const epsilon = 1e-8;

/**
 * Adam (arXiv 1412.6980) with PyTorch's default constants, over one vector of parameters, which
 * each step changes.
 */
export function adam(
  parameters: Float64Array,
  learningRate: number,
): (gradient: Float64Array) => void {
  const means = new Float64Array(parameters.length);
  const squares = new Float64Array(parameters.length);
  let steps = 0;
  return (gradient) => {
    steps++;
    const rate = learningRate / (1 - meanDecay ** steps);
    const squareScale = 1 / (1 - squareDecay ** steps);
    for (let i = 0; i < parameters.length; i++) {
      const g = gradient[i] as number;
      means[i] = meanDecay * (means[i] as number) + (1 - meanDecay) * g;
      squares[i] = squareDecay * (squares[i] as number) + (1 - squareDecay) * g * g;
      parameters[i] =
        (parameters[i] as number) -
        (rate * (means[i] as number)) / (Math.sqrt((squares[i] as number) * squareScale) + epsilon);
    }
  };
}
