/**
 * The login of one user, over any number of connections.
 *
 *     out         --logIn(), resume()--------------------------> connecting
 *     connecting  --login event--------------------------------> in
 *     connecting  --final refusal; a typed login that failed---> out
 *     connecting  --connection lost, other refusal-------------> waiting
 *     in          --connection lost----------------------------> waiting
 *     in          --bye with a code, end()---------------------> out
 *     waiting     --pause is over, retryNow()------------------> connecting
 *
 * A login that the user has typed is tried once: the form shows the error. All later logins, and those with a token,
 * are tried until they succeed or can't. They use the token, or without one the password, which is kept in memory only.
 * A bye with a code ends the session until the user asks for it again.
 *
 * A mistyped name must not make an account. So a typed login sends the password only after the server has told that the
 * name exists (`prompt`). A new name is refused with `new_name`, until the login has `isNew`.
 *
 * A pause grows with each failure. It is short again after a connection that served the user: an event followed the
 * login, and the server stored messages.
 */

import { Backoff } from "./connection.js";
import { Refusal } from "./requests.js";

/** Login errors after which another try gets the same error. */
const FINAL = new Set([
  ...["bad_request", "bad_token", "bad_username", "banned", "invitation_required"],
  ...["password_change_required", "tls_required", "too_long", "wrong_password"],
]);
/** A login may wait for its turn after wrong passwords. */
const LOGIN_MS = 60_000;

export class Session {
  /** @type {"out" | "connecting" | "in" | "waiting"} */
  state = "out";
  /** The sentence about the last refusal or loss, or null. */
  error = null;
  /** The time of the next try, in state waiting. */
  retryAt = 0;
  #open;
  #storage;
  #now;
  #schedule;
  #backoff;
  #hooks;
  #connection = null;
  /** The members of the next login: a token, or name and password. */
  #login = null;
  /** The promise of logIn() or resume(), until the login is decided. */
  #decide = null;
  /** A new password until the server confirms it: if the answer is lost, either may be valid. */
  #newPassword = null;
  #isPromptWanted = false;
  #goodbye = "";
  #wasServed = false;
  #cancelRetry = () => {};
  #cancelLogin = () => {};

  /**
   * @param {object} parts  see Chat
   * @param {object} hooks  `onState()`; `login()`, the members of a login that resumes; `onWelcome(object)`, the answer;
   *   `onObject(object)`, what follows; `onDown()`, the connection is lost or closed; `onOut(sentence)`, after end().
   */
  constructor({ open, storage, now, schedule, random }, hooks) {
    this.#open = open;
    this.#storage = storage;
    this.#now = now;
    this.#schedule = schedule;
    this.#backoff = new Backoff(random);
    this.#hooks = hooks;
  }

  /** Log in as typed. Rejects with a Refusal. */
  logIn({ username, password, isNew = false, remember = null, invitation = "", newPassword = "" }) {
    this.#newPassword = null;
    this.#isPromptWanted = !isNew;
    this.#login = { username };
    const optional = { password, remember, invitation, new_password: newPassword };
    for (const [name, value] of Object.entries(optional)) if (value) this.#login[name] = value;
    return this.#begin(true);
  }

  /** Log in with the token, or the password of before. False if there is none, or the token is no longer valid. */
  async resume() {
    const { token } = this;
    if (token !== undefined) this.#login = { token };
    if (this.#login === null) return false;
    try {
      await this.#begin(false);
      return true;
    } catch (error) {
      if (error.code === "bad_token") return false;
      throw error;
    }
  }

  get canResume() {
    return this.state === "out" && (this.#login ?? this.#storage.token) !== null;
  }

  get token() {
    return this.#storage.token?.token;
  }

  /** Forget how to log in. */
  forget() {
    this.#login = null;
    this.#storage.token = null;
  }

  retryNow() {
    if (this.state === "waiting") this.#connect();
  }

  /** The network may be back, or the computer has slept. */
  wake() {
    this.retryNow();
    this.#connection?.check?.();
  }

  send(object) {
    this.#connection?.send(object);
  }

  /** End the connection as if it had been lost. `wasServed`: false to wait longer before the next one. */
  drop(reason, wasServed = true) {
    this.#wasServed &&= wasServed;
    this.#connection.close();
    this.#onClose(reason);
  }

  /** Be out until the user logs in again. */
  end(error = "") {
    const decide = this.#decide;
    this.#decide = null;
    this.#disconnect();
    this.#cancelRetry();
    this.error = error || null;
    this.#hooks.onOut(error);
    this.#setState("out");
    decide?.reject(new Refusal(error || "The login was cancelled."));
  }

  /** The password of a change that was requested; null if it was refused. */
  expectPassword(password) {
    this.#newPassword = password;
  }

  #begin(isTyped) {
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
    this.#wasServed = false;
    this.#setState("connecting");
    this.#connection = this.#open({
      onOpen: () => this.#sendLogin(),
      onObject: (object) => this.#onObject(object),
      onClose: (reason, explanation) => this.#onClose(reason, explanation),
    });
  }

  #sendLogin() {
    this.#cancelLogin = this.#schedule(() => this.drop("the server does not answer the login"), LOGIN_MS);
    const login = { command: "login", ...this.#login, rooms: true, moderation: true, ...this.#hooks.login() };
    if (this.#decide?.isTyped && this.#isPromptWanted) delete login.password;
    this.send(login);
  }

  #onObject(object) {
    const { type } = object;
    if (type === "bye") return this.#onBye(object);
    if (this.state === "in") {
      if (type !== "error") this.#wasServed = true;
      if (type === "password_changed") this.#keepPassword(this.#newPassword);
      return this.#hooks.onObject(object);
    }
    if (type === "login") return this.#onWelcome(object);
    if (type === "error") return this.#onRefused(object);
    if (type !== "prompt") return undefined;
    const { username, password } = this.#login;
    if (object.account === "new") {
      const text = `${username} is a new name. To make this account, type the password again.`;
      return this.#refuse(new Refusal(text, "new_name"));
    }
    if (!password) return this.#refuse(new Refusal(`${username} is an account. Type its password, or choose another name.`, "password_needed"));
    return this.send({ command: "password", password });
  }

  #onWelcome(object) {
    this.#cancelLogin();
    const { username, token } = object;
    if (token !== undefined) this.#storage.token = { username, token };
    if (token !== undefined) this.#login = { token };
    else this.#keepPassword(this.#login.new_password);
    this.error = null;
    this.state = "in";
    this.#hooks.onWelcome(object);
    this.#decide?.resolve();
    this.#decide = null;
    this.#hooks.onState();
  }

  /** Keep the credentials for later logins, perhaps with a new password. */
  #keepPassword(newPassword) {
    const { username, password, token } = this.#login;
    this.#newPassword = null;
    this.#login = token === undefined ? { username, password: newPassword ?? password } : { token };
  }

  #onRefused({ code, message, retry_seconds: retrySeconds }) {
    if (code === "wrong_password" && this.#newPassword !== null && this.#login.password !== undefined) {
      this.#keepPassword(this.#newPassword);
      return this.drop("the password was changed");
    }
    const error = new Refusal(message, code, retrySeconds);
    if (this.#decide?.isTyped || FINAL.has(code)) return this.#refuse(error);
    this.#disconnect();
    this.error = message;
    return this.#wait((retrySeconds ?? 0) * 1000);
  }

  #refuse(error) {
    const decide = this.#decide;
    this.#decide = null;
    if (error.code === "bad_token") this.forget();
    if (decide?.isTyped) this.#login = null;
    this.end(error.message);
    decide?.reject(error);
  }

  #onBye({ code, reason = "" }) {
    this.#goodbye = sentence(reason);
    if (code === undefined) return;
    if (code === "revoked") this.forget();
    this.end(this.#goodbye);
  }

  /** The connection is lost, or was refused with an explanation: see explain.js. */
  #onClose(reason, { code = "", retrySeconds = 0, ...explanation } = {}) {
    if (this.#decide?.isTyped || FINAL.has(code)) {
      const why = explanation.reason ?? "The server can't be reached.";
      const text = this.#goodbye || (code ? why : `${why} Try again in a moment.`);
      return this.#refuse(new Refusal(text, code, retrySeconds));
    }
    if (this.#wasServed) this.#backoff.reset();
    this.#disconnect();
    this.error = this.#goodbye || sentence(reason);
    return this.#wait(retrySeconds * 1000);
  }

  /** Connect again after a pause of at least `leastMs`. */
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
    this.#hooks.onDown();
  }

  #setState(state) {
    this.state = state;
    this.#hooks.onState();
  }
}

function sentence(text) {
  const begun = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?]$/.test(begun) || begun === "" ? begun : `${begun}.`;
}
