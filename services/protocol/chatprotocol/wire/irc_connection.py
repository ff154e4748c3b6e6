"""The state of one IRC connection at the server: who the client is, and what is being answered.

The handlers of commands (irc_registration.py, irc_messages.py, irc_commands.py) and the encoders of events use it.

Labels (IRCv3, labeled-response). Each labelled command is answered by one line with its label, or by one batch:

    nothing but own lines   They are collected, and leave after the handler: none becomes ACK, several a batch.
    one request             The lines of the event that answers it: one has the label, several are a batch.
    several parts           The handler calls ``answer_in_batch`` first. The batch is open until its end.
    messages                Their confirmations come later, from the hub, in the order of the messages. ``sending`` has
                            an entry for each message that is not confirmed; the label waits there.

Threads. The reader thread calls everything but ``encode``. While it waits for the answer to a request, it is here that
``asked`` says which; other threads encode events meanwhile, and :meth:`is_answer` tells the two apart by their type and
their subject. ``sending`` is filled by the reader and emptied by the thread that confirms: both ends of a deque are
atomic. ``rooms`` is changed by whoever encodes.
"""

from __future__ import annotations

import re
from collections import deque
from itertools import count
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from msgspec import Struct

from chatprotocol import events, requests
from chatprotocol.wire.irc_capabilities import Encoding, Users, letters_of, offered
from chatprotocol.wire.irc_lines import Command, add_tag, escape_tag, format_line, tag_all

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from chatprotocol.requests import Request
    from chatprotocol.wire.irc_capabilities import Capability

# Yields the requests of a command, and puts its own answers.
Handler: TypeAlias = "Callable[[IrcConnection, Command], Iterator[Request]]"
# The name of the nickless in numerics.
NOBODY: Final = "*"
# A label may have this many bytes (IRCv3, labeled-response). A longer one is ignored.
_LABEL_MAX_BYTES: Final = 64
_BATCH_START: Final = re.compile(r"(?:@\S+ )?(?::\S+ )?BATCH \+(\S+)")
# Events that answer a request, beside Refused. They are about the user itself, or done by it.
_ANSWERS: Final[dict[type, tuple[type, ...]]] = {
    requests.Authenticate: (events.Authenticated,),
    requests.Enter: (events.Welcome,),
    requests.Rename: (events.Renamed,),
    requests.Quit: (events.Bye,),
    requests.Leave: (events.Bye,),
    requests.EnterLobby: (events.Entered,),
    requests.LeaveLobby: (events.Parted,),
    requests.Join: (events.Entered, events.Joined),
    requests.Part: (events.Parted,),
    requests.SetTopic: (events.TopicChanged,),
    requests.Invite: (events.Invited,),
    requests.MakeOperator: (events.RoleChanged,),
    requests.MakeMember: (events.RoleChanged,),
    requests.GiveVoice: (events.RoleChanged,),
    requests.TakeVoice: (events.RoleChanged,),
    requests.SetModes: (events.Modes,),
    requests.Kick: (events.Kicked,),
    requests.Ban: (events.Banned,),
    requests.Unban: (events.Unbanned,),
    requests.AskBans: (events.Bans,),
    requests.AskRoomBans: (events.Bans,),
    requests.AskRooms: (events.Rooms,),
    requests.AskTopic: (events.Topic,),
    requests.Delete: (events.Deleted,),
    requests.AskMembers: (events.Members,),
    requests.AskInfo: (events.Infos,),
    requests.AskWho: (events.Infos,),
    requests.AskPast: (events.Past,),
    requests.AskCounts: (events.Counts,),
    requests.SetAway: (events.AwayChanged,),
    requests.SetRealname: (events.RealnameChanged,),
    requests.Watch: (events.Watched,),
    requests.AskChatHistory: (events.ChatHistory,),
    requests.AskActive: (events.Active,),
    requests.MarkRead: (events.ReadMarked,),
    requests.AskMark: (events.ReadMarked,),
    requests.Relay: (events.RelayedBack,),
    requests.Ping: (events.Pong,),
    requests.Barrier: (events.Pong,),
}
# Answers that name the user whom they are about as ``username``.
_ABOUT_USER: Final = (events.Entered, events.Renamed, events.AwayChanged, events.RealnameChanged)


class IrcSettings(Struct, frozen=True):
    """The settings of the server that IRC shows. ``motd`` has the lines of the message of the day."""

    name: str = "chat.local"
    motd: tuple[str, ...] = ()
    # True if all users may register a name.
    has_registration: bool = True
    version: str = "chat"
    # The time of TIME, in milliseconds since 1970.
    now_ms: Callable[[], int] = int
    users: Users = Users()


class Sending(Struct, frozen=True, gc=False):
    """A message that is not confirmed. ``batch`` is that of several messages with one label.

    It is open, and ends after the answer to the last one (``closes``).
    """

    target: str
    label: str = ""
    batch: str = ""
    closes: bool = False
    is_notice: bool = False


class IrcConnection:
    """The state of one connection. See the module's docstring."""

    __slots__ = (
        "_batches",
        "_is_free",
        "_label",
        "_lines",
        "_out",
        "_reply_batch",
        "account",
        "asked",
        "closing",
        "command",
        "draft",
        "enabled",
        "encoding",
        "is_guest",
        "is_negotiating",
        "is_operator",
        "is_registered",
        "knows_302",
        "marks",
        "modes",
        "nick",
        "offered",
        "password",
        "realname",
        "rooms",
        "sasl",
        "seen_id",
        "sending",
        "settings",
        "user",
        "was_refused",
        "watched",
    )

    def __init__(self, settings: IrcSettings) -> None:
        self.settings = settings
        # The nick that was asked for, and after the login the name of the user; empty before both.
        self.nick = ""
        # The name of the account, after its password was right.
        self.account = ""
        # The ident, the description and the password that USER and PASS gave; None before them.
        self.user: str | None = None
        self.realname = ""
        self.password: str | None = None
        # The reason that the ERROR of the end has; empty for that of the server.
        self.closing = ""
        self.is_registered = False
        self.is_guest = False
        self.is_operator = False
        # The keys (rules.room_key) of the rooms whose messages this connection gets.
        self.rooms: set[str] = set()
        # The newest message when the user was last online, until the connection joins the lobby; None if unknown.
        self.seen_id: int | None = None
        # The modes of the user that the client has set, and the names that it watches.
        self.modes: set[str] = set()
        self.watched: tuple[str, ...] = ()
        # Read marks of a guest, by the name of the target.
        self.marks: dict[str, int] = {}
        self.offered: Mapping[str, Capability] = offered(has_registration=settings.has_registration)
        self.enabled: set[str] = set()
        self.knows_302 = False
        # True from the first CAP LS or CAP REQ to CAP END.
        self.is_negotiating = False
        self.encoding = Encoding(settings.name, users=settings.users)
        # The pieces of an answer of SASL; None if no mechanism was chosen.
        self.sasl: list[str] | None = None
        # The multiline batch that the client has begun; see irc_messages.py.
        self.draft: Any = None
        self.sending: deque[Sending] = deque()
        # The command that is being answered, and the request that the reader thread waits for.
        self.command = Command("")
        self.asked: Request | None = None
        # True if this request was refused.
        self.was_refused = False
        # The label that is not answered yet, and the batch that answers it. Own lines wait for it in ``_lines``.
        self._label = ""
        self._reply_batch = ""
        self._lines: list[str] = []
        self._out: list[str] = []
        self._batches = count(1)
        self._is_free = False

    # --- for handlers ---

    @property
    def target(self) -> str:
        """The first parameter of numerics."""
        return self.nick or NOBODY

    @property
    def prefix(self) -> str:
        """The source of what this user does."""
        return self.encoding.prefix(self.nick)

    @property
    def offline_prefix(self) -> str:
        """The same while the server does not know this user as online: with the ident that USER gave."""
        nick = self.nick or self.account
        return f"{nick}!{self.user or nick}@{self.settings.name}"

    @property
    def variant(self) -> str:
        """The variant of the encoding that the enabled capabilities need."""
        return f"irc/{letters_of(self.enabled)}"

    @property
    def echoes(self) -> bool:
        """True if the client wants its own messages."""
        return "echo-message" in self.enabled

    def numeric(self, code: str, *params: str) -> str:
        """The line of a numeric; the nick comes before the parameters."""
        return format_line(self.settings.name, code, self.target, *params)

    def put(self, *lines: str) -> None:
        """Answer with own lines. They leave before the next request, or after the handler."""
        if self._reply_batch:
            self._out += tag_all(lines, self._reply_batch)
        elif self._label:
            self._lines += lines
        else:
            self._out += lines

    def reply(self, code: str, *params: str) -> None:
        """Answer with a numeric."""
        self.put(self.numeric(code, *params))

    def fail(self, command: str, code: str, *params: str) -> None:
        """Answer with an error of the standard replies; the last parameter is its text."""
        self.put(format_line(self.settings.name, "FAIL", command, code, *params))

    def failure(self, command: str, code: str, *params: str) -> str:
        """The line of an error without a numeric: a standard reply, or a notice for clients that don't know it."""
        if "standard-replies" in self.enabled:
            return format_line(self.settings.name, "FAIL", command, code, *params)
        return format_line(self.settings.name, "NOTICE", self.target, params[-1])

    def answer_in_batch(self) -> None:
        """Open the batch of a labelled command that has several requests, or lines beside its request."""
        if self._label and not self._reply_batch:
            label, self._label = self._label, ""
            self._reply_batch = self.new_batch()
            self._out.append(self.open_batch(self._reply_batch, label))
            lines, self._lines = self._lines, []
            self.put(*lines)

    def take_label(self) -> str:
        """Return the label, for an answer that comes later; the handler is then not answered."""
        label, self._label = self._label, ""
        return label

    def restore_label(self, label: str) -> None:
        """Answer an earlier label with this command."""
        self._label = label or self._label

    @property
    def has_label(self) -> bool:
        """True if the command has a label that is not answered."""
        return bool(self._label)

    def open_later_batch(self) -> str:
        """Open the batch of several messages with one label, and return its name: see Sending."""
        batch = self.new_batch()
        self._out.append(self.open_batch(batch, self.take_label()))
        return batch

    def costs_nothing(self) -> None:
        """Don't count this command for the rate."""
        self._is_free = True

    def new_batch(self) -> str:
        """Return the name of a new batch."""
        return f"r{next(self._batches)}"

    def open_batch(self, batch: str, label: str) -> str:
        """The line that opens the batch of a labelled command."""
        return add_tag(format_line(self.settings.name, "BATCH", f"+{batch}", "labeled-response"), f"label={label}")

    def close_batch(self, batch: str) -> str:
        """The line that closes a batch."""
        return format_line(self.settings.name, "BATCH", f"-{batch}")

    # --- for IrcServer ---

    def run(self, command: Command, handler: Handler) -> Iterator[Request]:
        """Yield the requests of a command, and answer its label."""
        self.command = command
        if command.tags and self.enabled.issuperset(("labeled-response", "batch")):
            label = command.tags.get("label", "")
            self._label = escape_tag(label) if len(label.encode()) <= _LABEL_MAX_BYTES else ""
        self._is_free = False
        has_requests = False
        for request in handler(self, command):
            has_requests = True
            if self._lines:
                self.answer_in_batch()
            self.was_refused = False
            self.asked = request
            yield request
            self.asked = None
        self._finish()
        if not has_requests and not self._is_free:
            yield requests.Handled()

    def _finish(self) -> None:
        if self._reply_batch:
            self._out.append(self.close_batch(self._reply_batch))
            self._reply_batch = ""
        elif self._label:
            lines = self._lines or [self.ack()]
            self._lines = []
            self._out += self.label_lines(lines, self.take_label())

    def ack(self) -> str:
        """The answer to a labelled command that has no other."""
        return format_line(self.settings.name, "ACK")

    def take_out(self) -> list[str]:
        """Return the lines that leave without the session, and forget them."""
        lines, self._out = self._out, []
        return lines

    def answer_lines(self, lines: list[str]) -> list[str]:
        """Give the lines of an answering event the label, or the batch, of the command."""
        if self._reply_batch:
            return tag_all(lines, self._reply_batch)
        return self.label_lines(lines, self.take_label()) if lines and self._label else lines

    def label_lines(self, lines: list[str], label: str) -> list[str]:
        """Give lines a label: one line the tag, a batch that of its first line, and others a batch."""
        found = _BATCH_START.match(lines[0])
        if len(lines) == 1 or (found and lines[-1].endswith(f" BATCH -{found[1]}")):
            return [add_tag(lines[0], f"label={label}"), *lines[1:]]
        batch = self.new_batch()
        return [self.open_batch(batch, label), *tag_all(lines, batch), self.close_batch(batch)]

    def is_answer(self, event: object) -> bool:
        """True if the event answers the request that the reader thread waits for."""
        asked = self.asked
        if asked is None:
            return False
        if isinstance(event, events.Placed):
            event = event.event
        if isinstance(event, events.Refused):
            return True
        if not isinstance(event, _ANSWERS.get(type(asked), ())):
            return False
        if isinstance(event, _ABOUT_USER):
            is_new_name = isinstance(event, events.Renamed) and event.new_username == self.nick
            return event.username == self.nick or is_new_name
        # Topic comes only as an answer, and names who set it.
        return isinstance(event, events.Topic) or getattr(event, "by", None) in (None, self.nick)
