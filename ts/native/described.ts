/** That requests have the properties that the contract names. */
import type { contract } from '../contract.generated.js';

type Requests = (typeof contract)['requests'];
type Parts = (typeof contract)['parts'];
type PropertyOf<Name extends keyof Requests> =
  | Requests[Name][number]
  | (Name extends keyof Parts ? Parts[Name][number] : never);
/** `Shape`, whose properties are those that the contract names: no others, and all of them. */
export type Described<Name extends keyof Requests, Shape extends object> = [
  Exclude<keyof Shape, PropertyOf<Name>>,
  Exclude<PropertyOf<Name>, keyof Shape>,
] extends [never, never]
  ? Shape
  : never;
