// The log of one conversation.
//
// Theory of operation. The model holds up to 1,000 messages of a conversation; the log shows a window of them, which
// begins with `top`, or ends with the newest message. All changes run through draw(), at most once a frame: it lists the
// nodes that the window should have, and changes only what differs. A row belongs to a message object, so a confirmed
// message keeps its row and is not read aloud twice.
//
// Position. Before a change the log notes one visible row (the anchor) and how far its lower edge is from the top of the
// log; after it, it scrolls so that this distance is the same. The lower edge, because the upper part of a row changes
// when an older message of the same sender comes before it. The window moves before it is drawn: a log that is too short
// for its position would jump. While the log follows, it scrolls to the end.
//
// Reading aloud. The log is a live region only for messages that arrive. While other messages are inserted, `aria-live`
// is off, and for a moment after it, because screen readers look at changes later.

import { mentions } from "../text.js";
import { $, h, icon, oncePerFrame, opensMenu, picture, setChildren } from "./dom.js";
import { continues, copied, dayOf, dayText, drawRow, signatureOf } from "./message.js";

// Rows of the window, and by how many it moves. On a very high screen there are more, so that no end is ever seen.
const WINDOW = 150;
const PIXELS_PER_ROW = 8;
const STEP = 25;
// Distance from an end of the window at which it moves, and from the end of the log at which it follows, in pixels.
const MARGIN = 900;
const NEAR_END = 24;
const QUIET_MS = 400;
const RETRY_MS = 3000;
const NOTICES_MAX = 100;

export class Timeline {
  conversation = null;
  #top = null; // null while the log follows the newest messages
  // Messages with a greater id are new to the user: the line "New" stands before the first of them.
  #newAfter = null;
  // True until the line "New" is shown, or it is known that there is none.
  #startsAtNew = false;
  #wanted = null;
  #anchor = null;
  #rows = new Map(); // message -> { row, signature }
  #rules = new Map(); // day, or "new" -> node
  #notices = new Map(); // key of a conversation -> [{ after: message, node }]
  #head = null;
  #isLoading = false;
  #isStale = false; // the model has changed, and draw() has not run yet
  #placedSize = ""; // of the log, when it was placed
  #placedTop = 0; // its position then
  #pointed = null;
  #quiet = null; // the timer that ends the silence after a draw()

  /** `onMenu(message, place, row)` opens the menu of a message, `onLeave()` gives the focus to the composer. */
  constructor(chat, { onMenu, onLeave }) {
    Object.assign(this, { chat, onMenu, onLeave, log: $("log"), jump: $("jump") });
    this.refresh = oncePerFrame(() => this.draw());
    this.actions = opensMenu(picture($("message-actions"), "more", "Actions for this message", () => this.#openMenu(this.#pointed)));
    const { log } = this;
    // Once a frame, and before draw(), which would scroll back to the end.
    log.addEventListener("scroll", () => this.#scrolled(), { passive: true });
    log.addEventListener("keydown", (event) => this.#keyPressed(event));
    log.addEventListener("contextmenu", (event) => this.#menuAsked(event));
    document.addEventListener("copy", (event) => this.#copied(event));
    const point = ({ target }) => this.#pointAt(target.closest(".message"));
    for (const name of ["pointerover", "focusin"]) log.addEventListener(name, point);
    // A finger leaves before its click: the button must stay for it.
    log.parentElement.addEventListener("pointerleave", ({ pointerType }) => pointerType === "touch" || this.#pointAt(null));
    this.jump.addEventListener("click", () => this.toNewest());
    new ResizeObserver(() => this.#resized()).observe(log);
    document.addEventListener("visibilitychange", this.refresh);
    addEventListener("focus", this.refresh);
    addEventListener("resize", () => (this.#placedSize = "")); // a browser may scroll then, before or after the change
  }

  // --- what is shown ---

  /** Shows a conversation: its end, or if more is unread than fits, the line "New", which may be far from the end. */
  show(conversation) {
    this.conversation = conversation;
    this.#top = null;
    this.#anchor = this.#wanted = null;
    this.#newAfter = conversation.hasUnread ? conversation.readId : null;
    this.#startsAtNew = conversation.hasUnread;
    this.#rows.clear();
    this.#hush();
    this.draw();
  }

  /** The model changed the messages of a conversation. */
  changed({ key, change, messages }) {
    if (key !== this.conversation?.key) return;
    this.#isStale = true;
    if (change === "append") this.#noteNew(messages);
    else if (change !== "update") this.#hush();
    this.refresh();
  }

  /** An own message ends "New", and the log follows. Another one begins it, unless the user is reading at the end. */
  #noteNew(messages) {
    const { readId } = this.conversation;
    if (messages.some(({ state }) => state === "pending")) {
      this.#newAfter = null;
      this.#top = null;
    } else if (!this.#isBeingRead() && (this.#newAfter ?? -1) < readId) this.#newAfter = readId;
  }

  /** Adds a line of the page itself after the messages of now. */
  addNotice(key, text) {
    const after = this.chat.conversations.get(key)?.messages.at(-1);
    const notices = [...(this.#notices.get(key) ?? []), { after, node: h("div.notice", h("span", { dir: "auto" }, text)) }];
    this.#notices.set(key, notices.slice(-NOTICES_MAX));
    this.refresh();
  }

  get #isFollowing() {
    return this.#top === null;
  }

  #leaveEnd() {
    this.#startsAtNew = false;
    this.#top ??= this.conversation.messages[this.#bounds()[0]] ?? null;
  }

  toNewest() {
    this.#hush();
    if (this.conversation.hasNewer) this.chat.loadNewest(this.conversation.key).catch(() => {});
    this.#top = null;
    this.draw();
  }

  /** Brings a message that the model has loaded to the middle, and marks it for a moment. */
  reveal(id) {
    const { messages } = this.conversation;
    const index = messages.findIndex((message) => message.id === id);
    if (index < 0) return;
    this.#top = messages[Math.max(0, index - STEP)];
    this.#wanted = messages[index];
    this.#hush();
    this.draw();
  }

  // --- drawing ---

  draw() {
    const { conversation, log } = this;
    if (!conversation) return;
    if (!this.#isFollowing) this.#anchor = this.#findAnchor() ?? this.#anchor;
    conversation.isFollowed = this.#isFollowing;
    if (!this.#wanted) this.#move();
    setChildren(log, this.#nodes());
    this.#quiet ??= setTimeout(() => log.setAttribute("aria-live", "polite"), QUIET_MS);
    if (!this.#pointed?.isConnected) this.#pointAt(null);
    this.#place();
    this.#isStale = false;
    this.#settle();
  }

  /** The nodes of the window, in order. Only their rows and rules are remembered. */
  #nodes() {
    const { messages, key } = this.conversation;
    const [begin, end] = this.#bounds();
    const [rows, rules] = [new Map(), new Map()];
    const nodes = begin === 0 ? [this.#headNode()] : [];
    const addNotices = (message) => {
      for (const { after, node } of this.#notices.get(key) ?? []) if (after === message) nodes.push(node);
    };
    const addRule = (id, selector, text) => {
      rules.set(id, this.#rules.get(id) ?? h(selector, { role: "separator" }, text));
      nodes.push(rules.get(id));
    };
    if (begin === 0) addNotices(undefined);
    for (let index = begin; index < end; index++) {
      const [before, message] = [messages[index - 1], messages[index]];
      const isNewDay = !before || dayOf(before) !== dayOf(message);
      const isNew = this.#isFirstNew(before, message) && !rules.has("new");
      if (isNewDay) addRule(dayOf(message), "div.rule", dayText(message));
      if (isNew) addRule("new", "div.rule.new", "New");
      rows.set(message, this.#row(message, isNewDay || isNew || !continues(message, before)));
      nodes.push(rows.get(message).row);
      addNotices(message);
    }
    this.#rows = rows;
    this.#rules = rules;
    return nodes;
  }

  #isFirstNew(before, { id }) {
    const after = this.#newAfter;
    if (after === null || id === null || id <= after) return false;
    return before ? before.id !== null && before.id <= after : !this.conversation.hasOlder;
  }

  #row(message, isFirst) {
    const { chat, conversation } = this;
    const isOwn = chat.isMe(message.from);
    const context = {
      isFirst,
      isOwn,
      isMeant: !isOwn && conversation.kind !== "user" && mentions(message.text, chat.me),
      isIgnored: chat.isIgnored(message.from),
      retry: (failed) => chat.retry(failed).catch(() => {}),
      drop: (failed) => chat.drop(failed),
    };
    const signature = signatureOf(message, context);
    const known = this.#rows.get(message);
    return known?.signature === signature ? known : { row: drawRow(known?.row, message, context), signature };
  }

  /** What stands before the oldest message. */
  #headNode() {
    const { messages, hasOlder, isLoading } = this.conversation;
    const isEmpty = !messages.length && !hasOlder && !isLoading;
    const end = isEmpty ? "No messages yet. Write the first one." : "This is the beginning.";
    const text = hasOlder || isLoading ? "Loading…" : end;
    if (this.#head?.textContent !== text) this.#head = h(isEmpty ? "div.log-empty" : "div.log-head", text);
    return this.#head;
  }

  // --- the window ---

  get #size() {
    return Math.max(WINDOW, Math.ceil(this.log.clientHeight / PIXELS_PER_ROW));
  }

  /** The bounds of the window in the list of messages. If the model dropped the first row, the next one takes its place. */
  #bounds() {
    const { messages } = this.conversation;
    const last = Math.max(0, messages.length - this.#size);
    let begin = last;
    if (this.#top) {
      begin = messages.indexOf(this.#top);
      if (begin < 0) begin = messages.findIndex(({ id }) => id >= this.#top.id);
      if (begin < 0) begin = last;
      this.#top = messages[begin] ?? null;
    }
    return [begin, Math.min(messages.length, begin + this.#size)];
  }

  /** The ends of the window that are near, and where they are in the list of messages. */
  #edges() {
    const { scrollTop, scrollHeight, clientHeight } = this.log;
    const [begin, end] = this.#bounds();
    return { begin, end, isNearTop: scrollTop < MARGIN, isNearEnd: scrollHeight - scrollTop - clientHeight < MARGIN };
  }

  #move() {
    const { messages } = this.conversation;
    const { begin, end, isNearTop, isNearEnd } = this.#edges();
    if (this.#isFollowing) return;
    let top = begin;
    if (isNearTop && begin > 0) top = Math.max(0, begin - STEP);
    else if (isNearEnd && end < messages.length) top = Math.min(begin + STEP, messages.length - this.#size);
    if (top !== begin) this.#hush();
    this.#top = messages[top] ?? null;
  }

  /** After each change: marks what is read, shows the button, and draws again or loads more near an end. */
  #settle() {
    const { conversation, chat, jump } = this;
    const { messages, key, hasOlder, hasNewer, unread, unreadText } = conversation;
    const newest = messages.findLast(({ id }) => id !== null)?.id ?? 0;
    if (newest > conversation.readId && this.#isBeingRead()) chat.markRead(key, newest);
    jump.hidden = this.#isFollowing && !hasNewer;
    const label = unread ? `${unreadText} new message${unreadText === "1" ? "" : "s"}` : "Jump to the newest";
    if (jump.textContent !== label) jump.replaceChildren(icon("down"), label);
    const { begin, end, isNearTop, isNearEnd } = this.#edges();
    if (this.#startsAtNew && conversation.mayHaveUnreadBefore) this.#load("loadUnread");
    else if (isNearTop && begin === 0 && hasOlder) this.#load("loadOlder");
    else if (isNearEnd && end === messages.length && hasNewer) this.#load("loadNewer");
    else if (!this.#isFollowing && ((isNearTop && begin > 0) || (isNearEnd && end < messages.length))) this.refresh();
  }

  /** Loads once at a time, and after a failure not for a while: the server may have refused too many requests. */
  async #load(method) {
    const { chat, conversation } = this;
    if (this.#isLoading || conversation.isLoading || chat.state !== "in") return;
    this.#isLoading = true;
    const hasFailed = await chat[method](conversation.key).then(() => false, () => true);
    if (hasFailed) await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
    this.#isLoading = false;
    this.refresh();
  }

  // --- position ---

  #scrolled() {
    const { conversation, log } = this;
    if (!conversation) return;
    const toEnd = log.scrollHeight - log.scrollTop - log.clientHeight;
    if (toEnd < NEAR_END && this.#showsNewest()) this.#top = null;
    else if (this.#sizeNow() !== this.#placedSize) this.#place(); // not the user scrolled: a size has changed
    else if (log.scrollTop !== this.#placedTop) this.#leaveEnd(); // nor did place()
    conversation.isFollowed = this.#isFollowing;
    this.#anchor = this.#isFollowing ? null : this.#findAnchor();
    this.#pointAt(null);
    if (!this.#isStale) this.#settle();
  }

  #findAnchor() {
    const { top } = this.log.getBoundingClientRect();
    for (const { row } of this.#rows.values()) {
      const { bottom } = row.getBoundingClientRect();
      if (row.isConnected && bottom > top + 1) return { row, distance: bottom - top };
    }
    return null;
  }

  /** Scrolls to where the log should be: a wanted message, the line "New", the end, or where the anchor was. */
  #place() {
    const { log } = this;
    const { top } = log.getBoundingClientRect();
    this.#placedSize = this.#sizeNow();
    const row = this.#rows.get(this.#wanted)?.row;
    const rule = this.#startsAtNew && this.#rules.get("new");
    if (row) {
      row.scrollIntoView({ block: "center" });
      row.classList.add("found");
      this.#wanted = null;
      this.#anchor = this.#findAnchor();
    } else if (this.#isFollowing) {
      log.scrollTop = log.scrollHeight;
      const distance = rule ? rule.getBoundingClientRect().top - top : 0;
      const { isLoaded, mayHaveUnreadBefore } = this.conversation;
      if (rule || (isLoaded && !mayHaveUnreadBefore)) this.#startsAtNew = false;
      if (distance < 0) {
        log.scrollTop += distance - 48;
        this.#leaveEnd();
        this.#anchor = this.#findAnchor();
      }
    } else if (this.#anchor?.row.isConnected) {
      const moved = this.#anchor.row.getBoundingClientRect().bottom - top - this.#anchor.distance;
      if (Math.abs(moved) >= 0.5) log.scrollTop += moved;
    }
    this.#placedTop = log.scrollTop;
  }

  #resized() {
    this.#pointAt(null); // its row is elsewhere
    if (this.conversation) this.#place();
  }

  #sizeNow() {
    return `${this.log.clientWidth} ${this.log.clientHeight}`;
  }

  #showsNewest() {
    const { messages, hasNewer } = this.conversation;
    return !hasNewer && this.#bounds()[1] === messages.length;
  }

  #isBeingRead() {
    return this.#isFollowing && !this.#startsAtNew && this.#showsNewest() && !document.hidden && document.hasFocus();
  }

  /** The next draw() is not read aloud. */
  #hush() {
    this.log.setAttribute("aria-live", "off");
    clearTimeout(this.#quiet);
    this.#quiet = null;
  }

  // --- keyboard, pointer and menu ---

  #keyPressed(event) {
    const { key, target } = event;
    const step = { ArrowUp: -1, ArrowDown: 1 }[key];
    if (key === "Escape") this.onLeave();
    else if (target.closest("a, button")) return;
    else if (step) this.select(step);
    else if (key === "End") this.toNewest();
    else if (key === "Enter" && target !== this.log) this.#openMenu(target);
    else return;
    event.preventDefault();
  }

  /** Moves the focus to the row before or after the one that has it; at first to the last visible one. */
  select(step) {
    const rows = [...this.log.querySelectorAll(".message")];
    const current = rows.indexOf(document.activeElement);
    const { bottom } = this.log.getBoundingClientRect();
    const visible = rows.findLastIndex((row) => row.getBoundingClientRect().top < bottom - 8);
    const row = rows[current < 0 ? visible : current + step];
    if (row) row.focus();
    else if (step > 0) this.onLeave();
  }

  /** Scrolls by pages while the focus is elsewhere. */
  page(direction) {
    this.log.scrollBy({ top: direction * this.log.clientHeight * 0.85 });
  }

  /** A click of the right button. Links, a selection and long touches keep the browser's own menu. */
  #menuAsked(event) {
    const row = event.target.closest(".message");
    if (!row || event.pointerType === "touch" || event.target.closest("a") || !document.getSelection().isCollapsed) return;
    event.preventDefault();
    this.#openMenu(row, { x: event.clientX, y: event.clientY });
  }

  /** Several messages are copied whole, each with its sender and time. */
  #copied(event) {
    const selection = document.getSelection();
    const chosen = [...this.#rows].filter(([, { row }]) => selection.containsNode(row.lastChild, true));
    if (chosen.length < 2) return;
    event.clipboardData.setData("text/plain", chosen.map(([message, { row }]) => copied(message, row)).join("\n"));
    event.preventDefault();
  }

  #openMenu(row, place = null) {
    const { right, top } = row.getBoundingClientRect();
    for (const [message, known] of this.#rows) {
      if (known.row === row) this.onMenu(message, place ?? { x: right - 220, y: top + 30 }, row);
    }
  }

  /** Puts the button for actions on a row. It stands outside the log, which is read aloud. */
  #pointAt(row) {
    this.#pointed = row;
    this.actions.hidden = !row;
    const top = row ? row.getBoundingClientRect().top - this.log.getBoundingClientRect().top : 0;
    this.actions.style.setProperty("top", `${Math.max(0, top)}px`);
  }
}
