// The log of one conversation.
//
// Theory of operation. The model holds up to 1,000 messages of a conversation; the log holds a window of them, at most
// WINDOW rows (more on a very high screen). `top` is the first message of the window; while the log follows the newest messages, the window is at
// the end. All changes run through sync(), at most once a frame: it lists the nodes that the window should have, and
// removes, inserts and updates only what differs. A node belongs to a message object, so a confirmed message keeps its
// node and is not announced twice.
//
// Position. Before a change the log notes one row that is visible (the anchor) and how far its lower edge is from the
// top of the log; after it, it scrolls so that this distance is the same. The lower edge, because the upper part of a
// row changes when an older message of the same sender comes before it. While the log follows, it scrolls to the end.
//
// Reading aloud. The log is a live region only for messages that arrive. While another conversation or older messages
// are inserted, `aria-live` is off, and for a moment after it, because screen readers look at changes later.

import { mentions } from "../text.js";
import { $, el, icon, oncePerFrame, plural } from "./dom.js";
import { continues, dayOf, dayText, messageRow, signatureOf, updateRow } from "./message.js";

const WINDOW = 150;
const STEP = 50;
// Distance from an end of the window at which it moves on, in pixels.
const MARGIN = 900;
// Distance from the end at which the log follows.
const NEAR_END = 24;
const QUIET_MS = 400;
const NOTICES_MAX = 100;

export class Timeline {
  /** `onMenu(message, x, y)` opens the menu of a message. `onLeave()` gives the focus back to the composer. */
  constructor(chat, { onMenu, onLeave }) {
    this.chat = chat;
    this.onMenu = onMenu;
    this.onLeave = onLeave;
    this.log = $("log");
    this.jump = $("jump");
    this.actions = $("message-actions");
    this.conversation = null;
    this.top = null; // first message of the window, or null while the log follows
    this.isFollowing = true;
    this.newAfter = null; // id after which messages are new to the reader
    this.anchor = null;
    this.rows = new Map(); // message -> { row, signature }
    this.rules = new Map(); // text of a rule -> node
    this.notices = new Map(); // key of a conversation -> [{ after, node }]
    this.selected = null; // message of the row with the focus
    this.wanted = null; // message to show after the next sync
    this.refresh = oncePerFrame(() => this.sync());
    this.listen();
  }

  listen() {
    const { log } = this;
    this.onScroll = oncePerFrame(() => this.scrolled());
    log.addEventListener("scroll", () => this.onScroll(), { passive: true });
    log.addEventListener("keydown", (event) => this.keyPressed(event));
    log.addEventListener("contextmenu", (event) => this.menuAsked(event));
    log.addEventListener("pointerover", (event) => this.pointAt(event.target.closest(".message")));
    log.addEventListener("focusin", (event) => this.pointAt(event.target.closest(".message")));
    this.actions.append(icon("more"));
    this.actions.title = "Actions for this message";
    this.actions.setAttribute("aria-label", this.actions.title);
    this.actions.addEventListener("click", () => this.openMenu(this.pointed));
    $("timeline").addEventListener("pointerleave", () => this.pointAt(null));
    this.jump.addEventListener("click", () => this.toNewest());
    new ResizeObserver(() => this.restore()).observe(log);
    document.addEventListener("visibilitychange", () => this.refresh());
    window.addEventListener("focus", () => this.refresh());
  }

  // --- what is shown ---

  /** Shows a conversation: its end, or if there is more unread than fits, the line where the new begins. */
  show(conversation) {
    this.conversation = conversation;
    this.top = this.anchor = this.selected = this.wanted = null;
    this.isFollowing = true;
    this.newAfter = conversation.unread > 0 ? conversation.readId : null;
    this.startsAtNew = this.newAfter !== null;
    this.clear();
    this.sync();
  }

  clear() {
    this.hush();
    this.log.replaceChildren();
    this.rows.clear();
    this.rules.clear();
    this.pointAt(null);
  }

  /** The model changed the messages of a conversation. */
  changed({ key, change, messages = [] }) {
    if (key !== this.conversation?.key) return;
    if (change !== "append" && change !== "update") this.hush();
    if (change === "append") this.noteNew(messages);
    this.refresh();
  }

  /** New messages: an own one ends "New" and makes the log follow; others begin it unless they are being read. */
  noteNew(messages) {
    if (messages.some((message) => message.state === "pending")) {
      this.newAfter = null;
      this.follow();
    } else if (!this.isBeingRead() && (this.newAfter === null || this.newAfter < this.conversation.readId)) {
      this.newAfter = this.conversation.readId;
    }
  }

  /** Adds a line of the page itself after the messages of now. */
  addNotice(key, text, isError) {
    const conversation = this.chat.conversations.get(key);
    const node = el("div", { class: `notice${isError ? " error" : ""}` }, el("span", { dir: "auto" }, text));
    const notices = this.notices.get(key) ?? [];
    notices.push({ after: conversation?.messages.at(-1) ?? null, node });
    this.notices.set(key, notices.slice(-NOTICES_MAX));
    if (key === this.conversation?.key) this.refresh();
  }

  follow() {
    this.isFollowing = true;
    this.top = null;
  }

  toNewest() {
    const { conversation } = this;
    if (conversation.hasNewer) {
      this.hush();
      this.chat.loadNewest(conversation.key).catch(() => {});
    }
    this.follow();
    this.sync();
  }

  /** Brings a message to the middle of the log and marks it for a moment. It must be in the conversation. */
  reveal(id) {
    const index = this.conversation.messages.findIndex((message) => message.id === id);
    if (index < 0) return;
    this.hush();
    this.isFollowing = false;
    this.top = this.conversation.messages[Math.max(0, index - STEP)];
    this.wanted = this.conversation.messages[index];
    this.anchor = null;
    this.sync();
  }

  // --- one change of the window ---

  sync() {
    const { conversation, log } = this;
    if (!conversation) return;
    if (!this.isFollowing) this.anchor = this.findAnchor() ?? this.anchor;
    conversation.isFollowed = this.isFollowing;
    this.move();
    const nodes = this.nodesOf(conversation);
    const kept = new Set(nodes);
    for (const node of [...log.children]) if (!kept.has(node)) node.remove();
    let next = log.firstChild;
    for (const node of nodes) {
      if (node === next) next = next.nextSibling;
      else log.insertBefore(node, next);
    }
    if (this.pointed && !this.pointed.isConnected) this.pointAt(null);
    this.place();
    this.updateEdges();
    this.fill();
  }

  /** The nodes for the window, in order, and only those rows are remembered. */
  nodesOf({ messages, hasOlder, isLoading, key }) {
    const [begin, end] = this.bounds(messages);
    const rows = new Map();
    const rules = new Map();
    const notices = this.notices.get(key) ?? [];
    const nodes = begin === 0 ? [this.headNode(hasOlder, isLoading, messages.length)] : [];
    const addNotices = (after) => nodes.push(...notices.filter((each) => each.after === after).map((each) => each.node));
    const addRule = (text, id, isNew) => {
      const node = this.rules.get(id) ?? el("div", { class: isNew ? "rule new" : "rule", role: "separator" }, text);
      rules.set(id, node);
      nodes.push(node);
    };
    if (begin === 0) addNotices(null);
    let hasNew = false;
    for (let index = begin; index < end; index++) {
      const [before, message] = [messages[index - 1], messages[index]];
      const isNewDay = before === undefined || dayOf(before) !== dayOf(message);
      if (isNewDay) addRule(dayText(message), dayOf(message), false);
      const isNew = this.isFirstNew(before, message);
      if (isNew && !hasNew) addRule("New", "new", true);
      hasNew ||= isNew;
      const row = this.rowOf(message, isNewDay || isNew || !continues(message, before));
      rows.set(message, row);
      nodes.push(row.row);
      addNotices(message);
    }
    this.rows = rows;
    this.rules = rules;
    return nodes;
  }

  /** The number of rows: so many that moving by STEP never shows an end. The lowest row has 21 pixels. */
  size() {
    return Math.max(WINDOW, Math.ceil(this.log.clientHeight / 8));
  }

  /** The bounds of the window in the list of messages. */
  bounds(messages) {
    const size = this.size();
    const last = Math.max(0, messages.length - size);
    let begin = last;
    if (!this.isFollowing && this.top !== null) {
      begin = messages.indexOf(this.top);
      if (begin < 0) begin = this.nearest(messages);
      this.top = messages[begin] ?? null;
    } else if (!this.isFollowing) {
      this.top = messages[last] ?? null;
    }
    return [begin, Math.min(messages.length, begin + size)];
  }

  /** The place of the first message after one that the model no longer has. */
  nearest(messages) {
    const index = messages.findIndex((message) => (message.id ?? Infinity) >= (this.top.id ?? Infinity));
    return index < 0 ? Math.max(0, messages.length - this.size()) : index;
  }

  isFirstNew(before, message) {
    if (this.newAfter === null || message.id === null || message.id <= this.newAfter) return false;
    return before === undefined ? !this.conversation.hasOlder : before.id !== null && before.id <= this.newAfter;
  }

  rowOf(message, isFirst) {
    const { chat } = this;
    const isOwn = message.from.toLowerCase() === chat.me?.toLowerCase();
    const context = {
      isFirst,
      isOwn,
      isMeant: !isOwn && this.conversation.kind !== "user" && mentions(message.text, chat.me),
      isIgnored: chat.isIgnored?.(message.from) ?? false,
      onRetry: (failed) => chat.retry(failed).catch(() => {}),
      onDrop: (failed) => chat.drop(failed),
    };
    const signature = signatureOf(message, context);
    const known = this.rows.get(message);
    if (known === undefined) return { row: messageRow(message, context), signature };
    if (known.signature !== signature) updateRow(known.row, message, context);
    return { row: known.row, signature };
  }

  headNode(hasOlder, isLoading, count) {
    const begins = count ? "This is the beginning." : "No messages yet. Write the first one.";
    const text = isLoading ? "Loading…" : hasOlder ? "" : begins;
    const name = count || isLoading || hasOlder ? "log-head" : "log-empty";
    if (this.head?.textContent !== text || this.head?.className !== name) this.head = el("div", { class: name }, text);
    return this.head;
  }

  // --- position ---

  /** The first visible row, with the distance of its lower edge from the top of the log. */
  findAnchor() {
    const top = this.log.getBoundingClientRect().top;
    for (const [message, { row }] of this.rows) {
      if (!row.isConnected) continue;
      const { bottom } = row.getBoundingClientRect();
      if (bottom > top + 1) return { message, row, distance: bottom - top };
    }
    return null;
  }

  place() {
    const { log } = this;
    const rule = this.rules.get("new");
    if (this.wanted) {
      const row = this.rows.get(this.wanted)?.row;
      this.wanted = null;
      row?.scrollIntoView({ block: "center" });
      row?.classList.add("found");
      if (row) setTimeout(() => row.classList.remove("found"), 2500);
    } else if (this.startsAtNew && rule) {
      log.scrollTop = log.scrollHeight;
      const distance = rule.getBoundingClientRect().top - log.getBoundingClientRect().top;
      if (distance < 0) this.isFollowing = false;
      if (distance < 0) log.scrollTop += distance - 48;
      this.startsAtNew = false;
    } else if (this.isFollowing) {
      log.scrollTop = log.scrollHeight;
    } else if (this.anchor?.row.isConnected) {
      const distance = this.anchor.row.getBoundingClientRect().bottom - log.getBoundingClientRect().top;
      if (Math.abs(distance - this.anchor.distance) >= 0.5) log.scrollTop += distance - this.anchor.distance;
    }
  }

  /** The size of the log changed: text is wrapped differently, or the composer grew. */
  restore() {
    if (this.conversation) this.place();
  }

  scrolled() {
    if (!this.conversation) return;
    const { log, conversation } = this;
    const toEnd = log.scrollHeight - log.scrollTop - log.clientHeight;
    const isAtEnd = toEnd < NEAR_END && this.showsNewest();
    if (isAtEnd) this.follow();
    else if (this.isFollowing) this.leaveEnd(conversation.messages);
    this.anchor = this.isFollowing ? null : this.findAnchor();
    this.pointAt(null);
    this.updateEdges();
    this.fill();
  }

  leaveEnd(messages) {
    this.isFollowing = false;
    this.top = messages[Math.max(0, messages.length - this.size())] ?? null;
  }

  /** Which ends of the window are near. */
  edges() {
    const { log } = this;
    const toEnd = log.scrollHeight - log.scrollTop - log.clientHeight;
    return { isNearTop: log.scrollTop < MARGIN, isNearEnd: toEnd < MARGIN };
  }

  /** Moves the window if an end of it is near, before it is drawn: else the log could be too short for its position. */
  move() {
    const { messages } = this.conversation;
    if (this.isFollowing) return;
    const [begin, end] = this.bounds(messages);
    const { isNearTop, isNearEnd } = this.edges();
    let top = begin;
    if (isNearTop && begin > 0) top = Math.max(0, begin - STEP);
    else if (isNearEnd && end < messages.length) top = Math.min(begin + STEP, messages.length - this.size());
    if (top === begin) return;
    this.hush();
    this.top = messages[top];
  }

  /** Draws again if the window can move on, or asks the model for more. */
  fill() {
    const { messages, key, hasOlder, hasNewer } = this.conversation;
    const [begin, end] = this.bounds(messages);
    const { isNearTop, isNearEnd } = this.edges();
    if (isNearTop && begin === 0 && hasOlder) this.load(() => this.chat.loadOlder(key));
    else if (isNearEnd && end === messages.length && hasNewer) this.load(() => this.chat.loadNewer(key));
    else if (!this.isFollowing && ((isNearTop && begin > 0) || (isNearEnd && end < messages.length))) this.refresh();
  }

  /** Loads once at a time. A failure is shown by the model; the next scroll tries again. */
  load(request) {
    if (this.isLoading || this.conversation.isLoading || this.chat.state !== "in") return;
    this.isLoading = true;
    Promise.resolve(request())
      .catch(() => {})
      .finally(() => {
        this.isLoading = false;
        this.refresh();
      });
  }

  showsNewest() {
    const { messages, hasNewer } = this.conversation;
    return !hasNewer && this.bounds(messages)[1] === messages.length;
  }

  // --- read or unread ---

  isBeingRead() {
    return this.isFollowing && this.showsNewest() && !document.hidden && document.hasFocus();
  }

  updateEdges() {
    const { conversation, jump } = this;
    const newest = conversation.messages.findLast((message) => message.id !== null)?.id ?? 0;
    if (this.isBeingRead() && newest > conversation.readId) this.chat.markRead(conversation.key, newest);
    jump.hidden = this.isFollowing && !conversation.hasNewer;
    const unread = conversation.unread;
    const label = unread ? plural(unread, "new message") : "Jump to the newest";
    if (!jump.hidden && jump.textContent !== label) jump.replaceChildren(icon("down"), label);
  }

  // --- reading aloud ---

  hush() {
    this.log.setAttribute("aria-live", "off");
    clearTimeout(this.quiet);
    this.quiet = setTimeout(() => this.log.setAttribute("aria-live", "polite"), QUIET_MS);
  }

  // --- keyboard, pointer and menu ---

  keyPressed(event) {
    if (event.target.closest("a, button") && event.key !== "Escape") return;
    const step = { ArrowUp: -1, ArrowDown: 1 }[event.key];
    if (step) this.select(step);
    else if (event.key === "Escape") this.onLeave();
    else if (event.key === "End") this.toNewest();
    else if ((event.key === "Enter" || event.key === " ") && this.messageOf(event.target)) this.openMenu(event.target);
    else return;
    event.preventDefault();
  }

  /** Moves the focus to the row before or after the one that has it; at first to the last visible one. */
  select(step) {
    const rows = [...this.log.querySelectorAll(".message")];
    const current = rows.indexOf(document.activeElement);
    const end = this.log.getBoundingClientRect().bottom;
    const visible = rows.findLastIndex((row) => row.getBoundingClientRect().top < end - 8);
    const row = rows[current < 0 ? visible : current + step];
    if (row) row.focus();
    else if (step > 0) this.onLeave();
  }

  selectLast() {
    this.select(-1);
  }

  messageOf(row) {
    for (const [message, known] of this.rows) if (known.row === row) return message;
    return null;
  }

  menuAsked(event) {
    const row = event.target.closest(".message");
    const hasSelection = !document.getSelection().isCollapsed;
    if (!row || event.target.closest("a") || hasSelection) return;
    event.preventDefault();
    this.openMenu(row, event.clientX, event.clientY);
  }

  openMenu(row, x, y) {
    const message = this.messageOf(row);
    if (!message) return;
    const { right, top } = row.getBoundingClientRect();
    const isKeyboard = !x && !y;
    this.onMenu(message, isKeyboard ? right - 200 : x, isKeyboard ? top + 28 : y, row);
  }

  /** Puts the button for actions on a row. It stands outside of the log, which is read aloud. */
  pointAt(row) {
    this.pointed = row;
    this.actions.hidden = row === null;
    if (row === null) return;
    const top = row.getBoundingClientRect().top - this.log.getBoundingClientRect().top;
    this.actions.style.setProperty("--top", `${Math.max(0, top)}px`);
  }

  /** Pages through the log while the focus is elsewhere. */
  page(direction) {
    this.log.scrollBy({ top: direction * this.log.clientHeight * 0.85 });
  }
}
