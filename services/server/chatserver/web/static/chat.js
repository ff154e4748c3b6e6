/**
 * The model of the page: one user of the server, over any number of connections. Without DOM.
 *
 * States. `state`:
 *
 *     out         --logIn(), resume()-----------------> connecting
 *     connecting  --login event-----------------------> in
 *     connecting  --final refusal; first login failed-> out
 *     connecting  --connection lost, other refusal----> waiting
 *     in          --connection lost-------------------> waiting
 *     in          --bye with a code, logOut()---------> out
 *     waiting     --pause is over, retryNow()---------> connecting
 *
 * A login that the user has typed is tried once: the form shows the error. All later logins, and those with a token,
 * are tried until they succeed or can't. The page logs in again with its token, or without one with the password, which
 * it keeps in memory only. A bye with a code ends the session until the user asks for it again.
 *
 * Nothing lost. A login names the newest message seen (`seenId`) of each room, the lobby and all direct messages, and
 * the server sends the later ones first. Before the first login the page knows nothing, so it names none: it loads the
 * newest page of each conversation instead. What arrived meanwhile is merged with it by id; the server delivers
 * everything after the login, so there is no gap. If the answer has its own `since`, the history is another one: later
 * messages are dropped, and the server sends what it has.
 *
 * Nothing twice. A conversation has each id once (conversation.js). An own message gets a nonce, and stays in #unsent
 * until it is confirmed or given up. It is sent again with the same nonce after each login, also after a reload of the
 * page, and the server stores it once. The server may deliver the stored one like a missed message, which has no nonce.
 * So an own message with the text of a pending one is held back (#held) until no pending message can be the same:
 * a confirmation with its id drops it.
 *
 * Rates. At most WIRE_MAX_MESSAGES are unconfirmed on the wire; so a paste of many messages is seldom refused. A
 * message that is refused for its rate stays pending, and is sent again after the time that the server names. From then
 * on, until nothing is pending, each message waits for the confirmation of the one before: the server refuses no client
 * that does so.
 *
 * Unread. Messages after the read mark of a conversation that others sent. Marks are kept in the browser, so they
 * outlive the page. A conversation without one begins with the newest message at the user's last visit (`seen_id`), or
 * with the newest of all.
 */

import { parse } from "./commands.js";
import { Backoff, schedule } from "./connection.js";
import { Conversation } from "./conversation.js";
import { isSame, Refusal, Requests } from "./requests.js";

/** @typedef {import("./conversation.js").Message} Message */

/** Login errors after which another try gets the same error. */
const FINAL = new Set([
  ...["bad_request", "bad_token", "bad_username", "banned", "invitation_required"],
  ...["password_change_required", "tls_required", "too_long", "wrong_password"],
]);
/** Errors after which a message is sent again on the next connection. */
const TEMPORARY = new Set(["shutting_down", "unavailable"]);
const WIRE_MAX_MESSAGES = 8;
/** Messages of history that are loaded at once. */
const PAGE_MESSAGES = 100;
const SEARCH_MESSAGES = 50;
/** Conversations with unread messages whose history is loaded at the login; the others are when they are opened. */
const PREFETCHED_MAX = 12;
/** Deletions that are remembered: an answer with history may be older than the deletion. */
const DELETED_MAX = 1_000;
const TEXT_MAX_BYTES = 8_192;
/** A login may wait for its turn after wrong passwords. */
const LOGIN_MS = 60_000;
const LOGOUT_MS = 3_000;
const LOBBY = "lobby";

export class Chat extends EventTarget {
  /** @type {"out" | "connecting" | "in" | "waiting"} */
  state = "out";
  me = null;
  isOperator = false;
  /** "new" if the last login has registered the name. */
  account = "existing";
  /** The sentence about the last refusal or loss, or null. */
  error = null;
  retryAt = 0;
  /** The key of the conversation that is shown. */
  current = LOBBY;
  /** @type {Map<string, Conversation>} */
  conversations = new Map();

  #openConnection;
  #storage;
  #now;
  #schedule;
  #newNonce;
  #backoff;
  #connection = null;
  #requests;
  /** The members of the next login: a token, or name and password. */
  #login = null;
  /** The promise of logIn() or resume(), until the login is decided. */
  #decide = null;
  /** A new password until the server confirms it: if the answer is lost, either may be valid. */
  #newPassword = null;
  #isLeaving = false;
  #goodbye = "";
  /** True if the connection has served the user: an event has followed the login, and the log is not unavailable. */
  #wasServed = false;
  #wasUnavailable = false;
  #cancelRetry = () => {};
  #cancelLogin = () => {};
  #historyId = "";
  #marks = {};
  #firstReadId = 0;
  #seenDirect = 0;
  /** Own messages that are neither confirmed nor given up, by nonce, in the order of typing. */
  #unsent = new Map();
  /** Nonces of those that were sent on this connection and not answered. */
  #wire = new Set();
  #isCareful = false;
  #isPaused = false;
  #cancelPause = () => {};
  #held = new Map();
  #deleted = new Set();
  #ignored = new Set();
  #foreseen = new Set();
  /** Keys of the rooms whose users online are known on this connection. */
  #counted = new Set();

  /**
   * @param {object} parts
   * @param {(handlers: object) => import("./connection.js").Connection} parts.open
   * @param {import("./storage.js").Storage} parts.storage
   */
  constructor({ open, storage, now = Date.now, schedule: scheduler = schedule, random = Math.random, newNonce = nonce }) {
    super();
    this.#openConnection = open;
    this.#storage = storage;
    this.#now = now;
    this.#schedule = scheduler;
    this.#newNonce = newNonce;
    this.#backoff = new Backoff(random);
    this.#requests = new Requests((request) => this.#connection?.send(request), scheduler);
  }

  // --- the session ---

  /** Log in, or register. Rejects with a Refusal whose code tells what the form must ask for. */
  logIn({ username, password, remember = null, invitation = "", newPassword = "" }) {
    const isOther = !isSame(username, this.me ?? username);
    this.#end("");
    if (isOther) this.#forget();
    this.#newPassword = null;
    this.#login = { username, password: password || undefined, remember: remember ?? undefined };
    if (invitation) this.#login.invitation = invitation;
    if (newPassword) this.#login.new_password = newPassword;
    return this.#begin({ isTyped: true });
  }

  /** Log in with what is known. False if that is nothing, or a token that is no longer valid. */
  async resume() {
    if (this.state !== "out") return true;
    const kept = this.#storage.token;
    if (kept !== null) {
      if (!isSame(kept.username, this.me ?? kept.username)) this.#forget();
      this.#login = { token: kept.token };
    }
    if (this.#login === null) return false;
    try {
      await this.#begin({ isTyped: false });
      return true;
    } catch (error) {
      if (error.code === "bad_token") return false;
      throw error;
    }
  }

  /** True if resume() can log in without a form. */
  get canResume() {
    return this.state === "out" && (this.#login !== null || this.#storage.token !== null);
  }

  /** Leave, and make the token of this page invalid. Unsent messages are dropped. */
  async logOut() {
    this.#isLeaving = true;
    if (this.state === "in" && this.#login.token !== undefined) {
      const cancel = this.#schedule(() => this.#requests.clear(""), LOGOUT_MS);
      try {
        const tokens = await this.tokens();
        await this.revoke(tokens.find((each) => each.current).id);
      } catch {
        // The token expires by itself.
      }
      cancel();
    }
    this.#connection?.send({ command: "EX" });
    this.#storage.token = null;
    this.#storage.keepUnsent("", []);
    this.#end("");
    this.#forget();
    this.#login = null;
    this.#isLeaving = false;
  }

  /** Try to connect now. */
  retryNow() {
    if (this.state === "waiting") this.#connect();
  }

  /** The network may be back, or the computer has slept. */
  wake() {
    this.retryNow();
    this.#connection?.check?.();
  }

  #begin({ isTyped }) {
    this.error = null;
    this.#backoff.reset();
    return new Promise((resolve, reject) => {
      this.#decide = { resolve, reject, isTyped };
      this.#connect();
    });
  }

  #connect() {
    this.#cancelRetry();
    this.#goodbye = "";
    this.#wasServed = this.#wasUnavailable = false;
    this.#setState("connecting");
    this.#connection = this.#openConnection({
      onOpen: () => this.#sendLogin(),
      onObject: (object) => this.#onObject(object),
      onClose: (reason) => this.#onClose(reason),
    });
  }

  #sendLogin() {
    const login = { command: "login", ...this.#login, rooms: true, moderation: true };
    if (this.me !== null) {
      login.since = { lobby: this.#lobby.seenId, direct: this.#seenDirect };
      for (const each of this.conversations.values()) if (each.kind === "room") login.since[each.name] = each.seenId;
      login.history_id = this.#historyId;
    }
    this.#cancelLogin = this.#schedule(() => this.#drop("the server does not answer the login"), LOGIN_MS);
    this.#connection.send(login);
  }

  /** End the connection as if it had been lost. */
  #drop(reason) {
    this.#connection.close();
    this.#onClose(reason);
  }

  #onClose(reason) {
    const wasIn = this.state === "in";
    this.#disconnect();
    if (this.#isLeaving) return this.#requests.clear("");
    if (this.#decide?.isTyped) {
      const why = this.#goodbye || "The server can't be reached. Try again in a moment.";
      return this.#refuse(new Refusal(why));
    }
    if (wasIn && this.#wasServed && !this.#wasUnavailable) this.#backoff.reset();
    this.error = this.#goodbye || sentence(reason);
    this.#wait(0);
  }

  /** Connect again after a pause, which is at least `leastMs`. */
  #wait(leastMs) {
    const pauseMs = Math.max(this.#backoff.next(), leastMs);
    this.retryAt = this.#now() + pauseMs;
    this.#cancelRetry = this.#schedule(() => this.#connect(), pauseMs);
    this.#setState("waiting");
  }

  #disconnect() {
    this.#cancelLogin();
    this.#connection?.close();
    this.#connection = null;
    this.#requests.pause();
    this.#wire.clear();
    this.#isPaused = false;
    this.#cancelPause();
    this.#counted.clear();
  }

  /** The session is over until the user asks for it again. */
  #end(error) {
    this.#disconnect();
    this.#cancelRetry();
    this.#requests.clear(error || "You are logged out.");
    this.error = error || null;
    this.#decide?.reject(new Refusal(error || "The login was cancelled."));
    this.#decide = null;
    this.#setState("out");
  }

  #refuse(error) {
    const decide = this.#decide;
    this.#decide = null;
    if (error.code === "bad_token") {
      this.#storage.token = null;
      this.#login = null;
    }
    this.#end(error.message);
    decide?.reject(error);
  }

  #onLoginRefused(object) {
    if (object.code === "wrong_password" && this.#newPassword !== null && this.#login.password !== undefined) {
      this.#login.password = this.#newPassword;
      this.#newPassword = null;
      return this.#drop("the password was changed");
    }
    const error = new Refusal(object.message, object.code, object.retry_seconds);
    if (this.#decide?.isTyped || FINAL.has(object.code)) return this.#refuse(error);
    this.#disconnect();
    this.error = error.message;
    this.#wait((object.retry_seconds ?? 0) * 1000);
  }

  #forget() {
    this.me = null;
    this.isOperator = false;
    this.conversations.clear();
    this.current = LOBBY;
    for (const kept of [this.#unsent, this.#held, this.#deleted, this.#ignored, this.#foreseen]) kept.clear();
    this.#marks = {};
    this.#newPassword = null;
    this.#isCareful = false;
    this.#tell("conversations");
  }

  #onWelcome(object) {
    const isFirst = this.me === null;
    const isOtherHistory = object.history_id !== this.#historyId;
    this.#cancelLogin();
    this.me = object.username;
    this.isOperator = object.operator === true;
    this.account = object.account;
    this.error = null;
    this.#historyId = object.history_id;
    this.#marks = this.#storage.readMarks(this.me, this.#historyId);
    this.#firstReadId = object.seen_id ?? object.last_id;
    this.#keepCredentials(object.token);
    if (isFirst) this.#seenDirect = object.last_id;
    const lobby = this.#ensure(LOBBY, "lobby", "Lobby", object.last_id);
    if (object.since !== undefined) this.#onOtherHistory(object.since, isOtherHistory);
    this.#onRooms(object.rooms ?? []);
    this.#setOnline(lobby, object);
    if (isFirst) this.#restoreUnsent();
    this.#decide?.resolve();
    this.#decide = null;
    this.#setState("in");
    this.#tell("conversations");
    this.#pump();
    this.#requests.open();
    void this.#catchUp();
  }

  #keepCredentials(token) {
    if (token !== undefined) {
      this.#login = { token };
      this.#storage.token = { username: this.me, token };
    } else if (this.#login.password !== undefined) {
      const { username, password, new_password: newPassword } = this.#login;
      this.#login = { username, password: newPassword ?? password };
    }
  }

  /** The server has lost messages, or was restored: all messages after `since` follow. */
  #onOtherHistory(since, isOtherHistory) {
    for (const each of this.conversations.values()) {
      each.cutAfter(since);
      if (isOtherHistory) each.readId = Math.min(this.#marks[each.key] ?? since, since);
      this.#recount(each);
      this.#tell("messages", { key: each.key, change: "reset", messages: each.messages });
    }
    this.#seenDirect = since;
    this.#firstReadId = Math.min(this.#firstReadId, since);
    this.#held.clear();
    this.#deleted.clear();
    this.#notice(LOBBY, "The server was restored from a backup. Messages may be missing.", true);
  }

  /** The rooms that the user is in, at a login. */
  #onRooms(rooms) {
    const keys = new Set(rooms.map(({ room }) => roomKey(room)));
    this.#foreseen.clear();
    for (const each of [...this.conversations.values()]) {
      if (each.kind !== "room" || keys.has(each.key)) continue;
      this.#foreseen.add(each.key);
      this.#leave(each, `You are no longer in #${each.name}.`);
    }
    for (const each of rooms) {
      const conversation = this.#ensure(roomKey(each.room), "room", each.room, each.last_id);
      describeRoom(conversation, each);
      conversation.lastId = Math.max(conversation.lastId, each.last_id);
    }
  }

  #restoreUnsent() {
    for (const message of this.#storage.unsent(this.me)) {
      const conversation = this.#conversationOf(message);
      if (conversation === undefined) {
        this.#notice(LOBBY, `Your message to #${message.key.slice(5)} was perhaps not sent: ${message.text}`, true);
        continue;
      }
      this.#unsent.set(message.nonce, message);
      conversation.place(message);
    }
    this.#keepUnsent();
  }

  /** Ask for what the login does not tell, and load the conversations that have unread messages. */
  async #catchUp() {
    const quiet = () => null;
    const ask = (command, type) => this.#ask(command, {}, type, true).catch(quiet);
    ask("ignored", "ignored");
    if (this.conversations.get(this.current)?.kind === "room") this.#askOnline(this.current);
    const found = await ask("conversations", "conversations");
    for (const { username, last_id: lastId } of found?.conversations ?? []) {
      const conversation = this.#ensure(userKey(username), "user", username, lastId);
      conversation.lastId = Math.max(conversation.lastId, lastId);
    }
    for (const each of this.conversations.values()) this.#recount(each);
    this.#tell("conversations");
    const unread = [...this.conversations.values()].filter((each) => each.unread > 0 && !each.isLoaded);
    unread.sort((one, other) => other.lastId - one.lastId);
    for (const { key } of [this.#lobby, ...unread.slice(0, PREFETCHED_MAX)]) {
      if (!this.conversations.get(key)?.isLoaded) await this.#loadOlder(key, true).catch(quiet);
    }
  }

  // --- events of the server ---

  #onObject(object) {
    if (object.type === "bye") return this.#onBye(object);
    if (this.state !== "in") return this.#onLoginAnswer(object);
    if (object.type !== "error") this.#wasServed = true;
    if (object.type === "error" && object.nonce !== undefined) return this.#onMessageRefused(object);
    this.#onEvent(object);
    if (this.#requests.take(object) || object.type !== "error") return;
    if (object.code === "unknown_room" && this.#foreseen.delete(roomKey(object.room ?? ""))) return;
    this.#notice(this.current, object.message, true);
  }

  #onLoginAnswer(object) {
    if (object.type === "login") this.#onWelcome(object);
    else if (object.type === "error") this.#onLoginRefused(object);
    else if (object.type === "prompt") {
      const isNew = object.account === "new";
      const text = isNew ? "This name is new: choose a password." : "This name has a password; type it.";
      this.#refuse(new Refusal(text, isNew ? "password_new" : "password_existing"));
    }
  }

  #onBye(object) {
    if (this.#isLeaving) return;
    this.#goodbye = sentence(object.reason ?? "");
    if (object.code === undefined) return;
    if (object.code === "revoked") {
      this.#storage.token = null;
      this.#login = null;
    }
    this.#end(this.#goodbye);
  }

  #onEvent(object) {
    const { type, room, by } = object;
    const conversation = this.conversations.get(room === undefined ? LOBBY : roomKey(room));
    const place = conversation?.key ?? this.current;
    const inRoom = room === undefined ? "" : ` in #${room}`;
    const why = object.reason ? `: ${object.reason}` : "";
    const target = object.username ?? object.address ?? "";
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
        return this.#onJoined(object);
      case "parted":
        return conversation && this.#leave(conversation, by ? `${by} removed you from #${room}${why}.` : "");
      case "ignored":
        return this.#onIgnored(object.users);
      case "password_changed":
        if (this.#login.password !== undefined) this.#login.password = this.#newPassword ?? this.#login.password;
        this.#newPassword = null;
        return undefined;
      case "topic":
        if (conversation === undefined) return undefined;
        conversation.topic = object.topic;
        this.#tell("conversations");
        return this.#notice(place, object.topic ? `${by} changed the topic: ${object.topic}` : `${by} removed the topic.`);
      case "invited":
        if (!this.isMe(target)) return this.#notice(place, `${by} invited ${target}.`);
        return this.#notice(this.current, `${by} invites you to #${room}; /join ${room} enters it.`);
      case "role":
        return this.#onRole(object, conversation);
      case "kicked":
        return this.#notice(place, room ? `${by} removed ${target}${why}.` : `${by} disconnected ${target}${why}.`);
      case "banned":
      case "muted":
        return this.#notice(place, `${by} ${type} ${target || "a guest"}${inRoom}${until(object)}${why}.`);
      case "unbanned":
      case "unmuted":
        return this.#notice(place, `${by} ${type} ${target}${inRoom}.`);
      case "reported": {
        const about = object.id === undefined ? target : `message ${object.id}`;
        return this.#notice(this.current, `${by} reported ${about}${inRoom}${why}.`);
      }
      default:
        return undefined;
    }
  }

  #onMessage(object) {
    const message = this.#toMessage(object);
    const conversation = this.#conversationOf(message);
    if (conversation === undefined) return;
    if (object.type === "direct") this.#seenDirect = Math.max(this.#seenDirect, message.id);
    else conversation.seenId = Math.max(conversation.seenId, message.id);
    if (this.#deleted.has(message.id) || conversation.find(message.id)) return;
    if (this.#mayBePending(message)) this.#held.set(message.id, message);
    else this.#show(conversation, message);
  }

  /** Add a message that is new to this page. */
  #show(conversation, message) {
    const isNew = message.id > Math.max(conversation.lastId, conversation.readId);
    if (conversation.place(message)) this.#tellMessages(conversation, "append", [message]);
    if (isNew && this.#isUnread(message)) {
      conversation.unread++;
      if (this.#isMeant(message)) {
        conversation.isMeant = true;
        this.#tell("meant", { key: conversation.key, message });
      }
    }
    this.#tell("conversations");
  }

  #onSent({ nonce: sentNonce, id, status, looks_public: looksPublic }) {
    const message = this.#unsent.get(sentNonce);
    if (message === undefined) return;
    this.#settle(message);
    message.state = "sent";
    message.isStored = status === "stored";
    const conversation = this.conversations.get(message.key);
    if (conversation !== undefined) {
      if (conversation.kind === "user") this.#seenDirect = Math.max(this.#seenDirect, id);
      else conversation.seenId = Math.max(conversation.seenId, id);
      const shown = conversation.confirm(message, id);
      this.#held.delete(id);
      if (this.#deleted.has(id)) markDeleted(shown, "");
      this.#tellMessages(conversation, "update", [shown]);
      this.#tell("conversations");
    }
    if (looksPublic) this.#notice(message.key, `${message.to} is a guest, who can't see that the message is private.`);
    this.#releaseHeld();
    this.#pump();
  }

  #onMessageRefused(object) {
    const message = this.#unsent.get(object.nonce);
    if (message === undefined) return;
    if (object.code === "rate_limited" && object.retry_seconds !== undefined) {
      this.#wire.delete(object.nonce);
      this.#isCareful = this.#isPaused = true;
      this.#cancelPause();
      this.#cancelPause = this.#schedule(() => {
        this.#isPaused = false;
        this.#pump();
      }, object.retry_seconds * 1000);
    } else if (object.code === "unavailable") {
      this.#wasUnavailable = true;
      this.#drop(object.message);
    } else if (!TEMPORARY.has(object.code)) {
      this.#settle(message, { isKept: true });
      message.state = "failed";
      message.error = object.message;
      message.code = object.code;
      this.#keepUnsent();
      const conversation = this.conversations.get(message.key);
      if (conversation) this.#tellMessages(conversation, "update", [message]);
      this.#releaseHeld();
      this.#pump();
    }
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
      this.#recount(conversation);
      this.#tellMessages(conversation, "update", [message]);
      this.#tell("conversations");
    }
  }

  #onUsers(conversation, object) {
    if (object.users === undefined) {
      const moved = new Set([...object.joined, ...object.left]);
      const stayed = conversation.online.filter((name) => !moved.has(name));
      this.#setOnline(conversation, { users: [...stayed, ...object.joined], count: object.count });
    } else this.#setOnline(conversation, object);
  }

  #setOnline(conversation, { users, count }) {
    conversation.online = users;
    conversation.onlineCount = count ?? users.length;
    this.#tell("online", { key: conversation.key });
  }

  #onJoined(object) {
    const conversation = this.#ensure(roomKey(object.room), "room", object.room, object.last_id, object.last_id);
    describeRoom(conversation, object);
    conversation.lastId = Math.max(conversation.lastId, object.last_id);
    this.#counted.add(conversation.key);
    this.#setOnline(conversation, object);
    this.#tell("conversations");
  }

  #onRole({ room, username, role, by }, conversation) {
    if (this.isMe(username) && room === undefined) this.isOperator = role === "operator";
    if (this.isMe(username) && room !== undefined && conversation) conversation.role = role;
    const where = room === undefined ? "of the server" : `of #${room}`;
    const what = role === "member" ? `no operator ${where} any more` : `${role} ${where}`;
    this.#notice(conversation?.key ?? this.current, `${username} is now ${what}${by ? `, says ${by}` : ""}.`);
    this.#tell("state");
    this.#tell("conversations");
  }

  #onIgnored(users) {
    this.#ignored = new Set(users.map((name) => name.toLowerCase()));
    for (const each of this.conversations.values()) {
      this.#recount(each);
      this.#tellMessages(each, "update", each.messages);
    }
    this.#tell("conversations");
  }

  /** The user is no longer in the room. */
  #leave(conversation, why) {
    this.conversations.delete(conversation.key);
    const lost = [...this.#unsent.values()].filter((each) => each.key === conversation.key);
    for (const message of lost) this.#settle(message);
    if (this.current === conversation.key) this.current = LOBBY;
    this.#tell("conversations");
    if (why) this.#notice(LOBBY, why);
    for (const { text } of lost) {
      this.#notice(LOBBY, `Your message to #${conversation.name} was perhaps not sent: ${text}`, true);
    }
  }

  // --- sending ---

  /** Show the message as pending, and send it as soon as that is possible. */
  async send(key, text) {
    const conversation = this.#get(key);
    if (this.state === "out") throw new Refusal("You are not logged in; nothing was sent.");
    const wellFormed = text.toWellFormed?.() ?? text;
    if (wellFormed.trim() === "") throw new Refusal("The message is empty; nothing was sent.", "empty_message");
    if (new TextEncoder().encode(wellFormed).length > TEXT_MAX_BYTES) {
      throw new Refusal("A message has 8,192 bytes at most; nothing was sent.", "too_long");
    }
    const message = {
      ...{ id: null, nonce: this.#newNonce(), key, time: this.#now(), from: this.me, text: wellFormed },
      ...{ to: conversation.kind === "user" ? conversation.name : "", state: "pending", error: "", code: "" },
      ...{ isStored: false, isDeleted: false, deletedBy: "" },
    };
    this.#enqueue(message, conversation);
  }

  /** Send a failed message again. It has the same nonce, so it is stored once. */
  async retry(message) {
    if (message.state !== "failed") return;
    const conversation = this.#get(message.key);
    this.drop(message);
    message.state = "pending";
    message.error = message.code = "";
    this.#enqueue(message, conversation);
  }

  /** Give a failed message up. */
  drop(message) {
    if (message.state !== "failed") return;
    const conversation = this.conversations.get(message.key);
    this.#settle(message);
    conversation?.remove(message);
    if (conversation) this.#tellMessages(conversation, "update", [message]);
  }

  #enqueue(message, conversation) {
    this.#unsent.set(message.nonce, message);
    this.#keepUnsent();
    if (conversation.hasNewer) this.loadNewest(conversation.key).catch(() => {});
    conversation.place(message);
    this.#tellMessages(conversation, "append", [message]);
    this.#pump();
  }

  /** Send what may be on the wire now. */
  #pump() {
    if (this.state !== "in" || this.#isPaused) return;
    const most = this.#isCareful ? 1 : WIRE_MAX_MESSAGES;
    for (const message of this.#unsent.values()) {
      if (this.#wire.size >= most) return;
      if (message.state !== "pending" || this.#wire.has(message.nonce)) continue;
      this.#wire.add(message.nonce);
      const body = { message: message.text, nonce: message.nonce };
      if (message.to) this.#connection.send({ command: "DM", to: message.to, ...body });
      else this.#connection.send({ command: "PM", ...this.#room(message.key), ...body });
    }
  }

  /** The message is answered, or given up. */
  #settle(message, { isKept = false } = {}) {
    if (!isKept) this.#unsent.delete(message.nonce);
    this.#wire.delete(message.nonce);
    if (![...this.#unsent.values()].some((each) => each.state === "pending" && each !== message)) this.#isCareful = false;
    this.#keepUnsent();
  }

  #keepUnsent() {
    this.#storage.keepUnsent(this.me, [...this.#unsent.values()]);
  }

  /** True if the server may have stored a pending message as this one, on an earlier connection. */
  #mayBePending(message) {
    if (!this.isMe(message.from)) return false;
    return [...this.#unsent.values()].some(
      (each) => each.state === "pending" && each.key === message.key && each.text === message.text,
    );
  }

  #releaseHeld() {
    for (const message of [...this.#held.values()]) {
      if (this.#mayBePending(message)) continue;
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
    const { username } = await this.#act("user", { username: key.slice(5) }, "user");
    this.#ensure(key, "user", username, 0);
    this.#tell("conversations");
  }

  /** Show this conversation: "user:bob" is made if there is such a user. */
  async open(key) {
    await this.meet(key);
    this.current = key;
    const conversation = this.#get(key);
    if (conversation.kind === "room") this.#askOnline(key);
    if (!conversation.isLoaded) await this.#loadOlder(key, false);
    return key;
  }

  /** Load the messages before the window. */
  loadOlder(key) {
    return this.#loadOlder(key, false);
  }

  async #loadOlder(key, isBackground) {
    const conversation = this.#get(key);
    if (conversation.isLoading || !conversation.hasOlder) return;
    await this.#load(conversation, async (isCurrent) => {
      let before = conversation.isLoaded ? conversation.firstId : undefined;
      for (;;) {
        const { found, isEnd, firstId } = await this.#askHistory(conversation, { before }, isBackground);
        if (!isCurrent()) return;
        if (found.length > 0 || isEnd) {
          const change = conversation.isLoaded ? "prepend" : "reset";
          conversation.addOlder(found, !isEnd);
          return this.#loaded(conversation, change, found);
        }
        before = firstId;
      }
    });
  }

  /** Load the messages after a window that does not end with the newest one. */
  async loadNewer(key) {
    const conversation = this.#get(key);
    if (conversation.isLoading || !conversation.hasNewer) return;
    await this.#load(conversation, async (isCurrent) => {
      let after = conversation.endId ?? 0;
      for (;;) {
        const { found, isEnd, lastId } = await this.#askHistory(conversation, { after }, false);
        if (!isCurrent()) return;
        if (found.length > 0 || isEnd) {
          conversation.addNewer(found, isEnd);
          return this.#loaded(conversation, "append", found);
        }
        after = lastId;
      }
    });
  }

  /** Show the newest messages. */
  async loadNewest(key) {
    const conversation = this.#get(key);
    if (!conversation.hasNewer) return;
    conversation.attach();
    conversation.isLoading = false;
    this.#loaded(conversation, "reset", conversation.messages);
    if (conversation.messages.length < PAGE_MESSAGES / 2) await this.loadOlder(key);
  }

  /** Show the messages around this one. */
  async jumpTo(key, id) {
    const conversation = this.#get(key);
    if (conversation.messages.some((each) => each.id === id)) return;
    const generation = conversation.generation;
    const before = await this.#askHistory(conversation, { before: id + 1 }, false);
    const after = await this.#askHistory(conversation, { after: id }, false);
    if (conversation.generation !== generation) return;
    if (!before.found.some((each) => each.id === id)) throw new Refusal("The message is no longer there.");
    conversation.jump(before.found, !before.isEnd);
    conversation.addNewer(after.found, after.isEnd);
    conversation.isLoading = false;
    this.#loaded(conversation, "reset", conversation.messages);
  }

  /** The newest messages with all of the words, oldest first. In the lobby also direct messages: see their `key`. */
  async search(key, words, before = undefined) {
    const limit = SEARCH_MESSAGES;
    const members = { words, limit, before, ...this.#room(key), ...this.#with(key) };
    const { messages } = await this.#act("search", members, "found");
    return { messages: messages.map((each) => this.#toMessage(each)), hasOlder: messages.length === limit };
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

  async #load(conversation, load) {
    const { generation } = conversation;
    const isCurrent = () => conversation.generation === generation && this.conversations.get(conversation.key) === conversation;
    conversation.isLoading = true;
    try {
      await load(isCurrent);
    } finally {
      if (isCurrent()) conversation.isLoading = false;
    }
  }

  /** A page of history. The lobby's has direct messages, too, so `found` may be empty before the end. */
  async #askHistory(conversation, place, isBackground) {
    const { key } = conversation;
    const members = { limit: PAGE_MESSAGES, ...place, ...this.#room(key), ...this.#with(key) };
    const { messages } = await this.#ask("CH", members, "history", isBackground);
    const found = [];
    for (const message of messages.map((each) => this.#toMessage(each))) {
      if (message.key !== key || this.#deleted.has(message.id)) continue;
      if (!conversation.find(message.id) && this.#mayBePending(message)) this.#held.set(message.id, message);
      else found.push(message);
    }
    const isEnd = messages.length < PAGE_MESSAGES;
    return { found, isEnd, firstId: messages[0]?.id, lastId: messages.at(-1)?.id };
  }

  #loaded(conversation, change, messages) {
    this.#recount(conversation);
    this.#tellMessages(conversation, change, messages);
    this.#tell("conversations");
  }

  // --- rooms, moderation, account ---

  async join(name, isPrivate = false) {
    if (isSame(name, LOBBY)) return LOBBY;
    const { room } = await this.#act("join", { room: name, private: isPrivate || undefined }, "joined");
    return roomKey(room);
  }

  async part(key) {
    if (!key.startsWith("room:")) throw new Refusal("Every user is in the lobby, and stays there.");
    await this.#act("part", this.#room(key), "parted");
  }

  async setTopic(key, topic) {
    await this.#act("topic", { topic, ...this.#inRoom(key) }, "topic");
  }

  async invite(key, username) {
    await this.#act("invite", { username, ...this.#inRoom(key) }, "invited");
  }

  async op(key, username) {
    await this.#act("op", { username, ...this.#inRoom(key) }, "role");
  }

  async deop(key, username) {
    await this.#act("deop", { username, ...this.#inRoom(key) }, "role");
  }

  async kick(key, username, reason = "") {
    await this.#act("kick", { username, ...this.#room(key), ...because(reason) }, "kicked");
  }

  /** `target` is a user, an address or a network. `seconds` is null for ever. */
  async ban(key, target, seconds = null, reason = "") {
    const members = { ...whom(target), seconds: seconds ?? undefined, ...because(reason) };
    await this.#act("ban", { ...members, ...this.#place(key, target) }, "banned");
  }

  async unban(key, target) {
    await this.#act("unban", { ...whom(target), ...this.#place(key, target) }, "unbanned");
  }

  async mute(key, username, seconds = null, reason = "") {
    const members = { username, seconds: seconds ?? undefined, ...because(reason) };
    await this.#act("mute", { ...members, ...this.#room(key) }, "muted");
  }

  async unmute(key, username) {
    await this.#act("unmute", { username, ...this.#room(key) }, "unmuted");
  }

  async deleteMessage(key, id) {
    await this.#act("delete", { id, ...this.#room(key) }, "deleted");
  }

  /** `about` is {id} or {username}. */
  async report(key, about, reason = "") {
    await this.#act("report", { ...about, ...this.#room(key), ...because(reason) }, "reported");
  }

  async ignore(username) {
    await this.#act("ignore", { username }, "ignored");
  }

  async unignore(username) {
    await this.#act("unignore", { username }, "ignored");
  }

  async ignored() {
    return (await this.#act("ignored", {}, "ignored")).users;
  }

  async rooms() {
    return (await this.#act("rooms", {}, "rooms")).rooms;
  }

  async bans(key) {
    return (await this.#act("bans", this.#room(key), "bans")).bans;
  }

  async audit(before = undefined) {
    return (await this.#act("audit", { before }, "audit")).acts;
  }

  async tokens() {
    return (await this.#act("tokens", {}, "tokens")).tokens;
  }

  /** `id` is that of a token, or "all": all but the one of this page. */
  async revoke(id) {
    return (await this.#act("revoke", { id }, "tokens")).tokens;
  }

  async changePassword(old, password) {
    this.#newPassword = password;
    try {
      await this.#act("change_password", { old, new: password }, "password_changed");
    } catch (error) {
      this.#newPassword = null;
      throw error;
    }
  }

  /** Run a typed line: a message or a command. What the view must open then, if anything. */
  async run(key, line) {
    return (await parse(line, this.#get(key), this)) ?? {};
  }

  // --- questions of the view ---

  isMe(name) {
    return isSame(name, this.me ?? undefined);
  }

  isIgnored(name) {
    return this.#ignored.has(name.toLowerCase());
  }

  /** Unread messages of all conversations. */
  get unread() {
    const all = [...this.conversations.values()];
    return { count: all.reduce((sum, each) => sum + each.unread, 0), isMeant: all.some((each) => each.isMeant) };
  }

  /** All names that are known: users online, and those of direct messages. */
  names() {
    const all = [...this.conversations.values()];
    const names = all.flatMap((each) => (each.kind === "user" ? [each.name] : each.online));
    return [...new Set(names)].sort((one, other) => one.localeCompare(other));
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

  /** The conversation with this key; a new one has seen everything up to `lastId`. */
  #ensure(key, kind, name, lastId, readId = this.#firstReadId) {
    let conversation = this.conversations.get(key);
    if (conversation === undefined) {
      const mark = this.#marks[key];
      conversation = new Conversation(key, kind, name, mark ?? readId);
      conversation.seenId = lastId;
      this.conversations.set(key, conversation);
      if (mark === undefined) this.#keepMarks({ [key]: conversation.readId });
    }
    return conversation;
  }

  #conversationOf(message) {
    const { key } = message;
    if (!key.startsWith("user:")) return this.conversations.get(key);
    return this.#ensure(key, "user", this.isMe(message.from) ? message.to : message.from, 0);
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
  #toMessage(object) {
    const { id, time, from, to = "", message: text, room } = object;
    const isDirect = object.type === "direct";
    const other = this.isMe(from) ? to : from;
    return {
      ...{ id, nonce: null, time: Date.parse(time), from, to, text, state: "sent", error: "", code: "" },
      key: isDirect ? userKey(other) : room === undefined ? LOBBY : roomKey(room),
      ...{ isStored: false, isDeleted: false, deletedBy: "" },
    };
  }

  /** The member `room` of a request about this conversation. */
  #room(key) {
    return key.startsWith("room:") ? { room: this.conversations.get(key)?.name ?? key.slice(5) } : {};
  }

  #inRoom(key) {
    if (!key.startsWith("room:")) throw new Refusal("This works in a room only. Nothing was done.");
    return this.#room(key);
  }

  /** The same for a ban: that of an address is always of the server. */
  #place(key, target) {
    return whom(target).address === undefined ? this.#room(key) : {};
  }

  #with(key) {
    return key.startsWith("user:") ? { with: this.#get(key).name } : {};
  }

  #askOnline(key) {
    if (this.#counted.has(key) || this.state !== "in") return;
    this.#counted.add(key);
    this.#ask("users", this.#room(key), "users", true).catch(() => {});
  }

  /** A request of the user: not later than now. */
  async #act(command, members, type) {
    if (this.state !== "in") throw new Refusal("There is no connection; nothing was done. Try again in a moment.");
    return this.#ask(command, members, type, false);
  }

  /** Ask the server. Others cause the same events, so room, names, id and author must be those of the request. */
  async #ask(command, members, type, isBackground) {
    if (this.state === "out") throw new Refusal("You are logged out.");
    const { room, username, id } = members;
    const isAnswer = (object) =>
      object.type === type &&
      isSame(object.room ?? LOBBY, room ?? LOBBY) &&
      (object.username === undefined || username === undefined || isSame(object.username, username)) &&
      (object.id === undefined || id === undefined || object.id === id) &&
      (object.by === undefined || type === "deleted" || type === "parted" || this.isMe(object.by));
    return this.#requests.ask({ command, ...members }, isAnswer, isBackground);
  }

  #setState(state) {
    this.state = state;
    this.#tell("state");
  }

  #tell(type, detail = {}) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }

  #tellMessages(conversation, change, messages) {
    this.#tell("messages", { key: conversation.key, change, messages });
  }

  #notice(key, text, isError = false) {
    this.#tell("notice", { key, text, isError });
  }
}

function roomKey(room) {
  const key = room.toLowerCase();
  return key === LOBBY ? LOBBY : `room:${key}`;
}

function userKey(username) {
  return `user:${username.toLowerCase()}`;
}

function nonce() {
  return Array.from(crypto.getRandomValues(new Uint8Array(12)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function describeRoom(conversation, { room, topic, private: isPrivate = false, role = "member" }) {
  Object.assign(conversation, { name: room, topic, isPrivate, role });
}

function markDeleted(message, by) {
  message.isDeleted = true;
  message.deletedBy = by ?? "";
  message.text = "";
}

function whom(target) {
  return /[.:/]/.test(target) ? { address: target } : { username: target };
}

function because(reason) {
  return reason ? { reason } : {};
}

function until({ until: time, type }) {
  if (type !== "banned" && type !== "muted") return "";
  return time === undefined ? " for ever" : ` until ${new Date(time).toLocaleString()}`;
}

function sentence(text) {
  const begun = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?]$/.test(begun) || begun === "" ? begun : `${begun}.`;
}
