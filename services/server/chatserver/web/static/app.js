/** Joins the parts of the page: model, storage, connection and view. */

import { Chat } from "./chat.js";
import { Connection, serverUrl } from "./connection.js";
import { Storage } from "./storage.js";
import { startPage } from "./view/page.js";

/** A browser may forbid storage: reading the property then fails. */
function store(name) {
  try {
    return window[name];
  } catch {
    return undefined;
  }
}

const storage = new Storage({ local: store("localStorage"), session: store("sessionStorage") });
const chat = new Chat({ open: (handlers) => new Connection(serverUrl(location), handlers), storage });

storage.watch(window, () => chat.readMarksAgain());
window.addEventListener("online", () => chat.wake());
document.addEventListener("visibilitychange", () => {
  if (document.visibilityState === "visible") chat.wake();
});
startPage(chat);
