/**
 * Storage that outlives the page: the session token and the read marks (localStorage), and unsent messages
 * (sessionStorage, which each tab has for itself, also over a reload). Never a password.
 *
 * Read marks belong to a user and to a history of the server: message 31 of another history is another message. Several
 * tabs write them, so each write takes the greater id of each conversation. A browser may refuse all storage: then
 * nothing outlives the page.
 */

const TOKEN = "chat.token";
const MARKS = "chat.read";
const UNSENT = "chat.unsent";

export class Storage {
  #local;
  #session;

  /** @param {{local?: globalThis.Storage, session?: globalThis.Storage}} stores */
  constructor({ local, session }) {
    this.#local = local;
    this.#session = session;
  }

  /** @returns {{username: string, token: string} | null} */
  get token() {
    return read(this.#local, TOKEN);
  }

  set token(value) {
    write(this.#local, TOKEN, value);
  }

  /** The ids up to which this user has read each conversation, by its key. */
  readMarks(username, historyId) {
    const kept = read(this.#local, MARKS)?.[username.toLowerCase()];
    return kept?.historyId === historyId ? kept.ids : {};
  }

  /** Keep read marks; those of another history of this user are dropped. */
  keepReadMarks(username, historyId, marks) {
    const ids = { ...this.readMarks(username, historyId) };
    for (const [key, id] of Object.entries(marks)) ids[key] = Math.max(id, ids[key] ?? 0);
    write(this.#local, MARKS, { ...read(this.#local, MARKS), [username.toLowerCase()]: { historyId, ids } });
  }

  /** Messages that were not confirmed when the page ended. Those of another user are never sent. */
  unsent(username) {
    const kept = read(this.#session, UNSENT);
    return kept?.username === username.toLowerCase() ? kept.messages : [];
  }

  keepUnsent(username, messages) {
    write(this.#session, UNSENT, messages.length ? { username: username.toLowerCase(), messages } : null);
  }

  /** Call `action` when another tab has changed the read marks. */
  watch(target, action) {
    target.addEventListener("storage", (event) => {
      if (event.key === MARKS) action();
    });
  }
}

function read(store, name) {
  try {
    return JSON.parse(store.getItem(name));
  } catch {
    return null;
  }
}

function write(store, name, value) {
  try {
    if (value === null) store.removeItem(name);
    else store.setItem(name, JSON.stringify(value));
  } catch {
    // Full or forbidden: see above.
  }
}
