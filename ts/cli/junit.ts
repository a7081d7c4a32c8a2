import { escapeMarkup } from '../text/markup.js';

export interface JUnitCase {
  readonly name: string;
  readonly className: string;
  readonly seconds: number;
  /** What went wrong; nothing where nothing did. */
  readonly failure?: string | undefined;
}
export interface JUnitSuite {
  readonly name: string;
  readonly cases: readonly JUnitCase[];
}

/** A newline in an attribute is written, or it would be read as a space. */
const escaped = (text: string): string => escapeMarkup(text).replaceAll('\n', '&#10;');

function total(cases: readonly JUnitCase[]): string {
  const failures = cases.filter(({ failure }) => failure !== undefined).length;
  const seconds = cases.reduce((sum, { seconds: s }) => sum + s, 0);
  return `tests="${cases.length}" failures="${failures}" errors="0" time="${seconds.toFixed(3)}"`;
}

/** The XML that CI servers read. */
export function junit(name: string, suites: readonly JUnitSuite[]): string {
  const lines = ['<?xml version="1.0" encoding="UTF-8"?>'];
  lines.push(`<testsuites name="${escaped(name)}" ${total(suites.flatMap(({ cases }) => cases))}>`);
  for (const suite of suites) {
    lines.push(`  <testsuite name="${escaped(suite.name)}" ${total(suite.cases)}>`);
    for (const { name: caseName, className, seconds, failure } of suite.cases) {
      const head =
        `    <testcase classname="${escaped(className)}" name="${escaped(caseName)}" ` +
        `time="${seconds.toFixed(3)}"`;
      if (failure === undefined) lines.push(`${head}/>`);
      else {
        const [first = ''] = failure.split('\n');
        lines.push(
          `${head}>`,
          `      <failure message="${escaped(first)}">${escaped(failure)}</failure>`,
          '    </testcase>',
        );
      }
    }
    lines.push('  </testsuite>');
  }
  return `${lines.join('\n')}\n</testsuites>\n`;
}
