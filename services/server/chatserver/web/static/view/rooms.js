// Rooms: the dialogs to find, join and make them, and the menu of the conversation that is open.

import { clean } from "../text.js";
import { el, hiddenText, icon, plural } from "./dom.js";
import { actButton, askDialog, listDialog } from "./dialogs.js";
import { bansDialog, mayModerate } from "./moderation.js";

const ROOM_NAME = "[A-Za-z0-9][A-Za-z0-9._\\-]{0,31}";

/** Rooms that exist, and a form to make one. `open(key)` shows a conversation. */
export function roomsDialog(chat, open) {
  const name = el("input", { name: "room", required: true, pattern: ROOM_NAME, maxLength: 32, autocomplete: "off", autocapitalize: "none", spellcheck: false });
  const isPrivate = el("input", { type: "checkbox", name: "private" });
  const error = el("p", { class: "error", role: "alert" });
  const form = el(
    "form",
    { "aria-label": "Make or join a room" },
    el(
      "div",
      { class: "inline" },
      el("label", {}, "Make or join a room", name),
      el("label", { class: "check" }, isPrivate, "Private"),
      el("button", { class: "primary" }, "Join"),
    ),
    el("p", { class: "hint" }, "Letters, digits, dot, hyphen and underscore. A private room is for those who are invited."),
    error,
  );
  const enter = async (room, privately) => {
    const key = await chat.join(room, privately);
    body.close();
    open(key ?? `room:${room.toLowerCase()}`);
  };
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    try {
      await enter(name.value.trim(), isPrivate.checked);
    } catch (problem) {
      error.textContent = clean(problem.message);
    }
  });
  const body = listDialog("Rooms", {
    head: [form],
    empty: "There are no rooms besides the lobby yet.",
    load: () => chat.rooms(),
    row: (room) => [
      el(
        "span",
        {},
        el("bdi", {}, `#${clean(room.room)} `),
        room.private ? icon("lock") : null,
        room.private ? hiddenText("private") : null,
        el("span", { class: "hint isolate" }, [plural(room.members, "member"), room.invited ? "you are invited" : "", clean(room.topic ?? "")].filter(Boolean).join(" · ")),
      ),
      actButton(room.joined ? "Open" : "Join", () => enter(room.room, false), { "aria-label": `${room.joined ? "Open" : "Join"} ${clean(room.room)}` }),
    ],
  });
  name.focus();
}

/** Asks for a user to write to. */
export function newMessageDialog(chat, open) {
  askDialog("Write to a user", {
    fields: [{ name: "name", label: "Name", required: true, maxLength: 32, autocapitalize: "none", spellcheck: false }],
    button: "Write",
    action: async ({ name }) => {
      const key = `user:${name.trim().replace(/^@/, "").toLowerCase()}`;
      await chat.meet(key);
      open(key);
    },
  });
}

export function topicDialog(chat, { key, topic }) {
  askDialog("Topic", {
    fields: [{ name: "topic", label: "Topic (empty for none)", value: topic, maxLength: 256 }],
    button: "Change",
    action: ({ topic: changed }) => chat.setTopic(key, changed.trim()),
  });
}

export function inviteDialog(chat, { key, name }) {
  askDialog(`Invite to #${clean(name)}`, {
    fields: [{ name: "user", label: "Name", required: true, maxLength: 32, autocapitalize: "none", spellcheck: false }],
    button: "Invite",
    action: ({ user }) => chat.invite(key, user.trim().replace(/^@/, "")),
  });
}

function leaveDialog(chat, { key, name }, open) {
  askDialog(`Leave #${clean(name)}?`, {
    text: "You get no more messages of this room. If you are its last member, the room ends.",
    button: "Leave",
    isDanger: true,
    action: async () => {
      await chat.part(key);
      open("lobby");
    },
  });
}

/** The items of the menu in the heading, for the lobby or a room. */
export function conversationItems(chat, conversation, open) {
  const { kind, key } = conversation;
  if (kind === "room") {
    const mayAct = mayModerate(chat, conversation);
    return [
      mayAct ? { label: "Change topic", action: () => topicDialog(chat, conversation) } : undefined,
      mayAct ? { label: "Invite a user", action: () => inviteDialog(chat, conversation) } : undefined,
      mayAct ? { label: "Bans and mutes of this room", action: () => bansDialog(chat, key) } : undefined,
      null,
      { label: "Leave the room", isDanger: true, action: () => leaveDialog(chat, conversation, open) },
    ];
  }
  return [{ label: "Find or make a room", action: () => roomsDialog(chat, open) }];
}
