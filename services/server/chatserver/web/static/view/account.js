// The user's own things: sessions, password, ignored users, notifications; and the menu that leads to them.

import { clean, nameNode } from "../text.js";
import { el } from "./dom.js";
import { actButton, askDialog, listDialog } from "./dialogs.js";

/** The items of the user's own menu. `views`: notifier, tell(text), help(). */
export function selfItems(chat, { notifier, tell, help, bans, audit }) {
  return [
    notifier.isAvailable
      ? { label: notifier.isOn ? "Turn notifications off" : "Turn notifications on", action: async () => tell(await notifier.toggle()) }
      : undefined,
    { label: "Sessions", action: () => sessionsDialog(chat) },
    { label: "Change password", action: () => passwordDialog(chat, tell) },
    { label: "Ignored users", action: () => ignoredDialog(chat) },
    null,
    ...(chat.isOperator ? [{ label: "Bans and mutes", action: bans }, { label: "Acts of operators", action: audit }, null] : []),
    { label: "Help", action: help },
    { label: "Log out", action: () => chat.logOut() },
  ];
}

export function sessionsDialog(chat) {
  const everywhere = actButton("Log out everywhere else", async () => body.reload(await chat.revoke("all")), { class: "danger" });
  const body = listDialog("Sessions", {
    head: [el("p", { class: "hint" }, "Browsers and programs that stay logged in to your account. Each one ends 30 days after its last use."), el("div", { class: "buttons" }, everywhere)],
    empty: "None. Choose “Stay logged in” when you log in.",
    load: () => chat.tokens(),
    row: (token, reload) => [
      el(
        "span",
        {},
        el("bdi", {}, clean(token.label)),
        token.current ? " (this one)" : "",
        el("span", { class: "hint" }, `last used ${dateOf(token.used ?? token.created)}, ends ${dateOf(token.expires)}`),
      ),
      actButton("Log out", async () => reload(await chat.revoke(token.id)), { "aria-label": `Log out ${clean(token.label)}` }),
    ],
  });
}

const dateOf = (time) => new Date(time).toLocaleDateString(undefined, { day: "numeric", month: "short", year: "numeric" });

export function passwordDialog(chat, tell) {
  askDialog("Change password", {
    fields: [
      { name: "username", label: "Name", value: chat.me, autocomplete: "username", readOnly: true },
      { name: "old", label: "Old password", type: "password", autocomplete: "current-password", required: true },
      { name: "fresh", label: "New password", type: "password", autocomplete: "new-password", required: true },
      { name: "again", label: "New password again", type: "password", autocomplete: "new-password", required: true },
    ],
    button: "Change password",
    action: async ({ old, fresh, again }) => {
      if (fresh !== again) throw new Error("The two new passwords differ.");
      await chat.changePassword(old, fresh);
      tell("Your password is changed. All other sessions are logged out.");
    },
  });
}

export function ignoredDialog(chat) {
  listDialog("Ignored users", {
    head: [el("p", { class: "hint" }, "You see no messages of these users. They do not learn it.")],
    empty: "You ignore no users.",
    load: () => chat.ignored(),
    row: (name, reload) => [
      nameNode(name),
      actButton("See again", async () => {
        await chat.unignore(name);
        await reload();
      }),
    ],
  });
}
