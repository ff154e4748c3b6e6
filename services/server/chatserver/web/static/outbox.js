/**
 * Own messages that are neither confirmed nor given up, in the order of typing.
 *
 * Once. A message has a nonce from the beginning, and is sent again with it after each login, also after a reload of
 * the page: the server stores it once, and confirms it each time with the same id.
 *
 * Rates. At most WIRE_MAX_MESSAGES are on the wire, unanswered. A message that is refused for its rate is sent again
 * after the time that the server names. From then on, until nothing is pending, each message waits for the confirmation
 * of the one before: the server refuses no client that does so.
 */

/** @typedef {import("./conversation.js").Message} Message */

/** The server takes ten at once, and delays some more before it refuses one. */
const WIRE_MAX_MESSAGES = 8;
/** Errors after which a message is sent again on the next connection. */
const TEMPORARY = new Set(["shutting_down", "unavailable"]);

export class Outbox {
  #send;
  #keep;
  #schedule;
  /** @type {Map<string, Message>} by nonce */
  #unsent = new Map();
  /** Nonces that were sent on this connection and not answered. */
  #wire = new Set();
  #isOpen = false;
  #isCareful = false;
  #isPaused = false;
  #cancelPause = () => {};

  /** `send(message)` puts it on the wire. `keep(messages)` stores them for a reload. `schedule`: see connection.js. */
  constructor(send, keep, schedule) {
    this.#send = send;
    this.#keep = keep;
    this.#schedule = schedule;
  }

  add(message) {
    this.#unsent.set(message.nonce, message);
    this.#changed();
  }

  /** The user is logged in. */
  open() {
    this.#isOpen = true;
    this.#pump();
  }

  /** The connection is lost. */
  close() {
    this.#isOpen = this.#isPaused = false;
    this.#cancelPause();
    this.#wire.clear();
  }

  clear() {
    this.close();
    this.#unsent.clear();
    this.#isCareful = false;
  }

  /** Remove a message that is confirmed, or given up. */
  remove(nonce) {
    const message = this.#unsent.get(nonce);
    this.#unsent.delete(nonce);
    this.#wire.delete(nonce);
    this.#changed();
    return message;
  }

  /** Remove all messages to a conversation. */
  removeAll(key) {
    return [...this.#unsent.values()].filter((each) => each.key === key).map((each) => this.remove(each.nonce));
  }

  /** Take the error about a message. Returns the message if it has failed for good. */
  refuse({ nonce, code, message: error, retry_seconds: retrySeconds }) {
    const message = this.#unsent.get(nonce);
    if (message === undefined || TEMPORARY.has(code)) return undefined;
    this.#wire.delete(nonce);
    if (code === "rate_limited" && retrySeconds !== undefined) {
      this.#isCareful = this.#isPaused = true;
      this.#cancelPause();
      this.#cancelPause = this.#schedule(() => {
        this.#isPaused = false;
        this.#pump();
      }, retrySeconds * 1000);
      return undefined;
    }
    Object.assign(message, { state: "failed", error, code });
    this.#changed();
    return message;
  }

  /** True if a pending message may be this one, which the server has stored on an earlier connection. */
  mayBe({ key, text }) {
    return this.#pending().some((each) => each.key === key && each.text === text);
  }

  #pending() {
    return [...this.#unsent.values()].filter((each) => each.state === "pending");
  }

  #changed() {
    if (this.#pending().length === 0) this.#isCareful = false;
    this.#keep([...this.#unsent.values()]);
    this.#pump();
  }

  #pump() {
    if (!this.#isOpen || this.#isPaused) return;
    for (const message of this.#pending()) {
      if (this.#wire.size >= (this.#isCareful ? 1 : WIRE_MAX_MESSAGES)) return;
      if (this.#wire.has(message.nonce)) continue;
      this.#wire.add(message.nonce);
      this.#send(message);
    }
  }
}
