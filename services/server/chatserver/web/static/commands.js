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

export const USERNAME = /^[A-Za-z0-9]{1,32}$/;
export const ROOM = /^[A-Za-z0-9][A-Za-z0-9._-]{0,31}$/;
const NUMBER = /^#?([0-9]{1,15})$/;
const DURATION = /^([0-9]{1,12})([a-z]?)$/;
const UNIT_SECONDS = { s: 1, m: 60, h: 3_600, d: 86_400, w: 604_800, y: 31_536_000 };
const LONGEST_SECONDS = 3_153_600_000;
const MEMBERS_MAX = 10_000;

/** Rows of the help, in its order: word and aliases, arguments, help, and what it does. It may return what to open. */
const TABLE = [
  ["/me", "ACTION", "say what you do, as in /me waves", (chat, at, rest) => {
    return chat.send(at.key, `/me ${needed(rest, "Type /me ACTION, as in /me waves")}`);
  }],
  ["/msg /w /dm", "USER [MESSAGE]", "write to one user", (chat, _, rest) => whisper(chat, ...firstWord(rest))],
  ["/search", "WORDS", "find messages with all words; word* matches a prefix", (_, __, words) => {
    return { dialog: "search", words };
  }],
  ["/join", "ROOM [KEY]", "enter or make a room; ROOM private: by invitation", (chat, _, rest) => {
    const [room, key] = firstWord(rest);
    if (/\s/.test(key)) throw nothing("Type /join ROOM, /join ROOM KEY, or /join ROOM private for a new private room");
    return enter(chat, roomName(room), key);
  }],
  ["/rooms /list", "", "list the rooms", dialog("rooms")],
  ["/part /leave", "[ROOM]", "leave a room; ends your membership", (chat, at, rest) => {
    return chat.part(rest ? `room:${roomName(rest).toLowerCase()}` : at.key);
  }],
  ["/topic", "TEXT", "change the topic of the room; - removes it", (chat, at, rest) => {
    return chat.setTopic(at.key, rest === "-" ? "" : needed(rest, "Type /topic TEXT, or /topic -"));
  }],
  ["/invite", "USER", "let a user join the room", about("invite")],
  ["/op", "USER", "make a member an operator of the room", about("op")],
  ["/deop", "USER", "make an operator an ordinary member", about("deop")],
  ["/voice", "USER", "let a member write in a moderated room", about("voice")],
  ["/devoice", "USER", "take this right back", about("devoice")],
  ["/modes", "[CHANGES]", "show the modes of the room, or change them: /modes moderated -key", async (chat, at, rest) => {
    if (!rest) return { dialog: "modes" };
    await chat.modes(at.key, modeChanges(rest));
    return {};
  }],
  ["/kick", "USER [WHY]", "remove from the room; elsewhere: end the user's connections", (chat, at, rest) => {
    const [name, why] = firstWord(rest);
    return chat.kick(at.key, username(name), why);
  }],
  ["/ban", "USER [7d] [WHY]", "the same, and keep out; also an address", (chat, at, rest) => {
    const [target, others] = firstWord(rest);
    return chat.ban(at.key, userOrAddress(target), ...terms(others));
  }],
  ["/unban", "USER", "end a ban", (chat, at, rest) => chat.unban(at.key, userOrAddress(rest))],
  ["/mute", "USER [7d] [WHY]", "refuse the messages of a user", (chat, at, rest) => {
    const [name, others] = firstWord(rest);
    return chat.mute(at.key, username(name), ...terms(others));
  }],
  ["/unmute", "USER", "end a mute", about("unmute")],
  ["/bans", "", "list the bans and mutes", dialog("bans")],
  ["/delete", "[NUMBER]", "delete your last message here, or one by its number", (chat, at, rest) => {
    return chat.deleteMessage(at.key, deletedId(chat, at, rest));
  }],
  ["/report", "USER [WHY]", "report a user, or a message by its number", (chat, at, rest) => {
    const [word, why] = firstWord(rest);
    const number = NUMBER.exec(word);
    return chat.report(at.key, number ? { id: Number(number[1]) } : { username: username(word) }, why);
  }],
  ["/audit", "", "the last acts of operators", dialog("audit")],
  ["/ignore", "USER", "see no more messages of a user", (chat, _, rest) => chat.ignore(username(rest))],
  ["/unignore", "USER", "see them again", (chat, _, rest) => chat.unignore(username(rest))],
  ["/ignored", "", "list the users whom you ignore", dialog("ignored")],
  ["/sessions", "", "where you are logged in", dialog("sessions")],
  ["/password", "", "change your password", dialog("password")],
  ["/help", "", "this list", dialog("help")],
  ["/quit /exit", "", "log out", (chat) => void chat.logOut()],
];

/** @type {{word: string, arguments: string, help: string}[]} */
export const COMMANDS = TABLE.map(([words, args, help]) => ({ word: words.split(" ")[0], arguments: args, help }));

/** The modes that are on or off, with the members of the request; and all that can be typed after /modes. */
const SWITCHES = { private: "private", moderated: "moderated", "open-topic": "open_topic" };
export const MODE_WORDS = [...Object.keys(SWITCHES), "key", "limit"];

const BY_WORD = new Map(TABLE.flatMap((row) => row[0].split(" ").map((word) => [word, row])));

/** The arguments of the command with this word, as in the help; null if it is no command. */
export function argumentsOf(word) {
  return BY_WORD.get(word.toLowerCase())?.[1] ?? null;
}

/**
 * Run a line. Resolves to {open: key}, {dialog: name} or nothing.
 * @param {string} line  @param {Conversation} conversation  @param {Chat} chat
 */
export async function parse(line, conversation, chat) {
  const [word, rest] = firstWord(line.trim());
  if (line.startsWith("//")) return chat.send(conversation.key, line.slice(1));
  if (BY_WORD.has(word.toLowerCase())) {
    const [, args, , run] = BY_WORD.get(word.toLowerCase());
    if (rest && !args) throw nothing(`${word} takes no text`);
    return run(chat, conversation, rest);
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

/** Join a room. "private" has a meaning only for a new room, and a key only for an old one, so the word can be both. */
async function enter(chat, room, key) {
  try {
    return { open: await chat.join(room, { isPrivate: key.toLowerCase() === "private", key }) };
  } catch (error) {
    if (error.code !== "wrong_key") throw error;
    return { dialog: "key", room };
  }
}

/** The members of a request that changes the modes of a room: "moderated key sesame -private". */
function modeChanges(text) {
  const words = text.split(/\s+/);
  const changes = {};
  const value = (name) => words.shift() ?? refuse(`Type /modes ${name}, or -${name.split(" ")[0]} to end it`);
  while (words.length > 0) {
    const word = words.shift();
    const [name, isSet] = [word.replace(/^[+-]/, "").toLowerCase(), !word.startsWith("-")];
    if (Object.hasOwn(SWITCHES, name)) changes[SWITCHES[name]] = isSet;
    else if (name === "key") changes.key = isSet ? value("key WORD") : "";
    else if (name === "limit") changes.members_max = isSet ? limit(value("limit NUMBER")) : 0;
    else refuse(`There is no mode ${word.slice(0, 32)}; there are ${Object.keys(SWITCHES).join(", ")}, key WORD and limit NUMBER`);
  }
  return changes;
}

function limit(word) {
  const number = /^[0-9]{1,5}$/.test(word) ? Number(word) : 0;
  if (number < 1 || number > MEMBERS_MAX) refuse(`A limit is a number from 1 to 10,000, not ${word.slice(0, 32)}`);
  return number;
}

function refuse(why) {
  throw nothing(why);
}

function dialog(name) {
  return () => ({ dialog: name });
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
  if (!name) throw nothing("Name a user");
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
  return new Refusal(`${why}. Nothing was done.`);
}

/** The first word and the rest, which may have several lines. */
function firstWord(text) {
  const [, word, rest] = /^(\S*)\s*([^]*)$/.exec(text);
  return [word, rest];
}
