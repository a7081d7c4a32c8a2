/** What tells the curves of a figure apart, in words. */
import type { Method } from '../catalogue.js';
import type { Objective } from '../objective.js';
import type { Series } from './curves.js';

type Value = number | string | boolean;

/** `value` of a setting, as a figure says it. */
function say(name: string, value: Value): string {
  if (typeof value === 'boolean') return value ? name : `no ${name}`;
  return `${name} ${typeof value === 'string' ? value : String(value).replace('-', '\u2212')}`;
}

/**
 * Options worth a word: not what they are by default, or in the formula; the alpha of the
 * divergence that has one.
 */
function told({ info, objective }: Series): ReadonlyMap<string, Value> {
  const settings = objective as unknown as Readonly<Record<string, Value>>;
  const words = info.formula.split(/\W+/).map((word) => (word === 'eps' ? 'labelSmoothing' : word));
  const names = Object.keys(info.options).filter(
    (name) =>
      settings[name] !== info.options[name]?.default ||
      words.includes(name) ||
      (name === 'alpha' && settings.divergence === 'alpha'),
  );
  const entries = names.map((name): [string, Value] => [name, settings[name] as Value]);
  if (objective.normalize !== info.normalize) entries.push(['normalize', objective.normalize]);
  return new Map(entries);
}

/** Methods by the order in which they come. */
export function methodsOf(all: readonly Series[]): Method[] {
  return [...new Set(all.map(({ info }) => info.name))];
}

/** Settings that all have, and what tells them apart. */
export interface Labels {
  readonly common: string;
  readonly labels: readonly string[];
}

export function labelsOf(all: readonly Series[]): Labels {
  const manyMethods = methodsOf(all).length > 1;
  const settings = all.map((series) => {
    const { objective } = series;
    return new Map<string, Value>([
      ...(objective.beta === undefined ? [] : [['beta', objective.beta] as const]),
      ...told(series),
    ]);
  });
  const names = [...new Set(settings.flatMap((map) => [...map.keys()]))];
  const common: string[] = [];
  const apart = new Set<string>();
  for (const name of names) {
    // The word itself may be left out where it is the default, and still be one of several values.
    const having = all.filter(
      ({ info }) => name === 'beta' || name === 'normalize' || Object.hasOwn(info.options, name),
    );
    const values = having.map(
      ({ objective }) => (objective as unknown as Readonly<Record<string, Value>>)[name],
    );
    const tellers = all.filter((_, i) => settings[i]?.has(name));
    const given = values.filter((value) => value !== undefined);
    const owners = methodsOf(tellers);
    // Of one divergence among several, for instance.
    const isPartial = tellers.length < all.filter(({ info }) => owners.includes(info.name)).length;
    if (new Set(given).size > 1 || isPartial) apart.add(name);
    else if (given[0] !== undefined) {
      const whose =
        name === 'beta' || owners.length === methodsOf(all).length ? '' : ` (${owners.join(', ')})`;
      common.push(say(name, given[0]) + whose);
    }
  }
  const varies = ({ info, objective }: Series, name: string): boolean => {
    const valueOf = (of: Objective): Value | undefined =>
      (of as unknown as Readonly<Record<string, Value>>)[name];
    return all.some(
      (other) => other.info === info && valueOf(other.objective) !== valueOf(objective),
    );
  };
  const labels = all.map((series, i) => {
    const own = settings[i] as Map<string, Value>;
    const words = [...apart]
      // A default only where the same method has other values beside it; an alpha has a meaning
      // only where it is told.
      .filter(
        (name) =>
          own.has(name) ||
          (varies(series, name) && !(name === 'alpha' && series.info.name === 'dpo')),
      )
      .map((name) =>
        say(
          name,
          own.get(name) ??
            (series.objective as unknown as Readonly<Record<string, Value>>)[name] ??
            '',
        ),
      );
    return [...(manyMethods || words.length === 0 ? [series.info.name] : []), ...words].join(', ');
  });
  return { common: common.join(', '), labels };
}
