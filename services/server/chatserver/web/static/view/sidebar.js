// The lists at the sides: conversations on the left, users online on the right.

import { clean, nameNode } from "../text.js";
import { $, el, hiddenText, icon, iconButton, oncePerFrame, plural } from "./dom.js";

// Users in the list. A longer list says how many more there are.
const USERS_MAX = 300;

export function titleOf({ kind, name }) {
  return kind === "lobby" ? "Lobby" : kind === "room" ? `#${clean(name)}` : clean(name);
}

/** Conversations in the order of the list: the lobby, rooms by name, then direct ones, the newest first. */
export function ordered(chat) {
  const all = [...chat.conversations.values()];
  const byName = (a, b) => a.name.toLowerCase().localeCompare(b.name.toLowerCase());
  return [
    ...all.filter((each) => each.kind === "lobby"),
    ...all.filter((each) => each.kind === "room").sort(byName),
    ...all.filter((each) => each.kind === "user").sort((a, b) => b.lastId - a.lastId || byName(a, b)),
  ];
}

export class Sidebar {
  /** `actions`: open(key), rooms(), newMessage(), userMenu(name, button), selfMenu(button). */
  constructor(chat, actions) {
    this.chat = chat;
    this.actions = actions;
    this.refresh = oncePerFrame(() => this.render());
    this.refreshUsers = oncePerFrame(() => this.renderUsers());
  }

  select(key) {
    this.current = key;
    this.render();
    this.renderUsers();
  }

  // --- conversations ---

  render() {
    const all = ordered(this.chat);
    const focused = document.activeElement?.dataset.key;
    const rooms = all.filter((each) => each.kind !== "user");
    const users = all.filter((each) => each.kind === "user");
    $("sidebar-lists").replaceChildren(
      head("Rooms", iconButton("plus", "Find or make a room", () => this.actions.rooms())),
      el("ul", { class: "side-list", "aria-label": "Rooms" }, ...rooms.map((each) => this.row(each))),
      head("Direct messages", iconButton("plus", "Write to a user", () => this.actions.newMessage())),
      el("ul", { class: "side-list", "aria-label": "Direct messages" }, ...users.map((each) => this.row(each))),
      ...(users.length ? [] : [el("p", { class: "side-empty" }, "None yet")]),
    );
    if (focused) document.querySelector(`#sidebar-lists [data-key="${CSS.escape(focused)}"]`)?.focus();
    const isUnread = all.some((each) => each.unread > 0 && each.key !== this.current);
    $("open-sidebar").classList.toggle("unread", isUnread);
    this.renderFoot();
  }

  row(conversation) {
    const { key, kind, unread, isMeant, isPrivate } = conversation;
    const button = el(
      "button",
      { type: "button", class: unread ? "unread" : "", title: titleOf(conversation), onclick: () => this.actions.open(key) },
      mark(conversation, this.isOnline(conversation)),
      kind === "user" ? el("span", { class: "label" }, nameNode(conversation.name)) : el("span", { class: "label" }, el("bdi", {}, bare(conversation))),
      isPrivate ? icon("lock") : null,
      isPrivate ? hiddenText("private") : null,
      unread ? badge(unread, isMeant || kind === "user") : null,
    );
    button.dataset.key = key;
    if (key === this.current) button.setAttribute("aria-current", "true");
    return el("li", {}, button);
  }

  isOnline({ kind, key }) {
    const lobby = this.chat.conversations.get("lobby");
    return kind === "user" && lobby?.online.some((name) => `user:${name.toLowerCase()}` === key);
  }

  renderFoot() {
    const { me, isOperator } = this.chat;
    const foot = `${me}|${isOperator}`;
    if (foot === this.foot) return;
    this.foot = foot;
    const button = iconButton("more", "Your account and settings", () => this.actions.selfMenu(button), { "aria-haspopup": "menu" });
    $("sidebar-foot").replaceChildren(nameNode(me ?? ""), button);
  }

  // --- users online ---

  renderUsers() {
    const conversation = this.chat.conversations.get(this.current);
    if (!conversation) return;
    const names = this.usersOf(conversation);
    const count = conversation.onlineCount ?? names.length;
    const sorted = [...names].sort((a, b) => a.toLowerCase().localeCompare(b.toLowerCase()));
    const panel = $("members");
    const scrolled = panel.querySelector(".scroll")?.scrollTop ?? 0;
    const focused = panel.contains(document.activeElement) ? document.activeElement.dataset.name : undefined;
    panel.replaceChildren(
      el(
        "div",
        { class: "panel-head" },
        el("h2", { id: "members-title" }, `Online: ${count.toLocaleString()}`),
        iconButton("close", "Close", () => this.actions.closeDrawers(), { class: "icon drawer-close" }),
      ),
      el(
        "div",
        { class: "scroll", tabIndex: -1 },
        el("ul", { class: "side-list", "aria-label": "Online" }, ...sorted.slice(0, USERS_MAX).map((name) => this.user(name))),
        count > USERS_MAX || count > names.length
          ? el("p", { class: "side-empty" }, `and ${plural(count - Math.min(USERS_MAX, names.length), "more user")}`)
          : null,
      ),
    );
    panel.querySelector(".scroll").scrollTop = scrolled;
    if (focused) panel.querySelector(`[data-name="${CSS.escape(focused)}"]`)?.focus();
  }

  /** Users online in a room or the lobby; in a direct conversation the two of it who are. */
  usersOf({ kind, name, online }) {
    if (kind !== "user") return online;
    const both = [name.toLowerCase(), this.chat.me?.toLowerCase()];
    return this.chat.conversations.get("lobby")?.online.filter((each) => both.includes(each.toLowerCase())) ?? [];
  }

  user(name) {
    const isMe = name.toLowerCase() === this.chat.me?.toLowerCase();
    const button = el(
      "button",
      { type: "button", title: clean(name), "aria-haspopup": "menu", onclick: () => this.actions.userMenu(name, button) },
      el("span", { class: "label" }, nameNode(name)),
      isMe ? el("span", { class: "mark" }, "(you)") : null,
    );
    button.dataset.name = name;
    return el("li", {}, button);
  }
}

function head(title, button) {
  return el("div", { class: "side-head" }, el("h2", {}, title), button);
}

function bare({ kind, name }) {
  return kind === "lobby" ? "Lobby" : clean(name);
}

function mark({ kind }, isOnline) {
  if (kind !== "user") return el("span", { class: "mark", "aria-hidden": "true" }, "#");
  return el("span", { class: isOnline ? "dot on" : "dot", title: isOnline ? "online" : "offline" }, hiddenText(isOnline ? "online" : "offline"));
}

function badge(count, isMeant) {
  const shown = count > 999 ? "999+" : String(count);
  return el("span", { class: isMeant ? "badge meant" : "badge" }, shown, hiddenText(isMeant ? " unread for you" : " unread"));
}
