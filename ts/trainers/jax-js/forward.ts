/** The forward pass: what the model returns, with the way back to its parameters. */
import { Array as JaxArray, defaultDevice, numpy, tree, vjp, type JsTree } from '@jax-js/jax';
import { rowsOutline, type Outline } from '../bindings.js';
import { typeError } from '../../errors.js';
import { describe, readProperties } from '../../given.js';
import type { GradientBuffers } from '../../loss/gradient-buffers.js';
import type { LogitsShape } from '../../batch/types.js';
import { checkFloats, isArrayOrTracer, type ArrayOutline } from './arrays.js';
import type { JaxForward, JaxOutputLayer } from './types.js';

export type PartName = 'logits' | 'hidden' | 'weight' | 'bias';

/** One array of what the model returned. */
interface Part extends ArrayOutline {
  readonly name: PartName;
  /** Itself, where it does not depend on the parameters; the others are joined into one. */
  readonly constant: JaxArray | undefined;
}

export type Elements = Readonly<Partial<Record<PartName, Float32Array>>>;

const layerNames = ['hidden', 'weight', 'bias'] as const;

function checkOutput(output: JaxArray | JaxOutputLayer): [PartName, JaxArray][] {
  if (isArrayOrTracer(output)) return [['logits', output]];
  if (typeof output !== 'object' || (output as unknown) === null || !('hidden' in output)) {
    const expected = 'logits, or an object with hidden, weight and bias';
    throw typeError(
      'ERR_DIRALIGN_OPTION',
      `forward: expected to return ${expected}, not ${describe(output)}`,
    );
  }
  const given = readProperties('forward', output, layerNames);
  return layerNames
    .filter((name) => name !== 'bias' || given.bias !== undefined)
    .map((name) => {
      const array = given[name];
      if (isArrayOrTracer(array)) return [name, array];
      throw typeError(
        'ERR_DIRALIGN_DTYPE',
        `${name}: expected an Array of float32, not ${describe(array)}`,
      );
    });
}

/**
 * What one call of the model gave. Its arrays are read once, by `arrays` and `elements`; `pullBack`
 * takes the gradient of `joined`, and `dispose` frees what is left, whatever has happened.
 */
export interface Pass<Params> {
  /** Of the logits, as the output layer would make them where it is that. */
  readonly shape: LogitsShape;
  /** Of an output layer. */
  readonly hiddenSize: number;
  /** To be consumed by a reader, whose answer goes to {@link elements}. */
  arrays(): JaxArray[];
  elements(read: readonly ArrayBufferView[]): Elements;
  /**
   * Of the parts that have a gradient, joined: room for it, and the part of each in that room.
   * `dispose` gives back what buffers lend for it.
   */
  gradientRoom(buffers?: GradientBuffers): {
    readonly joined: Float32Array;
    readonly parts: Elements;
  };
  pullBack(gradient: Float32Array): Params;
  dispose(): void;
}

const sizeOf = ({ shape }: ArrayOutline): number =>
  shape.reduce((size, extent) => size * extent, 1);

/** Views of what lies one behind the other. */
function cut(joined: Float32Array, parts: readonly Part[]): Elements {
  let end = 0;
  return Object.fromEntries(
    parts.map((part) => [part.name, joined.subarray(end, (end += sizeOf(part)))]),
  );
}

/**
 * Runs the model, with a tape where `differentiate`.
 *
 * The outputs are joined into one array on the tape: jax-js confuses the cotangents of several
 * where one of them does not depend on the parameters, and one array is read and given back in one
 * transfer. Outputs that are no tracers are constants, a frozen layer for instance: they stay off
 * the tape, and their gradient is never computed.
 */
export function runForward<Params extends JsTree<JaxArray>>(
  forward: JaxForward<Params>,
  params: Params,
  packed: boolean,
  differentiate: boolean,
): Pass<Params> {
  let parts: Part[] = [];
  const onTape = (given: Params): JaxArray[] => {
    const output = checkOutput(forward(given));
    parts = output.map(([name, array]) => {
      const constant = array instanceof JaxArray ? array : undefined;
      return { name, shape: [...array.shape], dtype: array.dtype, constant };
    });
    const traced = output.flatMap(([, array]) => (array instanceof JaxArray ? [] : [array]));
    return traced.length < 2
      ? traced
      : [numpy.concatenate(traced.map((array) => numpy.ravel(array)))];
  };
  const owned = tree.ref(params);
  const [[joined], pull] = differentiate
    ? vjp(onTape, [owned] as never)
    : [onTape(owned), undefined];
  const traced = parts.filter(({ constant }) => constant === undefined);
  const constants = parts.flatMap(({ constant }) => constant ?? []);
  const { shape: outline, device } = joined ?? {};
  const unread = joined ? [joined, ...constants] : constants;

  const sizes = new Map(parts.map(({ name, shape }) => [name, shape]));
  const [hidden, weight] = [sizes.get('hidden') ?? [], sizes.get('weight') ?? []];

  let giveBack: (() => void) | undefined;
  const result: Pass<Params> = {
    shape: (sizes.get('logits') ?? [...hidden.slice(0, -1), weight[0]]) as LogitsShape,
    hiddenSize: hidden.at(-1) ?? 0,
    arrays: () => unread.splice(0),
    elements: (read) => {
      const views = [...read] as Float32Array[];
      const ofJoined = joined ? cut(views.shift() as Float32Array, traced) : {};
      const names = parts.filter(({ constant }) => constant !== undefined).map(({ name }) => name);
      return {
        ...ofJoined,
        ...Object.fromEntries(names.map((name, i) => [name, views[i] as Float32Array])),
      };
    },
    gradientRoom: (buffers) => {
      const size = traced.reduce((sum, part) => sum + sizeOf(part), 0);
      const lent = buffers?.lend('gradient', 'Float32Array', size);
      giveBack = lent?.giveBack;
      const room = lent?.array ?? new Float32Array(size);
      return { joined: room, parts: cut(room, traced) };
    },
    pullBack: (gradient) => {
      // Only an array on another device has to be committed to it.
      const placed = device === defaultDevice() ? {} : { device };
      const cotangent = numpy.array(gradient, { shape: outline, ...placed });
      const [gradients] = (pull as unknown as (cotangents: [JaxArray]) => [Params])([cotangent]);
      return gradients;
    },
    dispose: () => {
      for (const array of unread.splice(0)) array.dispose();
      pull?.dispose();
      giveBack?.();
    },
  };
  try {
    if (differentiate && traced.length === 0) {
      const advice = "make them of the params that it is given, or say gradient: 'none'";
      throw typeError(
        'ERR_DIRALIGN_OPTION',
        `forward: what it returns does not depend on params; ${advice}`,
      );
    }
    if (joined && !(joined instanceof JaxArray)) {
      const advice = 'the loss reads numbers, and cannot be inside of jit, grad or vmap';
      throw typeError('ERR_DIRALIGN_OPTION', `forward: what it returns is being traced; ${advice}`);
    }
    checkOutlines(parts, packed);
  } catch (refusal) {
    result.dispose();
    throw refusal;
  }
  return result;
}

function checkOutlines(parts: readonly Part[], packed: boolean): void {
  const outline = new Map(parts.map((part) => [part.name, part]));
  const check = (name: PartName, expected: Outline): void => {
    const part = outline.get(name);
    if (part) checkFloats(name, part, expected);
  };
  check('logits', rowsOutline(packed, 'vocab'));
  check('hidden', rowsOutline(packed, 'hiddenSize'));
  check('weight', ['vocab', outline.get('hidden')?.shape.at(-1) ?? 'hiddenSize']);
  check('bias', [outline.get('weight')?.shape[0] ?? 'vocab']);
}
