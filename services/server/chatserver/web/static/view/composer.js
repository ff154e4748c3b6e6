// The box in which messages and commands are typed. Typing is always possible; each conversation has a draft of its own.

import { $, icon, plural } from "./dom.js";

const DRAFTS = "chat.drafts";
const MESSAGE_MAX_BYTES = 8192;

export class Composer {
  /** `run(key, line)` is a promise that rejects if nothing was sent. `onUp()` and `onPage(direction)` move in the log. */
  constructor({ run, onUp, onPage, onError }) {
    this.run = run;
    this.onError = onError;
    this.box = $("message");
    this.drafts = new Map(Object.entries(loadDrafts()));
    this.key = null;
    const send = $("send");
    send.append(icon("send"));
    send.setAttribute("aria-label", "Send");
    send.title = "Send";
    $("composer").addEventListener("submit", (event) => {
      event.preventDefault();
      this.submit();
    });
    this.box.addEventListener("input", () => this.typed());
    this.box.addEventListener("keydown", (event) => {
      if (event.isComposing) return;
      if (event.key === "Enter" && !event.shiftKey && !event.altKey && !event.ctrlKey) this.submit();
      else if (event.key === "ArrowUp" && this.box.value === "") onUp();
      else if (event.key === "PageUp") onPage(-1);
      else if (event.key === "PageDown") onPage(1);
      else return;
      event.preventDefault();
    });
    addEventListener("resize", () => this.fit());
    addEventListener("pagehide", () => this.save());
  }

  /** Changes to the draft of a conversation. */
  open(key, placeholder) {
    this.keep();
    this.key = key;
    this.box.value = this.drafts.get(key) ?? "";
    this.box.placeholder = placeholder;
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

  async submit() {
    const { key, box } = this;
    const line = box.value;
    if (!line.trim() || bytesOver(line) > 0) return;
    box.value = "";
    this.typed();
    this.keep();
    try {
      await this.run(key, line);
    } catch (error) {
      this.putBack(key, line);
      this.onError(key, error.message);
    }
  }

  /** Nothing was sent: the line returns, unless another one was begun. */
  putBack(key, line) {
    if (key !== this.key) {
      if (!this.drafts.get(key)) this.drafts.set(key, line);
    } else if (this.box.value === "") {
      this.box.value = line;
      this.typed();
    }
  }

  typed() {
    this.fit();
    const over = this.box.value.length > MESSAGE_MAX_BYTES / 4 ? bytesOver(this.box.value) : 0;
    $("composer-hint").textContent = over > 0 ? `Too long by ${plural(over, "byte")}: a message has at most ${MESSAGE_MAX_BYTES.toLocaleString()}.` : "";
  }

  /** As high as its text, up to a limit of the style. */
  fit() {
    const { box } = this;
    box.style.setProperty("height", "auto");
    if (box.scrollHeight > box.clientHeight) box.style.setProperty("height", `${box.scrollHeight + 2}px`);
  }

  keep() {
    if (this.key === null) return;
    if (this.box.value) this.drafts.set(this.key, this.box.value);
    else this.drafts.delete(this.key);
  }

  save() {
    this.keep();
    try {
      sessionStorage.setItem(DRAFTS, JSON.stringify(Object.fromEntries(this.drafts)));
    } catch {
      // Storage may be off or full; the drafts then last as long as the page.
    }
  }

  forget() {
    this.drafts.clear();
    this.key = null;
    this.box.value = "";
    this.save();
  }
}

function bytesOver(text) {
  return new TextEncoder().encode(text).length - MESSAGE_MAX_BYTES;
}

function loadDrafts() {
  try {
    return JSON.parse(sessionStorage.getItem(DRAFTS)) ?? {};
  } catch {
    return {};
  }
}
