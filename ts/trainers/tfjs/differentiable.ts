/** A loss that TensorFlow.js can differentiate, with the native gradient. */
import {
  customGrad,
  engine,
  mul,
  scalar,
  tensor,
  tidy,
  type Scalar,
  type Tensor,
} from '@tensorflow/tfjs-core';
import { typeError } from '../../errors.js';
import { floatsOf, isCopied } from './tensors.js';

interface Computed {
  readonly loss: number;
  /** One per input, of its size; none without a gradient. */
  readonly gradients: readonly unknown[];
  /** Called when tensors have been made of the gradients, which are not used again. */
  readonly uploaded?: () => void;
}

/**
 * The loss as a tensor whose gradient in the inputs is the native one.
 *
 * A recorded loss is there to be differentiated: the fused call, which has the logits in cache for
 * the gradient, is made then, in the forward pass, and not the loss's first and both once more in
 * the backward pass. The gradient waits as an array and not as a tensor, so that a tape which is
 * dropped leaves nothing to dispose of. Inputs are kept for the backward pass only where tapes are
 * nested.
 */
export function lossOf(
  inputs: readonly Tensor[],
  compute: (gradient: 'dense' | 'none') => Computed,
): Scalar {
  // To be asked outside of the op: nothing is recorded inside.
  if (!engine().isTapeOn()) return scalar(compute('none').loss);
  const nested = engine().state.gradientDepth > 1;
  const op = customGrad((...args) => {
    const save = args.at(-1) as unknown as (tensors: Tensor[]) => void;
    const { loss, gradients, uploaded } = compute('dense');
    save(nested ? [...inputs] : []);
    const gradFunc = (dy: Tensor, saved: Tensor[]): Tensor[] => {
      const tensors = inputs.map(({ shape }, i) =>
        gradientOf(gradients[i] as Float32Array, shape, dy, saved),
      );
      // Each of nested tapes asks; and a backend that was chosen meanwhile may keep the arrays.
      if (!nested && tensors.every(isCopied)) uploaded?.();
      return tensors;
    };
    return { value: scalar(loss), gradFunc };
  });
  return op(...inputs);
}

/**
 * dy times the gradient. Another tape that records it (`saved` has the inputs, then) must not take
 * it for a constant.
 */
function gradientOf(
  gradient: Float32Array,
  shape: number[],
  dy: Tensor,
  saved: readonly Tensor[],
): Tensor {
  const scaled = (): Tensor =>
    tidy(() => {
      const unscaled = tensor(gradient, shape, 'float32');
      return floatsOf(dy)[0] === 1 ? unscaled : mul(unscaled, dy);
    });
  if (saved.length === 0) return scaled();
  const gradFunc = (): never => {
    throw typeError(
      'ERR_DIRALIGN_OPTION',
      'tfDirAlignLoss: differentiable once; there is no gradient of its gradient',
    );
  };
  return customGrad(() => ({ value: scaled(), gradFunc }))(dy, ...saved);
}
