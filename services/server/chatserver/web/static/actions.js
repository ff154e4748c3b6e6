/** The requests of the user about rooms, moderation and the account. Each rejects with a Refusal of the server. */

import { isSame, Refusal } from "./requests.js";

/** The base of Chat, which has `act(command, members, type)`: make a request, and wait for its answer. */
export class Actions extends EventTarget {
  /** Names of the rooms in the last list of rooms. */
  listed = [];

  /** Become a member, perhaps with the key that the room demands. Resolves to the key of the conversation. */
  async join(room, { isPrivate = false, key = "" } = {}) {
    if (isSame(room, "lobby")) return "lobby";
    const members = { room, private: isPrivate || undefined, key: key || undefined };
    return `room:${(await this.act("join", members, "joined")).room.toLowerCase()}`;
  }

  async part(key) {
    if (!key.startsWith("room:")) throw new Refusal("Every user is in the lobby, and stays there.");
    await this.act("part", this.place(key), "parted");
  }

  async setTopic(key, topic) {
    await this.act("topic", { topic, ...this.#inRoom(key) }, "topic");
  }

  async invite(key, username) {
    await this.act("invite", { username, ...this.#inRoom(key) }, "invited");
  }

  async op(key, username) {
    await this.act("op", { username, ...this.#inRoom(key) }, "role");
  }

  async deop(key, username) {
    await this.act("deop", { username, ...this.#inRoom(key) }, "role");
  }

  async voice(key, username) {
    await this.act("voice", { username, ...this.#inRoom(key) }, "role");
  }

  async devoice(key, username) {
    await this.act("devoice", { username, ...this.#inRoom(key) }, "role");
  }

  /** Change modes of a room. Resolves to all that are set: those of docs/wire/json.md. */
  async modes(key, changes = {}) {
    return (await this.act("modes", { ...changes, ...this.#inRoom(key) }, "modes")).modes;
  }

  async kick(key, username, reason = "") {
    await this.act("kick", { username, ...terms(null, reason), ...this.place(key) }, "kicked");
  }

  /** `target` is a user, an address or a network. `seconds` is null for ever. */
  async ban(key, target, seconds = null, reason = "") {
    await this.act("ban", { ...this.#target(key, target), ...terms(seconds, reason) }, "banned");
  }

  async unban(key, target) {
    await this.act("unban", this.#target(key, target), "unbanned");
  }

  async mute(key, username, seconds = null, reason = "") {
    await this.act("mute", { username, ...terms(seconds, reason), ...this.place(key) }, "muted");
  }

  async unmute(key, username) {
    await this.act("unmute", { username, ...this.place(key) }, "unmuted");
  }

  async deleteMessage(key, id) {
    await this.act("delete", { id, ...this.place(key) }, "deleted");
  }

  /** `about` is {id} or {username}. */
  async report(key, about, reason = "") {
    await this.act("report", { ...about, ...terms(null, reason), ...this.place(key) }, "reported");
  }

  async ignore(username) {
    await this.act("ignore", { username }, "ignored");
  }

  async unignore(username) {
    await this.act("unignore", { username }, "ignored");
  }

  async ignored() {
    return (await this.act("ignored", {}, "ignored")).users;
  }

  async rooms() {
    const { rooms } = await this.act("rooms", {}, "rooms");
    this.listed = rooms.map(({ room }) => room);
    return rooms;
  }

  async bans(key) {
    return (await this.act("bans", this.place(key), "bans")).bans;
  }

  async audit(before = undefined) {
    return (await this.act("audit", { before }, "audit")).acts;
  }

  async tokens() {
    return (await this.act("tokens", {}, "tokens")).tokens;
  }

  /** `id` is that of a token, or "all": all but the one of this page. */
  async revoke(id) {
    return (await this.act("revoke", { id }, "tokens")).tokens;
  }

  /** The member `room` of a request about this conversation. */
  place(key) {
    return key.startsWith("room:") ? { room: this.conversations.get(key)?.name ?? key.slice(5) } : {};
  }

  #inRoom(key) {
    if (!key.startsWith("room:")) throw new Refusal("This works in a room only. Nothing was done.");
    return this.place(key);
  }

  /** An address is banned from the server, a user also from a room. */
  #target(key, target) {
    return /[.:/]/.test(target) ? { address: target } : { username: target, ...this.place(key) };
  }
}

function terms(seconds, reason) {
  return { seconds: seconds ?? undefined, reason: reason || undefined };
}
