/** Dialogues of the page's model with a server, one for each promise. Each throws if the promise is broken. */

import { Clock, FakeServer, MemoryStore, settle } from "./fake_server.js";

const TIME = "2026-01-31T12:00:00.123Z";

/** A page, its server and its storage. `world.load()` is a reload of the page. */
class World {
  clock = new Clock();
  server = new FakeServer("alice");
  stores = { local: new MemoryStore(), session: new MemoryStore() };
  events = [];
  #modules;
  #page = null;
  #nonces = 0;

  constructor(modules) {
    this.#modules = modules;
    this.load();
  }

  load() {
    if (this.server.link) this.server.link.isOpen = false;
    const here = (this.#page = {});
    const { Chat, Storage } = this.#modules;
    this.storage = new Storage(this.stores);
    this.chat = new Chat({
      ...{ open: this.server.open, storage: this.storage, now: () => this.clock.ms, random: () => 1 },
      schedule: (action, ms) => this.clock.schedule(() => here === this.#page && action(), ms),
      newNonce: () => `n${++this.#nonces}`,
    });
    for (const type of ["meant", "notice"]) {
      this.chat.addEventListener(type, ({ detail }) => this.events.push([type, detail.message?.text ?? detail.text]));
    }
  }

  /** Log in as alice; everything that the page asks for is answered. */
  async enter(typed = {}) {
    const done = this.chat.logIn({ username: "alice", password: "secret", ...typed });
    await this.server.run();
    await done;
    return this;
  }

  /** The answer to the next object of the page is this one. */
  async answer(object) {
    await this.server.upTo();
    this.server.link.up.length = 0;
    this.server.link.down.push(object);
    await this.server.run();
  }

  get state() {
    return this.chat.state;
  }

  shown(key = "lobby") {
    return this.chat.conversations.get(key).messages.map((each) => `${each.id ?? each.state}:${each.text}`);
  }

  sent(command) {
    return this.server.received.filter((each) => each.command === command);
  }
}

function equal(have, want, about = "") {
  const [left, right] = [JSON.stringify(have), JSON.stringify(want)];
  if (left !== right) throw new Error(`${about} ${left} is not ${right}`);
}

async function refusalOf(promise) {
  try {
    await promise;
  } catch (error) {
    return error.code === undefined ? `${error}` : error.code || error.message;
  }
  return "no refusal";
}

const broadcast = (id, from, message, more = {}) => ({ type: "broadcast", id, time: TIME, from, message, ...more });

export const SCENARIOS = {
  /** A typed login is tried once; its error has the code that the form needs. */
  async typedLoginIsRefused(modules) {
    for (const code of ["wrong_password", "invitation_required", "password_change_required", "server_full", "banned"]) {
      const world = new World(modules);
      const done = refusalOf(world.chat.logIn({ username: "alice", password: "x" }));
      await world.answer({ type: "error", code, message: "No." });
      equal([await done, world.state, world.chat.error], [code, "out", "No."]);
      equal(world.chat.canResume, false, "there is no session to continue");
      world.clock.advance(60_000);
      equal(world.server.links.length, 1, code);
    }
  },

  async typedLoginWithoutServer(modules) {
    const world = new World(modules);
    world.server.acceptsConnections = false;
    const done = refusalOf(world.chat.logIn({ username: "alice", password: "x" }));
    await world.server.run();
    equal([await done, world.state], ["The server can't be reached. Try again in a moment.", "out"]);
  },

  async loginSendsWhatIsTyped(modules) {
    const typed = { remember: "here", invitation: "7KQ2M", newPassword: "new" };
    const world = await new World(modules).enter(typed);
    const [login] = world.sent("login");
    equal([login.remember, login.invitation, login.new_password], ["here", "7KQ2M", "new"]);
    world.server.cut();
    world.clock.advance(100);
    await world.server.run();
    equal(world.sent("login")[1].token, "token1");
  },

  /** A mistyped name makes no account: the password is sent after the user has confirmed that the name is new. */
  async newNameIsAskedFor(modules) {
    const world = new World(modules);
    world.server.account = "new";
    const done = refusalOf(world.chat.logIn({ username: "alice", password: "secret" }));
    await world.server.run();
    equal([await done, world.state], ["new_name", "out"]);
    equal(world.server.received.map((each) => each.password), [undefined]);
    await world.enter({ isNew: true });
    equal([world.state, world.sent("login").at(-1).password], ["in", "secret"]);
  },

  async passwordFollowsThePrompt(modules) {
    const world = await new World(modules).enter({ remember: "here" });
    equal(world.server.received.slice(0, 2).map((each) => each.password), [undefined, "secret"]);
    const missing = new World(modules);
    const done = refusalOf(missing.chat.logIn({ username: "alice", password: "" }));
    await missing.server.run();
    equal(await done, "password_needed");
  },

  /** The password is never stored; the token is, and logs in after a reload. */
  async storageHasNoPassword(modules) {
    for (const remember of [null, "here"]) {
      const world = await new World(modules).enter({ remember });
      await world.chat.send("lobby", "hi");
      const stored = ["chat.token", "chat.read", "chat.unsent"].map((name) => [
        ...[world.stores.local.getItem(name), world.stores.session.getItem(name)],
      ]);
      if (JSON.stringify(stored).includes("secret")) throw new Error("the password is stored");
      world.load();
      const resumed = world.chat.resume();
      await world.server.run();
      equal([await resumed, world.sent("login").at(-1).token], remember ? [true, "token1"] : [false, undefined]);
    }
  },

  async badTokenIsForgotten(modules) {
    const world = await new World(modules).enter({ remember: "here" });
    world.load();
    const resumed = world.chat.resume();
    await world.answer({ type: "error", code: "bad_token", message: "Log in again." });
    equal([await resumed, world.state, world.chat.canResume], [false, "out", false]);
    equal(world.stores.local.getItem("chat.token"), null);
  },

  /** Pauses double from 0.1 s to 5 s; a connection that served makes them short again. */
  async pausesGrow(modules) {
    const world = await new World(modules).enter();
    world.server.acceptsConnections = false;
    world.server.cut();
    const pauses = [];
    for (let attempt = 0; attempt < 8; attempt++) {
      pauses.push(world.chat.retryAt - world.clock.ms);
      world.clock.advance(world.chat.retryAt - world.clock.ms);
      await world.server.run();
    }
    equal(pauses, [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
    world.server.acceptsConnections = true;
    world.chat.retryNow();
    await world.server.run();
    world.server.cut();
    equal([world.state, world.chat.retryAt - world.clock.ms], ["waiting", 100]);
  },

  /** The server says when a login can succeed. */
  async loginWaitsForItsTime(modules) {
    const world = await new World(modules).enter();
    world.server.cut();
    world.clock.advance(100);
    await world.answer({ type: "error", code: "too_many_attempts", message: "Wait.", retry_seconds: 7 });
    equal([world.state, world.chat.retryAt - world.clock.ms, world.chat.error], ["waiting", 7000, "Wait."]);
  },

  async byeWithCodeEndsTheSession(modules) {
    for (const code of ["kicked", "replaced", "banned", "revoked"]) {
      const world = await new World(modules).enter({ remember: "here" });
      world.server.tell({ type: "bye", reason: "the reason", code });
      await world.server.run();
      world.clock.advance(60_000);
      equal([world.state, world.chat.error, world.server.links.length], ["out", "The reason.", 1], code);
      equal(world.chat.canResume, code !== "revoked", code);
    }
    const world = await new World(modules).enter();
    world.server.tell({ type: "bye", reason: "the server is shutting down" });
    await world.server.run();
    world.server.cut();
    equal([world.state, world.chat.error], ["waiting", "The server is shutting down."]);
  },

  async passwordIsChangedDuringALoss(modules) {
    const world = await new World(modules).enter();
    const done = refusalOf(world.chat.changePassword("secret", "better"));
    world.server.cut();
    equal(await done, "The connection was lost before the answer.");
    world.clock.advance(100);
    await world.answer({ type: "error", code: "wrong_password", message: "Wrong." });
    equal(world.state, "waiting");
    world.clock.advance(5_000);
    await world.server.run();
    equal([world.state, world.sent("login").at(-1).password], ["in", "better"]);
  },

  async logOutRevokesTheToken(modules) {
    const world = await new World(modules).enter({ remember: "here" });
    const done = world.chat.logOut();
    await world.server.run();
    await done;
    equal(world.sent("revoke"), [{ command: "revoke", id: "t1" }]);
    equal([world.state, world.chat.error, world.chat.canResume], ["out", null, false]);
    equal([world.stores.local.getItem("chat.token"), world.chat.conversations.size], [null, 0]);
  },

  async logOutWithoutConnection(modules) {
    const world = await new World(modules).enter({ remember: "here" });
    world.server.cut();
    await world.chat.logOut();
    world.clock.advance(60_000);
    equal([world.state, world.chat.canResume, world.server.links.length], ["out", false, 1]);
  },

  /** A refused rate: the message waits, then one message at a time, in order. */
  async rateIsKept(modules) {
    const world = await new World(modules).enter();
    let refusals = 1;
    world.server.refuse = () => (refusals-- > 0 ? { code: "rate_limited", retry_seconds: 2.5 } : undefined);
    for (const text of ["a", "b", "c"]) await world.chat.send("lobby", text);
    await world.server.run();
    equal(world.shown(), ["1:b", "2:c", "pending:a"]);
    for (const text of ["d", "e"]) await world.chat.send("lobby", text);
    world.clock.advance(2_499);
    await world.server.run();
    equal(world.sent("PM").length, 3);
    world.clock.advance(1);
    equal(world.server.link.up.map((each) => each.message), ["a"]);
    await world.server.run();
    equal(world.shown(), ["1:b", "2:c", "3:a", "4:d", "5:e"]);
  },

  /** At most eight are on the wire. */
  async wireIsBounded(modules) {
    const world = await new World(modules).enter();
    for (let count = 0; count < 20; count++) await world.chat.send("lobby", `m${count}`);
    equal(world.server.link.up.length, 8);
    await world.server.run();
    equal(world.shown().length, 20);
  },

  async unavailableServerIsLeft(modules) {
    const world = await new World(modules).enter();
    world.server.refuse = () => ({ code: "unavailable" });
    await world.chat.send("lobby", "hi");
    await world.server.run();
    equal([world.state, world.shown()], ["waiting", ["pending:hi"]]);
    const pauses = [];
    for (let attempt = 0; attempt < 3; attempt++) {
      pauses.push(world.chat.retryAt - world.clock.ms);
      world.clock.advance(pauses.at(-1));
      await world.server.run();
    }
    equal(pauses, [100, 200, 400]);
    world.server.refuse = () => undefined;
    world.clock.advance(5_000);
    await world.server.run();
    equal([world.shown(), new Set(world.sent("PM").map((each) => each.nonce)).size], [["1:hi"], 1]);
  },

  async failedMessageIsTriedAgain(modules) {
    const world = await new World(modules).enter();
    world.server.refuse = () => ({ code: "muted", message: "You are muted." });
    await world.chat.send("lobby", "hi");
    await world.chat.send("lobby", "no");
    await world.server.run();
    const [message, dropped] = world.chat.conversations.get("lobby").messages;
    equal([message.state, message.code, message.error], ["failed", "muted", "You are muted."]);
    world.chat.drop(dropped);
    world.server.refuse = () => undefined;
    await world.chat.retry(message);
    await world.server.run();
    equal([world.shown(), message.error], [["1:hi"], ""]);
    equal(world.sent("PM").map((each) => each.nonce), ["n1", "n2", "n1"]);
  },

  /** A message that failed although it was stored, and was delivered, is shown once. */
  async failedMessageWasStored(modules) {
    const world = await new World(modules).enter();
    world.server.refuse = () => ({ code: "internal" });
    await world.chat.send("lobby", "hi");
    await world.server.run();
    world.server.say("alice", {}, "hi");
    await world.server.run();
    await world.chat.retry(world.chat.conversations.get("lobby").messages.at(-1));
    await world.answer({ type: "sent", id: 1, status: "sent", nonce: "n1" });
    equal(world.shown(), ["1:hi"]);
  },

  /** Unsent messages outlive a reload, for the same user only. */
  async unsentOutliveTheReload(modules) {
    for (const username of ["alice", "carol"]) {
      const world = await new World(modules).enter();
      await world.chat.send("lobby", "hi");
      world.server.cut();
      world.load();
      world.server.username = username;
      await world.enter({ username });
      equal(world.shown(), username === "alice" ? ["1:hi"] : []);
      equal(world.sent("PM").map((each) => each.nonce), username === "alice" ? ["n1"] : []);
    }
  },

  /** The confirmation was lost, so the message comes as a missed one: it is shown once. */
  async storedMessageIsShownOnce(modules) {
    const world = await new World(modules).enter();
    await world.chat.send("lobby", "hi");
    world.server.step(true);
    world.server.cut();
    world.server.say("bob", {}, "hello");
    world.clock.advance(100);
    const shown = [];
    while (world.server.step(true) || world.server.step(false)) {
      await settle();
      shown.push(world.shown().filter((each) => each.endsWith(":hi")).length);
    }
    equal(Math.max(...shown), 1);
    equal(world.shown(), ["1:hi", "2:hello"]);
  },

  /** Another message of this user with the same text is a message of its own. */
  async echoIsShown(modules) {
    const world = await new World(modules).enter();
    await world.chat.send("lobby", "ok");
    world.server.say("alice", {}, "ok");
    await world.server.run();
    equal(world.shown(), ["1:ok", "2:ok"]);
  },

  async deletedIsHidden(modules) {
    const world = new World(modules);
    world.server.say("bob", {}, "one");
    world.server.say("bob", {}, "two");
    await world.enter();
    world.server.delete(1);
    await world.server.run();
    const [first] = world.chat.conversations.get("lobby").messages;
    equal([first.isDeleted, first.text, first.deletedBy, world.shown()[1]], [true, "", "op", "2:two"]);
    // An answer that is older than the deletion:
    const older = world.chat.open("room:dev");
    await settle();
    while (world.server.link.up[0].command !== "CH") {
      world.server.step(true);
      world.server.step(false);
      await settle();
    }
    world.server.tell({ type: "deleted", id: 9, by: "op", room: "dev" });
    world.server.tell({ type: "history", room: "dev", messages: [broadcast(9, "bob", "gone", { room: "dev" })] });
    world.server.link.up.length = 0;
    await world.server.run();
    await older;
    equal(world.shown("room:dev"), []);
  },

  /** A jump shows messages that are among the newest, too. */
  async deletedAfterAJumpIsHidden(modules) {
    const world = new World(modules);
    for (let id = 1; id <= 250; id++) world.server.say("bob", {}, `${id}`);
    await world.enter();
    world.chat.jumpTo("lobby", 100);
    await world.server.run();
    equal(world.chat.conversations.get("lobby").hasNewer, true);
    world.server.delete(160);
    await world.server.run();
    world.chat.loadNewest("lobby");
    await world.server.run();
    equal(world.shown().filter((each) => each.startsWith("160:")), ["160:"]);
  },

  async roomsAreLeft(modules) {
    const world = await new World(modules).enter();
    await world.chat.send("room:dev", "bye");
    world.server.link.up.length = 0;
    world.server.rooms.clear();
    world.server.tell({ type: "parted", room: "dev", by: "bob", reason: "spam" });
    await world.server.run();
    equal([...world.chat.conversations.keys()], ["lobby"]);
    const lost = "Your message to #dev was perhaps not sent: bye";
    equal(world.events.map(([, text]) => text), ["bob removed you from #dev: spam.", lost]);
  },

  /** The error about a room that was left during a loss is not shown. */
  async roomsAreLeftOffline(modules) {
    const world = await new World(modules).enter();
    world.server.cut();
    world.server.rooms.clear();
    world.clock.advance(100);
    await world.server.run();
    equal(world.events, [["notice", "You are no longer in #dev."]]);
  },

  /** Read marks decide what is unread, also after a reload; the first ones are those of the server. */
  async unreadIsCounted(modules) {
    const world = new World(modules);
    for (const text of ["one", "two"]) world.server.say("bob", {}, text);
    await world.enter();
    const lobby = () => world.chat.conversations.get("lobby");
    equal([lobby().unread, lobby().readId], [0, 2]);
    world.server.say("bob", {}, "hello Alice!");
    world.server.say("bob", {}, "malice");
    world.server.say("alice", {}, "alice");
    world.server.say("bob", { to: "alice" }, "psst");
    await world.server.run();
    equal([lobby().unreadText, world.chat.unread], ["2", { count: 3, hasMore: false, isMeant: true }]);
    equal(world.events, [["meant", "hello Alice!"], ["meant", "psst"]]);
    world.chat.markRead("lobby", 3);
    equal([lobby().unread, lobby().isMeant], [1, false]);
    world.load();
    await world.enter();
    const texts = () => [...world.chat.conversations.values()].map((each) => `${each.key} ${each.unreadText}`);
    equal([texts(), world.events.length], [["lobby 1", "room:dev ", "user:bob 1"], 2]);
    for (const id of [4, 3]) world.storage.keepReadMarks("alice", world.server.historyId, { lobby: id });
    world.chat.readMarksAgain();
    equal(lobby().unread, 0);
  },

  /** Only loaded messages can be counted. The number has a plus if there may be more, after a reload or a reconnect. */
  async unreadThatIsNotLoadedIsToldAsMore(modules) {
    const world = new World(modules);
    const names = Array.from({ length: 15 }, (_, number) => `bob${number}`);
    const texts = () => [...world.chat.conversations.values()].map((each) => each.unreadText);
    const say = (count) => {
      for (let number = 0; number < count; number++) world.server.say("bob0", {}, `m${number}`);
    };
    say(1);
    await world.enter();
    world.server.cut();
    for (const name of names) world.server.say(name, { to: "alice" }, "psst");
    say(1_100);
    world.clock.advance(100);
    await world.server.run();
    equal(texts(), ["1,000+", "", ...names.map(() => "1")], "the window has not all that was missed");
    equal(world.chat.unread, { count: 1_015, hasMore: true, isMeant: true });
    world.load();
    await world.enter();
    const prefetched = [...names.slice(0, 4).map(() => "new"), ...names.slice(4).map(() => "1")].reverse();
    equal(texts(), ["100+", "", ...prefetched], "the oldest conversations are not loaded yet");
    world.chat.markRead("lobby", world.server.lastId);
    equal(texts()[0], "");
  },

  /** A wrong clock of the computer does not put own messages into another hour or day than their neighbours. */
  async clockOfTheComputerMayBeWrong(modules) {
    for (const ms of [0, 2_000_000_000_000]) {
      const world = new World(modules);
      world.clock.ms = ms;
      world.server.say("bob", {}, "one");
      await world.enter();
      await world.chat.send("lobby", "two");
      await world.server.run();
      world.server.say("bob", {}, "three");
      await world.server.run();
      const times = world.chat.conversations.get("lobby").messages.map(({ time }) => time - 1_700_000_000_000);
      equal(times, [0, ms ? 2 : 0, 2], ms);
    }
  },

  async seenIdIsTheFirstMark(modules) {
    const world = new World(modules);
    const done = world.chat.logIn({ username: "alice", password: "x" });
    const login = { type: "login", username: "alice", users: [], last_id: 9, history_id: "h", seen_id: 4, rooms: [] };
    await world.answer({ ...login, account: "existing" });
    await done;
    equal(world.chat.conversations.get("lobby").readId, 4);
  },

  async ignoredAreNotUnread(modules) {
    const world = await new World(modules).enter();
    world.server.say("bob", {}, "hello alice");
    await world.server.run();
    world.server.tell({ type: "ignored", users: ["Bob"] });
    await world.server.run();
    equal([world.chat.unread.count, world.chat.isIgnored("bob")], [0, true]);
  },

  /** A restored server: what is lost is removed, what replaced it is shown, and the user is told. */
  async restoredServerIsTold(modules) {
    const world = await new World(modules).enter();
    for (const text of ["one", "two", "three"]) world.server.say("bob", {}, text);
    await world.server.run();
    world.server.restore(1);
    world.server.say("bob", {}, "another");
    world.clock.advance(100);
    await world.server.run();
    equal(world.shown(), ["1:one", "2:another"]);
    equal(world.events, [["notice", "The server was restored from a backup. Messages may be missing."]]);
    equal(world.sent("login")[1].since, { dev: 0, lobby: 3, direct: 0 });
  },

  /** A server that does not know what was lost sends the newest messages only: the window has no gap. */
  async windowBeginsAnew(modules) {
    const world = await new World(modules).enter();
    for (const text of ["one", "two"]) world.server.say("bob", {}, text);
    await world.server.run();
    world.server.isForgetful = true;
    world.server.restore(2);
    for (let id = 3; id <= 300; id++) world.server.say("bob", {}, `m${id}`);
    world.clock.advance(100);
    await world.server.run();
    const { messages } = world.chat.conversations.get("lobby");
    equal([messages.length, messages.map((each) => each.id)], [100, Array.from({ length: 100 }, (_, index) => 201 + index)]);
  },

  /** One request at a time; events of others are no answers; one refused for its rate is made again. */
  async requestsAreAnswered(modules) {
    const world = await new World(modules).enter();
    const kick = world.chat.kick("room:dev", "bob", "spam");
    const list = refusalOf(world.chat.rooms());
    await settle();
    equal(world.server.link.up.map((each) => each.command), ["kick"]);
    world.server.link.up.length = 0;
    for (const by of ["carol", "alice"]) world.server.tell({ type: "kicked", room: "dev", username: "bob", by });
    world.server.step(false);
    await settle();
    equal(world.server.link.up.length, 0);
    world.server.step(false);
    await kick;
    equal(world.server.link.up.splice(0), [{ command: "rooms" }]);
    world.server.tell({ type: "error", code: "rate_limited", message: "Slow down.", retry_seconds: 3 });
    world.server.step(false);
    world.clock.advance(3_000);
    equal(world.server.link.up.splice(0), [{ command: "rooms" }]);
    world.server.tell({ type: "error", code: "internal", message: "No." });
    world.server.step(false);
    equal(await list, "internal");
  },

  /** The user does not wait for what the page asks by itself. */
  async userGoesFirst(modules) {
    const world = new World(modules);
    const done = world.chat.logIn({ username: "alice", password: "x" });
    for (let round = 0; round < 2; round++) {
      await world.server.upTo();
      world.server.step(true);
      world.server.step(false);
    }
    await done;
    refusalOf(world.chat.rooms());
    await world.server.run();
    const commands = world.server.received.map((each) => each.command);
    equal(commands, ["login", "password", "ignored", "rooms", "conversations", "CH"]);
  },

  /** What was asked before a loss is asked again after it; what the user asks during it is refused. */
  async requestsOutliveALoss(modules) {
    const world = await new World(modules).enter();
    for (let id = 1; id <= 150; id++) world.server.say("bob", { room: "dev" }, `m${id}`);
    const opened = world.chat.open("room:dev");
    await settle();
    world.server.cut();
    const refusal = await refusalOf(world.chat.join("other"));
    equal(refusal, "There is no connection; nothing was done. Try again in a moment.");
    world.clock.advance(100);
    await world.server.run();
    await opened;
    equal(world.shown("room:dev").length, 150);
  },

  /** Windows are bounded at both ends, and new messages are counted while old ones are shown. */
  async windowIsBounded(modules) {
    const world = new World(modules);
    for (let id = 1; id <= 2_500; id++) world.server.say("bob", {}, `m${id}`);
    await world.enter();
    const lobby = world.chat.conversations.get("lobby");
    const ends = () => [lobby.messages[0].id, lobby.messages.at(-1).id, lobby.messages.length];
    equal(ends(), [2_401, 2_500, 100]);
    for (let page = 0; page < 15; page++) {
      world.chat.loadOlder("lobby");
      await world.server.run();
    }
    equal([...ends(), lobby.hasNewer], [901, 1_900, 1_000, true]);
    world.server.say("bob", {}, "new");
    await world.server.run();
    equal([...ends(), lobby.unread], [901, 1_900, 1_000, 1]);
    world.chat.jumpTo("lobby", 50);
    await world.server.run();
    equal(ends(), [1, 150, 150]);
    await world.chat.send("lobby", "mine");
    await world.server.run();
    equal([lobby.hasNewer, world.shown().slice(-2)], [false, ["2501:new", "2502:mine"]]);
    lobby.isFollowed = false;
    for (let id = 1; id <= 2_200; id++) world.server.say("bob", {}, "more");
    await world.server.run();
    equal([lobby.messages.length, lobby.hasNewer], [1_000, true]);
    lobby.isFollowed = true;
    for (let round = 0; round < 2; round++) {
      await world.chat.loadNewest("lobby");
      for (let id = 1; id <= 1_500 * round; id++) world.server.say("bob", {}, "more");
      await world.server.run();
      equal(ends()[1], 4_702 + 1_500 * round);
      world.chat.loadOlder("lobby");
      await world.server.run();
      equal(lobby.messages.every(({ id }, index) => id === lobby.messages[0].id + index), true, "a gap");
    }
  },

  /** Lines of the composer: requests, messages, dialogs; what is wrong is refused and sends nothing. */
  async linesAreUnderstood(modules) {
    const requests = {
      "hello\nall": { command: "PM", message: "hello\nall", nonce: "n1", room: "dev" },
      "//etc": { command: "PM", message: "/etc", nonce: "n1", room: "dev" },
      "/me waves": { command: "PM", message: "/me waves", nonce: "n1", room: "dev" },
      "@bob: hi you": { command: "user", username: "bob" },
      "/msg bob": { command: "user", username: "bob" },
      "/JOIN #Ops private": { command: "join", room: "Ops", private: true, key: "private" },
      "/join #Ops Sesame": { command: "join", room: "Ops", key: "Sesame" },
      "/voice bob": { command: "voice", username: "bob", room: "dev" },
      "/devoice bob": { command: "devoice", username: "bob", room: "dev" },
      "/modes Moderated -private": { command: "modes", moderated: true, private: false, room: "dev" },
      "/modes +open-topic key Tea limit 20": {
        ...{ command: "modes", open_topic: true, key: "Tea", members_max: 20, room: "dev" },
      },
      "/modes -key -limit": { command: "modes", key: "", members_max: 0, room: "dev" },
      "/part": { command: "part", room: "dev" },
      "/topic all new": { command: "topic", topic: "all new", room: "dev" },
      "/topic -": { command: "topic", topic: "", room: "dev" },
      "/invite @bob": { command: "invite", username: "bob", room: "dev" },
      "/op bob": { command: "op", username: "bob", room: "dev" },
      "/deop bob": { command: "deop", username: "bob", room: "dev" },
      "/kick bob too loud": { command: "kick", username: "bob", reason: "too loud", room: "dev" },
      "/ban bob 7d spam": { command: "ban", username: "bob", room: "dev", seconds: 604_800, reason: "spam" },
      "/ban 192.0.2.0/24 forever": { command: "ban", address: "192.0.2.0/24" },
      "/unban ::1": { command: "unban", address: "::1" },
      "/mute bob spam": { command: "mute", username: "bob", reason: "spam", room: "dev" },
      "/unmute bob": { command: "unmute", username: "bob", room: "dev" },
      "/delete 17": { command: "delete", id: 17, room: "dev" },
      "/report #17 rude": { command: "report", id: 17, reason: "rude", room: "dev" },
      "/report bob": { command: "report", username: "bob", room: "dev" },
      "/ignore bob": { command: "ignore", username: "bob" },
      "/unignore bob": { command: "unignore", username: "bob" },
    };
    for (const [line, request] of Object.entries(requests)) {
      const world = await new World(modules).enter();
      refusalOf(world.chat.run("room:dev", line));
      await settle();
      equal(world.server.link.up, [request], line);
    }
    const world = await new World(modules).enter();
    equal(await world.chat.run("lobby", "/search late* train"), { dialog: "search", words: "late* train" });
    for (const name of ["modes", "rooms", "bans", "audit", "ignored", "sessions", "password", "help"]) {
      equal(await world.chat.run("lobby", `/${name}`), { dialog: name });
    }
    equal(await world.chat.run("lobby", "hello"), {});
    await world.server.run();
    const wrong = [
      ...["/nope", "/help me", "/join", "/join a b c", "/join /etc", "/modes x", "/modes key", "/modes limit 0", "/topic x", "/kick", "/kick b-b", "/ban bob 7x"],
      ...["/ban bob 0s", "/delete x", "/me", " \n ", "x".repeat(8_193), "é".repeat(4_097)],
    ];
    for (const line of wrong) {
      if ((await refusalOf(world.chat.run("lobby", line))) === "no refusal") throw new Error(`${line} was not refused`);
    }
    equal(world.server.link.up, []);
  },

  /** A silent server is asked; one that does not answer is left. */
  async silenceIsNoticed({ Connection }) {
    const clock = new Clock();
    const log = [];
    class Socket {
      readyState = 1;
      constructor(url, protocol) {
        Socket.last = this;
        log.push([url, protocol]);
      }
      send = (text) => log.push(text);
      close = () => log.push("close");
    }
    const handlers = {
      ...{ onOpen: () => log.push("open"), onObject: (object) => log.push(object.type) },
      onClose: (reason) => log.push(reason),
    };
    const connect = () => new Connection("ws://here/", handlers, { WebSocket: Socket, schedule: clock.schedule });
    connect();
    const socket = Socket.last;
    socket.onopen();
    equal(log.splice(0), [["ws://here/", "chat.json"], "open"]);
    clock.advance(34_999);
    equal(log, []);
    clock.advance(1);
    socket.onmessage({ data: '{"type":"pong"}' });
    clock.advance(35_000);
    socket.onmessage({ data: '{"type":"users"}' });
    equal(log.splice(0), ['{"command":"ping"}', '{"command":"ping"}', "users"]);
    clock.advance(50_000);
    equal(log.splice(0), ['{"command":"ping"}', "close", "the server does not answer"]);
    clock.advance(100_000);
    const checked = connect();
    Socket.last.onopen();
    checked.check();
    clock.advance(5_000);
    equal(log.splice(0).slice(2), ['{"command":"ping"}', "close", "the server does not answer"]);
    connect();
    clock.advance(10_000);
    equal(log.splice(0).slice(1), ["close", "the server does not answer"], "a socket that never opens");
    connect();
    Socket.last.onmessage({ data: "rubbish" });
    equal(log.splice(0).at(-1), "the server sent something that is not JSON");
    const lost = connect();
    Socket.last.onopen();
    const { onmessage } = Socket.last;
    Socket.last.onclose({ reason: "" });
    equal(log.splice(0).at(-1), "the connection was lost");
    equal([onmessage !== null, Socket.last.onmessage === null], [true, true]);
    lost.send({ command: "late" });
    equal(log, []);
  },

  /** A connection that was refused ends with the server's reason, one that was open without asking for it. */
  async refusedConnectionIsExplained({ Connection }) {
    const clock = new Clock();
    const ends = [];
    const asked = [];
    const why = async (url) => asked.push(url) && { reason: "The server is full.", code: "server_full", retrySeconds: 3 };
    class Socket {
      constructor() {
        Socket.last = this;
      }
      close = () => {};
    }
    const handlers = { onOpen: () => {}, onObject: () => {}, onClose: (...end) => ends.push(end) };
    const connect = () => new Connection("ws://here/", handlers, { WebSocket: Socket, schedule: clock.schedule, why });
    connect();
    Socket.last.onclose({ reason: "" });
    await settle();
    const explanation = { reason: "The server is full.", code: "server_full", retrySeconds: 3 };
    equal([ends.splice(0), asked.splice(0)], [[["The server is full.", explanation]], ["ws://here/"]]);
    connect();
    Socket.last.onopen();
    Socket.last.onclose({ reason: "shutting down" });
    equal([ends.splice(0), asked], [[["shutting down", undefined]], []]);
    const closed = connect();
    Socket.last.onclose({ reason: "" });
    closed.close();
    await settle();
    equal([ends, asked.length], [[], 1]);
  },

  /** What the page says for each answer of the server, or of a proxy before it. */
  async answersAreExplained({ explain }) {
    const json = (object, status, headers = {}) =>
      new Response(JSON.stringify(object), { status, headers: { "Content-Type": "application/json", ...headers } });
    const full = { type: "error", code: "server_full", message: "The server is full; try again later." };
    const many = { type: "error", code: "rate_limited", message: "Too many." };
    const answers = [
      [json(full, 503), ["The server is full; try again later.", "server_full", 0]],
      [json(many, 429, { "Retry-After": "7" }), ["Too many.", "rate_limited", 7]],
      [json({ message: 7 }, 503), ["The proxy before the server answers 503", "", 0]],
      [new Response("<h1>Bad Gateway</h1>", { status: 502 }), ["The proxy before the server answers 502", "", 0]],
      [new Response("", { status: 429 }), ["There are too many requests from your address.", "", 0]],
      [new Response("", { status: 500 }), ["The server answers 500: it has a fault.", "", 0]],
      [new Response("", { status: 403 }), ["The server, or a proxy before it, refuses this browser (403).", "", 0]],
      [new Response("page"), ["The server answers, but it or a proxy before it refuses the WebSocket", "", 0]],
      [new Error("no network"), ["The server can't be reached.", "", 0]],
    ];
    for (const [answer, [begin, code, seconds]] of answers) {
      const fetch = async (url) => {
        equal(url, "https://chat.example/");
        if (answer instanceof Error) throw answer;
        return answer;
      };
      const found = await explain("wss://chat.example/", fetch);
      equal([found.reason.slice(0, begin.length), found.code, found.retrySeconds], [begin, code, seconds]);
    }
    const { reason } = await explain("wss://chat.example/", async () => new Response("page"));
    equal(reason.endsWith("CHAT_WEB_ORIGINS must have https://chat.example."), true, reason);
  },

  /** The page says why it is refused, and tries again when the server says; a ban ends the session. */
  async refusedConnectionsWait(modules) {
    const world = await new World(modules).enter({ remember: "here" });
    world.server.acceptsConnections = false;
    world.server.explanation = { reason: "Too many connections.", code: "rate_limited", retrySeconds: 7 };
    world.server.cut();
    world.clock.advance(100);
    await world.server.run();
    equal([world.state, world.chat.error, world.chat.retryAt - world.clock.ms], ["waiting", "Too many connections.", 7_000]);
    world.server.explanation = { reason: "You are banned.", code: "banned", retrySeconds: 0 };
    world.clock.advance(7_000);
    await world.server.run();
    world.clock.advance(60_000);
    equal([world.state, world.chat.error, world.server.links.length], ["out", "You are banned.", 3]);
    const done = refusalOf(world.chat.logIn({ username: "alice", password: "x" }));
    world.server.explanation = { reason: "The server is full.", code: "server_full", retrySeconds: 0 };
    await world.server.run();
    equal([await done, world.state, world.chat.error], ["server_full", "out", "The server is full."]);
  },

  /** More is unread than is loaded: the window moves to where it begins. */
  async oldestUnreadAreLoaded(modules) {
    for (const others of [0, 150]) {
      const world = new World(modules);
      for (let id = 1; id <= 120; id++) world.server.say("bob", { room: "dev" }, `m${id}`);
      await world.enter();
      world.server.cut();
      for (let id = 0; id < others; id++) world.server.say("bob", { to: "alice" }, "psst");
      world.load();
      for (let id = 0; id < 250; id++) world.server.say("bob", {}, `m${id}`);
      await world.enter();
      world.chat.open("lobby");
      await world.server.run();
      const lobby = world.chat.conversations.get("lobby");
      const first = 121 + others;
      equal([lobby.messages[0].id, lobby.mayHaveUnreadBefore, lobby.unreadText], [first + 150, true, "100+"]);
      world.chat.loadUnread("lobby");
      await world.server.run();
      equal([lobby.mayHaveUnreadBefore, lobby.hasNewer, lobby.isMeant], [false, true, false]);
      const counts = [lobby.unreadText];
      while (lobby.hasNewer) {
        world.chat.loadNewer("lobby");
        await world.server.run();
        counts.push(lobby.unreadText);
      }
      equal([lobby.messages[0].id, lobby.messages.length, counts], [first, 250, [others ? "150+" : "200+", ...counts.slice(1)]], others);
      equal([...new Set(counts.slice(1))], ["250"], "messages of two lists count once");
    }
  },

  /** A room with a key asks for it; a wrong one is refused, and the right one opens the room. */
  async keyIsAskedFor(modules) {
    const world = await new World(modules).enter();
    world.server.keys.ops = "Sesame";
    for (const line of ["/join ops", "/join ops sesame"]) {
      const asked = world.chat.run("lobby", line);
      await world.server.run();
      equal(await asked, { dialog: "key", room: "ops" });
    }
    const done = world.chat.run("lobby", "/join ops Sesame");
    await world.server.run();
    equal(await done, { open: "room:ops" });
  },

  async modesAreTold(modules) {
    const world = await new World(modules).enter();
    const modes = { private: true, moderated: true, open_topic: true, key: "tea", members_max: 1_000 };
    world.server.tell({ type: "modes", room: "dev", modes, by: "bob" });
    world.server.tell({ type: "modes", room: "dev", modes: {} });
    await world.server.run();
    const text = "private, moderated, topic open to all, key tea, 1,000 members at most";
    equal(world.events, [["notice", `#dev is now: ${text} (bob).`]]);
    equal(world.chat.conversations.get("room:dev").isPrivate, false);
  },

  /** Tab has the rule of the terminal client. */
  async wordsAreCompleted({ completions, ...modules }) {
    const world = await new World(modules).enter();
    for (const from of ["eve", "bob", "Carol", "alice", "gone"]) world.server.say(from, { room: "dev" }, "hi");
    const online = ["alice", "Bea", "bob", "b\u202eb", "Carol", "eve"];
    world.server.tell({ type: "users", users: online, joined: [], left: [] });
    await world.server.run();
    world.chat.open("room:dev");
    await world.server.run();
    world.chat.listed = ["dev", "Design", "d\u202ed"];
    const expected = {
      "": [],
      b: ["bob: ", "Bea: "],
      "hello ": [],
      "hello b": ["bob", "Bea"],
      "hello bob": [],
      "hello\ncar": ["Carol"],
      "@": ["@Carol ", "@bob ", "@eve ", "@alice ", "@Bea "],
      "@bob hello e": ["eve"],
      "/deo": ["/deop "],
      "/M": ["/me ", "/msg ", "/modes ", "/mute "],
      "/KICK e": ["eve "],
      "/kick eve b": [],
      "/ignore e": ["eve"],
      "/join d": ["Design ", "dev "],
      "/join dev d": [],
      "/part #d": ["#dev"],
      "/me hugs car": ["Carol"],
      "/msg bob car": ["Carol"],
      "/topic car": [],
      "/modes moderated -k": ["-key "],
      "/nosuch b": [],
      "/help b": [],
    };
    const dev = world.chat.conversations.get("room:dev");
    for (const [before, found] of Object.entries(expected)) {
      equal(completions(before, dev, world.chat), { length: /\S*$/.exec(before)[0].length, found }, before);
    }
  },

  /** A browser that forbids storage, or whose storage has rubbish. */
  async storageMayFail({ Storage, ...modules }) {
    const broken = new Proxy({}, { get: () => () => { throw new Error("forbidden"); } });
    for (const store of [undefined, broken, { getItem: () => "{rubbish" }]) {
      class Kept extends Storage {
        constructor() {
          super({ local: store, session: store });
        }
      }
      const world = await new World({ ...modules, Storage: Kept }).enter({ remember: "here" });
      await world.chat.send("lobby", "hi");
      await world.server.run();
      equal([world.shown(), world.chat.canResume], [["1:hi"], false]);
    }
  },
};
