/** What a fuzzer found. */
export class Fault extends Error {
  override readonly name = 'Fault';
}
