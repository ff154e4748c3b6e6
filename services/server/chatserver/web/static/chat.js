/**
 * The model of the page: one user, the conversations, and what the server tells about them. Without DOM.
 *
 * Nothing lost. A login names the newest message seen of each room, of the lobby and of all direct messages, and the
 * server sends the later ones first (session.js logs in again). Before the first login the page knows nothing, so it
 * names none: it loads the newest page of each conversation instead. What arrived meanwhile is merged with that page by
 * id; the server delivers everything after the login, so there is no gap. If the answer has its own `since`, the
 * history is another one: later messages are dropped, and the server sends what it has.
 *
 * Nothing twice. A conversation has each id once (conversation.js), and an own message is stored once (outbox.js). The
 * server may deliver a stored message, without its nonce, before it confirms it: as a missed message, or in the
 * history. So an own message with the text of a pending one is held back until no pending message can be the same. A
 * confirmation with its id drops it.
 *
 * Deletions. An answer with history may be older than a deletion, so the newest deletions are remembered.
 *
 * Unread are messages of others after the read mark of a conversation. Marks are kept in the browser, so they outlive
 * the page. A conversation without one begins with the newest message at the user's last visit (`seen_id`), or with the
 * newest of all. Only loaded messages are counted; conversation.js knows whether there may be more.
 *
 * Events, with `detail`: "state"; "conversations" (the list, or what the list shows); "messages" {key, change, messages}
 * with change "append", "prepend", "update" or "reset"; "online" {key}; "notice" {key, text, isError}; "meant" {key,
 * message}, a new message for this user.
 */

import { Actions } from "./actions.js";
import { parse } from "./commands.js";
import { schedule as realSchedule } from "./connection.js";
import { Conversation } from "./conversation.js";
import { noticeOf } from "./notices.js";
import { Outbox } from "./outbox.js";
import { isSame, Refusal, Requests } from "./requests.js";
import { Session } from "./session.js";

/** @typedef {import("./conversation.js").Message} Message */

/** Messages of history that are loaded at once. */
const PAGE_MESSAGES = 100;
const SEARCH_MESSAGES = 50;
/** Conversations with unread messages whose history is loaded at the login; the others are when they are opened. */
const PREFETCHED_MAX = 12;
const DELETED_MAX = 1_000;
const TEXT_MAX_BYTES = 8_192;
/** The longest wait for the end of a token at the logout. */
const LOGOUT_MS = 3_000;
const LOBBY = "lobby";

export class Chat extends Actions {
  me = null;
  isOperator = false;
  /** "new" if the last login has registered the name. */
  account = "existing";
  /** The key of the conversation that is shown. */
  current = LOBBY;
  /** @type {Map<string, Conversation>} */
  conversations = new Map();

  #storage;
  #now;
  #schedule;
  #newNonce;
  #session;
  #requests;
  #outbox;
  #historyId = "";
  #marks = {};
  /** The read mark of conversations that have none. */
  #firstReadId = 0;
  #seenDirect = 0;
  /** The server has delivered all messages after this one, since the first login. */
  #startId = 0;
  /** @type {Map<number, Message>} */
  #held = new Map();
  #deleted = new Set();
  #ignored = new Set();
  /** Keys of rooms that the login named and that the user is no longer in: an error about each follows. */
  #foreseen = new Set();
  /** Keys of the rooms whose users online are known on this connection. */
  #counted = new Set();

  /**
   * @param {object} parts
   * @param {(handlers: object) => import("./connection.js").Connection} parts.open
   * @param {import("./storage.js").Storage} parts.storage
   */
  constructor({ open, storage, now = Date.now, schedule = realSchedule, random = Math.random, newNonce = randomNonce }) {
    super();
    this.#storage = storage;
    this.#now = now;
    this.#schedule = schedule;
    this.#newNonce = newNonce;
    const send = (object) => this.#session.send(object);
    this.#requests = new Requests(send, schedule);
    this.#outbox = new Outbox(
      ({ key, to, text, nonce }) =>
        send({ command: to ? "DM" : "PM", to: to || undefined, message: text, nonce, ...this.place(key) }),
      (messages) => this.#storage.keepUnsent(this.me, messages),
      schedule,
    );
    const hooks = {
      onState: () => this.#tell("state"),
      login: () => this.#resumption(),
      onWelcome: (object) => this.#onWelcome(object),
      onObject: (object) => this.#onObject(object),
      onDown: () => this.#onDown(),
      onOut: (error) => this.#requests.clear(error || "You are logged out."),
    };
    this.#session = new Session({ open, storage, now, schedule, random }, hooks);
  }

  // --- the session ---

  get state() {
    return this.#session.state;
  }

  get error() {
    return this.#session.error;
  }

  get retryAt() {
    return this.#session.retryAt;
  }

  get canResume() {
    return this.#session.canResume;
  }

  /** Log in, or register. Rejects with a Refusal whose code tells what the form must ask for. */
  async logIn(typed) {
    if (this.state !== "out") this.#session.end();
    this.#forgetUnless(typed.username);
    await this.#session.logIn(typed);
  }

  /** Log in without a form. False if that is not possible. */
  async resume() {
    if (this.state !== "out") return true;
    this.#forgetUnless(this.#storage.token?.username ?? this.me);
    return this.#session.resume();
  }

  /** Leave, and make the token of this page invalid. Unsent messages are dropped. */
  async logOut() {
    const cancel = this.#schedule(() => this.#requests.clear(""), LOGOUT_MS);
    try {
      if (this.#session.token !== undefined) {
        const tokens = await this.tokens();
        await this.revoke(tokens.find((each) => each.current).id);
      }
    } catch {
      // There is no connection, or the server has ended it already. The token expires by itself.
    }
    cancel();
    this.#session.send({ command: "EX" });
    this.#session.forget();
    this.#storage.keepUnsent("", []);
    this.#forgetUnless(null);
    this.#session.end();
  }

  retryNow() {
    this.#session.retryNow();
  }

  /** The network may be back, or the computer has slept. */
  wake() {
    this.#session.wake();
  }

  async changePassword(old, password) {
    this.#session.expectPassword(password);
    try {
      await this.act("change_password", { old, new: password }, "password_changed", { isOnce: true });
    } catch (error) {
      if (error.code) this.#session.expectPassword(null);
      throw error;
    }
  }

  /** Forget everything, except for the same user. */
  #forgetUnless(username) {
    if (this.me === null || isSame(username ?? "", this.me)) return;
    this.me = null;
    this.isOperator = false;
    this.current = LOBBY;
    this.#outbox.clear();
    for (const kept of [this.conversations, this.#held, this.#deleted, this.#ignored]) kept.clear();
    this.#tell("conversations");
  }

  /** The members of a login that continues where the last connection ended. */
  #resumption() {
    if (this.me === null) return {};
    const rooms = [...this.conversations.values()].filter((each) => each.kind === "room");
    const since = Object.fromEntries(rooms.map((each) => [each.name, each.seenId]));
    return { since: { ...since, lobby: this.#lobby.seenId, direct: this.#seenDirect }, history_id: this.#historyId };
  }

  #onDown() {
    this.#requests.pause();
    this.#outbox.close();
    this.#counted.clear();
  }

  #onWelcome(object) {
    const isFirst = this.me === null;
    const isOther = object.history_id !== this.#historyId;
    this.me = object.username;
    this.isOperator = object.operator === true;
    this.account = object.account;
    this.#historyId = object.history_id;
    this.#marks = this.#storage.readMarks(this.me, this.#historyId);
    if (isFirst) this.#firstReadId = object.seen_id ?? object.last_id;
    if (isFirst) this.#seenDirect = this.#startId = object.last_id;
    const lobby = this.#ensure(LOBBY, "lobby", "Lobby", object.last_id);
    if (object.since !== undefined) this.#onOtherHistory(object.since, isOther);
    this.#onRooms(object.rooms ?? [], isFirst);
    this.#setOnline(lobby, object);
    lobby.lastId = Math.max(lobby.lastId, object.last_id); // perhaps of a direct message: known when it is loaded
    this.#recount(lobby);
    if (isFirst) this.#restoreUnsent();
    this.#tell("conversations");
    this.#outbox.open();
    this.#requests.open();
    void this.#catchUp();
  }

  /** The server has lost messages, or was restored: all messages after `since` follow. */
  #onOtherHistory(since, isOther) {
    for (const each of this.conversations.values()) {
      each.cutAfter(since, each.kind === "user" ? this.#seenDirect : each.seenId);
      if (isOther) each.readId = Math.min(this.#marks[each.key] ?? since, since);
      this.#changed(each, "reset", each.messages);
    }
    this.#seenDirect = Math.min(this.#seenDirect, since);
    this.#startId = since;
    this.#firstReadId = Math.min(this.#firstReadId, since);
    for (const id of this.#held.keys()) if (id > since) this.#held.delete(id);
    for (const id of this.#deleted) if (id > since) this.#deleted.delete(id);
    this.#notice(LOBBY, "The server was restored from a backup. Messages may be missing.", true);
  }

  /** The rooms that the user is in, at a login. Later ones than at the first were entered on another device. */
  #onRooms(rooms, isFirst) {
    const keys = new Set(rooms.map(({ room }) => roomKey(room)));
    const lost = [...this.conversations.values()].filter((each) => each.kind === "room" && !keys.has(each.key));
    this.#foreseen = new Set(lost.map((each) => each.key));
    for (const each of lost) this.#leave(each, `You are no longer in #${each.name}.`);
    for (const each of rooms) this.#onRoom(each, isFirst ? undefined : each.last_id);
  }

  #onRoom({ room, topic, last_id: lastId, private: isPrivate = false, role = "member" }, readId = undefined) {
    const conversation = this.#ensure(roomKey(room), "room", room, lastId, readId);
    Object.assign(conversation, { name: room, topic, isPrivate, role });
    conversation.lastId = Math.max(conversation.lastId, lastId);
    return conversation;
  }

  #restoreUnsent() {
    for (const message of this.#storage.unsent(this.me)) {
      const conversation = this.#conversationOf(message);
      if (conversation === undefined) {
        this.#notice(LOBBY, `Your message to #${message.key.slice(5)} was perhaps not sent: ${message.text}`, true);
      } else {
        conversation.place(message);
        this.#outbox.add(message);
      }
    }
  }

  /** Ask for what the login does not tell, and load the conversations that have unread messages. */
  async #catchUp() {
    const ask = (type) => this.#ask(type, {}, type, { isBackground: true }).catch(() => ({}));
    void ask("ignored");
    if (this.conversations.get(this.current)?.kind === "room") this.#askOnline(this.current);
    for (const { username, last_id: lastId } of (await ask("conversations")).conversations ?? []) {
      this.#ensure(userKey(username), "user", username).noteLast(lastId);
    }
    for (const each of this.conversations.values()) this.#recount(each);
    this.#tell("conversations");
    const unread = [...this.conversations.values()].filter((each) => each.hasUnread && !each.isLoaded);
    unread.sort((one, other) => other.lastId - one.lastId);
    for (const key of [this.current, LOBBY, ...unread.slice(0, PREFETCHED_MAX).map((each) => each.key)]) {
      if (this.conversations.get(key)?.isLoaded === false) await this.#loadOlder(key, true).catch(() => {});
    }
  }

  // --- events of the server ---

  #onObject(object) {
    const { type, code, nonce } = object;
    if (type === "error" && nonce !== undefined) return this.#onMessageRefused(object);
    this.#onEvent(object);
    if (this.#requests.take(object) || type !== "error") return undefined;
    if (code === "unknown_room" && this.#foreseen.delete(roomKey(object.room ?? ""))) return undefined;
    return this.#notice(this.current, object.message, true);
  }

  #onEvent(object) {
    const { type, room } = object;
    const conversation = this.conversations.get(roomKey(room ?? LOBBY));
    const text = noticeOf(object, (name) => this.isMe(name));
    switch (type) {
      case "broadcast":
      case "direct":
        return this.#onMessage(object);
      case "sent":
        return this.#onSent(object);
      case "deleted":
        return this.#onDeleted(object);
      case "users":
        return conversation && this.#onUsers(conversation, object);
      case "joined":
        this.#counted.add(roomKey(room));
        this.#setOnline(this.#onRoom(object, object.last_id), object);
        return this.#tell("conversations");
      case "parted":
        return conversation && this.#leave(conversation, text);
      case "ignored":
        return this.#onIgnored(object.users);
      case "topic":
        if (conversation) conversation.topic = object.topic;
        break;
      case "modes":
        if (conversation) conversation.isPrivate = object.modes.private === true;
        break;
      case "role":
        if (!this.isMe(object.username)) break;
        if (room === undefined) this.isOperator = object.role === "operator";
        else if (conversation) conversation.role = object.role;
        this.#tell("state");
        break;
    }
    if (text === "") return undefined;
    this.#tell("conversations");
    return this.#notice(room !== undefined && conversation ? conversation.key : this.current, text);
  }

  #onMessage(object) {
    const message = this.#toMessage(object);
    const conversation = this.#conversationOf(message);
    if (conversation === undefined) return;
    this.#noteSeen(conversation, message.id);
    if (conversation.find(message.id)) return;
    if (this.#isHeld(message)) this.#held.set(message.id, message);
    else this.#show(conversation, message);
  }

  /** The next login asks for the messages after this one. */
  #noteSeen(conversation, id) {
    if (conversation.kind === "user") this.#seenDirect = Math.max(this.#seenDirect, id);
    else conversation.seenId = Math.max(conversation.seenId, id);
  }

  /** Add a message that is new to this page. */
  #show(conversation, message) {
    const isUnread = message.id > conversation.readId && this.#isUnread(message);
    if (conversation.place(message)) this.#tellMessages(conversation, "append", [message]);
    if (isUnread) {
      conversation.unread++;
      conversation.isMeant ||= this.#isMeant(message);
      if (this.#isMeant(message)) this.#tell("meant", { key: conversation.key, message });
    }
    this.#tell("conversations");
  }

  #onSent({ nonce, id, status, looks_public: looksPublic }) {
    const message = this.#outbox.remove(nonce);
    if (message === undefined) return;
    Object.assign(message, { state: "sent", error: "", code: "", isStored: status === "stored" });
    const conversation = this.conversations.get(message.key);
    if (conversation !== undefined) {
      this.#noteSeen(conversation, id);
      const shown = conversation.confirm(message, id);
      if (this.#deleted.has(id)) markDeleted(shown);
      this.#changed(conversation, "update", [shown]);
    }
    if (looksPublic) this.#notice(message.key, `${message.to} is a guest, who can't see that the message is private.`);
    this.#releaseHeld();
  }

  #onMessageRefused(object) {
    const message = this.#outbox.refuse(object);
    if (object.code === "unavailable") return this.#session.drop(object.message, false);
    const conversation = this.conversations.get(message?.key);
    if (conversation) this.#tellMessages(conversation, "update", [message]);
    return this.#releaseHeld();
  }

  #onDeleted({ id, room, by }) {
    this.#held.delete(id);
    this.#deleted.add(id);
    if (this.#deleted.size > DELETED_MAX) this.#deleted.delete(this.#deleted.values().next().value);
    for (const conversation of this.conversations.values()) {
      if (room === undefined ? conversation.kind === "room" : conversation.key !== roomKey(room)) continue;
      const message = conversation.find(id);
      if (message === undefined) continue;
      markDeleted(message, by);
      this.#changed(conversation, "update", [message]);
    }
  }

  #onUsers(conversation, { users, joined, left, count }) {
    const moved = new Set([...joined, ...left]);
    const stayed = conversation.online.filter((name) => !moved.has(name));
    this.#setOnline(conversation, { users: users ?? [...stayed, ...joined], count });
  }

  #setOnline(conversation, { users, count }) {
    conversation.online = users;
    conversation.onlineCount = count ?? users.length;
    this.#tell("online", { key: conversation.key });
  }

  #onIgnored(users) {
    this.#ignored = new Set(users.map((name) => name.toLowerCase()));
    for (const each of this.conversations.values()) this.#changed(each, "update", each.messages);
  }

  /** The user is no longer in the room. */
  #leave(conversation, why) {
    this.conversations.delete(conversation.key);
    if (this.current === conversation.key) this.current = LOBBY;
    this.#tell("conversations");
    if (why) this.#notice(LOBBY, why);
    for (const { text } of this.#outbox.removeAll(conversation.key)) {
      this.#notice(LOBBY, `Your message to #${conversation.name} was perhaps not sent: ${text}`, true);
    }
  }

  // --- sending ---

  /** Show the message as pending, and send it as soon as that is possible. */
  async send(key, text) {
    const conversation = this.#get(key);
    if (this.state === "out") throw new Refusal("You are not logged in; nothing was sent.");
    const body = text.toWellFormed?.() ?? text;
    if (body.trim() === "") throw new Refusal("The message is empty; nothing was sent.", "empty_message");
    if (new TextEncoder().encode(body).length > TEXT_MAX_BYTES) {
      throw new Refusal("A message has 8,192 bytes at most; nothing was sent.", "too_long");
    }
    const to = conversation.kind === "user" ? conversation.name : "";
    const place = { key, time: this.#now(), from: this.me, to };
    this.#submit(conversation, newMessage({ ...place, nonce: this.#newNonce(), text: body, state: "pending" }));
  }

  /** Send a failed message again. It has the same nonce, so it is stored once. */
  async retry(message) {
    const conversation = this.#get(message.key);
    if (message.state !== "failed") return;
    this.drop(message);
    Object.assign(message, { state: "pending", error: "", code: "" });
    this.#submit(conversation, message);
  }

  /** Give a failed message up. */
  drop(message) {
    const conversation = this.conversations.get(message.key);
    if (message.state !== "failed") return;
    this.#outbox.remove(message.nonce);
    conversation?.remove(message);
    if (conversation) this.#tellMessages(conversation, "update", [message]);
  }

  #submit(conversation, message) {
    this.loadNewest(conversation.key).catch(() => {});
    conversation.place(message);
    this.#tellMessages(conversation, "append", [message]);
    this.#outbox.add(message);
  }

  #isHeld(message) {
    return this.isMe(message.from) && this.#outbox.mayBe(message);
  }

  #releaseHeld() {
    for (const message of [...this.#held.values()]) {
      if (this.#isHeld(message)) continue;
      this.#held.delete(message.id);
      const conversation = this.conversations.get(message.key);
      if (conversation && !conversation.find(message.id)) this.#show(conversation, message);
    }
  }

  // --- history ---

  /** Make the conversation with a user, if there is such a user. */
  async meet(key) {
    if (this.conversations.has(key)) return;
    if (!key.startsWith("user:")) throw new Refusal(`You are not in ${key}.`);
    const { username } = await this.act("user", { username: key.slice(5) }, "user");
    this.#ensure(key, "user", username);
    this.#tell("conversations");
  }

  /** Show this conversation, and load its newest messages. "user:bob" is made if there is such a user. */
  async open(key) {
    await this.meet(key);
    this.current = key;
    const { kind, isLoaded } = this.#get(key);
    if (kind === "room") this.#askOnline(key);
    if (!isLoaded) await this.#loadOlder(key, false);
    return key;
  }

  /** Load the messages before the window. */
  loadOlder(key) {
    return this.#loadOlder(key, false);
  }

  async #loadOlder(key, isBackground) {
    const conversation = this.#get(key);
    if (conversation.isLoading || !conversation.hasOlder) return;
    const { isLoaded, before } = conversation;
    await this.#load(conversation, { before }, isBackground, (found, page) => {
      conversation.addOlder(found, page.from);
      this.#changed(conversation, isLoaded ? "prepend" : "reset", found);
    });
  }

  /** Load the messages after a window that does not end with the newest one. */
  async loadNewer(key) {
    const conversation = this.#get(key);
    if (conversation.isLoading || !conversation.hasNewer) return;
    await this.#load(conversation, { after: conversation.endId }, false, (found, page) => {
      conversation.addNewer(found, page.isEnd);
      this.#changed(conversation, "append", found);
    });
  }

  /** Show the oldest unread messages, if they are before the window. */
  async loadUnread(key) {
    const conversation = this.#get(key);
    const { generation, readId, mayHaveUnreadBefore } = conversation;
    if (!mayHaveUnreadBefore) return;
    const older = await this.#askHistory(conversation, { before: readId + 1 });
    const newer = await this.#askUntilFound(conversation, { after: readId });
    if (conversation.generation !== generation) return;
    conversation.jump(this.#admit(conversation, older.messages), older.from);
    conversation.addNewer(this.#admit(conversation, newer.messages), newer.isEnd);
    this.#changed(conversation, "reset", conversation.messages);
  }

  /** Show the newest messages. */
  async loadNewest(key) {
    const conversation = this.#get(key);
    if (!conversation.hasNewer) return;
    conversation.attach();
    this.#changed(conversation, "reset", conversation.messages);
    if (conversation.messages.length < PAGE_MESSAGES / 2) await this.loadOlder(key);
  }

  /** Show the messages around this one. */
  async jumpTo(key, id) {
    const conversation = this.#get(key);
    if (conversation.messages.some((each) => each.id === id)) return;
    const { generation } = conversation;
    const older = await this.#askHistory(conversation, { before: id + 1 });
    const newer = await this.#askHistory(conversation, { after: id });
    if (conversation.generation !== generation) return;
    const found = this.#admit(conversation, older.messages);
    if (!found.some((each) => each.id === id)) throw new Refusal("The message is no longer there.");
    conversation.jump(found, older.from);
    conversation.addNewer(this.#admit(conversation, newer.messages), newer.isEnd);
    this.#changed(conversation, "reset", conversation.messages);
  }

  /** The newest messages with all of the words, oldest first. In the lobby also direct messages: see their `key`. */
  async search(key, words, before = undefined) {
    const members = { words, before, limit: SEARCH_MESSAGES, ...this.#among(key) };
    const { messages } = await this.act("search", members, "found");
    return { messages: messages.map((each) => this.#toMessage(each)), hasOlder: messages.length === SEARCH_MESSAGES };
  }

  markRead(key, id) {
    const conversation = this.conversations.get(key);
    if (conversation === undefined || id <= conversation.readId) return;
    conversation.readId = id;
    this.#keepMarks({ [key]: id });
    this.#recount(conversation);
    this.#tell("conversations");
  }

  /** Another tab of this browser has changed the read marks. */
  readMarksAgain() {
    if (this.me === null) return;
    this.#marks = this.#storage.readMarks(this.me, this.#historyId);
    for (const each of this.conversations.values()) {
      each.readId = Math.max(each.readId, this.#marks[each.key] ?? 0);
      this.#recount(each);
    }
    this.#tell("conversations");
  }

  /** Ask for pages until one has a message of the conversation. The lobby's have direct messages, too. */
  async #askUntilFound(conversation, place, isBackground = false) {
    const { generation } = conversation;
    let [next, page] = [place, { messages: [], isEnd: false }];
    while (page.messages.length === 0 && !page.isEnd && conversation.generation === generation) {
      page = await this.#askHistory(conversation, next, isBackground);
      next = "after" in place ? { after: page.endId } : { before: page.from + 1 };
    }
    return page;
  }

  async #load(conversation, place, isBackground, take) {
    const { generation } = conversation;
    conversation.isLoading = true;
    try {
      const page = await this.#askUntilFound(conversation, place, isBackground);
      if (conversation.generation === generation) take(this.#admit(conversation, page.messages), page);
    } finally {
      if (conversation.generation === generation) conversation.isLoading = false;
    }
  }

  /** A page of history. `from` and `endId` bound it: it has all messages of the conversation between them. */
  async #askHistory(conversation, place, isBackground = false) {
    const members = { limit: PAGE_MESSAGES, ...place, ...this.#among(conversation.key) };
    const { messages: found } = await this.#ask("CH", members, "history", { isBackground });
    const messages = found.map((each) => this.#toMessage(each)).filter((each) => each.key === conversation.key);
    const isEnd = found.length < PAGE_MESSAGES;
    return { messages, isEnd, from: isEnd ? 0 : found[0].id - 1, endId: found.at(-1)?.id };
  }

  /** The loaded messages that can be shown now. */
  #admit(conversation, messages) {
    return messages.filter((each) => {
      if (this.#deleted.has(each.id)) return false;
      if (conversation.find(each.id) || !this.#isHeld(each)) return true;
      this.#held.set(each.id, each);
      return false;
    });
  }

  // --- questions of the view ---

  /** Run a typed line: a message or a command. Resolves to what the view must open: {open}, {dialog} or {}. */
  async run(key, line) {
    return (await parse(line, this.#get(key), this)) ?? {};
  }

  isMe(name) {
    return this.me !== null && isSame(name, this.me);
  }

  isIgnored(name) {
    return this.#ignored.has(name.toLowerCase());
  }

  /** Unread messages of all conversations. `hasMore`: there may be more than `count`. */
  get unread() {
    const all = [...this.conversations.values()];
    const hasMore = all.some((each) => each.mayHaveMoreUnread);
    return { count: all.reduce((sum, each) => sum + each.unread, 0), hasMore, isMeant: all.some((each) => each.isMeant) };
  }

  /** Names for a message to this conversation: of users online, and first those who spoke here, the last one first. */
  namesFor({ kind, name, speakers }) {
    const online = this.#lobby.online.toSorted((one, other) => one.localeCompare(other));
    const isOnline = new Map(online.map((each) => [each.toLowerCase(), each]));
    const spoke = speakers.filter((each) => !this.isMe(each) && isOnline.has(each.toLowerCase()));
    return [...new Set([...(kind === "user" ? [name] : []), ...spoke, ...online])];
  }

  // --- helpers ---

  get #lobby() {
    return this.conversations.get(LOBBY);
  }

  #get(key) {
    const conversation = this.conversations.get(key);
    if (conversation === undefined) throw new Refusal("There is no such conversation.");
    return conversation;
  }

  /** The conversation with this key. The server delivers the messages of a new one after `lastId`. */
  #ensure(key, kind, name, lastId = this.#startId, readId = this.#firstReadId) {
    let conversation = this.conversations.get(key);
    if (conversation === undefined) {
      const mark = this.#marks[key];
      conversation = new Conversation(key, kind, name, mark ?? readId, lastId);
      conversation.seenId = lastId;
      this.conversations.set(key, conversation);
      if (mark === undefined) this.#keepMarks({ [key]: conversation.readId });
    }
    return conversation;
  }

  /** The conversation of a message; undefined if it is of a room that the user is not in. */
  #conversationOf({ key, from, to }) {
    return key.startsWith("user:")
      ? this.#ensure(key, "user", this.isMe(from) ? to : from)
      : this.conversations.get(key);
  }

  #keepMarks(marks) {
    Object.assign(this.#marks, marks);
    this.#storage.keepReadMarks(this.me, this.#historyId, marks);
  }

  #isUnread(message) {
    return !this.isMe(message.from) && !this.isIgnored(message.from);
  }

  /** True for a direct message, and for one that has the user's name as a word. */
  #isMeant(message) {
    if (message.key.startsWith("user:")) return true;
    return new RegExp(`(?<![A-Za-z0-9])${this.me}(?![A-Za-z0-9])`, "i").test(message.text);
  }

  #recount(conversation) {
    conversation.count(
      (message) => this.#isUnread(message),
      (message) => this.#isMeant(message),
    );
  }

  /** @returns {Message} */
  #toMessage({ type, id, time, from, to = "", message: text, room = LOBBY }) {
    const key = type === "direct" ? userKey(this.isMe(from) ? to : from) : roomKey(room);
    return newMessage({ id, key, time: Date.parse(time), from, to, text, state: "sent" });
  }

  /** The members of a request about the history of this conversation. */
  #among(key) {
    return key.startsWith("user:") ? { with: this.#get(key).name } : this.place(key);
  }

  #askOnline(key) {
    if (this.#counted.has(key) || this.state !== "in") return;
    this.#counted.add(key);
    this.#ask("users", this.place(key), "users", { isBackground: true }).catch(() => {});
  }

  /** Make a request of the user: now, or not at all. See Actions. */
  async act(command, members, type, options = {}) {
    if (this.state !== "in") throw new Refusal("There is no connection; nothing was done. Try again in a moment.");
    return this.#ask(command, members, type, options);
  }

  /** Ask the server. Others cause the same events, so room, names, id and author must be those of the request. */
  async #ask(command, members, type, options) {
    if (this.state === "out") throw new Refusal("You are logged out.");
    const { room, username, id } = members;
    const isAnswer = (object) =>
      object.type === type &&
      isSame(object.room ?? LOBBY, room ?? LOBBY) &&
      isSame(object.username ?? username ?? "", username ?? object.username ?? "") &&
      (object.id ?? id) === (id ?? object.id) &&
      (object.by === undefined || type === "deleted" || type === "parted" || this.isMe(object.by));
    return this.#requests.ask({ command, ...members }, isAnswer, options);
  }

  #tell(type, detail = {}) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }

  #tellMessages(conversation, change, messages) {
    this.#tell("messages", { key: conversation.key, change, messages });
  }

  #changed(conversation, change, messages) {
    this.#recount(conversation);
    this.#tellMessages(conversation, change, messages);
    this.#tell("conversations");
  }

  #notice(key, text, isError = false) {
    this.#tell("notice", { key, text, isError });
  }
}

function newMessage(members) {
  const unset = { id: null, nonce: null, error: "", code: "", isStored: false, isDeleted: false, deletedBy: "" };
  return { ...unset, ...members };
}

function markDeleted(message, by = "") {
  Object.assign(message, { isDeleted: true, deletedBy: by, text: "" });
}

function roomKey(room) {
  const key = room.toLowerCase();
  return key === LOBBY ? LOBBY : `room:${key}`;
}

function userKey(username) {
  return `user:${username.toLowerCase()}`;
}

function randomNonce() {
  return Array.from(crypto.getRandomValues(new Uint8Array(12)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
