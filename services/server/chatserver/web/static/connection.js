/**
 * One connection to the server: JSON objects over a WebSocket, and the check that the server is still there.
 *
 * A lost network closes no socket. After SILENCE_MS without an object the connection sends a ping; if nothing arrives
 * within ANSWER_MS, it ends. Both times are counted by timers, not by the clock, so a computer that slept does not
 * drop a connection whose data is waiting to be read.
 *
 * onClose is called exactly once. After close() no handler is called. If the server refused the connection, onClose also
 * has the explanation, which may take a moment (explain.js).
 */

import { explain } from "./explain.js";

/** The server sends `users` every 30 s. */
const SILENCE_MS = 35_000;
const ANSWER_MS = 15_000;
/** The same after check(): the user is waiting. */
const CHECKED_ANSWER_MS = 5_000;
const OPEN_MS = 10_000;
const FIRST_PAUSE_MS = 100;
const LONGEST_PAUSE_MS = 5_000;

/** Calls `action` after a time; returns a function that cancels it. */
export function schedule(action, ms) {
  const timer = setTimeout(action, ms);
  return () => clearTimeout(timer);
}

/** The address of the server that sent this page. */
export function serverUrl(location) {
  return `${location.protocol === "https:" ? "wss:" : "ws:"}//${location.host}/`;
}

/** @typedef {import("./explain.js").Explanation} Explanation */

export class Connection {
  #socket;
  #handlers;
  #schedule;
  #cancel;

  /**
   * @param {string} url
   * @param {{onOpen: () => void, onObject: (object: object) => void,
   *   onClose: (reason: string, explanation?: Explanation) => void}} handlers
   */
  constructor(url, handlers, { WebSocket = globalThis.WebSocket, schedule: scheduler = schedule, why = explain } = {}) {
    this.#handlers = handlers;
    this.#schedule = scheduler;
    this.#socket = new WebSocket(url, "chat.json");
    this.#cancel = this.#schedule(() => this.#end("the server does not answer"), OPEN_MS);
    let isRefused = true;
    this.#socket.onopen = () => {
      isRefused = false;
      this.#wait();
      handlers.onOpen();
    };
    this.#socket.onmessage = (event) => this.#receive(event.data);
    this.#socket.onclose = async (event) => {
      const explanation = isRefused ? await why(url) : undefined;
      this.#end(explanation?.reason ?? (event.reason || "the connection was lost"), explanation);
    };
  }

  /** Send an object. After the end of the connection it is dropped. */
  send(object) {
    if (this.#socket?.readyState === 1) this.#socket.send(JSON.stringify(object));
  }

  /** End the connection; no handler is called any more. */
  close() {
    const socket = this.#socket;
    if (socket === null) return;
    this.#cancel();
    this.#socket = null;
    socket.onopen = socket.onmessage = socket.onclose = null;
    socket.close();
  }

  /** Ask the server for an answer now: the network may have changed. */
  check() {
    if (this.#socket?.readyState === 1) this.#ping(CHECKED_ANSWER_MS);
  }

  #receive(data) {
    this.#wait();
    let object;
    try {
      object = JSON.parse(data);
    } catch {
      return this.#end("the server sent something that is not JSON");
    }
    if (object?.type !== "pong") this.#handlers.onObject(object ?? {});
  }

  #wait() {
    this.#cancel();
    this.#cancel = this.#schedule(() => this.#ping(ANSWER_MS), SILENCE_MS);
  }

  #ping(ms) {
    this.#cancel();
    this.send({ command: "ping" });
    this.#cancel = this.#schedule(() => this.#end("the server does not answer"), ms);
  }

  #end(reason, explanation = undefined) {
    if (this.#socket === null) return;
    this.close();
    this.#handlers.onClose(reason, explanation);
  }
}

/** The pauses between attempts to connect: doubled each time, and random, so that all pages don't return at once. */
export class Backoff {
  #random;
  #pauseMs = FIRST_PAUSE_MS;

  constructor(random = Math.random) {
    this.#random = random;
  }

  /** The next pause in ms. */
  next() {
    const pauseMs = this.#pauseMs;
    this.#pauseMs = Math.min(2 * pauseMs, LONGEST_PAUSE_MS);
    return pauseMs * (0.5 + this.#random() / 2);
  }

  reset() {
    this.#pauseMs = FIRST_PAUSE_MS;
  }
}
