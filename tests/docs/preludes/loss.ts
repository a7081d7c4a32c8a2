/** A loss, and what makes the reference's numbers. */
import { dirAlignLoss } from 'diralign';

export { sequenceLogps } from 'diralign';
export const dpo = dirAlignLoss('dpo', 0.1);
