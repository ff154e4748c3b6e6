// The page: builds the views, passes the model's events on to them, and knows which conversation is open.

import { COMMANDS } from "../commands.js";
import { clean } from "../text.js";
import { selfItems, ignoredDialog, passwordDialog, sessionsDialog } from "./account.js";
import { Composer } from "./composer.js";
import { helpDialog } from "./dialogs.js";
import { $, el, iconButton, oncePerFrame, wire } from "./dom.js";
import { Login } from "./login.js";
import { openMenu } from "./menu.js";
import { auditDialog, bansDialog, messageItems, userItems } from "./moderation.js";
import { Notifier } from "./notify.js";
import { conversationItems, newMessageDialog, roomsDialog } from "./rooms.js";
import { Search } from "./search.js";
import { Sidebar, ordered, titleOf } from "./sidebar.js";
import { Status } from "./status.js";
import { Timeline } from "./timeline.js";

const NOTICE_MS = 12_000;

/** Starts the page on a model: resumes the session if there is one, else shows the form to log in. */
export function startPage(chat) {
  new Page(chat).start();
}

class Page {
  constructor(chat) {
    this.chat = chat;
    this.open = (key) => this.openConversation(key);
    this.tell = (text, isError = false) => this.showNotice(text, isError);
    this.login = new Login(chat);
    this.status = new Status(chat);
    this.notifier = new Notifier(chat, { onOpen: this.open, titleOf });
    this.composer = new Composer({
      run: (key, line) => this.run(key, line),
      onUp: () => this.timeline.select(-1),
      onPage: (direction) => this.timeline.page(direction),
      onError: (_key, text) => this.tell(text, true),
    });
    this.timeline = new Timeline(chat, {
      onMenu: (message, x, y, row) => this.messageMenu(message, x, y, row),
      onLeave: () => this.composer.focus(),
    });
    this.sidebar = new Sidebar(chat, {
      open: this.open,
      rooms: () => roomsDialog(chat, this.open),
      newMessage: () => newMessageDialog(chat, this.open),
      userMenu: (name, button) => openMenu(clean(name), this.userItems(name), button, button),
      selfMenu: (button) => openMenu(clean(chat.me), this.selfItems(), button, button),
      closeDrawers: () => this.closeDrawers(),
    });
    this.search = new Search(chat, {
      current: () => this.conversation,
      onJump: (key, id) => this.jump(key, id),
      onClose: () => this.composer.focus(),
      titleOf,
    });
    this.refreshHeading = oncePerFrame(() => this.renderHeading());
  }

  get conversation() {
    return this.chat.conversations.get(this.current);
  }

  async start() {
    this.wireButtons();
    this.listen();
    document.addEventListener("keydown", (event) => this.keyPressed(event));
    if (!(await this.chat.resume().catch(() => false))) this.stateChanged();
  }

  wireButtons() {
    wire("open-sidebar", "menu", "Conversations", () => this.openDrawer("sidebar"));
    wire("open-members", "people", "Online", () => this.openDrawer("members"));
    wire("open-search", "search", "Search", () => this.search.focus());
    const more = wire("open-more", "more", "About this conversation", () => this.conversationMenu(more));
    more.setAttribute("aria-haspopup", "menu");
    $("shade").addEventListener("click", () => this.closeDrawers());
  }

  listen() {
    const on = (name, action) => this.chat.addEventListener(name, ({ detail }) => action(detail ?? {}));
    on("state", () => this.stateChanged());
    on("messages", (detail) => this.timeline.changed(detail));
    on("online", () => {
      this.sidebar.refreshUsers();
      this.sidebar.refresh();
    });
    on("conversations", () => this.conversationsChanged());
    on("notice", ({ key, text, isError }) => this.noticed(key, text, isError));
  }

  // --- state ---

  stateChanged() {
    const { chat } = this;
    if (chat.state === "out") {
      this.leave();
    } else if (chat.me && !this.isInside) {
      this.enter();
    }
    this.status.show();
    if (this.isInside) this.timeline.refresh();
  }

  enter() {
    this.isInside = true;
    this.login.hide();
    $("chat").hidden = false;
    this.openConversation(this.chat.conversations.has(this.current) ? this.current : "lobby");
  }

  leave() {
    if (this.isInside && !this.chat.error) this.composer.forget();
    this.isInside = false;
    for (const dialog of document.querySelectorAll("dialog")) dialog.close();
    $("notices").replaceChildren();
    $("chat").hidden = true;
    document.title = "Chat";
    this.login.show(this.chat.error ?? "");
  }

  conversationsChanged() {
    if (!this.isInside) return;
    if (!this.conversation) this.openConversation("lobby");
    this.sidebar.refresh();
    this.refreshHeading();
    this.timeline.refresh();
  }

  // --- the open conversation ---

  /** Shows a conversation at once; the model loads its messages. A direct one is made if the user exists. */
  async openConversation(key) {
    const { chat } = this;
    this.closeDrawers();
    try {
      if (!chat.conversations.has(key)) await chat.meet(key);
      const opened = chat.open(key);
      this.showConversation(chat.conversations.get(key));
      await opened;
    } catch (error) {
      this.tell(error.message, true);
    }
  }

  showConversation(conversation) {
    const { key, kind } = conversation;
    if (key !== this.current || this.timeline.conversation !== conversation) {
      this.current = key;
      this.timeline.show(conversation);
      this.composer.open(key, `Message to ${kind === "lobby" ? "everybody" : titleOf(conversation)}`);
      this.sidebar.select(key);
      this.renderHeading();
    }
    if (!matchMedia("(pointer: coarse)").matches) this.composer.focus();
  }

  renderHeading() {
    const { conversation } = this;
    if (!conversation) return;
    const title = titleOf(conversation);
    if ($("title").textContent !== title) $("title").textContent = title;
    $("topic").textContent = clean(conversation.topic ?? "");
    $("topic").title = $("topic").textContent;
    this.notifier.showTitle(conversation);
  }

  async jump(key, id) {
    if (key !== this.current) await this.openConversation(key);
    try {
      await this.chat.jumpTo(key, id);
      this.timeline.reveal(id);
    } catch (error) {
      this.tell(error.message, true);
    }
    if (matchMedia("(max-width: 999px)").matches) this.search.close();
  }

  /** Runs a line of the composer. It rejects if nothing was done. */
  async run(key, line) {
    const result = (await this.chat.run(key, line)) ?? {};
    if (result.open && result.open !== this.current) this.openConversation(result.open);
    const dialogs = {
      help: () => helpDialog(COMMANDS),
      rooms: () => roomsDialog(this.chat, this.open),
      sessions: () => sessionsDialog(this.chat),
      password: () => passwordDialog(this.chat, this.tell),
      bans: () => bansDialog(this.chat, this.place()),
      audit: () => auditDialog(this.chat),
      ignored: () => ignoredDialog(this.chat),
      search: () => {
        this.search.focus();
        this.search.search(result.words ?? "");
      },
    };
    dialogs[result.dialog]?.();
  }

  /** The conversation for which moderation holds: a room, or the whole server. */
  place() {
    return this.conversation?.kind === "room" ? this.current : "lobby";
  }

  // --- menus ---

  userItems(name) {
    return userItems(this.chat, this.conversation, name, {
      open: this.open,
      tell: this.tell,
      mention: (each) => this.composer.insert(`${each}: `),
    });
  }

  selfItems() {
    const { chat, notifier, tell } = this;
    return selfItems(chat, {
      notifier,
      tell,
      help: () => helpDialog(COMMANDS),
      bans: () => bansDialog(chat, "lobby"),
      audit: () => auditDialog(chat),
    });
  }

  conversationMenu(button) {
    const { conversation, chat } = this;
    const items = conversation.kind === "user" ? this.userItems(conversation.name) : conversationItems(chat, conversation, this.open);
    openMenu(titleOf(conversation), items, button, button);
  }

  messageMenu(message, x, y, row) {
    const { chat, conversation, open, tell } = this;
    const items = messageItems(chat, conversation, message, { open, tell });
    const title = `${clean(message.from)}: ${clean(message.text).slice(0, 40)}`;
    openMenu(message.isDeleted ? clean(message.from) : title, items, { x, y }, row);
  }

  // --- notices ---

  /** A line of the model: in the log of its conversation, or below the log if it is an error or belongs to none. */
  noticed(key, text, isError) {
    if (isError || !this.chat.conversations.has(key)) this.showNotice(text, isError);
    else this.timeline.addNotice(key, clean(text), isError);
  }

  showNotice(text, isError) {
    const notice = el("div", { class: isError ? "error" : "" }, el("span", { dir: "auto" }, lines(text)));
    const close = iconButton("close", "Dismiss", () => notice.remove());
    notice.append(close);
    $("notices").append(notice);
    while ($("notices").childElementCount > 3) $("notices").firstChild.remove();
    if (!isError) setTimeout(() => notice.remove(), NOTICE_MS);
  }

  // --- drawers and keys ---

  openDrawer(name) {
    const chat = $("chat");
    chat.classList.add(`shows-${name}`);
    $("shade").hidden = false;
    $("main").inert = true;
    $(`open-${name}`).setAttribute("aria-expanded", "true");
    ($(name).querySelector("[aria-current]") ?? $(name).querySelector("button"))?.focus();
    this.drawer = name;
  }

  closeDrawers() {
    const name = this.drawer;
    if (!name) return;
    this.drawer = null;
    $("chat").classList.remove(`shows-${name}`);
    $("shade").hidden = true;
    $("main").inert = false;
    $(`open-${name}`).setAttribute("aria-expanded", "false");
    if ($(name).contains(document.activeElement)) $(`open-${name}`).focus();
  }

  keyPressed(event) {
    if (!this.isInside || document.querySelector("dialog, .menu")) return;
    const isTyping = event.target.closest?.("input, textarea, select") !== null && event.target.closest !== undefined;
    const { key } = event;
    if (event.altKey && (key === "ArrowUp" || key === "ArrowDown")) this.switchBy(key === "ArrowUp" ? -1 : 1);
    else if ((event.ctrlKey || event.metaKey) && key.toLowerCase() === "k") this.search.focus();
    else if (key === "/" && !isTyping) this.search.focus();
    else if (key === "?" && !isTyping) helpDialog(COMMANDS);
    else if (key === "Escape" && this.drawer) this.closeDrawers();
    else if (key === "Escape" && !event.defaultPrevented) this.composer.focus();
    else if (isText(event) && !isTyping && !event.target.closest("button, a, .menu, .message")) {
      this.composer.focus();
      return; // the letter goes to the composer
    } else return;
    event.preventDefault();
  }

  switchBy(step) {
    const keys = ordered(this.chat).map((each) => each.key);
    const index = keys.indexOf(this.current) + step;
    this.openConversation(keys[(index + keys.length) % keys.length]);
  }
}

const isText = (event) => event.key.length === 1 && !event.ctrlKey && !event.metaKey && !event.altKey;
const lines = (text) => String(text).split("\n").map(clean).join("\n");
