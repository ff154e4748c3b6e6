// The box in which messages and commands are typed. Typing is always possible; each conversation has a draft.

import { $, kept, onSubmit, picture, plural, setText } from "./dom.js";

const DRAFTS = "chat.drafts";
const MESSAGE_MAX_BYTES = 8192;

const NO_FILES = "Files and pictures can't be sent. A link can.";

const bytesOver = (text) => new TextEncoder().encode(text).length - MESSAGE_MAX_BYTES;

export class Composer {
  #cycle = null; // of Tab: the text around the word, what may take its place, and which of it does
  #leavesByTab = false;

  /**
   * `run(key, line)` is a promise that rejects if nothing was done. `complete(key, before)` gives what may take the place
   * of the last word. `onUp()` and `onPage(direction)` move in the log.
   */
  constructor({ run, complete, onUp, onPage, onError }) {
    Object.assign(this, { run, complete, onUp, onPage, onError });
    this.box = $("message");
    const { username = null, drafts = {} } = JSON.parse(kept(sessionStorage, DRAFTS) ?? "{}");
    Object.assign(this, { username, drafts });
    picture($("send"), "send", "Send");
    onSubmit($("composer"), () => this.submit());
    this.box.addEventListener("input", () => this.typed());
    this.box.addEventListener("keydown", (event) => this.keyPressed(event));
    addEventListener("pagehide", () => this.save());
    this.box.addEventListener("paste", ({ clipboardData: { files, types } }) => {
      if (files.length > 0 && !types.includes("text/plain")) this.onError(NO_FILES);
    });
    for (const name of ["dragover", "drop"]) addEventListener(name, (event) => this.dragged(event));
  }

  /** A browser would open the file in place of the page. */
  dragged(event) {
    if (!event.dataTransfer.types.includes("Files")) return;
    event.preventDefault();
    if (event.type === "drop") this.onError(NO_FILES);
    else event.dataTransfer.dropEffect = "none";
  }

  keyPressed(event) {
    const { key, code, shiftKey, altKey, ctrlKey } = event;
    if (event.isComposing || event.keyCode === 229) return; // an input method has the key; Safari tells by the number
    const isTab = key === "Tab" || code === "Tab"; // WebKitGTK has no key for Shift+Tab
    if (key === "Enter" && !shiftKey && !altKey && !ctrlKey) this.submit();
    else if (key === "ArrowUp" && this.box.value === "" && !altKey) this.onUp();
    else if (key === "PageUp" || key === "PageDown") this.onPage(key === "PageUp" ? -1 : 1);
    else if (key === "Escape" && this.#cycle) this.#endCycle();
    else if (!isTab || altKey || ctrlKey || !this.#turn(shiftKey ? -1 : 1)) return;
    event.preventDefault();
  }

  /** Completes the word before the cursor, or takes the next completion. False if Tab has to leave the box. */
  #turn(step) {
    const { value, selectionStart: at, selectionEnd } = this.box;
    if (this.#cycle?.value !== value || this.#cycle.at !== at) {
      if (step < 0 || this.#leavesByTab || at !== selectionEnd) return false;
      const { length, found } = this.complete(this.key, value.slice(0, at));
      if (found.length === 0) return false;
      const [before, word, after] = [value.slice(0, at - length), value.slice(at - length, at), value.slice(at)];
      this.#cycle = { before, word, after, found, index: -1 };
    }
    const { found } = this.#cycle;
    const index = (this.#cycle.index + step + found.length) % found.length;
    const cycle = this.#put({ ...this.#cycle, index }, found[index]);
    if (found.length === 1) return true;
    this.#cycle = cycle;
    const name = found[index].replace(/:? ?$/, "");
    setText($("composer-hint"), `${name}, ${index + 1} of ${found.length}. Tab: the next one. Esc: back.`);
    return true;
  }

  /** Puts a word into the text. Returns the cycle with what the box then has. */
  #put(cycle, word) {
    const at = cycle.before.length + word.length;
    this.set(`${cycle.before}${word}${cycle.after}`);
    this.box.setSelectionRange(at, at);
    return { ...cycle, value: this.box.value, at };
  }

  /** Restores what was typed. The next Tab leaves the box. */
  #endCycle() {
    this.#put(this.#cycle, this.#cycle.word);
    this.#leavesByTab = true;
  }

  /** Begins with the drafts of this user; those of another one are dropped. */
  enter(username) {
    if (username !== this.username) this.forget();
    this.username = username;
  }

  /** Changes to the draft of a conversation. */
  open(key, placeholder) {
    this.save();
    this.key = key;
    this.box.placeholder = placeholder;
    this.set(this.drafts[key] ?? "");
  }

  set(text) {
    this.box.value = text;
    this.typed();
  }

  focus() {
    this.box.focus({ preventScroll: true });
  }

  /** Adds text at the cursor. */
  insert(text) {
    this.focus();
    this.box.setRangeText(text, this.box.selectionStart, this.box.selectionEnd, "end");
    this.typed();
  }

  /** If nothing was done, the line comes back, unless another one was begun. */
  async submit() {
    const { key, box } = this;
    const line = box.value;
    if (!line.trim() || bytesOver(line) > 0) return;
    this.set("");
    try {
      await this.run(key, line);
    } catch (error) {
      if (key !== this.key) this.drafts[key] ||= line;
      else if (box.value === "") this.set(line);
      this.onError(error.message);
    }
  }

  typed() {
    this.#cycle = null;
    this.#leavesByTab = false;
    $("grow").dataset.text = this.box.value; // the style makes the box as high as this text
    const over = bytesOver(this.box.value);
    const most = MESSAGE_MAX_BYTES.toLocaleString();
    setText($("composer-hint"), over > 0 ? `Too long by ${plural(over, "byte")}: a message has at most ${most}.` : "");
  }

  save() {
    if (this.key) this.drafts[this.key] = this.box.value || undefined;
    kept(sessionStorage, DRAFTS, JSON.stringify({ username: this.username, drafts: this.drafts }));
  }

  forget() {
    this.set("");
    this.drafts = {};
    this.save();
  }

  drop(key) {
    delete this.drafts[key];
    this.save();
  }
}
