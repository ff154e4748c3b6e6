// What can be done about a user or a message: the items of their menus, and the dialogs of moderation.

import { clean, nameNode } from "../text.js";
import { actButton, askDialog, details, listDialog } from "./dialogs.js";
import { copyText } from "./dom.js";
import { momentText } from "./message.js";

const DAY = 24 * 3600;
const DURATIONS = [["1 hour", 3600], ["1 day", DAY], ["7 days", 7 * DAY], ["30 days", 30 * DAY], ["until it is ended", ""]];
const REASON = { name: "reason", label: "Reason (may be empty)", maxLength: 256 };
const FOR = { name: "seconds", label: "For", options: DURATIONS };

/** True if the user may act against others here: as an operator of the server, or of this room. */
export const mayModerate = (chat, { kind, role }) =>
  chat.isOperator || (kind === "room" && (role === "owner" || role === "operator"));

/** The items for a user. `open(key)` shows a conversation, `mention(name)` types the name, `tell(text)` says something. */
export function userItems(chat, conversation, name, { open, mention, tell }) {
  const { kind } = conversation;
  const key = kind === "room" ? conversation.key : "lobby";
  const write = ["Write a direct message", () => open(`user:${name.toLowerCase()}`)];
  if (chat.isMe(name)) return [write];
  const mayAct = mayModerate(chat, conversation);
  const attempt = (action) => () => action().catch((error) => tell(error.message, true));
  const where = kind === "room" ? ` in #${clean(conversation.name)}` : "";
  const sanction = (what, action) => {
    const fields = what === "Kick" ? [REASON] : [FOR, REASON];
    const run = ({ seconds, reason }) => action(seconds ? Number(seconds) : null, reason);
    const form = { fields, button: what, isDanger: true, action: run };
    return [`${what}…`, () => askDialog(`${what} ${clean(name)}${where}`, form), true];
  };
  return [
    write,
    kind !== "user" && ["Mention", () => mention(name)],
    null,
    chat.isIgnored(name)
      ? ["Show messages again", attempt(() => chat.unignore(name))]
      : ["Ignore", attempt(() => chat.ignore(name))],
    reportItem(chat, key, { username: name }, name, tell),
    null,
    mayAct && kind === "room" && ["Make an operator of the room", attempt(() => chat.op(key, name))],
    mayAct && kind === "room" && ["Make an ordinary member", attempt(() => chat.deop(key, name))],
    mayAct && kind === "room" && ["Give a voice", attempt(() => chat.voice(key, name))],
    mayAct && kind === "room" && ["Take the voice", attempt(() => chat.devoice(key, name))],
    null,
    mayAct && sanction("Mute", (seconds, reason) => chat.mute(key, name, seconds, reason)),
    mayAct && sanction("Kick", (_, reason) => chat.kick(key, name, reason)),
    mayAct && sanction("Ban", (seconds, reason) => chat.ban(key, name, seconds, reason)),
  ];
}

/** The items for a message. */
export function messageItems(chat, conversation, message, { open, tell }) {
  const { key, kind } = conversation;
  const { id, from, text, isDeleted } = message;
  const isOwn = chat.isMe(from);
  const isStored = id !== null && !isDeleted;
  const mayDelete = isStored && (isOwn || (kind !== "user" && mayModerate(chat, conversation)));
  const remove = {
    text: `“${clean(text.slice(0, 120))}${text.length > 120 ? "…" : ""}”`,
    button: "Delete",
    isDanger: true,
    action: () => chat.deleteMessage(key, id),
  };
  const copy = () => copyText(text).catch(() => tell("The browser does not allow copying.", true));
  return [
    !isDeleted && ["Copy text", copy],
    !isOwn && kind !== "user" && ["Reply with a direct message", () => open(`user:${from.toLowerCase()}`)],
    null,
    isStored && !isOwn && reportItem(chat, key, { id }, `the message of ${from}`, tell),
    mayDelete && ["Delete…", () => askDialog("Delete this message?", remove), true],
  ];
}

function reportItem(chat, key, target, what, tell) {
  const action = async ({ reason }) => {
    await chat.report(key, target, reason);
    tell("The operators of the server have your report.");
  };
  return ["Report…", () => askDialog(`Report ${clean(what)}`, { fields: [REASON], button: "Report", action })];
}

/** The bans and mutes of the server ("lobby") or of a room, with buttons to end them. */
export function bansDialog(chat, key) {
  listDialog("Bans and mutes", {
    empty: "There are no bans and mutes.",
    load: () => chat.bans(key),
    row: ({ kind, username, address, by, until, reason }, reload) => {
      const target = username ?? address;
      const undo = kind === "ban" ? chat.unban : chat.unmute;
      const what = ` ${kind === "ban" ? "banned" : "muted"} by ${clean(by)}`;
      const end = until ? `until ${momentText({ time: until })}` : "until it is ended";
      return [details([nameNode(target), what], end, reason), actButton("End", () => undo.call(chat, key, target).then(() => reload()), `End for ${target}`)];
    },
  });
}

/** What operators did, the newest first. */
export function auditDialog(chat) {
  listDialog("Acts of operators", {
    empty: "Operators have done nothing yet.",
    load: async () => (await chat.audit()).toReversed(),
    row: ({ time, by, action, target, room, detail, reason }) => {
      const act = `: ${clean(action)} ${clean(target)}${room ? ` in #${clean(room)}` : ""}`;
      return [details([nameNode(by), act], momentText({ time }), detail, reason)];
    },
  });
}
