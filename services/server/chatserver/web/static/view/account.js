// The user's own things: sessions, password, ignored users; and the menu that leads to them.

import { clean, nameNode } from "../text.js";
import { actButton, askDialog, details, listDialog } from "./dialogs.js";
import { h } from "./dom.js";
import { momentText } from "./message.js";
import { auditDialog, bansDialog } from "./moderation.js";
import { canNotify, notifies, toggleNotifications } from "./notify.js";

/** The items of the user's own menu. `tell(text)` says something to the user, `help()` shows the help. */
export function selfItems(chat, tell, help) {
  return [
    canNotify() && [`Turn notifications ${notifies() ? "off" : "on"}`, async () => tell(await toggleNotifications())],
    ["Sessions", () => sessionsDialog(chat)],
    ["Change password", () => passwordDialog(chat, tell)],
    ["Ignored users", () => ignoredDialog(chat)],
    null,
    chat.isOperator && ["Bans and mutes", () => bansDialog(chat, "lobby")],
    chat.isOperator && ["Acts of operators", () => auditDialog(chat)],
    null,
    ["Help", help],
    ["Log out", () => chat.logOut()],
  ];
}

/** The sessions of the user: one for each session token. */
export function sessionsDialog(chat) {
  let reloadList;
  const others = h("div.buttons", actButton("Log out everywhere else", async () => reloadList?.(await chat.revoke("all"))));
  listDialog("Sessions", {
    head: [h("p.hint", "Where you stay logged in. A session ends 30 days after its last use."), others],
    empty: "None. Choose “Stay logged in” when you log in.",
    load: () => chat.tokens(),
    row: ({ id, label, current, created, used = created }, reload) => {
      reloadList = reload;
      const name = [h("bdi", clean(label)), current ? " (this one)" : ""];
      const end = actButton("Log out", async () => reload(await chat.revoke(id)), `Log out ${label}`);
      return [details(name, `last used ${momentText({ time: used })}`), end];
    },
  });
}

export function passwordDialog(chat, tell) {
  const field = (name, label, autocomplete) => ({ name, label, autocomplete, type: "password", required: true });
  askDialog("Change password", {
    fields: [
      { name: "username", label: "Name", value: chat.me, autocomplete: "username", readOnly: true },
      field("old", "Old password", "current-password"),
      field("fresh", "New password", "new-password"),
      field("again", "New password again", "new-password"),
    ],
    button: "Change password",
    action: async ({ old, fresh, again }) => {
      if (fresh !== again) throw new Error("The two new passwords differ.");
      await chat.changePassword(old, fresh);
      tell("Your password is changed. All other sessions have ended.");
    },
  });
}

export function ignoredDialog(chat) {
  listDialog("Ignored users", {
    empty: "You ignore no users.",
    load: () => chat.ignored(),
    row: (name, reload) => [nameNode(name), actButton("Show messages", () => chat.unignore(name).then(() => reload()))],
  });
}
