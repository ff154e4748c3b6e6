// Unread messages outside the page: the title of the tab, and notifications if the user turned them on.

import { clean } from "../text.js";
import { kept } from "./dom.js";
import { titleOf } from "./sidebar.js";

const SETTING = "chat.notifications";

export const canNotify = () => "Notification" in window && Notification.permission !== "denied";
export const notifies = () => canNotify() && Notification.permission === "granted" && kept(localStorage, SETTING) === "on";

/** Turns notifications on or off. Returns a sentence about it. */
export async function toggleNotifications() {
  const isOn = notifies();
  if (!isOn && (await Notification.requestPermission()) !== "granted") return "The browser blocks notifications. You can allow them in its settings for this page.";
  kept(localStorage, SETTING, isOn ? "off" : "on");
  return isOn ? "Notifications are off." : "Direct messages and messages with your name give a notification.";
}

/** The title of the tab: a number if a message is meant for the user, a dot if there are other unread ones. */
export function showTitle(chat, conversation) {
  const { count, hasMore, isMeant } = chat.unread;
  const mark = isMeant ? `(${count}${hasMore ? "+" : ""}) ` : count || hasMore ? "• " : "";
  const title = `${mark}${titleOf(conversation)} - Chat`;
  if (document.title !== title) document.title = title;
}

/** Shows a notification for a message, unless the user looks at the page. A click calls `onOpen`. */
export function notify(conversation, message, onOpen) {
  if (!notifies() || (!document.hidden && document.hasFocus())) return;
  const where = conversation.kind === "user" ? "" : ` in ${titleOf(conversation)}`;
  const options = { body: clean(message.text).slice(0, 200), tag: conversation.key, icon: "icon.svg" };
  const note = new Notification(clean(message.from) + where, options);
  note.onclick = () => {
    window.focus();
    onOpen();
    note.close();
  };
}
