// The page: builds the views, passes the model's events on to them, and knows which conversation is open.

import { COMMANDS } from "../commands.js";
import { completions } from "../completion.js";
import { clean } from "../text.js";
import { ignoredDialog, passwordDialog, selfItems, sessionsDialog } from "./account.js";
import { Composer } from "./composer.js";
import { helpDialog } from "./dialogs.js";
import { $, copyText, h, iconButton, oncePerFrame, opensMenu, picture, setText } from "./dom.js";
import { Login } from "./login.js";
import { openMenu } from "./menu.js";
import { auditDialog, bansDialog, messageItems, userItems } from "./moderation.js";
import { notify, showTitle } from "./notify.js";
import { conversationItems, keyDialog, modesDialog, newMessageDialog, roomsDialog } from "./rooms.js";
import { Search } from "./search.js";
import { Sidebar, ordered, titleOf } from "./sidebar.js";
import { showStatus } from "./status.js";
import { Timeline } from "./timeline.js";
import { followKeyboard } from "./viewport.js";

const NOTICE_MS = 12_000;
const NOTICES_MAX = 3;

/** Starts the page on a model: resumes the session if there is one, else shows the form to log in. */
export function startPage(chat) {
  followKeyboard();
  new Page(chat).start();
}

/** The conversation that the address names: #room:dev, #user:bob, #lobby or nothing. */
const addressed = () => location.hash.slice(1).toLowerCase() || "lobby";

class Page {
  /** Notices with drafts of rooms that the user is no longer in. */
  returned = new Map();

  constructor(chat) {
    this.chat = chat;
    this.open = (key) => this.openConversation(key);
    this.tell = (text, isError = false) => this.showNotice(text, isError, { isAnswer: true });
    this.help = () => helpDialog(COMMANDS);
    const leave = () => this.composer.focus();
    this.login = new Login(chat);
    this.composer = new Composer({
      run: (key, line) => this.run(key, line),
      complete: (key, before) => completions(before, chat.conversations.get(key), chat),
      onUp: () => this.timeline.select(-1),
      onPage: (direction) => this.timeline.page(direction),
      onError: (text) => this.tell(text, true),
    });
    this.timeline = new Timeline(chat, { onMenu: (...about) => this.messageMenu(...about), onLeave: leave });
    const current = () => this.conversation;
    this.search = new Search(chat, { current, onJump: (key, id) => this.jump(key, id), onClose: leave });
    this.sidebar = new Sidebar(chat, {
      open: this.open,
      rooms: () => roomsDialog(chat, this.open),
      write: () => newMessageDialog(chat, this.open),
      userMenu: (name, button) => this.openMenu(clean(name), this.userItems(name), button),
      selfMenu: (button) => this.openMenu(clean(chat.me), selfItems(chat, this.tell, this.help), button),
      close: () => this.closeDrawer(),
    });
    this.refresh = oncePerFrame(() => this.render());
  }

  get conversation() {
    return this.chat.conversations.get(this.current);
  }

  async start() {
    picture($("open-sidebar"), "menu", "Conversations", () => this.openDrawer("sidebar"));
    picture($("open-members"), "people", "Online", () => this.openDrawer("members"));
    picture($("open-search"), "search", "Search", () => this.search.focus());
    opensMenu(picture($("open-more"), "more", "About this conversation", (button) => this.conversationMenu(button)));
    $("shade").addEventListener("click", () => this.closeDrawer());
    document.addEventListener("keydown", (event) => this.keyPressed(event));
    addEventListener("popstate", () => this.isInside && this.openConversation(addressed()));
    const on = (name, action) => this.chat.addEventListener(name, ({ detail }) => action(detail ?? {}));
    on("state", () => this.stateChanged());
    on("messages", (detail) => this.timeline.changed(detail));
    on("online", this.refresh);
    on("conversations", this.refresh);
    on("notice", ({ key, text, isError }) => this.noticed(key, text, isError));
    on("meant", ({ key, message }) => notify(this.chat.conversations.get(key), message, () => this.open(key)));
    if (!(await this.chat.resume().catch(() => false))) this.stateChanged();
  }

  // --- inside and outside ---

  stateChanged() {
    const { chat } = this;
    showStatus(chat);
    if (chat.state === "out") this.leave();
    else if (chat.state === "in" && !this.isInside) this.enter();
    else if (this.isInside) this.timeline.refresh();
  }

  enter() {
    this.isInside = true;
    this.login.hide();
    $("boot").hidden = true;
    $("chat").hidden = false;
    const { chat, composer } = this;
    composer.enter(chat.me);
    const typed = Object.keys(composer.drafts).filter((key) => key.startsWith("user:"));
    for (const key of typed) chat.meet(key).catch(() => {});
    const key = this.conversation ? this.current : addressed();
    const isKnown = chat.conversations.has(key);
    this.openConversation(isKnown ? key : "lobby");
    if (!isKnown) this.openConversation(key);
  }

  leave() {
    const { error } = this.chat;
    if (this.isInside && !error) {
      this.composer.forget();
      history.replaceState(null, "", location.pathname);
    }
    this.isInside = false;
    this.returned.clear();
    for (const dialog of document.querySelectorAll("dialog")) dialog.close();
    $("notices").replaceChildren();
    $("boot").hidden = $("chat").hidden = true;
    document.title = "Chat";
    this.login.show(error);
  }

  // --- the open conversation ---

  /** Shows a conversation at once; the model loads its messages. A direct one is made if the user exists. */
  async openConversation(key) {
    const { chat } = this;
    this.closeDrawer();
    if (key !== this.current) this.closeErrors();
    try {
      if (!chat.conversations.has(key)) await chat.meet(key);
      const opened = chat.open(key);
      this.showConversation(chat.conversations.get(key));
      await opened;
    } catch (error) {
      this.tell(error.message, true);
      if (this.conversation) this.address(this.current);
    }
  }

  /** Puts a conversation into the address, for a reload and the button "back". One that was left has no way back. */
  address(key) {
    if (addressed() === key) return;
    const isLeft = !this.chat.conversations.has(addressed());
    const hash = key !== "lobby" && /^[\w:.-]+$/.test(key) ? `#${key}` : "";
    history[isLeft ? "replaceState" : "pushState"](null, "", location.pathname + hash);
  }

  showConversation(conversation) {
    const { key, kind } = conversation;
    if (key !== this.current || this.timeline.conversation !== conversation) {
      this.current = key;
      this.timeline.show(conversation);
      this.composer.open(key, `Message to ${kind === "lobby" ? "all users" : titleOf(conversation)}`);
      this.sidebar.select(key);
      this.render();
      this.address(key);
    }
    if (!matchMedia("(pointer: coarse)").matches) this.composer.focus();
  }

  /** Brings everything around the log up to date. */
  render() {
    const { conversation } = this;
    if (!this.isInside) return;
    if (!conversation) return this.openConversation("lobby"); // the room was left
    setText($("title"), titleOf(conversation));
    setText($("topic"), clean(conversation.topic));
    $("topic").title = $("topic").textContent;
    showTitle(this.chat, conversation);
    this.sidebar.render();
    this.timeline.refresh();
    this.returnDrafts();
  }

  /** Shows what was typed in rooms that the user is no longer in. The draft is kept until its notice is dismissed. */
  returnDrafts() {
    const { composer, chat, returned } = this;
    for (const [key, text] of Object.entries(composer.drafts)) {
      const isLost = key.startsWith("room:") && !chat.conversations.has(key) && text;
      if (!isLost) {
        returned.get(key)?.remove();
        returned.delete(key);
      } else if (!returned.has(key)) {
        const copy = h("button.link", { onclick: () => copyText(text).catch((error) => this.tell(error.message, true)) }, "Copy");
        const about = `You are not in #${key.slice(5)} any more. What you typed there:\n${text}`;
        returned.set(key, this.showNotice(about, true, { kept: copy, onDismiss: () => composer.drop(key) }));
      }
    }
  }

  async jump(key, id) {
    this.closeErrors();
    if (key !== this.current) await this.openConversation(key);
    if (matchMedia("(max-width: 62.4375em)").matches) this.search.close();
    try {
      await this.chat.jumpTo(key, id);
      this.timeline.reveal(id);
    } catch (error) {
      this.tell(error.message, true);
    }
  }

  /** Runs a line of the composer. It rejects if nothing was done. */
  async run(key, line) {
    const { chat } = this;
    this.closeErrors();
    const { open, dialog, words, room } = await chat.run(key, line);
    if (open) await this.openConversation(open);
    const dialogs = {
      help: this.help,
      rooms: () => roomsDialog(chat, this.open),
      key: () => keyDialog(chat, room, this.open),
      modes: () => modesDialog(chat, chat.conversations.get(key), this.tell),
      sessions: () => sessionsDialog(chat),
      password: () => passwordDialog(chat, this.tell),
      bans: () => bansDialog(chat, key),
      audit: () => auditDialog(chat),
      ignored: () => ignoredDialog(chat),
      search: () => this.search.search(words),
    };
    dialogs[dialog]?.();
  }

  // --- menus ---

  userItems(name) {
    const mention = () => this.composer.insert(`${name}: `);
    return userItems(this.chat, this.conversation, name, { open: this.open, tell: this.tell, mention });
  }

  conversationMenu(button) {
    const { conversation, chat } = this;
    const isUser = conversation.kind === "user";
    const items = isUser ? this.userItems(conversation.name) : conversationItems(chat, conversation, this.open, this.tell);
    this.openMenu(titleOf(conversation), items, button);
  }

  messageMenu(message, place, row) {
    const items = messageItems(this.chat, this.conversation, message, this);
    this.openMenu(`Message of ${clean(message.from)}`, items, place, row);
  }

  openMenu(title, items, place, origin = place) {
    this.closeErrors();
    openMenu(title, items, place, origin);
  }

  // --- notices ---

  /** A line of the model: in the log of its conversation; an error, or one of no conversation, below the log. */
  noticed(key, text, isError) {
    if (isError || !this.chat.conversations.has(key)) this.showNotice(text, isError);
    else this.timeline.addNotice(key, clean(text));
  }

  /**
   * An error about an action of the user (`isAnswer`) stays until the next action, others until they are dismissed. One
   * with a button (`kept`) does not give way to others.
   */
  showNotice(text, isError, { isAnswer = false, kept = null, onDismiss = () => {} } = {}) {
    const lines = String(text).split("\n").map(clean).join("\n");
    const notice = h(isError ? "div.error" : "div", { "data-answer": isAnswer || undefined }, h("span", { dir: "auto" }, lines), kept);
    const dismiss = () => {
      notice.remove();
      onDismiss();
    };
    notice.append(iconButton("close", "Dismiss", dismiss));
    $("notices").append(notice);
    const others = [...$("notices").children].filter((each) => each.childElementCount < 3);
    if (others.length > NOTICES_MAX) others[0].remove();
    if (!isError) setTimeout(dismiss, NOTICE_MS);
    return notice;
  }

  /** The user goes on: errors about what was done before are no longer of interest. */
  closeErrors() {
    for (const notice of $("notices").querySelectorAll(".error[data-answer]")) notice.remove();
  }

  // --- drawers and keys ---

  openDrawer(name) {
    this.drawer = name;
    this.toggleDrawer(true);
    ($(name).querySelector("[aria-current]") ?? $(name).querySelector("button")).focus();
  }

  closeDrawer() {
    if (!this.drawer) return;
    this.toggleDrawer(false);
    $(`open-${this.drawer}`).focus();
    this.drawer = null;
  }

  toggleDrawer(isOpen) {
    $("chat").classList.toggle(`shows-${this.drawer}`, isOpen);
    $("shade").hidden = !isOpen;
    $("main").inert = isOpen;
    $(`open-${this.drawer}`).setAttribute("aria-expanded", isOpen);
  }

  keyPressed(event) {
    const { key, altKey, target } = event;
    if (!this.isInside || event.defaultPrevented || document.querySelector("dialog, .menu")) return;
    const isCommand = event.ctrlKey || event.metaKey;
    const isTyping = target.matches("input, textarea");
    const isLetter = key.length === 1 && !isCommand && !altKey && !isTyping;
    if (altKey && (key === "ArrowUp" || key === "ArrowDown")) this.switchBy(key === "ArrowUp" ? -1 : 1);
    else if ((isCommand && key.toLowerCase() === "k") || (isLetter && key === "/")) this.search.focus();
    else if (isLetter && key === "?") this.help();
    else if (key === "Escape") this.drawer ? this.closeDrawer() : this.composer.focus();
    else {
      if (isLetter && key !== " " && !target.closest("button, a")) this.composer.focus(); // which then gets the letter
      return;
    }
    event.preventDefault();
  }

  switchBy(step) {
    const keys = ordered(this.chat).map((each) => each.key);
    this.openConversation(keys.at((keys.indexOf(this.current) + step) % keys.length));
  }
}
