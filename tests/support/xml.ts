/** An element of a parsed document. */
export interface Element {
  readonly name: string;
  readonly attributes: Readonly<Record<string, string>>;
  readonly children: readonly Element[];
  /** Its own, without that of its children. */
  readonly text: string;
}

const entities: Readonly<Record<string, string>> = {
  amp: '&',
  lt: '<',
  gt: '>',
  quot: '"',
  apos: "'",
};

function decode(raw: string): string {
  // oxlint-disable-next-line no-control-regex -- these are what XML has no place for.
  if (/[<\u0000-\u0008\u000b\u000c\u000e-\u001f]/.test(raw))
    throw new Error(`not allowed in XML: ${JSON.stringify(raw)}`);
  return raw.replace(/&([^;]*)(;?)/g, (whole, name: string, end: string) => {
    const value = end === ';' ? entities[name] : undefined;
    if (value === undefined) throw new Error(`no entity: ${whole}`);
    return value;
  });
}

/**
 * Elements, attributes and text of an XML document without declarations, comments, or entities of
 * its own.
 *
 * @throws Error where it is not well-formed
 */
export function parseXml(source: string): Element {
  type Open = Element & { text: string; readonly children: Element[] };
  const top: Open = { name: '', attributes: {}, children: [], text: '' };
  const open: Open[] = [top];
  const token = /<(\/?)([A-Za-z][\w:-]*)((?:\s+[\w:-]+="[^"<]*")*)\s*(\/?)>|([^<]+)/gy;
  let end = 0;
  for (const match of source.matchAll(token)) {
    end = match.index + match[0].length;
    const [, closing, name = '', attributeText = '', empty, text] = match;
    const current = open.at(-1) as Open;
    if (text !== undefined) {
      current.text += decode(text);
    } else if (closing) {
      if (open.pop()?.name !== name || attributeText !== '' || open.length === 0)
        throw new Error(`</${name}> closes nothing`);
    } else {
      const attributes: Record<string, string> = {};
      for (const [, key = '', value = ''] of attributeText.matchAll(/([\w:-]+)="([^"]*)"/g)) {
        if (key in attributes) throw new Error(`<${name}> has two ${key}`);
        attributes[key] = decode(value);
      }
      const element: Open = { name, attributes, children: [], text: '' };
      current.children.push(element);
      if (!empty) open.push(element);
    }
  }
  const [root, ...others] = top.children;
  if (end !== source.length) throw new Error(`not XML: ${source.slice(end, end + 40)}`);
  if (!root || others.length > 0 || open.length !== 1 || top.text.trim() !== '')
    throw new Error('not one complete element');
  return root;
}
