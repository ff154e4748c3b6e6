// The dialogs to find, join and make rooms, and the menu of the lobby or a room.

import { clean } from "../text.js";
import { modeWords } from "../notices.js";
import { actButton, askDialog, details, listDialog, openDialog } from "./dialogs.js";
import { h, hiddenText, icon, plural } from "./dom.js";
import { bansDialog, mayModerate } from "./moderation.js";

const USER = { name: "user", label: "Name", required: true, maxLength: 33, autocapitalize: "none", spellcheck: false };
const ROOM = { ...USER, name: "room", label: "Name (letters, digits, . - _)", pattern: "[A-Za-z0-9][A-Za-z0-9._\\-]{0,31}" };
const nameIn = (value) => value.replace(/^[@#]/, "");

/** Asks for the key of a room, and enters it. `open(key)` shows a conversation. */
export function keyDialog(chat, room, open) {
  askDialog(`#${clean(room)} needs a key`, {
    text: "Type the word that the members of the room know, or ask one of its operators for an invitation.",
    fields: [{ name: "key", label: "Key of the room", required: true, maxLength: 32, autocapitalize: "none", spellcheck: false }],
    button: "Join",
    action: async ({ key }) => {
      const error = (problem) => Promise.reject(problem.code === "wrong_key" ? new Error("This is not the key.") : problem);
      const entered = await chat.join(room, { key }).catch(error);
      return () => open(entered);
    },
  });
}

/** Shows the modes of a room. Those who may change them get a form. */
export async function modesDialog(chat, conversation, tell) {
  const { key, name } = conversation;
  const title = `Modes of #${clean(name)}`;
  try {
    const modes = await chat.modes(key);
    if (mayModerate(chat, conversation)) askDialog(title, modesForm(modes, (changes) => chat.modes(key, changes)));
    else openDialog(title, h("p", { dir: "auto" }, clean(modeWords(modes))));
  } catch (error) {
    tell(error.message, true);
  }
}

function modesForm(modes, change) {
  const box = (name, label) => ({ name, label, type: "checkbox", checked: modes[name] === true });
  const limit = { name: "limit", label: "Members at most (empty: no limit)", type: "number", min: 1, max: 10_000 };
  return {
    fields: [
      box("private", "Private: only invited users join, and others don't learn of the room"),
      box("moderated", "Moderated: only operators and members with a voice write"),
      box("open_topic", "All members may change the topic"),
      { name: "key", label: "Key, a word that users must know to join (empty: none)", value: modes.key ?? "", maxLength: 32 },
      { ...limit, value: modes.members_max || "" },
    ],
    button: "Change",
    action: ({ limit: number, ...changes }) => change({ ...changes, members_max: Number(number) }),
  };
}

/** Rooms that the user may join, and a way to make one. `open(key)` shows a conversation. */
export function roomsDialog(chat, open) {
  // Resolves to what comes after the dialogs.
  const enter = async (name, isPrivate) => {
    const room = nameIn(name);
    const after = (action) => () => (close(), action());
    try {
      const key = await chat.join(room, { isPrivate });
      return after(() => open(key));
    } catch (error) {
      if (error.code !== "wrong_key") throw error;
      return after(() => keyDialog(chat, room, open));
    }
  };
  const make = () =>
    askDialog("Make a room", {
      text: "If there is a public room of this name, you join it.",
      fields: [ROOM, { name: "isPrivate", label: "Private: for invited users only", type: "checkbox" }],
      button: "Make",
      action: ({ room, isPrivate }) => enter(room, isPrivate),
    });
  const close = listDialog("Rooms", {
    head: [h("div.buttons", h("button.primary", { onclick: make }, "Make a room"))],
    empty: "There are no rooms besides the lobby yet.",
    load: () => chat.rooms(),
    row: ({ room, topic, members, joined, invited, has_key: hasKey, ...rest }) => {
      const label = joined ? "Open" : "Join";
      const lock = rest.private ? [" ", icon("lock"), hiddenText("private")] : [];
      const name = [h("bdi", `#${clean(room)}`), ...lock];
      const about = details(name, plural(members, "member"), invited && "you are invited", hasKey && "needs a key", topic);
      return [about, actButton(label, async () => (await enter(room, false))(), `${label} ${room}`)];
    },
  });
}

/** Asks for a user to write to. */
export function newMessageDialog(chat, open) {
  askDialog("Write to a user", {
    fields: [USER],
    button: "Write",
    action: async ({ user }) => {
      const key = `user:${nameIn(user).toLowerCase()}`;
      await chat.meet(key);
      return () => open(key);
    },
  });
}

/** The items of the menu of the lobby or a room. */
export function conversationItems(chat, conversation, open, tell) {
  const { kind, key, name, topic } = conversation;
  const mayAct = kind === "room" && mayModerate(chat, conversation);
  const changeTopic = {
    fields: [{ name: "text", label: "Topic (empty: none)", value: topic, maxLength: 256 }],
    button: "Change",
    action: ({ text }) => chat.setTopic(key, text),
  };
  const leave = {
    text: "You get no more messages of this room. A room without members ends.",
    button: "Leave",
    isDanger: true,
    action: () => chat.part(key),
  };
  const invite = { fields: [USER], button: "Invite", action: ({ user }) => chat.invite(key, nameIn(user)) };
  return [
    ["Find or make a room", () => roomsDialog(chat, open)],
    null,
    mayAct && ["Change topic", () => askDialog("Topic", changeTopic)],
    mayAct && ["Invite a user", () => askDialog(`Invite to #${clean(name)}`, invite)],
    kind === "room" && [mayAct ? "Change modes" : "Modes", () => modesDialog(chat, conversation, tell)],
    mayAct && ["Bans and mutes of this room", () => bansDialog(chat, key)],
    null,
    kind === "room" && ["Leave the room", () => askDialog(`Leave #${clean(name)}?`, leave), true],
  ];
}
