// Received text to DOM nodes. Pure, apart from creating nodes.
//
// Texts of users are hostile. Characters that could reorder, hide or imitate other text are shown as escapes, by the
// same rules as in the terminal client: control and format characters (bidi overrides among them), surrogates,
// unassigned and private characters, line and paragraph separators, and blank letters. The joiners of Persian, Hindi
// and emoji stay. Links with http or https become anchors. Nothing else is markup; blocks between ``` lines and lines
// that begin with four spaces or a tab are only drawn in a monospaced font. All characters of the text stay in place.

import { el } from "./view/dom.js";

const UNSAFE = /[\p{C}\p{Zl}\p{Zp}\u115f\u1160\u3164\uffa0]/gu;
const SAFE_FORMATS = "\u200c\u200d";
// At most four combining marks in a row: no script uses more, and longer runs cover the lines above and below.
const MARKS = /([\p{Mn}\p{Me}\u200c\u200d]{4})[\p{Mn}\p{Me}\u200c\u200d]+/gu;
const LINK = /\bhttps?:\/\/[^\s<>"`\p{C}]+/giu;
const LINK_END = /[.,;:!?'*_~]+$/;
const INDENTED = /^(?: {4}|\t)/;
const FENCE = /^\s*```/;
const ACTION = "/me ";
const COLOURS = 12;

/** The action in a text that begins with "/me ", or null. */
export function actionOf(text) {
  const action = text.startsWith(ACTION) ? text.slice(ACTION.length) : "";
  return action.trim() ? action : null;
}

/** True if the text has this name as a word. */
export function mentions(text, name) {
  if (!name || !text.toLowerCase().includes(name.toLowerCase())) return false;
  return new RegExp(`(?<![A-Za-z0-9])${RegExp.escape?.(name) ?? name}(?![A-Za-z0-9])`, "i").test(text);
}

/** A name or another single line, for places that take strings only: titles, labels, notifications. */
export function clean(text) {
  return String(text).replace(UNSAFE, (letter) => (isSafe(letter) ? letter : escapeOf(letter))).replace(MARKS, "$1");
}

/** A name in its colour, isolated from the direction of the text around it. */
export function nameNode(name) {
  return el("bdi", { class: `name ${colourClass(name)}` }, clean(name));
}

/** The class of a name's colour: by the same hash as in the terminal client, so a name has the same hue everywhere. */
export function colourClass(name) {
  return `c${crc32(new TextEncoder().encode(String(name).toLowerCase())) % COLOURS}`;
}

/** The nodes for a text of several lines. */
export function textNodes(text) {
  const fragment = document.createDocumentFragment();
  const blocks = blocksOf(text.replaceAll("\r\n", "\n").split("\n"));
  blocks.forEach(({ isCode, lines }, index) => {
    const end = index + 1 < blocks.length ? "\n" : "";
    const nodes = inlineNodes(lines.join("\n") + end, isCode);
    fragment.append(...(isCode ? [el("code", { class: "block" }, ...nodes)] : nodes));
  });
  return fragment;
}

/** Runs of lines, alternately prose and code. */
function blocksOf(lines) {
  const blocks = [];
  let isFenced = false;
  for (const line of lines) {
    const isFence = FENCE.test(line);
    const isCode = isFenced || isFence || INDENTED.test(line);
    if (isFence) isFenced = !isFenced;
    const last = blocks.at(-1);
    if (last?.isCode === isCode) last.lines.push(line);
    else blocks.push({ isCode, lines: [line] });
  }
  return blocks;
}

/** Text nodes, escapes and links. */
function inlineNodes(text, isCode) {
  const nodes = [];
  let begin = 0;
  for (const match of text.matchAll(UNSAFE)) {
    if (isSafe(match[0]) || match[0] === "\n" || match[0] === "\t") continue;
    nodes.push(...linkedNodes(text.slice(begin, match.index), isCode));
    nodes.push(el("span", { class: "escape" }, escapeOf(match[0])));
    begin = match.index + match[0].length;
  }
  return [...nodes, ...linkedNodes(text.slice(begin), isCode)];
}

function linkedNodes(text, isCode) {
  const nodes = [];
  let begin = 0;
  for (const match of isCode ? [] : text.matchAll(LINK)) {
    const shown = trimmed(match[0]);
    const href = safeHref(shown);
    if (href === null) continue;
    nodes.push(text.slice(begin, match.index).replace(MARKS, "$1"), linkNode(shown, href));
    begin = match.index + shown.length;
  }
  nodes.push(text.slice(begin).replace(MARKS, "$1"));
  return nodes.filter((node) => node !== "");
}

function linkNode(shown, href) {
  return el("a", { href, target: "_blank", rel: "noopener noreferrer", title: href }, shown.replace(MARKS, "$1"));
}

/** The link without the punctuation of the sentence around it. A bracket stays if the link opened it. */
function trimmed(link) {
  let shown = link.replace(LINK_END, "");
  for (const [open, close] of ["()", "[]", "{}"]) {
    while (shown.endsWith(close) && shown.split(close).length > shown.split(open).length) {
      shown = shown.slice(0, -1).replace(LINK_END, "");
    }
  }
  return shown;
}

/** The address, or null for one that is malformed, or whose user name could pass for a host. */
function safeHref(link) {
  if (!URL.canParse(link)) return null;
  const url = new URL(link);
  const isWeb = url.protocol === "http:" || url.protocol === "https:";
  return isWeb && !url.username && !url.password ? url.href : null;
}

const isSafe = (letter) => SAFE_FORMATS.includes(letter);

/** As Python's unicode_escape: \n, \x1b, \u202e, \U000e0067. */
function escapeOf(letter) {
  const short = { "\n": "\\n", "\r": "\\r", "\t": "\\t" }[letter];
  if (short) return short;
  const code = letter.codePointAt(0);
  const digits = code < 0x100 ? 2 : code < 0x10000 ? 4 : 8;
  return `\\${{ 2: "x", 4: "u", 8: "U" }[digits]}${code.toString(16).padStart(digits, "0")}`;
}

function crc32(bytes) {
  let crc = ~0;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return ~crc >>> 0;
}
