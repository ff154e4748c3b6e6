// The search box and the panel with what it found. A result opens its conversation at that message.

import { clean, nameNode, textNodes } from "../text.js";
import { $, el, iconButton } from "./dom.js";
import { dateTimeText } from "./message.js";

export class Search {
  /** `current()` is the conversation that is searched; `onJump(key, id)` shows a message. */
  constructor(chat, { current, onJump, onClose, titleOf }) {
    Object.assign(this, { chat, current, onJump, onClose, titleOf });
    this.box = $("search-box");
    this.panel = $("results");
    this.round = 0;
    $("search-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.search(this.box.value.trim());
    });
    for (const place of [this.panel, this.box]) {
      place.addEventListener("keydown", (event) => {
        if (event.key === "Escape") this.close();
        else if (event.key === "ArrowDown" || event.key === "ArrowUp") this.step(event.key === "ArrowDown" ? 1 : -1, event);
      });
    }
  }

  focus() {
    $("chat").classList.add("shows-search");
    this.box.focus();
    this.box.select();
  }

  close() {
    this.round += 1;
    this.panel.hidden = true;
    $("chat").classList.remove("shows-search", "shows-results");
    this.onClose();
  }

  async search(words) {
    if (!words) return;
    const conversation = this.current();
    this.box.value = words;
    this.list = el("div", { class: "scroll" });
    this.panel.replaceChildren(
      el(
        "div",
        { class: "panel-head" },
        el("h2", {}, `Found in ${this.titleOf(conversation)}`),
        iconButton("close", "Close the search", () => this.close()),
      ),
      this.list,
    );
    this.panel.hidden = false;
    $("chat").classList.add("shows-results");
    await this.load(conversation.key, words, undefined);
    this.list.querySelector(".hit")?.focus();
  }

  /** Adds the newest results, or older ones before a message. */
  async load(key, words, before) {
    const round = (this.round += 1);
    const wait = el("p", { class: "side-empty", role: "status" }, "Searching…");
    this.list.append(wait);
    try {
      const { messages, hasOlder } = await this.chat.search(key, words, before);
      if (round !== this.round) return;
      wait.remove();
      this.list.append(...messages.toReversed().map((message) => this.hit(message)));
      if (!messages.length) this.list.append(el("p", { class: "side-empty", role: "status" }, before ? "No older ones." : "Nothing found. A star matches beginnings, as in late*."));
      if (hasOlder) this.list.append(this.more(key, words, messages[0].id));
    } catch (error) {
      if (round === this.round) wait.replaceChildren(el("span", { class: "error" }, clean(error.message)));
    }
  }

  hit(message) {
    return el(
      "button",
      { type: "button", class: "hit", onclick: () => this.onJump(message.key, message.id) },
      el("span", { class: "head" }, nameNode(message.from), el("span", {}, dateTimeText(message))),
      el("span", { class: "excerpt", dir: "auto" }, plainText(message.text)),
    );
  }

  more(key, words, before) {
    const button = el("button", { type: "button" }, "Older results");
    button.addEventListener("click", async () => {
      const last = button.previousElementSibling;
      button.remove();
      await this.load(key, words, before);
      last?.nextElementSibling?.focus?.();
    });
    return button;
  }

  step(step, event) {
    const hits = [...this.panel.querySelectorAll("button.hit")];
    const hit = hits[hits.indexOf(document.activeElement) + step];
    if (!hit) return;
    hit.focus();
    event.preventDefault();
  }
}

/** The text with its escapes, but without links: a button can't hold them. */
function plainText(text) {
  return textNodes(text.slice(0, 600)).textContent;
}
