// The lists at the sides: conversations on the left, users online on the right.

import { clean, nameNode } from "../text.js";
import { $, h, hiddenText, icon, iconButton, keepingFocus, plural } from "./dom.js";

// Users in the list. Of a longer list the number of the others is shown.
const USERS_MAX = 300;

export const titleOf = ({ kind, name }) => (kind === "lobby" ? "Lobby" : kind === "room" ? `#${clean(name)}` : clean(name));

const byName = (a, b) => (a.toLowerCase() < b.toLowerCase() ? -1 : 1);

/** Conversations in the order of the list: the lobby, rooms by name, then direct ones, the newest first. */
export function ordered(chat) {
  const rank = ({ kind }) => ["lobby", "room", "user"].indexOf(kind);
  const order = (a, b) => (a.kind === "user" ? b.lastId - a.lastId : 0) || byName(a.name, b.name);
  return [...chat.conversations.values()].sort((a, b) => rank(a) - rank(b) || order(a, b));
}

export class Sidebar {
  /** `actions`: open(key), rooms(), write(), userMenu(name, button), selfMenu(button), close(). */
  constructor(chat, actions) {
    this.chat = chat;
    this.actions = actions;
    this.self = iconButton("more", "Your account and settings", actions.selfMenu);
    this.list = h("ul.side-list", { "aria-label": "Online" });
    this.title = h("h2", { id: "members-title" });
    this.more = h("p.side-empty");
    const close = iconButton("close", "Close", actions.close);
    close.classList.add("drawer-close");
    $("members").append(h("div.panel-head", this.title, close), h("div.scroll", this.list, this.more));
  }

  select(key) {
    this.current = key;
    this.render();
  }

  render() {
    const { chat, actions, self } = this;
    const conversation = chat.conversations.get(this.current);
    if (!conversation) return;
    const all = ordered(chat);
    const section = (title, label, action, isMine) => {
      const list = h("ul.side-list", { "aria-label": title }, ...all.filter(isMine).map((each) => this.row(each)));
      return [h("div.side-head", h("h2", title), iconButton("plus", label, action)), list];
    };
    keepingFocus($("sidebar-lists"), () =>
      $("sidebar-lists").replaceChildren(
        ...section("Rooms", "Find or make a room", actions.rooms, ({ kind }) => kind !== "user"),
        ...section("Direct messages", "Write to a user", actions.write, ({ kind }) => kind === "user"),
      ),
    );
    $("open-sidebar").classList.toggle("unread", all.some(({ unread, key }) => unread > 0 && key !== this.current));
    if ($("sidebar-foot").textContent !== chat.me) $("sidebar-foot").replaceChildren(nameNode(chat.me), self);
    keepingFocus(this.list, () => this.renderUsers(conversation));
  }

  row(conversation) {
    const { key, kind, name, unread, isMeant, isPrivate } = conversation;
    const isOnline = kind === "user" && this.isOnline(name);
    const mark = h("span.mark", { "aria-hidden": "true" }, "#");
    const dot = h(isOnline ? "span.dot.on" : "span.dot", hiddenText(isOnline ? "online" : "offline"));
    const badge = h(isMeant ? "span.badge.meant" : "span.badge", unread.toLocaleString(), hiddenText(" unread"));
    const properties = { title: titleOf(conversation), "data-key": key, onclick: () => this.actions.open(key) };
    const button = h(
      unread ? "button.unread" : "button",
      { ...properties, "aria-current": key === this.current ? "true" : undefined },
      kind === "user" ? dot : mark,
      h("span.label", kind === "user" ? nameNode(name) : h("bdi", kind === "lobby" ? "Lobby" : clean(name))),
      isPrivate ? h("span", icon("lock"), hiddenText("private")) : null,
      unread ? badge : null,
    );
    return h("li", button);
  }

  get everybody() {
    return this.chat.conversations.get("lobby")?.online ?? [];
  }

  isOnline(name) {
    return this.everybody.some((each) => each.toLowerCase() === name.toLowerCase());
  }

  /** Users online in a room or the lobby; of a direct conversation the two of it who are. */
  renderUsers({ kind, name, online, onlineCount }) {
    const isOfIt = (each) => this.chat.isMe(each) || each.toLowerCase() === name.toLowerCase();
    const names = kind === "user" ? this.everybody.filter(isOfIt) : online;
    const shown = [...names].sort(byName).slice(0, USERS_MAX);
    const count = Math.max(names.length, kind === "user" ? 0 : onlineCount);
    this.title.textContent = `Online: ${count.toLocaleString()}`;
    this.list.replaceChildren(...shown.map((each) => this.user(each)));
    this.more.textContent = count > shown.length ? `and ${plural(count - shown.length, "more user")}` : "";
  }

  user(name) {
    const button = h("button", { title: clean(name), "data-key": name }, h("span.label", nameNode(name)));
    if (this.chat.isMe(name)) button.append(h("span.mark", "(you)"));
    button.onclick = () => this.actions.userMenu(name, button);
    return h("li", button);
  }
}
