// One message of the log as DOM nodes: sender, time, text, and what became of an own one.

import { actionOf, clean, nameNode, textNodes } from "../text.js";
import { el } from "./dom.js";

// A longer text is shown clipped, with a button: a message may consist of thousands of lines.
const CLIP_LINES = 30;
const CLIP_LETTERS = 4000;
// Messages of one sender within this time share one heading.
const GROUP_MS = 5 * 60_000;

const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
const day = new Intl.DateTimeFormat(undefined, { weekday: "long", day: "numeric", month: "long", year: "numeric" });
const full = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "medium" });

/** The moment of a message. Times outside of the calendar, and missing ones, count as now. */
export function momentOf(message) {
  const moment = new Date(message.time ?? Date.now());
  return Number.isNaN(moment.getTime()) ? new Date() : moment;
}

export const dayOf = (message) => momentOf(message).toDateString();
export const dayText = (message) => day.format(momentOf(message));
export const timeText = (message) => clock.format(momentOf(message));
export const fullTime = (message) => full.format(momentOf(message));
export const dateTimeText = (message) => `${momentOf(message).toLocaleDateString()} ${timeText(message)}`;

/** True if a message continues the one before: the same sender, shortly after it. */
export function continues(message, before) {
  return (
    before !== undefined &&
    before.from === message.from &&
    before.to === message.to &&
    dayOf(before) === dayOf(message) &&
    momentOf(message) - momentOf(before) < GROUP_MS &&
    isAction(before) === isAction(message) &&
    !isAction(message)
  );
}

const isAction = (message) => !message.isDeleted && actionOf(message.text) !== null;

/**
 * The row of a message. `context` has what depends on its place and its reader: `isFirst` (of its group), `isOwn`,
 * `isMeant`, `isIgnored`; and `onRetry`, `onDrop`.
 */
export function messageRow(message, context) {
  const row = el("div", { role: "article", tabIndex: -1 });
  row.dataset.from = message.from;
  const body = el("div", { class: "body" }, textBox(message, context));
  row.append(el("div", { class: "head" }), timeNode(message), body);
  updateRow(row, message, context);
  return row;
}

/** Brings a row up to date. The text's nodes stay unless the text changed, so that it is not announced again. */
export function updateRow(row, message, context) {
  const classes = ["message", message.state];
  if (context.isFirst) classes.push("first");
  if (context.isOwn) classes.push("own");
  if (context.isMeant) classes.push("meant");
  if (message.isDeleted) classes.push("deleted");
  if (isAction(message)) classes.push("action");
  row.className = classes.join(" ");
  if (message.id !== null && message.id !== undefined) row.dataset.id = message.id;
  if (message.nonce && row.dataset.id === undefined) row.dataset.nonce = message.nonce;
  else delete row.dataset.nonce;

  const [head, time, body] = row.children;
  const showsName = context.isFirst && !isAction(message);
  head.hidden = !showsName;
  if (showsName !== (head.childElementCount > 0)) head.replaceChildren(...(showsName ? [nameNode(message.from)] : []));
  if (time.dateTime !== isoTime(message)) time.replaceWith(timeNode(message));
  if (message.isDeleted && !body.dataset.deleted) {
    body.dataset.deleted = "yes";
    body.replaceChildren(textBox(message, context));
  }
  body.querySelector(".fate")?.remove();
  if (message.state === "failed") body.append(failure(message, context));
  else if (message.isStored) body.append(el("div", { class: "fate" }, `${clean(message.to)} is not online and gets it at the next login.`));
}

/** What a row looks like: if it is the same as before, the row needs no update. */
export function signatureOf(message, context) {
  return [message.state, message.id, message.time, message.isDeleted, message.isStored, message.error, context.isFirst, context.isMeant].join("|");
}

const isoTime = (message) => momentOf(message).toISOString();

function timeNode(message) {
  return el("time", { dateTime: isoTime(message), title: fullTime(message) }, timeText(message));
}

function textBox(message, context) {
  const box = el("div", { class: "text", dir: "auto" });
  if (message.isDeleted) {
    box.append(message.deletedBy ? `(deleted by ${clean(message.deletedBy)})` : "(deleted)");
    return box;
  }
  if (context.isIgnored) {
    box.append("(from a user whom you ignore)");
    return box;
  }
  const action = actionOf(message.text);
  if (action !== null) box.append("* ", nameNode(message.from), " ");
  box.append(textNodes(action ?? message.text));
  return isLong(message.text) ? clipped(box, message.text) : box;
}

function isLong(text) {
  return text.length > CLIP_LETTERS || text.split("\n", CLIP_LINES + 1).length > CLIP_LINES;
}

function clipped(box, text) {
  const lines = text.split("\n").length;
  const label = lines > CLIP_LINES ? `Show all ${lines.toLocaleString()} lines` : "Show all of it";
  const wrapper = el("div", { class: "clipped" }, box);
  const button = el("button", { type: "button", class: "link" }, label);
  button.addEventListener("click", () => {
    wrapper.classList.remove("clipped");
    button.remove();
  });
  wrapper.append(button);
  return wrapper;
}

function failure(message, context) {
  const button = (label, action) => el("button", { type: "button", class: "link", onclick: () => action(message) }, label);
  return el(
    "div",
    { class: "fate" },
    el("span", { class: "error" }, `Not sent. ${clean(message.error ?? "")}`),
    button("Try again", context.onRetry),
    button("Give up", context.onDrop),
  );
}
