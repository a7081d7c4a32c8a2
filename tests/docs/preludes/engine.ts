/** A native engine that writes where it is told. Only compiled. */
export const engine = {
  forwardInto: (pointer: bigint, stream: bigint): void => {
    console.log(pointer, stream);
  },
  backwardFrom: (pointer: bigint, stream: bigint): void => {
    console.log(pointer, stream);
  },
};
