// Received text to DOM nodes.
//
// Texts of users are hostile. Characters that could reorder, hide or imitate other text are shown as escapes, by the
// rules of the terminal client: control and format characters (bidi overrides among them), surrogates, unassigned and
// private characters, line and paragraph separators, and blank letters. The joiners of Persian, Hindi and emoji stay.
// Links with http or https become anchors. Nothing else is markup; lines between ``` and lines that begin with four
// spaces or a tab only get a monospaced font. All characters of the text stay in place.

import { h } from "./view/dom.js";

const UNSAFE = /(?![\u200c\u200d])[\p{C}\p{Zl}\p{Zp}\u115f\u1160\u3164\uffa0]/gu;
const UNSAFE_IN_TEXT = new RegExp(`(?![\\n\\t])${UNSAFE.source}`, "gu");
// At most four combining marks in a row: no script uses more, and longer runs cover the lines above and below.
const MARKS = /([\p{Mn}\p{Me}\u200c\u200d]{4})[\p{Mn}\p{Me}\u200c\u200d]+/gu;
const LINK = /\bhttps?:\/\/[^\s<>"`]+/giu;
const PUNCTUATION = ".,;:!?'*_~";
const CLOSING = { "(": ")", "[": "]", "{": "}" };
const CODE = /^(?: {4}|\t)/;
const FENCE = /^\s*```/;
const COLOURS = 12;

/** The action in a text that begins with "/me ", or null. */
export const actionOf = (text) => (/^\/me \s*\S/.test(text) ? text.slice(4) : null);

/** True if the text has this name as a word. Names consist of letters and digits. */
export function mentions(text, name) {
  return Boolean(name) && new RegExp(`(?<![A-Za-z0-9])${name}(?![A-Za-z0-9])`, "i").test(text);
}

/** A single line of received text, for places that take strings: titles, labels, notifications. */
export const clean = (text) => limitMarks(String(text ?? "").replace(UNSAFE, escapeOf));

/** A name in its colour, isolated from the direction of the text around it. */
export const nameNode = (name) => h(`bdi.name.${colourClass(name)}`, clean(name));

/** The class of a name's colour, by the hash of the terminal client: a name has the same hue everywhere. */
export function colourClass(name) {
  return `c${crc32(new TextEncoder().encode(String(name).toLowerCase())) % COLOURS}`;
}

/** The nodes for a text of several lines. */
export function textNodes(text) {
  const blocks = blocksOf(text.replaceAll("\r\n", "\n").split("\n"));
  return blocks.flatMap(({ isCode, lines }, index) => {
    const end = index + 1 < blocks.length ? "\n" : "";
    const nodes = inlineNodes(lines.join("\n") + end, isCode);
    return isCode ? [h("code", {}, ...nodes)] : nodes;
  });
}

/** Runs of lines, alternately prose and code. */
function blocksOf(lines) {
  const blocks = [];
  let isFenced = false;
  for (const line of lines) {
    const isFence = FENCE.test(line);
    const isCode = isFenced || isFence || CODE.test(line);
    isFenced = isFenced !== isFence;
    if (blocks.at(-1)?.isCode === isCode) blocks.at(-1).lines.push(line);
    else blocks.push({ isCode, lines: [line] });
  }
  return blocks;
}

/** Text, escapes, and in prose links. */
function inlineNodes(text, isCode) {
  const linked = isCode ? (part) => [limitMarks(part)] : linkedNodes;
  return split(text, UNSAFE_IN_TEXT, linked, (letter) => h("span.escape", escapeOf(letter)));
}

function linkedNodes(text) {
  return split(text, LINK, (part) => [limitMarks(part)], (match) => {
    const shown = withoutPunctuation(match);
    const href = safeHref(shown);
    const rest = limitMarks(match.slice(shown.length));
    if (href === null) return limitMarks(match);
    return [h("a", { href, target: "_blank", rel: "noopener noreferrer", title: href }, limitMarks(shown)), rest];
  });
}

/** The nodes of the text between the matches of a pattern, and of the matches, in order. */
function split(text, pattern, nodesOf, nodesOfMatch) {
  const nodes = [];
  let begin = 0;
  for (const { 0: match, index } of text.matchAll(pattern)) {
    nodes.push(...nodesOf(text.slice(begin, index)), nodesOfMatch(match));
    begin = index + match.length;
  }
  return [...nodes, ...nodesOf(text.slice(begin))].flat().filter((node) => node !== "");
}

/** The link without the punctuation of the sentence around it. A bracket stays if the link opened it. */
function withoutPunctuation(link) {
  const surplus = { ")": 0, "]": 0, "}": 0 };
  for (const letter of link) {
    if (letter in surplus) surplus[letter]++;
    else if (letter in CLOSING) surplus[CLOSING[letter]]--;
  }
  // One pass, and no pattern: a hostile link is one of thousands of these characters.
  let end = link.length;
  while (end > 0 && (PUNCTUATION.includes(link[end - 1]) || surplus[link[end - 1]]-- > 0)) end--;
  return link.slice(0, end);
}

/** The address, or null for one that is malformed, or whose user name could pass for a host. */
function safeHref(link) {
  const url = URL.canParse(link) ? new URL(link) : null;
  return url && /^https?:$/.test(url.protocol) && !url.username && !url.password ? url.href : null;
}

const limitMarks = (text) => text.replace(MARKS, "$1");

/** As Python's unicode_escape: \n, \x1b, \u202e, \U000e0067. */
function escapeOf(letter) {
  const code = letter.codePointAt(0);
  const digits = code < 0x100 ? 2 : code < 0x10000 ? 4 : 8;
  const number = code.toString(16).padStart(digits, "0");
  return { 9: "\\t", 10: "\\n", 13: "\\r" }[code] ?? `\\${{ 2: "x", 4: "u", 8: "U" }[digits]}${number}`;
}

function crc32(bytes) {
  let crc = ~0;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return ~crc >>> 0;
}
