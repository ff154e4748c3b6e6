/**
 * One conversation: the lobby, a room, or the direct messages with one user. A window of its messages, without gaps.
 *
 * `messages` is the window, in the order of ids; messages without an id (pending, failed) come last, in the order of
 * typing. An attached window ends with the newest message. A detached one (`hasNewer`) ends earlier, because the user
 * looks at old messages; new messages then go to the tail, a second list in the same order, which always ends with the
 * newest message. The window is attached again when the server has nothing more after it: what arrived since is in the
 * tail.
 *
 * Neither list has a gap. `#from` and `#tailFrom` are their lower bounds: all messages after this id, to the end of the
 * list, are in it. A message that arrives with a smaller id is not added: it comes with the history. (It was stored
 * before the page was loaded, and is confirmed or delivered late.)
 *
 * A message that is in both lists is the same object in both, so a deletion holds for both.
 *
 * Both lists are bounded. The window drops messages at the end that is farther from the user: the oldest while new ones
 * arrive, the newest while older ones are loaded (it is then detached). The tail drops its oldest.
 */

/**
 * @typedef {object} Message
 * @property {number | null} id  null until the server has confirmed it
 * @property {string | null} nonce  of own messages of this page
 * @property {string} key  of the conversation
 * @property {number} time  in ms
 * @property {string} from
 * @property {string} to  "" for a public message
 * @property {string} text
 * @property {"sent" | "pending" | "failed"} state
 * @property {string} error  the sentence of a failed one, and its code
 * @property {string} code
 * @property {boolean} isStored  true if it waits for a recipient who is offline
 * @property {boolean} isDeleted
 * @property {string} deletedBy
 */

const WINDOW_MAX_MESSAGES = 1_000;
const TAIL_MAX_MESSAGES = 1_000;

export class Conversation {
  /** @type {Message[]} */
  messages = [];
  topic = "";
  role = "member";
  isPrivate = false;
  /** @type {string[]} */
  online = [];
  onlineCount = 0;
  hasOlder = true;
  hasNewer = false;
  isLoading = false;
  /** True if the newest messages before the login were loaded. */
  isLoaded = false;
  /** True while the user sees the newest message. The view sets it. */
  isFollowed = true;
  /** Unread messages among those that are loaded: see mayHaveMoreUnread. */
  unread = 0;
  /** True if an unread message is meant for the user. */
  isMeant = false;
  lastId = 0;
  /** A login sends the messages after this one. */
  seenId = 0;
  /** Counts the changes to another window: what was loaded for an earlier one is dropped. */
  generation = 0;
  #from;
  /** Of what is not loaded, the newest message that the server has told of. */
  #oldId;
  #tail = [];
  #tailFrom = 0;

  /** @param {"lobby" | "room" | "user"} kind  @param {number} from  the server has delivered all later messages */
  constructor(key, kind, name, readId, from) {
    this.key = key;
    this.kind = kind;
    this.name = name;
    this.readId = readId;
    this.#from = from;
    this.#oldId = kind === "user" ? 0 : from;
  }

  /** The newest message with a user, as the list of conversations has it. */
  noteLast(id) {
    this.lastId = Math.max(this.lastId, id);
    this.#oldId = Math.max(this.#oldId, Math.min(id, this.#from));
  }

  /** Older messages have smaller ids; undefined if even the newest ones are not loaded. */
  get before() {
    return this.isLoaded ? this.#from + 1 : undefined;
  }

  /** True if there may be unread messages before the window: it has all later ones than those of `#from`. */
  get mayHaveUnreadBefore() {
    return this.isLoaded && this.hasOlder && this.#from > this.readId;
  }

  /** True if unread messages may be before the window, or between it and the tail: `unread` is then too small. */
  get mayHaveMoreUnread() {
    if (!this.isLoaded) return this.#oldId > this.readId;
    return this.mayHaveUnreadBefore || (this.hasNewer && Math.max(this.endId, this.readId) < this.#tailFrom);
  }

  get hasUnread() {
    return this.unread > 0 || this.mayHaveMoreUnread;
  }

  /** The number of unread messages as far as it is known: "", "7", "100+", or "new". */
  get unreadText() {
    if (this.unread === 0) return this.mayHaveMoreUnread ? "new" : "";
    return this.unread.toLocaleString() + (this.mayHaveMoreUnread ? "+" : "");
  }

  /** Newer messages than those of a detached window have greater ids. */
  get endId() {
    return this.messages.findLast((each) => each.id !== null)?.id ?? this.#from;
  }

  /** The names of those who spoke, the last one first. */
  get speakers() {
    const messages = [...this.messages, ...(this.hasNewer ? this.#tail : [])];
    return [...new Set(messages.map(({ from }) => from).reverse())];
  }

  /** The message with this id, in the window or the tail. */
  find(id) {
    return findIn(this.messages, id) ?? findIn(this.#tail, id);
  }

  /** Add a message that find() does not know. True if it is in the window. */
  place(message) {
    const id = message.id ?? Infinity;
    if (message.id !== null) this.lastId = Math.max(this.lastId, id);
    if (id <= this.#from) {
      this.#oldId = Math.max(this.#oldId, id);
      return false;
    }
    if (!this.hasNewer && !this.isFollowed && this.messages.length >= WINDOW_MAX_MESSAGES) this.#detach();
    if (this.hasNewer) {
      if (id > this.#tailFrom) insert(this.#tail, message);
      this.#boundTail();
      if (id > this.endId) return false;
    }
    insert(this.messages, message);
    this.#dropOldest();
    return true;
  }

  /** Add messages that were loaded before the window: all after the id `from`. */
  addOlder(messages, from) {
    this.#add(messages);
    this.#setFrom(Math.min(this.#from, from));
    const spare = this.messages.splice(WINDOW_MAX_MESSAGES);
    if (spare.length > 0 && !this.hasNewer) this.#setTail(spare, this.endId);
  }

  /** Add messages that were loaded after the window. `isEnd`: the server has no more. */
  addNewer(messages, isEnd) {
    this.#add(messages);
    if (isEnd) {
      for (const each of this.#tail.splice(0)) {
        if (each.id === null || !findIn(this.messages, each.id)) insert(this.messages, each);
      }
      this.hasNewer = false;
    }
    this.#dropOldest();
  }

  /** Show the newest messages again: the tail becomes the window. */
  attach() {
    if (!this.hasNewer) return;
    this.#move();
    this.messages = this.#tail.splice(0);
    this.#from = this.#tailFrom;
    this.hasNewer = false;
    this.hasOlder = true;
  }

  /** Make these loaded messages, all after the id `from`, the window. */
  jump(messages, from) {
    this.#move();
    if (!this.hasNewer) this.#setTail(this.messages, this.#from);
    this.messages = [];
    this.#add(messages);
    this.#setFrom(from);
  }

  /** The server has confirmed a message with this id. Returns the message that is shown for it. */
  confirm(message, id) {
    const known = this.find(id);
    this.remove(message);
    if (known) return known;
    message.id = id;
    this.place(message);
    return message;
  }

  remove(message) {
    for (const list of [this.messages, this.#tail]) {
      const index = list.indexOf(message);
      if (index >= 0) list.splice(index, 1);
    }
  }

  /**
   * Messages after this id are of another history; the server delivers those that replace them. If the user has seen
   * less (`seenId`), messages between may be missing: the window begins again.
   */
  cutAfter(id, seenId) {
    const isKept = (message) => message.id === null || (message.id <= id && seenId >= id);
    this.#move();
    if (seenId < id) {
      this.attach();
      this.isLoaded = false;
      this.hasOlder = true;
    }
    this.messages = this.messages.filter(isKept);
    this.#tail = this.#tail.filter(isKept);
    this.#from = seenId < id ? id : Math.min(this.#from, id);
    this.#oldId = this.#from;
    this.#tailFrom = Math.min(this.#tailFrom, id);
    this.readId = Math.min(this.readId, id);
    this.lastId = Math.min(this.lastId, id);
    this.seenId = Math.min(this.seenId, id);
  }

  /** Count the unread messages again. `isUnread` and `isMeant` are true or false for a message after `readId`. */
  count(isUnread, isMeant) {
    const known = [...new Set([...this.messages, ...this.#tail])];
    const unread = known.filter((each) => each.id > this.readId && !each.isDeleted && isUnread(each));
    this.unread = unread.length;
    this.isMeant = unread.some(isMeant);
  }

  /** The window is another one. */
  #move() {
    this.generation++;
    this.isLoading = false;
  }

  #setFrom(from) {
    this.#from = from;
    this.hasOlder = from > 0;
    this.isLoaded = true;
  }

  #add(messages) {
    for (const each of messages) {
      this.lastId = Math.max(this.lastId, each.id);
      if (!findIn(this.messages, each.id)) insert(this.messages, findIn(this.#tail, each.id) ?? each);
    }
  }

  /** Go on with the newest messages in the tail only. */
  #detach() {
    const end = this.messages.findIndex((each) => each.id === null);
    this.#setTail(end < 0 ? [] : this.messages.splice(end), this.endId);
  }

  #setTail(messages, from) {
    this.hasNewer = true;
    this.#tail = [...messages];
    this.#tailFrom = from;
    this.#boundTail();
  }

  #boundTail() {
    const dropped = this.#tail.splice(0, this.#tail.length - TAIL_MAX_MESSAGES);
    if (dropped.length > 0) this.#tailFrom = dropped.at(-1).id;
  }

  #dropOldest() {
    const dropped = this.messages.splice(0, this.messages.length - WINDOW_MAX_MESSAGES);
    if (dropped.length === 0) return;
    this.#from = dropped.at(-1).id;
    this.hasOlder = true;
  }
}

function findIn(list, id) {
  for (let index = list.length - 1; index >= 0; index--) {
    const other = list[index].id;
    if (other === id) return list[index];
    if (other !== null && other < id) return undefined;
  }
  return undefined;
}

function insert(list, message) {
  let index = list.length;
  while (index > 0 && (list[index - 1].id ?? Infinity) > (message.id ?? Infinity)) index--;
  list.splice(index, 0, message);
  fitTimes(list, index);
}

/** Own messages have the time of this computer, whose clock may be wrong: it is put between those of the others. */
function fitTimes(list, index) {
  const message = list[index];
  if (message.nonce !== null) {
    const [least, most] = [list[index - 1]?.time ?? 0, list.slice(index + 1).find((each) => each.nonce === null)?.time ?? Infinity];
    message.time = Math.max(least, Math.min(message.time, most));
  } else while (list[--index]?.nonce) list[index].time = Math.min(list[index].time, message.time);
}
