// The state of the connection, as a status that is read aloud once, with a countdown that is not.

import { clean } from "../text.js";
import { $, el } from "./dom.js";

export class Status {
  constructor(chat) {
    this.chat = chat;
    this.node = $("status");
  }

  show() {
    const { chat, node } = this;
    clearInterval(this.timer);
    node.className = chat.state;
    const text = {
      out: "",
      connecting: "Connecting…",
      in: "Connected",
      waiting: `No connection. ${chat.error ? `${clean(chat.error)} ` : ""}What you type is kept and sent later.`,
    }[chat.state];
    if (chat.state !== "waiting") {
      if (node.textContent !== text) node.textContent = text;
      return;
    }
    const countdown = el("span", { "aria-hidden": "true" });
    const again = el("button", { type: "button", class: "link", onclick: () => chat.retryNow() }, "Try now");
    node.replaceChildren(text, " ", countdown, " ", again);
    const count = () => {
      const seconds = Math.ceil(((chat.retryAt ?? 0) - Date.now()) / 1000);
      countdown.textContent = seconds > 0 ? `Next try in ${seconds} s.` : "Trying…";
    };
    count();
    this.timer = setInterval(count, 500);
  }
}
