/**
 * The catalogue's formulas, read: from the text of `MethodInfo.formula` to TeX, and to a number
 * that a test can compare.
 */

export type Expression =
  | { readonly kind: 'number'; readonly value: number }
  | { readonly kind: 'name'; readonly name: string }
  | { readonly kind: 'negative'; readonly of: Expression }
  | {
      readonly kind: 'sum' | 'product' | 'quotient' | 'power';
      readonly left: Expression;
      readonly right: Expression;
    }
  | { readonly kind: 'call'; readonly name: string; readonly args: readonly Expression[] }
  | {
      readonly kind: 'divergence';
      readonly from: readonly Expression[];
      readonly to: readonly Expression[];
    };

export interface Formula {
  readonly value: Expression;
  /**
   * `m` and `s` of `..., m = sg(u / tau)`. A definition of `s` by `a` is one of `s_w` by `a_w`,
   * too.
   */
  readonly definitions: ReadonlyMap<string, Expression>;
}

const functions: Readonly<Record<string, (...args: number[]) => number>> = {
  sg: (x) => 1 / (1 + Math.exp(-x)),
  sp: (x) => Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x))),
  exp: Math.exp,
  log: Math.log,
  max: Math.max,
};

/** Of the candidates of a group: over all of them, `u_k` being that of the k-th. */
const overGroups = ['sum', 'lse'] as const;

const number = (value: number): Expression => ({ kind: 'number', value });
const call = (name: string, ...args: Expression[]): Expression => ({ kind: 'call', name, args });

/** @throws Error where the text is not a formula of this notation */
export function parseFormula(text: string): Formula {
  const tokens = text.match(/\|\||[A-Za-z]\w*|\d+(?:\.\d+)?|\S/g) ?? [];
  let at = 0;

  const peek = (): string | undefined => tokens[at];
  const take = (token: string): boolean => peek() === token && ++at > 0;
  const expect = (token: string): void => {
    if (!take(token)) throw new Error(`${text}: expected '${token}', not '${peek() ?? 'the end'}'`);
  };
  const list = (): Expression[] => {
    const items = [sum()];
    while (take(',')) items.push(sum());
    return items;
  };
  const inParentheses = (): Expression[] => {
    expect('(');
    const items = list();
    expect(')');
    return items;
  };

  function sum(): Expression {
    let left: Expression = take('-') ? negated(product()) : product();
    for (;;) {
      if (take('+')) left = { kind: 'sum', left, right: product() };
      else if (take('-')) left = { kind: 'sum', left, right: negated(product()) };
      else return left;
    }
  }

  function product(): Expression {
    let left = power();
    for (;;) {
      if (take('/')) left = { kind: 'quotient', left, right: power() };
      else if (/^[\w(]/.test(peek() ?? ')')) left = { kind: 'product', left, right: power() };
      else return left;
    }
  }

  function power(): Expression {
    const left = primary();
    return take('^') ? { kind: 'power', left, right: primary() } : left;
  }

  function primary(): Expression {
    const token = peek();
    if (token === undefined) throw new Error(`${text}: it ends too early`);
    if (token === '(') {
      const [only, ...others] = inParentheses();
      if (only === undefined || others.length > 0)
        throw new Error(`${text}: a list has no place there`);
      return only;
    }
    at++;
    if (/^\d/.test(token)) return number(Number(token));
    if (token === 'KL') {
      expect('(');
      const from = inParentheses();
      expect('||');
      const to = inParentheses();
      expect(')');
      return { kind: 'divergence', from, to };
    }
    if (Object.hasOwn(functions, token) || overGroups.includes(token as 'sum'))
      return call(token, ...inParentheses());
    if (!/^[A-Za-z]\w*$/.test(token)) throw new Error(`${text}: '${token}' has no place there`);
    return { kind: 'name', name: token };
  }

  const value = sum();
  const definitions = new Map<string, Expression>();
  while (take(',')) {
    const name = tokens[at++];
    if (name === undefined) throw new Error(`${text}: it ends with a comma`);
    expect('=');
    definitions.set(name, sum());
  }
  if (at < tokens.length) throw new Error(`${text}: '${tokens[at] ?? ''}' has no place there`);
  return { value, definitions };
}

function negated(expression: Expression): Expression {
  if (expression.kind === 'negative') return expression.of;
  if (expression.kind === 'product' && expression.left.kind === 'negative')
    return { ...expression, left: expression.left.of };
  return { kind: 'negative', of: expression };
}

/**
 * Softplus as papers write it: `sp(-x)` is `-log sg(x)`. A minus goes before the product or
 * quotient that it is part of.
 */
function asInPapers(expression: Expression): Expression {
  switch (expression.kind) {
    case 'number':
    case 'name':
      return expression;
    case 'negative':
      return negated(asInPapers(expression.of));
    case 'call': {
      const args = expression.args.map(asInPapers);
      const [first] = args;
      if (expression.name !== 'sp' || first === undefined) return { ...expression, args };
      return negated(call('log', call('sg', negated(first))));
    }
    case 'divergence':
      return {
        ...expression,
        from: expression.from.map(asInPapers),
        to: expression.to.map(asInPapers),
      };
    default: {
      const left = asInPapers(expression.left);
      const right = asInPapers(expression.right);
      if (expression.kind === 'product' && right.kind === 'negative') {
        return negated({ kind: 'product', left, right: right.of });
      }
      if (expression.kind === 'quotient' && left.kind === 'negative') {
        return negated({ kind: 'quotient', left: left.of, right });
      }
      return { kind: expression.kind, left, right };
    }
  }
}

/** The formula as the site shows it; its value is the same. */
export function rewrite(formula: Formula): Formula {
  return {
    value: asInPapers(formula.value),
    definitions: new Map(
      [...formula.definitions].map(([name, expression]) => [name, asInPapers(expression)]),
    ),
  };
}

const symbols: Readonly<Record<string, string>> = {
  alpha: '\\alpha',
  beta: '\\beta',
  eps: '\\varepsilon',
  gamma: '\\gamma',
  lambda: '\\lambda',
  tau: '\\tau',
  dW: 'd_W',
  uW: 'u_W',
};

function symbol(name: string): string {
  const known = symbols[name];
  if (known !== undefined) return known;
  const [letter, index] = name.split('_');
  if (letter?.length === 1) return index === undefined ? letter : `${letter}_{${index}}`;
  return `\\text{${name}}`;
}

const parenthesised = (tex: string): string => `\\left(${tex}\\right)`;

function factor(expression: Expression): string {
  const tex = texOf(expression);
  return expression.kind === 'sum' || expression.kind === 'negative' ? parenthesised(tex) : tex;
}

function texOf(expression: Expression): string {
  switch (expression.kind) {
    case 'number':
      return String(expression.value);
    case 'name':
      return symbol(expression.name);
    case 'negative':
      return `-${factor(expression.of)}`;
    case 'sum': {
      const { left, right } = expression;
      // Of a negative, texOf begins with the minus.
      return texOf(left) + (right.kind === 'negative' ? '' : '+') + texOf(right);
    }
    case 'product':
      return `${factor(expression.left)}\\,${factor(expression.right)}`;
    case 'quotient': {
      const { left, right } = expression;
      const isShare = right.kind === 'number' && left.kind !== 'number' && left.kind !== 'sum';
      if (isShare) return `\\tfrac{1}{${right.value}}\\,${factor(left)}`;
      return `\\frac{${texOf(left)}}{${texOf(right)}}`;
    }
    case 'power': {
      const { left, right } = expression;
      const isAtom = left.kind === 'name' || left.kind === 'number';
      return `${isAtom ? texOf(left) : parenthesised(texOf(left))}^{${texOf(right)}}`;
    }
    case 'divergence': {
      const tuple = (items: readonly Expression[]): string => `(${items.map(texOf).join(', ')})`;
      const [from, to] = [tuple(expression.from), tuple(expression.to)];
      return `\\mathrm{KL}\\big(${from}\\,\\big\\|\\,${to}\\big)`;
    }
    case 'call':
      return texOfCall(expression.name, expression.args);
  }
}

function texOfCall(name: string, args: readonly Expression[]): string {
  const inner = args.map(texOf).join(', ');
  const [first] = args;
  if (name === 'exp') return `e^{${inner}}`;
  if (name === 'sum' && first) return `\\sum_{k}\\,${factor(first)}`;
  // Of `u_k`: over the k-th and those after it.
  if (name === 'lse') {
    const over = inner.includes('_') ? 'j \\ge k' : 'j';
    return `\\log\\sum_{${over}} e^{${inner.split('_')[0] ?? ''}_{j}}`;
  }
  if (name === 'log' && first?.kind === 'call') return `\\log ${inner}`;
  const names: Readonly<Record<string, string>> = {
    sg: '\\sigma',
    log: '\\log',
    max: '\\max',
    sp: '\\operatorname{sp}',
  };
  return (names[name] ?? `\\operatorname{${name}}`) + parenthesised(inner);
}

export function toTex({ value, definitions }: Formula): string {
  const where = [...definitions].map(
    ([name, expression]) => `${symbol(name)} = ${texOf(expression)}`,
  );
  return [texOf(value), ...where].join(', \\qquad ');
}

/** The names that a formula and its definitions are of. */
export function namesIn({ value, definitions }: Formula): ReadonlySet<string> {
  const names = new Set<string>();
  const collect = (expression: Expression): void => {
    switch (expression.kind) {
      case 'number':
        return;
      case 'name':
        names.add(expression.name);
        return;
      case 'negative':
        collect(expression.of);
        return;
      case 'call':
        expression.args.forEach(collect);
        return;
      case 'divergence':
        [...expression.from, ...expression.to].forEach(collect);
        return;
      default:
        collect(expression.left);
        collect(expression.right);
    }
  };
  [value, ...definitions.values()].forEach(collect);
  return names;
}

/**
 * The number that a formula is, where names have these values.
 *
 * @throws Error where a name has none
 */
export function evaluate(
  { value, definitions }: Formula,
  given: Readonly<Record<string, number | readonly number[]>>,
): number {
  const groups = Object.entries(given).flatMap(([name, value]) =>
    typeof value === 'number' ? [] : [[name, value] as const],
  );
  const size = groups[0]?.[1].length ?? 0;
  /** The values for the k-th candidate of a group. */
  const at = (k: number): Record<string, number> =>
    Object.fromEntries(groups.map(([name, all]) => [`${name}_k`, all[k] as number]));
  let values: Record<string, number> = Object.fromEntries(
    Object.entries(given).filter(
      (entry): entry is [string, number] => typeof entry[1] === 'number',
    ),
  );
  const overCandidates = (from: number, term: () => number): number[] => {
    const before = values;
    const terms = Array.from({ length: size - from }, (_, i) => {
      values = { ...before, ...at(from + i), k: from + i };
      return term();
    });
    values = before;
    return terms;
  };
  /** @param index '_w' or '_l' inside a definition of `s` that `s_w` or `s_l` asked for. */
  const of = (expression: Expression, index: string): number => {
    switch (expression.kind) {
      case 'number':
        return expression.value;
      case 'name': {
        const { name } = expression;
        const indexed = name + index;
        if (Object.hasOwn(values, name)) return values[name] as number;
        if (Object.hasOwn(values, indexed)) return values[indexed] as number;
        const [base = name, side] = name.split('_');
        const definition = definitions.get(base);
        if (definition === undefined) throw new Error(`${name} has no value`);
        return of(definition, side === undefined ? index : `_${side}`);
      }
      case 'negative':
        return -of(expression.of, index);
      case 'sum':
        return of(expression.left, index) + of(expression.right, index);
      case 'product':
        return of(expression.left, index) * of(expression.right, index);
      case 'quotient':
        return of(expression.left, index) / of(expression.right, index);
      case 'power':
        return of(expression.left, index) ** of(expression.right, index);
      case 'call': {
        const [first] = expression.args;
        if (expression.name === 'sum' && first)
          return overCandidates(0, () => of(first, index)).reduce((a, b) => a + b, 0);
        if (expression.name === 'lse' && first?.kind === 'name') {
          const from = first.name.endsWith('_k') ? (values.k as number) : 0;
          const name = `${first.name.split('_')[0] ?? ''}_k`;
          return Math.log(
            overCandidates(from, () => Math.exp(values[name] as number)).reduce((a, b) => a + b, 0),
          );
        }
        return (functions[expression.name] as (...args: number[]) => number)(
          ...expression.args.map((arg) => of(arg, index)),
        );
      }
      case 'divergence':
        return expression.from
          .map(
            (p, i) =>
              of(p, index) * Math.log(of(p, index) / of(expression.to[i] as Expression, index)),
          )
          .reduce((a, b) => a + b, 0);
    }
  };
  return of(value, '');
}
