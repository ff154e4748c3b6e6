// Unread messages outside of the page: the title of the tab, and notifications if the user turned them on.

import { clean } from "../text.js";

const SETTING = "chat.notifications";

export class Notifier {
  /** `onOpen(key)` is called when the user clicks a notification. */
  constructor(chat, { onOpen, titleOf }) {
    this.chat = chat;
    this.titleOf = titleOf;
    this.onOpen = onOpen;
    chat.addEventListener("meant", ({ detail }) => this.meant(detail));
  }

  get isAvailable() {
    return "Notification" in window && Notification.permission !== "denied";
  }

  get isOn() {
    return this.isAvailable && Notification.permission === "granted" && read(SETTING) === "on";
  }

  /** Turns notifications on or off. Returns a sentence about it. */
  async toggle() {
    if (this.isOn) {
      write(SETTING, "off");
      return "Notifications are off.";
    }
    if (!this.isAvailable || (await Notification.requestPermission()) !== "granted") {
      return "The browser does not allow notifications for this page.";
    }
    write(SETTING, "on");
    return "You get a notification for direct messages and for messages with your name.";
  }

  /** Writes the title: the number of unread messages if one is meant for the user, else a dot if there are any. */
  showTitle(current) {
    const { count, isMeant } = this.chat.unread;
    const mark = isMeant ? `(${count}) ` : count ? "• " : "";
    const title = `${mark}${current ? `${this.titleOf(current)} - ` : ""}Chat`;
    if (document.title !== title) document.title = title;
  }

  meant({ key, message }) {
    if (!this.isOn || (!document.hidden && document.hasFocus())) return;
    const conversation = this.chat.conversations.get(key);
    const where = !conversation || conversation.kind === "user" ? "" : ` in ${this.titleOf(conversation)}`;
    const note = new Notification(`${clean(message.from)}${where}`, { body: clean(message.text).slice(0, 200), tag: key, icon: "icon.svg" });
    note.onclick = () => {
      window.focus();
      this.onOpen(key);
      note.close();
    };
  }
}

function read(name) {
  try {
    return localStorage.getItem(name);
  } catch {
    return null;
  }
}

function write(name, value) {
  try {
    localStorage.setItem(name, value);
  } catch {
    // Without storage the setting lasts until the page is closed, and is off.
  }
}
