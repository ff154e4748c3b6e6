/**
 * The completion of names, rooms and commands in the composer. It has the rule of the terminal client (cli/input.py):
 *
 *     /jo          a command, and a space
 *     /kick bo     what the command takes: a user, a room, or a mode; a space if more may follow
 *     bo           a name at the beginning of the line, and ": "
 *     @bo          a direct message to this user
 *     hello bo     a name
 *
 * Names are those of users online; those who spoke in the conversation come first, the last one at the top. Unlike in a
 * terminal, nothing typed completes to nothing: Tab must be able to leave the text box. A server may send any name: those
 * that can't be typed are left out.
 */

import { argumentsOf, COMMANDS, MODE_WORDS, ROOM, USERNAME } from "./commands.js";

/**
 * @param {string} before  the text before the cursor
 * @param {import("./conversation.js").Conversation} conversation  @param {import("./chat.js").Chat} chat
 * @returns {{length: number, found: string[]}} the length of the word before the cursor, and what may take its place
 */
export function completions(before, conversation, chat) {
  const [, first, last] = /^([^]*?)(\S*)$/.exec(before);
  const words = first.trim().split(/\s+/);
  const found = find(first.trim() ? words : [], last, conversation, chat);
  return { length: last.length, found: found.length === 1 && found[0] === last ? [] : found };
}

/** What the word `last` after these words may be. */
function find(words, last, conversation, chat) {
  const known = chat.namesFor(conversation).filter((name) => USERNAME.test(name));
  const names = (start, end) => like(known, start).map((name) => `${name}${end}`);
  const isCommand = last.startsWith("/");
  if (words.length === 0 && isCommand) return like(COMMANDS.map(({ word }) => word), last).map((word) => `${word} `);
  if (words.length === 0 && last.startsWith("@")) return names(last.slice(1), " ").map((name) => `@${name}`);
  if (words.length === 0) return last ? names(last, ": ") : [];
  const taken = argumentsOf(words[0]);
  if (taken === null) return last && !words[0].startsWith("/") ? names(last, "") : [];
  const kinds = taken.split(" ");
  const kind = kinds[words.length - 1];
  const end = words.length < kinds.length ? " " : "";
  if (/^\[?USER/.test(kind)) return names(last, end);
  if (/^\[?ROOM/.test(kind)) return rooms(last, words[0], chat).map((name) => `${name}${end}`);
  const text = kinds.at(-1);
  if (text === "[CHANGES]") {
    const [, sign, start] = /^([+-]?)(.*)$/.exec(last);
    return like(MODE_WORDS, start).map((word) => `${sign}${word} `);
  }
  return last && ["ACTION", "[MESSAGE]"].includes(text) ? names(last, "") : [];
}

/** Names of rooms: those that the user is in, and for /join others that the server has listed. */
function rooms(start, command, chat) {
  const others = command.toLowerCase() === "/join" ? chat.listed : [];
  const own = [...chat.conversations.values()].filter(({ kind }) => kind === "room").map(({ name }) => name);
  const [, mark, name] = /^(#?)(.*)$/.exec(start);
  const found = like([...new Set([...own, ...others])], name).filter((each) => ROOM.test(each));
  return found.sort((one, other) => one.localeCompare(other)).map((each) => `${mark}${each}`);
}

function like(names, start) {
  return names.filter((name) => name.toLowerCase().startsWith(start.toLowerCase()));
}
