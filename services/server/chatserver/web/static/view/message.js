// One message of the log as DOM nodes: sender, time, text, and what became of an own one.

import { actionOf, clean, nameNode, textNodes } from "../text.js";
import { h, setText } from "./dom.js";

// A longer text is clipped, with a button to show it: a message may consist of thousands of lines.
const CLIP_LINES = 30;
const CLIP_LETTERS = 4000;
// Messages of one sender within this time share one heading.
const GROUP_MS = 5 * 60_000;
let parts = 0;

const format = (options) => new Intl.DateTimeFormat(undefined, options);
const clock = format({ hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
const day = format({ weekday: "long", day: "numeric", month: "long", year: "numeric" });
const moment = format({ dateStyle: "short", timeStyle: "short", hourCycle: "h23" });
const full = format({ dateStyle: "full", timeStyle: "medium", hourCycle: "h23" });

/** The time of a message. One outside the calendar counts as now. */
function timeOf({ time }) {
  const date = new Date(time);
  return Number.isNaN(date.getTime()) ? new Date() : date;
}

export const dayOf = (message) => timeOf(message).toDateString();
export const dayText = (message) => day.format(timeOf(message));
export const momentText = (message) => moment.format(timeOf(message));

const isAction = (message) => !message.isDeleted && actionOf(message.text) !== null;

/** True if a message belongs under the heading of the one before: the same sender, shortly after it. */
export function continues(message, before) {
  return (
    before?.from === message.from &&
    dayOf(before) === dayOf(message) &&
    timeOf(message) - timeOf(before) < GROUP_MS &&
    !isAction(before) &&
    !isAction(message)
  );
}

/**
 * Makes the row of a message, or brings it up to date. `context` has what depends on its place and its reader: `isFirst`
 * (under a heading), `isOwn`, `isMeant`, `isIgnored`, and the actions `retry` and `drop` of a failed one. The nodes of
 * the text stay while it is the same, so that it is not read aloud again.
 */
export function drawRow(row, message, context) {
  const { isFirst, isOwn, isMeant, isIgnored } = context;
  const { isDeleted, id, nonce, from, state } = message;
  row ??= newRow(from);
  const classes = { first: isFirst, own: isOwn, meant: isMeant, deleted: isDeleted, action: isAction(message) };
  row.className = ["message", state, ...Object.keys(classes).filter((name) => classes[name])].join(" ");
  if (id !== null) row.dataset.id = id;
  if (id === null && nonce) row.dataset.nonce = nonce;
  else delete row.dataset.nonce;
  const [head, time, body] = row.children;
  head.hidden = !isFirst || isAction(message);
  const named = isAction(message) ? [time, body] : [head, time, body];
  row.setAttribute("aria-labelledby", named.map((part) => part.id).join(" "));
  const date = timeOf(message);
  setText(time, clock.format(date));
  Object.assign(time, { dateTime: date.toISOString(), title: full.format(date) });
  const look = isDeleted ? "deleted" : isIgnored ? "ignored" : "whole";
  if (row.dataset.look !== look) body.replaceChildren(textBox(message, look));
  row.dataset.look = look;
  body.querySelector(".fate")?.remove();
  if (state === "failed") body.append(failure(message, context));
  else if (message.isStored) body.append(h("div.fate", "Not online: waits for the next login."));
  return row;
}

/** An empty row. Its parts have ids, and are its name for screen readers: also the sender, if it is not shown again. */
function newRow(from) {
  const part = (selector, ...nodes) => h(selector, { id: `part${++parts}` }, ...nodes);
  const nodes = [part("div.head", nameNode(from)), part("time"), part("div.body")];
  return h("div", { role: "article", tabIndex: -1, "data-from": from }, ...nodes);
}

/** A message among others on the clipboard: [12:00] bob: hello. */
export function copied(message, row) {
  const sender = isAction(message) ? "" : `${clean(message.from)}: `;
  return `[${clock.format(timeOf(message))}] ${sender}${row.querySelector(".text").textContent}`;
}

/** What a row shows. While it is the same, the row needs no update. */
export const signatureOf = ({ state, id, time, isDeleted, isStored, error }, { isFirst, isMeant, isIgnored }) =>
  [state, id, time, isDeleted, isStored, error, isFirst, isMeant, isIgnored].join("|");

function textBox(message, look) {
  const { text, deletedBy, from } = message;
  const box = h("div.text", { dir: "auto" });
  if (look === "deleted") box.append(deletedBy ? `(deleted by ${clean(deletedBy)})` : "(deleted)");
  else if (look === "ignored") box.append("(from a user whom you ignore)");
  else if (isAction(message)) box.append("* ", nameNode(from), " ", ...textNodes(actionOf(text)));
  else box.append(...textNodes(text));
  const lines = text.split("\n").length;
  return look === "whole" && (lines > CLIP_LINES || text.length > CLIP_LETTERS) ? clipped(box, lines) : box;
}

function clipped(box, lines) {
  const button = h("button.link", `Show all ${lines > CLIP_LINES ? `${lines.toLocaleString()} lines` : "of it"}`);
  const wrapper = h("div.clipped", box, button);
  button.onclick = () => {
    wrapper.closest(".message").focus();
    wrapper.replaceWith(box);
  };
  return wrapper;
}

function failure(message, { retry, drop }) {
  const button = (label, action) => h("button.link", { onclick: () => action(message) }, label);
  const why = h("span.error", `Not sent. ${clean(message.error)}`);
  return h("div.fate", why, button("Try again", retry), button("Give up", drop));
}
