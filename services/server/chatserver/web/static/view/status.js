// The state of the connection: a status that is read aloud once, with a countdown that is not.

import { clean } from "../text.js";
import { $, h, setText } from "./dom.js";

const TEXTS = { out: "", connecting: "Connecting…", in: "Connected" };
let timer;

export function showStatus(chat) {
  const node = $("status");
  clearInterval(timer);
  node.className = chat.state;
  if (chat.state !== "waiting") return setText(node, TEXTS[chat.state]);
  const countdown = h("span", { "aria-hidden": "true" });
  const text = `${clean(chat.error) || "No connection."} What you type is kept and sent later. `;
  node.replaceChildren(text, countdown, " ", h("button.link", { onclick: () => chat.retryNow() }, "Try now"));
  const count = () => {
    const seconds = Math.ceil((chat.retryAt - Date.now()) / 1000);
    countdown.textContent = seconds > 0 ? `Next try in ${seconds} s.` : "Trying…";
  };
  count();
  timer = setInterval(count, 500);
}
