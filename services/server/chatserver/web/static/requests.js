/**
 * Requests other than messages, and their answers.
 *
 * The wire has no number that connects an answer to its request, and an event of another user may look like one. So one
 * request is on its way at a time: an error without a nonce is then about it, and so is the first event that fits.
 * Requests wait for a login, in order; those of the user go before those that the page makes by itself. A request whose
 * answer was lost with the connection is made again after the next login, unless its effect could be another one then
 * (`isOnce`). One that is refused for its rate is made again after the time that the server names.
 */

/** A refusal by the server, or by the page itself. `message` is a sentence for the user. */
export class Refusal extends Error {
  /** @param {string} message  @param {string} code of the server, or "" @param {number} [retrySeconds] */
  constructor(message, code = "", retrySeconds = undefined) {
    super(message);
    this.code = code;
    this.retrySeconds = retrySeconds;
  }
}

/** True if both names are of the same user or room. */
export function isSame(one, other) {
  return one !== undefined && other !== undefined && one.toLowerCase() === other.toLowerCase();
}

/** True if both members `room` mean the same room; absent: the lobby. */
export function isSameRoom(one, other) {
  return isSame(one ?? "lobby", other ?? "lobby");
}

export class Requests {
  #send;
  #schedule;
  #queue = [];
  #current = null;
  #isOpen = false;
  #cancel = () => {};

  /** @param {(object: object) => void} send  @param schedule see connection.js */
  constructor(send, schedule) {
    this.#send = send;
    this.#schedule = schedule;
  }

  /**
   * Make a request. Rejects with a Refusal.
   * @param {object} request  @param {(object: object) => boolean} isAnswer
   * @returns {Promise<object>} the answer
   */
  ask(request, isAnswer, { isBackground = false, isOnce = false } = {}) {
    return new Promise((resolve, reject) => {
      this.#queue.push({ request, isAnswer, isBackground, isOnce, resolve, reject });
      this.#next();
    });
  }

  /** The user is logged in. */
  open() {
    this.#isOpen = true;
    this.#next();
  }

  /** The connection is lost. */
  pause() {
    this.#isOpen = false;
    this.#cancel();
    const current = this.#current;
    this.#current = null;
    if (current?.isOnce) current.reject(new Refusal("The connection was lost before the answer."));
    else if (current !== null) this.#queue.unshift(current);
  }

  /** Nothing will be answered any more. */
  clear(message) {
    this.pause();
    for (const { reject } of this.#queue.splice(0)) reject(new Refusal(message));
  }

  /** Take an object of the server. True if it answers or refuses the current request. */
  take(object) {
    const current = this.#current;
    if (current === null) return false;
    if (object.type !== "error") {
      if (!current.isAnswer(object)) return false;
      current.resolve(object);
    } else {
      if (object.nonce !== undefined) return false;
      if (object.room !== undefined && !isSameRoom(object.room, current.request.room)) return false;
      if (object.code === "rate_limited" && object.retry_seconds !== undefined) {
        this.#cancel = this.#schedule(() => this.#send(current.request), object.retry_seconds * 1000);
        return true;
      }
      current.reject(new Refusal(object.message, object.code, object.retry_seconds));
    }
    this.#current = null;
    this.#next();
    return true;
  }

  #next() {
    if (!this.#isOpen || this.#current !== null || this.#queue.length === 0) return;
    const first = this.#queue.findIndex((each) => !each.isBackground);
    [this.#current] = this.#queue.splice(Math.max(first, 0), 1);
    this.#send(this.#current.request);
  }
}
