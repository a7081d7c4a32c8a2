const entities: Readonly<Record<string, string>> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  '"': '&quot;',
};

/**
 * Text that may stand in an element or an attribute of HTML and XML, which have no way to write
 * most control characters.
 */
export function escapeMarkup(text: string): string {
  return (
    text
      .replace(/[&<>"]/g, (character) => entities[character] as string)
      // oxlint-disable-next-line no-control-regex -- it is about them.
      .replace(/[\u0000-\u0008\u000b\u000c\u000e-\u001f\ufffe\uffff]/g, '\ufffd')
  );
}
