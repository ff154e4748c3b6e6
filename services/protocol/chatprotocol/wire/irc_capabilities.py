"""The capabilities of IRCv3 that the server offers, and the variants of the encoding that follow from them.

A variant is the text "irc/" and a letter for each capability that changes the bytes that connections share, sorted.
:class:`Encoding` reads it. See requests.Enter. There are 256 variants, but an event depends on few of the letters:
:func:`letters_for` returns them, so that the lobby's messages are encoded 16 times at most.
"""

from __future__ import annotations

from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple

from chatprotocol import events
from chatprotocol.limits import BODY_MAX_BYTES, IRC_MESSAGE_LINES_MAX
from chatprotocol.wire.irc_lines import format_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from collections.abc import Set as AbstractSet

SASL_MECHANISMS: Final = ("PLAIN",)
ACCOUNT_REGISTRATION: Final = "draft/account-registration"
EVENT_PLAYBACK: Final = "draft/event-playback"
EXTENDED_MONITOR: Final = "extended-monitor"
MESSAGE_REDACTION: Final = "draft/message-redaction"


class Capability(NamedTuple):
    """A capability. ``value`` is shown to clients that know version 302 of the negotiation.

    ``letter`` is that of the variant; empty if the capability does not change what connections share.
    """

    name: str
    value: str = ""
    letter: str = ""


_ALL: Final = (
    Capability("account-notify"),
    Capability("account-tag", letter="a"),
    Capability("away-notify", letter="n"),
    Capability("batch"),
    Capability("cap-notify"),
    Capability("chghost"),
    Capability(ACCOUNT_REGISTRATION, "before-connect"),
    Capability("draft/chathistory"),
    Capability(EVENT_PLAYBACK),
    Capability(MESSAGE_REDACTION),
    Capability("draft/multiline", f"max-bytes={BODY_MAX_BYTES},max-lines={IRC_MESSAGE_LINES_MAX}"),
    Capability("draft/no-implicit-names"),
    Capability("draft/read-marker"),
    Capability("echo-message"),
    Capability("extended-join", letter="e"),
    Capability(EXTENDED_MONITOR),
    Capability("invite-notify", letter="i"),
    Capability("labeled-response"),
    Capability("message-tags", letter="g"),
    Capability("multi-prefix"),
    Capability("sasl", ",".join(SASL_MECHANISMS)),
    Capability("server-time", letter="t"),
    Capability("setname", letter="s"),
    Capability("standard-replies"),
    Capability("userhost-in-names"),
)
# Both together change the form of long messages.
_MULTILINE: Final = frozenset({"batch", "draft/multiline"})
_MULTILINE_LETTER: Final = "b"
_OF_MESSAGES: Final = "abgt"
_OF_PLACED: Final = "gt"
# The letters that the shared lines of each kind of event depend on; an event that is not listed depends on all.
_LETTERS_OF: Final[Mapping[type, str]] = {
    events.PublicBatch: _OF_MESSAGES,
    events.PublicMessage: _OF_MESSAGES,
    events.Relayed: _OF_MESSAGES,
    events.MemberJoined: "aegn",
    events.AwayChanged: "agn",
    events.RealnameChanged: "ags",
    events.Invited: "agi",
    events.MemberLeft: "ag",
    events.UserQuit: "ag",
    events.Renamed: "ag",
    events.Kicked: "ag",
    events.TopicChanged: "ag",
    events.Modes: "ag",
    events.ModesMoved: "ag",
    events.RoleChanged: "ag",
    events.RoleMoved: "ag",
}


@cache
def offered(*, has_registration: bool) -> Mapping[str, Capability]:
    """All capabilities by their names, sorted; shared. ``has_registration``: all users may register a name."""
    found = {each.name: each for each in _ALL if has_registration or each.name != ACCOUNT_REGISTRATION}
    return MappingProxyType(found)


def letters_of(enabled: AbstractSet[str]) -> str:
    """The letters of the variant for a connection with these capabilities."""
    letters = {each.letter for each in _ALL if each.letter and each.name in enabled}
    if enabled >= _MULTILINE:
        letters.add(_MULTILINE_LETTER)
    return "".join(sorted(letters))


def letters_for(kind: type, letters: str, *, is_placed: bool = False) -> str:
    """Those of the letters that the shared lines of this kind of event depend on.

    ``is_placed``: it is in an events.Placed, whose time and id are tags.
    """
    needed = _LETTERS_OF.get(kind)
    if needed is None:
        return letters
    needed += _OF_PLACED if is_placed else ""
    return "".join([each for each in letters if each in needed])


def _is_unknown(_name: str) -> bool:
    return False


class Users(NamedTuple):
    """What the server knows of the users who are online, by their names. For any thread."""

    # The ident of a user; the name, if it is not known.
    ident_of: Callable[[str], str] = str
    # True if the user has an account.
    is_account: Callable[[str], bool] = _is_unknown
    # True if the user has said that it is a program.
    is_bot: Callable[[str], bool] = _is_unknown


_NO_USERS: Final = Users()


class Encoding:
    """What the encoding of events depends on: the name of the server, the letters of a variant, and the users."""

    __slots__ = (
        "has_account",
        "has_away_notify",
        "has_extended_join",
        "has_invite_notify",
        "has_multiline",
        "has_setname",
        "has_tags",
        "has_time",
        "server_name",
        "users",
    )

    def __init__(self, server_name: str, letters: Iterable[str] = "", users: Users = _NO_USERS) -> None:
        flags = frozenset(letters)
        self.server_name, self.users = server_name, users
        self.has_account = "a" in flags
        self.has_multiline = _MULTILINE_LETTER in flags
        self.has_extended_join = "e" in flags
        self.has_tags = "g" in flags
        self.has_invite_notify = "i" in flags
        self.has_away_notify = "n" in flags
        self.has_setname = "s" in flags
        self.has_time = "t" in flags

    def prefix(self, nick: str) -> str:
        """The source of what a user does."""
        return f"{nick}!{self.users.ident_of(nick)}@{self.server_name}"

    def line_of(self, nick: str, command: str, *params: str) -> str:
        """The line of what a user does, without its line end."""
        tags = [f"account={nick}"] if self.has_account and self.users.is_account(nick) else []
        tags += ["bot"] if self.has_tags and self.users.is_bot(nick) else []
        return format_line(self.prefix(nick), command, *params, tags=";".join(tags))
