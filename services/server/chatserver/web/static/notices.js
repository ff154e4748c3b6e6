/** Sentences about events of rooms and of moderation. */

/** As the times of messages. */
const MOMENT = { dateStyle: "short", timeStyle: "short", hourCycle: "h23" };

/** The modes of a room in words, as in the terminal client. */
export function modeWords({ private: isPrivate, moderated, open_topic: openTopic, key, members_max: membersMax }) {
  const words = [
    isPrivate && "private",
    moderated && "moderated",
    openTopic && "topic open to all",
    key && `key ${key}`,
    membersMax && `${membersMax.toLocaleString()} members at most`,
  ];
  return words.filter(Boolean).join(", ") || "public";
}

/** The sentence about an event; "" if it needs none. `isMe(name)` is true for the user's own name. */
export function noticeOf(object, isMe) {
  const { type, room, by, username, topic, role } = object;
  const target = username ?? object.address ?? "a guest";
  const inRoom = room === undefined ? "" : ` in #${room}`;
  const why = object.reason ? `: ${object.reason}` : "";
  switch (type) {
    case "topic":
      return topic ? `${by} changed the topic: ${topic}` : `${by} removed the topic.`;
    case "modes":
      return by === undefined ? "" : `#${room} is now: ${modeWords(object.modes)} (${by}).`;
    case "parted":
      return by === undefined ? "" : `${by} removed you from #${room}${why}.`;
    case "invited":
      if (isMe(username)) return `${by} invites you to #${room}; /join ${room} enters it.`;
      return `${by} invited ${username} to #${room}.`;
    case "role": {
      const place = room === undefined ? "the server" : `#${room}`;
      const roles = { member: "an ordinary member of", voice: "a member with a voice in", owner: "the owner of" };
      const what = roles[role] ?? "an operator of";
      return `${username} is now ${what} ${place}${by === undefined ? "" : ` (${by})`}.`;
    }
    case "kicked":
      return room === undefined ? `${by} disconnected ${target}${why}.` : `${by} removed ${target}${inRoom}${why}.`;
    case "banned":
    case "muted": {
      const time = object.until === undefined ? "for ever" : `until ${new Date(object.until).toLocaleString(undefined, MOMENT)}`;
      return `${by} ${type} ${target}${inRoom} ${time}${why}.`;
    }
    case "unbanned":
    case "unmuted":
      return `${by} ${type} ${target}${inRoom}.`;
    case "reported":
      return `${by} reported ${object.id === undefined ? target : `message ${object.id}`}${inRoom}${why}.`;
    default:
      return "";
  }
}
