// The lists at the sides: conversations on the left, users online on the right.

import { clean, nameNode } from "../text.js";
import { $, buttonList, h, hiddenText, icon, iconButton, opensMenu, plural, setText } from "./dom.js";

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
    this.self = opensMenu(iconButton("more", "Your account and settings", actions.selfMenu));
    this.drawRooms = section("Rooms", "Find or make a room", actions.rooms, actions.open);
    this.drawDirect = section("Direct messages", "Write to a user", actions.write, actions.open);
    this.title = h("h2", { id: "members-title" });
    this.more = h("p.side-empty");
    const users = h("ul.side-list", { "aria-label": "Online" });
    this.drawUsers = buttonList(users, actions.userMenu);
    const close = iconButton("close", "Close", actions.close);
    close.classList.add("drawer-close");
    $("members").append(h("div.panel-head", this.title, close), h("div.scroll", users, this.more));
  }

  select(key) {
    this.current = key;
    this.render();
  }

  render() {
    const { chat } = this;
    const conversation = chat.conversations.get(this.current);
    if (!conversation) return;
    const all = ordered(chat);
    this.onlineNames = new Set(chat.conversations.get("lobby").online.map((name) => name.toLowerCase()));
    this.drawRooms(all.filter(({ kind }) => kind !== "user").map((each) => this.row(each)));
    this.drawDirect(all.filter(({ kind }) => kind === "user").map((each) => this.row(each)));
    $("open-sidebar").classList.toggle("unread", all.some(({ hasUnread, key }) => hasUnread && key !== this.current));
    if ($("sidebar-foot").textContent !== chat.me) $("sidebar-foot").replaceChildren(nameNode(chat.me), this.self);
    this.renderUsers(conversation);
  }

  row(conversation) {
    const { key, kind, name, unreadText: unread, isMeant, isPrivate } = conversation;
    const isOnline = kind === "user" && this.onlineNames.has(name.toLowerCase());
    const isCurrent = key === this.current;
    const fill = (button) => {
      button.title = titleOf(conversation);
      button.className = unread ? "unread" : "";
      button.ariaCurrent = isCurrent ? "true" : null;
      const dot = h(isOnline ? "span.dot.on" : "span.dot", hiddenText(isOnline ? "online" : "offline"));
      const bare = kind === "lobby" ? "Lobby" : clean(name);
      button.replaceChildren(
        kind === "user" ? dot : h("span.mark", { "aria-hidden": "true" }, "#"),
        h("span.label", kind === "user" ? nameNode(name) : h("bdi", bare)),
        ...(isPrivate ? [icon("lock"), hiddenText("private")] : []),
        ...(unread ? [h(isMeant ? "span.badge.meant" : "span.badge", unread, hiddenText(" unread"))] : []),
      );
    };
    return { key, state: [name, unread, isMeant, isPrivate, isOnline, isCurrent].join("|"), fill };
  }

  /** Users online in a room or the lobby; of a direct conversation the two of it who are. */
  renderUsers({ kind, name, online, onlineCount }) {
    const { chat } = this;
    const both = [name, chat.me].filter((each) => this.onlineNames.has(each.toLowerCase()));
    const names = kind === "user" ? both : online;
    const count = kind === "user" ? both.length : Math.max(online.length, onlineCount);
    const shown = [...names].sort(byName).slice(0, USERS_MAX);
    const fill = (button) => {
      const user = button.dataset.key;
      opensMenu(button).title = clean(user);
      button.replaceChildren(h("span.label", nameNode(user)), chat.isMe(user) ? h("span.mark", "(you)") : "");
    };
    setText(this.title, `Online: ${count.toLocaleString()}`);
    this.drawUsers(shown.map((key) => ({ key, state: chat.me, fill })));
    setText(this.more, count > shown.length ? `and ${plural(count - shown.length, "more user")}` : "");
  }
}

/** A section of the list of conversations. Returns the function that draws its items. */
function section(title, label, onAdd, onOpen) {
  const list = h("ul.side-list", { "aria-label": title });
  $("sidebar-lists").append(h("div.side-head", h("h2", title), iconButton("plus", label, onAdd)), list);
  return buttonList(list, onOpen);
}
