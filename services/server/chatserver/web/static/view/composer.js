// The box in which messages and commands are typed. Typing is always possible; each conversation has a draft.

import { $, kept, onSubmit, picture, plural, setText } from "./dom.js";

const DRAFTS = "chat.drafts";
const MESSAGE_MAX_BYTES = 8192;

const bytesOver = (text) => new TextEncoder().encode(text).length - MESSAGE_MAX_BYTES;

export class Composer {
  /** `run(key, line)` is a promise that rejects if nothing was done. `onUp()` and `onPage(direction)` move in the log. */
  constructor({ run, onUp, onPage, onError }) {
    Object.assign(this, { run, onUp, onPage, onError });
    this.box = $("message");
    this.drafts = JSON.parse(kept(sessionStorage, DRAFTS) ?? "{}");
    picture($("send"), "send", "Send");
    onSubmit($("composer"), () => this.submit());
    this.box.addEventListener("input", () => this.typed());
    this.box.addEventListener("keydown", (event) => this.keyPressed(event));
    addEventListener("pagehide", () => this.save());
  }

  keyPressed(event) {
    const { key, shiftKey, altKey, ctrlKey } = event;
    if (event.isComposing) return;
    if (key === "Enter" && !shiftKey && !altKey && !ctrlKey) this.submit();
    else if (key === "ArrowUp" && this.box.value === "" && !altKey) this.onUp();
    else if (key === "PageUp" || key === "PageDown") this.onPage(key === "PageUp" ? -1 : 1);
    else return;
    event.preventDefault();
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
    $("grow").dataset.text = this.box.value; // the style makes the box as high as this text
    const over = bytesOver(this.box.value);
    const most = MESSAGE_MAX_BYTES.toLocaleString();
    setText($("composer-hint"), over > 0 ? `Too long by ${plural(over, "byte")}: a message has at most ${most}.` : "");
  }

  save() {
    if (this.key) this.drafts[this.key] = this.box.value || undefined;
    kept(sessionStorage, DRAFTS, JSON.stringify(this.drafts));
  }

  forget() {
    this.set("");
    this.drafts = {};
    this.save();
  }
}
