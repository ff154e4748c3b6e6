/**
 * A server for the tests of the page's model: the promises of docs/wire/json.md in a hundred lines, without a network.
 *
 * Each object is on its way until step() delivers it, so a test can cut a connection between any two. A cut loses what
 * is on its way, in both directions. Time stands still until advance().
 */

export class Clock {
  ms = 0;
  #timers = new Set();

  schedule = (action, ms) => {
    const timer = { at: this.ms + ms, action };
    this.#timers.add(timer);
    return () => this.#timers.delete(timer);
  };

  advance(ms) {
    const end = this.ms + ms;
    for (;;) {
      const due = [...this.#timers].filter((each) => each.at <= end).sort((one, other) => one.at - other.at);
      if (due.length === 0) break;
      this.#timers.delete(due[0]);
      this.ms = due[0].at;
      due[0].action();
    }
    this.ms = end;
  }
}

/** A store of the browser. */
export class MemoryStore {
  #items = new Map();
  getItem = (name) => this.#items.get(name) ?? null;
  setItem = (name, value) => this.#items.set(name, value);
  removeItem = (name) => this.#items.delete(name);
}

/** Numbers from 0 to 1 that a seed decides (mulberry32). */
export function randomOf(seed) {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
}

/** Let all promises that can go on do so. */
export async function settle() {
  for (let round = 0; round < 30; round++) await null;
}

export class FakeServer {
  /** All messages as events, oldest first, and the ids of deleted ones. */
  log = [];
  deleted = [];
  historyId = "a".repeat(16);
  /** The rooms that the user of the page is in. */
  rooms = new Set(["dev"]);
  /** The keys of rooms that have one. */
  keys = {};
  /** What a prompt tells of the name. */
  account = "existing";
  /** All connections; and everything that reached the server. */
  links = [];
  received = [];
  /** An error instead of the answer to a message: (request) => object | undefined. */
  refuse = () => undefined;
  acceptsConnections = true;
  /** Why not: see explain.js. */
  explanation = undefined;
  /** True if it does not know what another history has in common with its own. */
  isForgetful = false;
  #nonces = new Map();
  #tokens = 0;
  /** The newest message that each earlier history has in common with this one. */
  #sharedIds = new Map();

  constructor(username) {
    this.username = username;
  }

  get link() {
    return this.links.at(-1);
  }

  get lastId() {
    return this.log.at(-1)?.id ?? 0;
  }

  open = (handlers) => {
    const link = { handlers, up: [], down: [], isOpen: true, isIn: false };
    this.links.push(link);
    if (this.acceptsConnections) link.down.push("open");
    else link.down.push("close");
    link.send = (object) => link.isOpen && link.up.push(JSON.parse(JSON.stringify(object)));
    link.close = () => (link.isOpen = false);
    return link;
  };

  /** Deliver the next object in one direction. False if none is on its way. */
  step(isUp) {
    const { link } = this;
    const queue = isUp ? link?.up : link?.down;
    if (!link?.isOpen || queue.length === 0) return false;
    const object = queue.shift();
    if (isUp) this.#onRequest(link, object);
    else if (object === "open") link.handlers.onOpen();
    else if (object === "close") this.cut("refused", this.explanation);
    else link.handlers.onObject(object);
    return true;
  }

  /** Deliver everything. */
  async run() {
    for (;;) {
      await settle();
      if (!this.step(true) && !this.step(false)) break;
    }
  }

  /** Deliver until the page has sent something. */
  async upTo() {
    while (this.link.up.length === 0 && this.step(false)) await settle();
  }

  cut(reason = "cut", explanation = undefined) {
    const { link } = this;
    if (!link?.isOpen) return;
    link.isOpen = link.isIn = false;
    link.handlers.onClose(explanation?.reason ?? reason, explanation);
  }

  /** Send an event to the page, if it is logged in. */
  tell(event) {
    if (this.link?.isOpen && this.link.isIn) this.link.down.push(event);
  }

  /** A message of anybody; also one of the page's user from another device. `place`: {room}, {to} or {}. */
  say(from, place, message) {
    return this.#append(from, place, message, true);
  }

  #append(from, place, message, isTold) {
    const type = place.to === undefined ? "broadcast" : "direct";
    const time = new Date(1_700_000_000_000 + this.log.length).toISOString();
    const event = { type, id: this.lastId + 1, time, from, message, ...place };
    this.log.push(event);
    if (isTold && this.isVisible(event)) this.tell(event);
    return event;
  }

  delete(id) {
    const event = this.log.find((each) => each.id === id);
    this.deleted.push(id);
    if (this.isVisible(event)) this.tell({ type: "deleted", id, by: "op", room: event.room });
  }

  /** The page's user leaves a room, or enters it again, on another device. */
  toggle(room) {
    if (this.rooms.delete(room)) return this.tell({ type: "parted", room });
    this.rooms.add(room);
    return this.tell(this.#joined(room));
  }

  /** The server is restored from a backup: messages after this id are lost. */
  restore(id) {
    this.cut();
    this.log = this.log.filter((each) => each.id <= id);
    this.deleted = this.deleted.filter((each) => each <= id);
    for (const [nonce, each] of this.#nonces) if (each > id) this.#nonces.delete(nonce);
    this.#sharedIds.set(this.historyId, id);
    for (const [each, sharedId] of this.#sharedIds) this.#sharedIds.set(each, Math.min(sharedId, id));
    this.historyId = `history${this.#sharedIds.size}`.padEnd(16, "0");
  }

  /** The id of the message that the page has sent with this nonce. */
  idOf = (nonce) => this.#nonces.get(nonce);

  isVisible({ type, room, from, to }) {
    if (type === "direct") return [from, to].includes(this.username);
    return room === undefined || this.rooms.has(room);
  }

  /** The messages that the user may see in one conversation, by its key. */
  messages(key) {
    return this.log.filter((each) => this.isVisible(each) && keyOf(each, this.username) === key);
  }

  #isKept = (event) => !this.deleted.includes(event.id);

  #onRequest(link, request) {
    this.received.push(request);
    const { command, room, nonce } = request;
    const answer = (object) => link.down.push(object);
    if (command === "login" && request.password === undefined && request.token === undefined) {
      link.login = request;
      return answer({ type: "prompt", field: "password", account: this.account });
    }
    if (command === "login" || command === "password") return this.#onLogin(link, { ...link.login, ...request });
    if (command === "PM" || command === "DM") return this.#onMessage(request, answer);
    const lobbyOr = room === undefined ? {} : { room };
    switch (command) {
      case "CH":
        return answer({ type: "history", ...lobbyOr, messages: this.#history(request) });
      case "users":
        return answer({ type: "users", ...lobbyOr, users: [this.username], joined: [], left: [] });
      case "user":
        return answer({ type: "user", username: request.username, online: false });
      case "ignored":
        return answer({ type: "ignored", users: [] });
      case "conversations":
        return answer({ type: "conversations", conversations: this.#conversations() });
      case "join":
        if (request.key !== (this.keys[room] ?? request.key)) {
          return answer({ type: "error", code: "wrong_key", message: "no", room });
        }
        this.rooms.add(room);
        return answer(this.#joined(room));
      case "part":
        this.rooms.delete(room);
        return answer({ type: "parted", room });
      case "tokens":
      case "revoke":
        return answer({ type: "tokens", tokens: [{ id: "t1", label: "here", current: true }] });
      default:
        return answer({ type: "error", code: "unknown_command", message: `no ${command}`, nonce });
    }
  }

  #joined(room) {
    const lastId = this.log.findLast((each) => each.room === room)?.id ?? 0;
    return { type: "joined", room, topic: "", users: [this.username], last_id: lastId };
  }

  #onLogin(link, { since, history_id: historyId, remember }) {
    const isOther = since !== undefined && historyId !== this.historyId;
    const after = isOther ? this.#sinceOfOther(since, historyId) : undefined;
    const rooms = [...this.rooms].map((room) => {
      const { topic, last_id } = this.#joined(room);
      return { room, topic, last_id };
    });
    link.isIn = true;
    link.down.push({
      ...{ type: "login", account: "existing", username: this.username, users: [this.username], rooms },
      ...{ last_id: this.lastId, history_id: this.historyId, since: after },
      ...(remember ? { token: `token${++this.#tokens}` } : {}),
    });
    if (since === undefined) return;
    const sinceOf = ({ type, room }) => (type === "direct" ? since.direct : since[room ?? "lobby"]) ?? Infinity;
    for (const event of this.log.filter((each) => this.isVisible(each) && this.#isKept(each))) {
      const isMissed = event.id > Math.min(sinceOf(event), after ?? Infinity);
      if (isOther && this.isForgetful ? event.id > after : isMissed) link.down.push(event);
    }
    for (const id of this.deleted) {
      const event = this.log.find((each) => each.id === id);
      if (this.isVisible(event)) link.down.push({ type: "deleted", id, by: "op", room: event.room });
    }
    for (const room of Object.keys(since)) {
      if (["lobby", "direct"].includes(room) || this.rooms.has(room)) continue;
      link.down.push({ type: "error", code: "unknown_room", message: "no such room", room });
    }
  }

  /** The `since` of the answer to a login that names another history. */
  #sinceOfOther(since, historyId) {
    if (this.isForgetful) return Math.max(0, this.lastId - 50);
    return Math.min(Math.max(...Object.values(since)), this.#sharedIds.get(historyId));
  }

  #onMessage({ room, to, message, nonce }, answer) {
    const known = this.#nonces.get(nonce);
    const error = this.refuse({ room, to, message, nonce });
    if (known === undefined && error !== undefined) return answer({ type: "error", nonce, message: "no", ...error });
    if (room !== undefined && !this.rooms.has(room)) {
      return answer({ type: "error", code: "not_a_member", message: "not a member", room, nonce });
    }
    const place = to === undefined ? (room === undefined ? {} : { room }) : { to };
    const id = known ?? this.#append(this.username, place, message, false).id;
    this.#nonces.set(nonce, id);
    return answer({ type: "sent", id, status: "sent", nonce });
  }

  #history({ limit, before = Infinity, after = -1, room, with: other }) {
    const found = this.log.filter((event) => {
      if (!this.#isKept(event) || !this.isVisible(event) || event.id >= before || event.id <= after) return false;
      if (other !== undefined) return event.type === "direct" && [event.from, event.to].includes(other);
      return event.room === room;
    });
    return after >= 0 ? found.slice(0, limit) : found.slice(-limit);
  }

  #conversations() {
    const newest = new Map();
    for (const { type, id, from, to } of this.log) {
      if (type !== "direct" || ![from, to].includes(this.username)) continue;
      newest.set(from === this.username ? to : from, id);
    }
    return [...newest].map(([username, id]) => ({ username, last_id: id })).reverse();
  }
}

export function keyOf({ type, room, from, to }, me) {
  if (type === "direct") return `user:${from === me ? to : from}`;
  return room === undefined ? "lobby" : `room:${room}`;
}
