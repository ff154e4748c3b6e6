// What can be done about a user or a message: the items of their menus, and the dialogs of moderation.

import { clean, nameNode } from "../text.js";
import { el } from "./dom.js";
import { dateTimeText } from "./message.js";
import { actButton, askDialog, listDialog } from "./dialogs.js";

const HOUR = 3600;
const DURATIONS = [["1 hour", HOUR], ["1 day", 24 * HOUR], ["7 days", 7 * 24 * HOUR], ["30 days", 30 * 24 * HOUR], ["until it is ended", ""]];
const REASON = { name: "reason", label: "Reason (may be empty)", maxLength: 256 };

/** True if the user may act against others here: as an operator of the server, or of this room. */
export function mayModerate(chat, { role }) {
  return Boolean(chat.isOperator) || role === "owner" || role === "operator";
}

/** The items for a user. `open(key)` shows a conversation, `mention(name)` types the name, `tell(text)` says something. */
export function userItems(chat, conversation, name, { open, mention, tell }) {
  if (name.toLowerCase() === chat.me?.toLowerCase()) return [{ label: "Write to yourself", action: () => open(`user:${name.toLowerCase()}`) }];
  const { key, kind } = conversation;
  const place = kind === "room" ? key : "lobby";
  const mayAct = mayModerate(chat, kind === "room" ? conversation : {});
  const mayPromote = mayAct && kind === "room";
  const attempt = (action, done) => () => action().then(() => done && tell(done), (error) => tell(error.message, true));
  const isIgnored = chat.isIgnored?.(name);
  return [
    { label: "Write a direct message", action: () => open(`user:${name.toLowerCase()}`) },
    kind === "user" ? undefined : { label: "Mention", action: () => mention(name) },
    null,
    isIgnored
      ? { label: "See messages again", action: attempt(() => chat.unignore(name)) }
      : { label: "Ignore", action: attempt(() => chat.ignore(name), `You see no more messages of ${name}.`) },
    { label: "Report…", action: () => reportDialog(chat, place, { username: name }, name, tell) },
    null,
    ...(mayPromote
      ? [
          { label: "Make an operator of the room", action: attempt(() => chat.op(key, name)) },
          { label: "Make an ordinary member", action: attempt(() => chat.deop(key, name)) },
          null,
        ]
      : []),
    ...(mayAct
      ? [
          { label: "Mute…", action: () => sanctionDialog("Mute", name, conversation, (seconds, reason) => chat.mute(place, name, seconds, reason)) },
          { label: "Kick…", isDanger: true, action: () => kickDialog(chat, place, name, conversation) },
          { label: "Ban…", isDanger: true, action: () => sanctionDialog("Ban", name, conversation, (seconds, reason) => chat.ban(place, name, seconds, reason)) },
        ]
      : []),
  ];
}

/** The items for a message. */
export function messageItems(chat, conversation, message, { open, tell }) {
  const { key, kind } = conversation;
  const isOwn = message.from.toLowerCase() === chat.me?.toLowerCase();
  const isStored = message.id !== null && message.id !== undefined && !message.isDeleted;
  const mayDelete = isStored && (isOwn || (kind !== "user" && mayModerate(chat, kind === "room" ? conversation : {})));
  return [
    message.isDeleted ? undefined : { label: "Copy text", action: () => copy(message.text, tell) },
    isOwn || kind === "user" ? undefined : { label: "Reply with a direct message", action: () => open(`user:${message.from.toLowerCase()}`) },
    message.state === "failed" ? { label: "Try again", action: () => chat.retry(message).catch(() => {}) } : undefined,
    message.state === "failed" ? { label: "Give up", action: () => chat.drop(message) } : undefined,
    null,
    isStored && !isOwn ? { label: "Report…", action: () => reportDialog(chat, key, { id: message.id }, `the message of ${message.from}`, tell) } : undefined,
    mayDelete ? { label: "Delete…", isDanger: true, action: () => deleteDialog(chat, key, message) } : undefined,
  ];
}

async function copy(text, tell) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    tell("The browser does not allow this page to copy. Select the text instead.", true);
  }
}

const placeText = ({ kind, name }) => (kind === "room" ? `#${clean(name)}` : "the server");

function kickDialog(chat, key, name, conversation) {
  askDialog(`Kick ${clean(name)} from ${placeText(conversation)}?`, {
    fields: [REASON],
    button: "Kick",
    isDanger: true,
    action: ({ reason }) => chat.kick(key, name, reason.trim()),
  });
}

function sanctionDialog(what, name, conversation, action) {
  const where = what === "Ban" ? `from ${placeText(conversation)}` : conversation.kind === "room" ? `in ${placeText(conversation)}` : "everywhere";
  askDialog(`${what} ${clean(name)} ${where}`, {
    fields: [{ name: "seconds", label: "For", options: DURATIONS }, REASON],
    button: what,
    isDanger: true,
    action: ({ seconds, reason }) => action(seconds ? Number(seconds) : null, reason.trim()),
  });
}

function reportDialog(chat, key, target, what, tell) {
  askDialog(`Report ${clean(what)}`, {
    text: "The operators of the server get your report.",
    fields: [REASON],
    button: "Report",
    action: async ({ reason }) => {
      await chat.report(key, target, reason.trim());
      tell("The operators have your report.");
    },
  });
}

function deleteDialog(chat, key, message) {
  const start = clean(message.text.slice(0, 120));
  askDialog("Delete this message?", {
    text: `“${start}${message.text.length > 120 ? "…" : ""}”`,
    button: "Delete",
    isDanger: true,
    action: () => chat.deleteMessage(key, message.id),
  });
}

/** The bans and mutes of the server ("lobby") or of a room, with buttons to end them. */
export function bansDialog(chat, key) {
  listDialog("Bans and mutes", {
    empty: "There are no bans and mutes.",
    load: () => chat.bans(key),
    row: (ban, reload) => [
      el(
        "span",
        {},
        ban.username ? nameNode(ban.username) : clean(ban.address ?? ""),
        ` ${ban.kind === "ban" ? "banned" : "muted"} by ${clean(ban.by)}`,
        el("span", { class: "hint isolate" }, [ban.until ? `until ${dateTimeText({ time: ban.until })}` : "until it is ended", clean(ban.reason ?? "")].filter(Boolean).join(" · ")),
      ),
      actButton("End", async () => {
        const target = ban.username ?? ban.address;
        await (ban.kind === "ban" ? chat.unban(key, target) : chat.unmute(key, target));
        await reload();
      }),
    ],
  });
}

/** What operators did, the newest first. */
export function auditDialog(chat) {
  listDialog("Acts of operators", {
    empty: "Operators have done nothing yet.",
    load: async () => (await chat.audit()).toReversed(),
    row: (act) => [
      el(
        "span",
        {},
        `${dateTimeText(act)} `,
        nameNode(act.by),
        `: ${clean([act.action, act.target].filter(Boolean).join(" "))}${act.room ? ` in #${clean(act.room)}` : ""}`,
        el("span", { class: "hint isolate" }, clean([act.detail, act.reason].filter(Boolean).join(" · "))),
      ),
    ],
  });
}
