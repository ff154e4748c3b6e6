// The search box and the panel with what it found. A result opens its conversation at that message.

import { clean, nameNode } from "../text.js";
import { $, h, iconButton, onSubmit } from "./dom.js";
import { momentText } from "./message.js";
import { titleOf } from "./sidebar.js";

const EXCERPT_LETTERS = 600;

export class Search {
  /** `current()` is the conversation that is searched; `onJump(key, id)` shows a message; `onClose()` ends the search. */
  constructor(chat, { current, onJump, onClose }) {
    Object.assign(this, { chat, current, onJump, onClose });
    this.box = $("search-box");
    this.panel = $("results");
    onSubmit($("search-form"), () => this.search(this.box.value.trim()));
    for (const place of [this.panel, this.box]) place.addEventListener("keydown", (event) => this.keyPressed(event));
  }

  focus() {
    $("chat").classList.add("shows-search");
    this.box.select();
  }

  close() {
    this.list = null;
    $("chat").classList.remove("shows-search", "shows-results");
    this.onClose();
  }

  async search(words) {
    if (!words) return;
    const conversation = this.current();
    this.box.value = words;
    this.list = h("div.scroll");
    const title = h("h2", `Found in ${titleOf(conversation)}`);
    const close = iconButton("close", "Close the search", () => this.close());
    this.panel.replaceChildren(h("div.panel-head", title, close), this.list);
    $("chat").classList.add("shows-results");
    await this.load(conversation.key, words);
  }

  /** Adds the newest results, or older ones before a message, and moves the focus to the first of them. */
  async load(key, words, before) {
    const { list } = this;
    const state = h("p.side-empty", { role: "status" }, "Searching…");
    list.append(state);
    try {
      const { messages, hasOlder } = await this.chat.search(key, words, before);
      const hits = messages.toReversed().map((message) => this.hit(message));
      list.append(...hits);
      state.textContent = hits.length ? "" : "Nothing found. A star stands for any ending, as in late*.";
      if (hasOlder) list.append(this.olderButton(key, words, messages[0].id));
      if (list === this.list) hits[0]?.focus();
    } catch (error) {
      state.textContent = clean(error.message);
    }
  }

  hit({ key, id, from, time, text }) {
    const head = h("span.head", nameNode(from), momentText({ time }));
    const lines = text.slice(0, EXCERPT_LETTERS).split("\n").map(clean).join("\n");
    return h("button.hit", { onclick: () => this.onJump(key, id) }, head, h("span.excerpt", { dir: "auto" }, lines));
  }

  olderButton(key, words, before) {
    const button = h("button", "Older results");
    button.onclick = () => {
      button.remove();
      this.load(key, words, before);
    };
    return button;
  }

  keyPressed(event) {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    const hits = [...this.panel.querySelectorAll("button.hit")];
    const hit = step && hits[hits.indexOf(document.activeElement) + step];
    if (event.key === "Escape") this.close();
    else if (hit) hit.focus();
    else return;
    event.preventDefault();
  }
}
