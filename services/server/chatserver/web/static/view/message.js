// One message of the log as DOM nodes: sender, time, text, and what became of an own one.

import { actionOf, clean, nameNode, textNodes } from "../text.js";
import { h, setText } from "./dom.js";

// A longer text is clipped, with a button to show it: a message may consist of thousands of lines.
const CLIP_LINES = 30;
const CLIP_LETTERS = 4000;
// Messages of one sender within this time share one heading.
const GROUP_MS = 5 * 60_000;

const format = (options) => new Intl.DateTimeFormat(undefined, options);
const clock = format({ hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
const day = format({ weekday: "long", day: "numeric", month: "long", year: "numeric" });
const moment = format({ dateStyle: "short", timeStyle: "short", hourCycle: "h23" });
const full = format({ dateStyle: "full", timeStyle: "medium", hourCycle: "h23" });

/** The time of a message. One outside of the calendar counts as now. */
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
 * The row of a message. `context` has what depends on its place and its reader: `isFirst` (under a heading), `isOwn`,
 * `isMeant`, `isIgnored`, and the actions `retry` and `drop` of a failed one.
 */
export function messageRow(message, context) {
  const row = h("div", { role: "article", tabIndex: -1, "data-from": message.from }, h("div.head"), h("time"));
  row.append(h("div.body", textBox(message, context)));
  updateRow(row, message, context);
  return row;
}

/** Brings a row up to date. The text stays the same nodes unless it was deleted, so that it is not read aloud again. */
export function updateRow(row, message, context) {
  const { isFirst, isOwn, isMeant } = context;
  const { isDeleted, id, nonce } = message;
  const classes = { first: isFirst, own: isOwn, meant: isMeant, deleted: isDeleted, action: isAction(message) };
  row.className = ["message", message.state, ...Object.keys(classes).filter((name) => classes[name])].join(" ");
  for (const [name, value] of Object.entries({ id, nonce: id === null ? nonce : null })) {
    if (value === null || value === undefined) delete row.dataset[name];
    else row.dataset[name] = value;
  }
  const [head, time, body] = row.children;
  head.hidden = !isFirst || isAction(message);
  if (!head.hidden && !head.firstChild) head.append(nameNode(message.from));
  const date = timeOf(message);
  setText(time, clock.format(date));
  Object.assign(time, { dateTime: date.toISOString(), title: full.format(date) });
  if (isDeleted && !row.dataset.deleted) body.replaceChildren(textBox(message, context));
  if (isDeleted) row.dataset.deleted = "yes";
  body.querySelector(".fate")?.remove();
  if (message.state === "failed") body.append(failure(message, context));
  else if (message.isStored) body.append(h("div.fate", "Not online: waits for the next login."));
}

/** What a row shows. If it is the same as before, the row needs no update. */
export function signatureOf({ state, id, time, isDeleted, isStored, error }, { isFirst, isMeant }) {
  return [state, id, time, isDeleted, isStored, error, isFirst, isMeant].join("|");
}

function textBox(message, { isIgnored }) {
  const box = h("div.text", { dir: "auto" });
  const { text, isDeleted, deletedBy, from } = message;
  if (isDeleted) box.append(deletedBy ? `(deleted by ${clean(deletedBy)})` : "(deleted)");
  else if (isIgnored) box.append("(from a user whom you ignore)");
  else if (isAction(message)) box.append("* ", nameNode(from), " ", ...textNodes(actionOf(text)));
  else box.append(...textNodes(text));
  const lines = text.split("\n").length;
  return !isDeleted && !isIgnored && (lines > CLIP_LINES || text.length > CLIP_LETTERS) ? clipped(box, lines) : box;
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
