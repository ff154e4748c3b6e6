/**
 * The lines of the composer: messages, and commands that begin with a slash.
 *
 * A line of one or more lines of text is a message to the conversation. `//text` sends `/text`. `@bob text` is a direct
 * message, as in the terminal client: a private text must not become public. Unknown commands are refused, so that a
 * misspelt one is not sent to all. parse() resolves to what the view must open, and rejects with a Refusal; then nothing
 * was done, and the line belongs back into the composer.
 */

import { Refusal } from "./requests.js";

/** @typedef {import("./chat.js").Chat} Chat  @typedef {import("./conversation.js").Conversation} Conversation */

const USERNAME = /^[A-Za-z0-9]{1,32}$/;
const ROOM = /^[A-Za-z0-9][A-Za-z0-9._-]{0,31}$/;
const NUMBER = /^#?([0-9]{1,15})$/;
const DURATION = /^([0-9]{1,12})([a-z]?)$/;
const UNIT_SECONDS = { s: 1, m: 60, h: 3_600, d: 86_400, w: 604_800, y: 31_536_000 };
const LONGEST_SECONDS = 3_153_600_000;

/**
 * All commands, in the order of the help. `run(chat, conversation, rest)` may return what the view must open.
 * @type {{word: string, arguments: string, help: string, aliases?: string[], run: Function}[]}
 */
export const COMMANDS = [
  {
    ...{ word: "/me", arguments: "ACTION", help: "say what you do, as in /me waves" },
    run: (chat, { key }, rest) => chat.send(key, `/me ${needed(rest, "type /me ACTION, as in /me waves")}`),
  },
  {
    ...{ word: "/msg", arguments: "USER [MESSAGE]", help: "write to one user", aliases: ["/w", "/dm", "/query"] },
    run: (chat, _, rest) => whisper(chat, ...firstWord(rest)),
  },
  {
    ...{ word: "/search", arguments: "WORDS", help: "find messages with all words; word* matches a prefix" },
    run: (_, __, words) => ({ dialog: "search", words }),
  },
  {
    ...{ word: "/join", arguments: "ROOM [private]", help: "enter or make a room; private: by invitation" },
    run: async (chat, _, rest) => {
      const [room, option] = firstWord(rest);
      if (option && option !== "private") throw nothing("type /join ROOM, or /join ROOM private for a private room");
      return { open: await chat.join(roomName(room), option === "private") };
    },
  },
  { word: "/rooms", arguments: "", help: "list the rooms", aliases: ["/list"], run: () => ({ dialog: "rooms" }) },
  {
    ...{ word: "/part", arguments: "[ROOM]", help: "leave a room; ends your membership", aliases: ["/leave"] },
    run: (chat, { key }, rest) => chat.part(rest ? `room:${roomName(rest).toLowerCase()}` : key),
  },
  {
    ...{ word: "/topic", arguments: "TEXT", help: "change the topic of the room; - removes it" },
    run: (chat, { key }, rest) => chat.setTopic(key, rest === "-" ? "" : needed(rest, "type /topic TEXT, or /topic -")),
  },
  { word: "/invite", arguments: "USER", help: "let a user join the room", run: about("invite") },
  { word: "/op", arguments: "USER", help: "make a member an operator of the room", run: about("op") },
  { word: "/deop", arguments: "USER", help: "make an operator an ordinary member", run: about("deop") },
  {
    ...{ word: "/kick", arguments: "USER [WHY]", help: "remove from the room; elsewhere: end the user's connections" },
    run: (chat, { key }, rest) => {
      const [name, why] = firstWord(rest);
      return chat.kick(key, username(name), why);
    },
  },
  {
    ...{ word: "/ban", arguments: "USER [7d] [WHY]", help: "the same, and keep out; also an address" },
    run: (chat, { key }, rest) => {
      const [target, others] = firstWord(rest);
      return chat.ban(key, userOrAddress(target), ...terms(others));
    },
  },
  {
    ...{ word: "/unban", arguments: "USER", help: "end a ban" },
    run: (chat, { key }, rest) => chat.unban(key, userOrAddress(rest)),
  },
  {
    ...{ word: "/mute", arguments: "USER [7d] [WHY]", help: "refuse the messages of a user" },
    run: (chat, { key }, rest) => {
      const [name, others] = firstWord(rest);
      return chat.mute(key, username(name), ...terms(others));
    },
  },
  { word: "/unmute", arguments: "USER", help: "end a mute", run: about("unmute") },
  { word: "/bans", arguments: "", help: "list the bans and mutes", run: () => ({ dialog: "bans" }) },
  {
    ...{ word: "/delete", arguments: "[NUMBER]", help: "delete your last message here, or one by its number" },
    run: (chat, conversation, rest) => chat.deleteMessage(conversation.key, deletedId(chat, conversation, rest)),
  },
  {
    ...{ word: "/report", arguments: "USER [WHY]", help: "report a user, or a message by its number" },
    run: (chat, { key }, rest) => {
      const [word, why] = firstWord(rest);
      const number = NUMBER.exec(word);
      return chat.report(key, number ? { id: Number(number[1]) } : { username: username(word) }, why);
    },
  },
  { word: "/audit", arguments: "", help: "the last acts of operators", run: () => ({ dialog: "audit" }) },
  {
    ...{ word: "/ignore", arguments: "USER", help: "see no more messages of a user" },
    run: (chat, _, rest) => chat.ignore(username(rest)),
  },
  {
    ...{ word: "/unignore", arguments: "USER", help: "see them again" },
    run: (chat, _, rest) => chat.unignore(username(rest)),
  },
  { word: "/ignored", arguments: "", help: "list the users whom you ignore", run: () => ({ dialog: "ignored" }) },
  { word: "/sessions", arguments: "", help: "where you are logged in", run: () => ({ dialog: "sessions" }) },
  { word: "/password", arguments: "", help: "change your password", run: () => ({ dialog: "password" }) },
  { word: "/help", arguments: "", help: "this list", run: () => ({ dialog: "help" }) },
  {
    ...{ word: "/quit", arguments: "", help: "log out", aliases: ["/exit", "/logout"] },
    run: (chat) => void chat.logOut(),
  },
];

const BY_WORD = new Map(COMMANDS.flatMap((each) => [each.word, ...(each.aliases ?? [])].map((word) => [word, each])));

/**
 * Run a line. Resolves to {open: key}, {dialog: name} or nothing.
 * @param {string} line  @param {Conversation} conversation  @param {Chat} chat
 */
export async function parse(line, conversation, chat) {
  const [word, rest] = firstWord(line.trim());
  if (line.startsWith("//")) return chat.send(conversation.key, line.slice(1));
  const command = BY_WORD.get(word.toLowerCase());
  if (command !== undefined) {
    if (rest && !command.arguments) throw nothing(`${word} takes no text`);
    return command.run(chat, conversation, rest);
  }
  if (word.startsWith("/")) {
    throw nothing(`There is no ${word.slice(0, 64)}; /help lists the commands, and a line that begins with // is sent`);
  }
  if (/^@[A-Za-z0-9]{1,32}[:,]?$/.test(word)) return whisper(chat, word.replace(/[:,]$/, ""), rest);
  return chat.send(conversation.key, line);
}

async function whisper(chat, word, text) {
  const open = `user:${username(word).toLowerCase()}`;
  await chat.meet(open);
  if (text) await chat.send(open, text);
  return { open };
}

function about(method) {
  return (chat, { key }, rest) => chat[method](key, username(rest));
}

function deletedId(chat, { messages }, rest) {
  const number = NUMBER.exec(rest);
  if (number) return Number(number[1]);
  if (rest) throw nothing("/delete takes the number of a message, as in /delete 17");
  const own = messages.findLast((each) => each.id !== null && !each.isDeleted && chat.isMe(each.from));
  if (own === undefined) throw nothing("You have sent no message here");
  return own.id;
}

/** Duration in seconds, or null for ever; and the reason. */
function terms(text) {
  const [word, reason] = firstWord(text);
  if (word.toLowerCase() === "forever") return [null, reason];
  const form = DURATION.exec(word.toLowerCase());
  if (form === null) {
    if (/^[0-9]/.test(word)) throw nothing(`${word.slice(0, 32)} is not a duration; type 10m, 2h, 7d or forever`);
    return [null, text];
  }
  const seconds = Number(form[1]) * (UNIT_SECONDS[form[2]] ?? 0);
  if (seconds < 1 || seconds > LONGEST_SECONDS) {
    throw nothing(`${word} is not a duration up to 100 years; type 10m, 2h, 7d or forever`);
  }
  return [seconds, reason];
}

function username(word) {
  const name = word.replace(/^@/, "");
  if (!name) throw nothing("name a user");
  if (!USERNAME.test(name)) throw nothing("A username is 1 to 32 letters and digits (A-Z, a-z, 0-9)");
  return name;
}

function userOrAddress(word) {
  return /[.:/]/.test(word) ? word : username(word);
}

function roomName(word) {
  const name = word.replace(/^#/, "");
  if (!ROOM.test(name)) {
    throw nothing("A room's name is 1 to 32 letters, digits, dots, hyphens and underscores, a letter or digit first");
  }
  return name;
}

function needed(text, advice) {
  if (!text) throw nothing(advice);
  return text;
}

function nothing(why) {
  return new Refusal(`Nothing was done: ${why}.`);
}

/** The first word and the rest, which may have several lines. */
function firstWord(text) {
  const [, word, rest] = /^(\S*)\s*([^]*)$/.exec(text);
  return [word, rest];
}
