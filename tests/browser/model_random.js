/**
 * Random days of one user: others write, the user writes and reads, connections break between any two objects, the page
 * is loaded again. At the end each message of the server is in its conversation exactly once, in order, and each typed
 * one is on the server exactly once. run() returns "" or what was wrong.
 */

import { Clock, FakeServer, MemoryStore, randomOf, settle } from "./fake_server.js";

const ME = "alice";
/** Few texts, so that own messages with the same text meet each other. */
const TEXTS = ["ok", "yes", "hello alice"];
const PLACES = { lobby: {}, "room:dev": { room: "dev" }, "user:bob": { to: "bob" } };
const REFUSALS = [{ code: "rate_limited", retry_seconds: 2 }, { code: "unavailable" }, { code: "muted" }];

/** `modules` has the page's Chat and Storage. */
export async function run({ Chat, Storage }, seed, steps) {
  const random = randomOf(seed);
  const among = (items) => items[Math.floor(random() * items.length)];
  const clock = new Clock();
  const server = new FakeServer(ME);
  server.isForgetful = seed % 8 === 0;
  const stores = { local: new MemoryStore(), session: new MemoryStore() };
  const typed = [];
  let [chat, nonces, numbers, page] = [null, 0, 0, null];

  const load = () => {
    if (server.link) server.link.isOpen = false;
    const here = (page = {});
    const newNonce = () => `n${++nonces}`;
    const storage = new Storage(stores);
    // The timers of an earlier page are gone with it.
    const schedule = (action, ms) => clock.schedule(() => here === page && action(), ms);
    chat = new Chat({ open: server.open, storage, now: () => clock.ms, schedule, random, newNonce });
    const login = { username: ME, password: "secret", remember: "test" };
    const ready = storage.token === null ? chat.logIn(login) : chat.resume();
    ready.catch(() => {});
  };
  const key = () => among([...chat.conversations.keys()]);
  const type = (place) => {
    const text = `${among(TEXTS)}${random() < 0.3 ? ++numbers : ""}`;
    chat.send(place, text).then(
      () => typed.push({ key: place, text }),
      () => {},
    );
  };
  const others = {
    say: () => server.say("bob", among([{}, { room: "dev" }, { to: ME }]), among(TEXTS)),
    echo: () => server.say(ME, among(Object.values(PLACES)), among(TEXTS)),
    toggle: () => random() < 0.3 && server.toggle("dev"),
    restore: () => random() < 0.3 && server.restore(Math.floor(random() * server.lastId)),
    delete: () => server.log.length > 0 && server.delete(among(server.log).id),
  };
  const events = [
    ...[others.say, others.say, others.say, others.echo, others.delete, others.toggle],
    ...(seed % 4 === 0 ? [others.restore] : []),
    ...[() => server.cut(), () => clock.advance(1_000), () => clock.advance(100), () => chat.wake()],
    () => random() < 0.3 && load(),
    () => chat.me && type(key()),
    () => chat.me && type(key()),
    () => chat.me && chat.open(key()).catch(() => {}),
    () => chat.me && chat.loadOlder(key()).catch(() => {}),
    () => chat.me && chat.loadNewer(key()).catch(() => {}),
    () => chat.me && chat.loadNewest(key()).catch(() => {}),
    () => chat.me && server.log.length > 0 && chat.jumpTo(key(), among(server.log).id).catch(() => {}),
    () => (server.refuse = random() < 0.2 ? () => (random() < 0.5 ? among(REFUSALS) : undefined) : () => undefined),
    () => failed(chat).forEach((each) => random() < 0.5 && chat.retry(each).catch(() => {})),
    () => {
      for (const each of failed(chat).filter(() => random() < 0.1)) {
        typed.splice(0, typed.length, ...typed.filter((other) => other.text !== each.text));
        chat.drop(each);
      }
    },
    () => chat.me && (chat.conversations.get("lobby").isFollowed = random() < 0.5),
  ];

  const before = Math.floor(random() * (seed % 10 === 0 ? 4_000 : 400));
  for (let count = 0; count < before; count++) others[random() < 0.8 ? "say" : "echo"]();
  load();
  for (let step = 0; step < steps; step++) {
    if (random() < 0.5) among(events)();
    else server.step(random() < 0.5);
    await settle();
    const wrong = disorder(chat, server);
    if (wrong) return `step ${step}: ${wrong}`;
  }

  // Nothing breaks any more.
  server.refuse = () => undefined;
  if (!chat.me && chat.state === "out") load();
  for (let round = 0; round < 100; round++) {
    await server.run();
    for (const each of chat.conversations.keys()) chat.loadNewest(each);
    failed(chat).forEach((each) => chat.retry(each));
    clock.advance(5_000);
  }
  if (chat.state !== "in") return `the page is ${chat.state}: ${chat.error}`;
  for (const [place, conversation] of chat.conversations) {
    const shown = await readAll(chat, server, place);
    const wanted = server.messages(place).filter((each) => !server.deleted.includes(each.id));
    const difference = compare(shown, wanted) || compareEnd(conversation.messages, wanted);
    if (difference) return `${place}: ${difference}`;
    const isCounted = (each) => each.id > conversation.readId && each.from !== ME;
    const unread = conversation.messages.filter((each) => !each.isDeleted && isCounted(each)).length;
    if (conversation.unread !== unread) return `${place}: ${conversation.unread} unread, not ${unread}`;
  }
  // A restored server has lost messages; those to a room that the user has left are told.
  return seed % 4 === 0 ? "" : countTyped(server, typed);
}

/** Go to the first message of a conversation, and back to the newest. Returns all messages that were shown. */
async function readAll(chat, server, key) {
  const conversation = chat.conversations.get(key);
  const shown = new Map();
  const load = async (method) => {
    chat[method](key);
    await server.run();
    for (const message of conversation.messages) shown.set(message.id, message);
  };
  await load("loadNewest");
  while (conversation.hasOlder) await load("loadOlder");
  while (conversation.hasNewer) await load("loadNewer");
  return [...shown.values()].sort((one, other) => one.id - other.id);
}

function failed(chat) {
  return [...chat.conversations.values()].flatMap(({ messages }) => messages.filter((each) => each.state === "failed"));
}

/** Each window is in order, each message once, unconfirmed messages last. */
function disorder(chat, server) {
  for (const { key, messages } of chat.conversations.values()) {
    const ids = messages.map((each) => each.id ?? Infinity);
    for (let index = 1; index < ids.length; index++) {
      if (ids[index] < ids[index - 1] || (ids[index] === ids[index - 1] && ids[index] !== Infinity)) {
        return `${key} shows ${ids}`;
      }
    }
    const twice = messages.find((each) => each.id === null && ids.includes(server.idOf(each.nonce)));
    if (twice || new Set(messages).size !== messages.length) return `${key} shows a message twice`;
  }
  return "";
}

function compare(all, wanted) {
  const shown = all.filter((each) => !each.isDeleted);
  const line = (each) => `${each.id} ${each.from}: ${each.text ?? each.message}`;
  const [have, want] = [shown.map(line), wanted.map(line)];
  const index = want.findIndex((each, place) => have[place] !== each);
  if (index >= 0) return `message ${index} is ${have[index]}, not ${want[index]}`;
  return have.length === want.length ? "" : `there is also ${have[want.length]}`;
}

/** The window ends with the newest message. */
function compareEnd(messages, wanted) {
  const shown = messages.filter((each) => !each.isDeleted);
  return compare(shown, wanted.slice(wanted.length - shown.length));
}

/** Texts that the user typed are at least as often on the server, and those with a number exactly once. */
function countTyped(server, typed) {
  for (const { key, text } of typed.filter((each) => each.key !== "room:dev")) {
    const stored = server.messages(key).filter((each) => each.from === ME && each.message === text).length;
    if (stored === 0) return `${text} to ${key} was lost`;
    if (/[0-9]$/.test(text) && stored > 1) return `${text} was stored ${stored} times`;
  }
  return "";
}
