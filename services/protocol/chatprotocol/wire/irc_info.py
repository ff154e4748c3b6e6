"""What the IRC server says of itself: the welcome, ISUPPORT, message of the day, VERSION, TIME, INFO, HELP, ADMIN."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from chatprotocol.limits import (
    AWAY_MAX_BYTES,
    HISTORY_MAX_MESSAGES,
    REALNAME_MAX_BYTES,
    REASON_MAX_BYTES,
    ROOM_KEY_MAX_BYTES,
    ROOM_NAME_MAX_CHARACTERS,
    ROOMS_JOINED_MAX,
    SANCTIONS_OF_ROOM_MAX,
    TOPIC_MAX_BYTES,
    USERNAME_MAX_BYTES,
    WATCHED_MAX,
)
from chatprotocol.wire.irc_lines import wrap_words
from chatprotocol.wire.irc_messages import RELAYED_TAGS, TARGETS_MAX
from chatprotocol.wire.json import to_iso

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from chatprotocol.events import Counts, Welcome
    from chatprotocol.requests import Request
    from chatprotocol.wire.irc_connection import Handler, IrcConnection
    from chatprotocol.wire.irc_lines import Command

# Tokens of one line of ISUPPORT (modern.ircdocs.horse).
_TOKENS_MAX: Final = 13
# Modes of users, of rooms, and those of rooms that have a parameter.
_USER_MODES: Final = "Bio"
_ROOM_MODES: Final = "biklmnostv"
_MODES_WITH_PARAMETER: Final = "bklov"
# Changes of modes in one command.
MODES_MAX: Final = 20
_SUPPORTED: Final = (
    f"AWAYLEN={AWAY_MAX_BYTES}",
    "BOT=B",
    "CASEMAPPING=ascii",
    f"CHANLIMIT=#:{ROOMS_JOINED_MAX}",
    "CHANMODES=b,k,l,imnst",
    f"CHANNELLEN={1 + ROOM_NAME_MAX_CHARACTERS}",
    "CHANTYPES=#",
    f"CHATHISTORY={HISTORY_MAX_MESSAGES}",
    f"CLIENTTAGDENY=*,{','.join('-' + tag[1:] for tag in RELAYED_TAGS)}",
    "ELIST=MNU",
    f"KEYLEN={ROOM_KEY_MAX_BYTES}",
    f"KICKLEN={REASON_MAX_BYTES}",
    f"MAXLIST=b:{SANCTIONS_OF_ROOM_MAX}",
    f"MAXTARGETS={TARGETS_MAX}",
    f"MODES={MODES_MAX}",
    f"MONITOR={WATCHED_MAX}",
    "MSGREFTYPES=msgid,timestamp",
    f"NAMELEN={REALNAME_MAX_BYTES}",
    f"NICKLEN={USERNAME_MAX_BYTES}",
    "PREFIX=(ov)@+",
    "SAFELIST",
    f"TARGMAX=JOIN:,KICK:{TARGETS_MAX},LIST:1,NAMES:1,NOTICE:{TARGETS_MAX},PART:,PRIVMSG:{TARGETS_MAX},WHOIS:1",
    f"TOPICLEN={TOPIC_MAX_BYTES}",
    f"USERLEN={USERNAME_MAX_BYTES}",
    "UTF8ONLY",
    "WHOX",
)
_HELP_OF: Final[Mapping[str, str]] = {
    "AWAY": "AWAY :TEXT. You are away; without a text you are back.",
    "CHATHISTORY": "CHATHISTORY LATEST|BEFORE|AFTER|AROUND TARGET msgid=ID|timestamp=TIME COUNT. Earlier messages.",
    "INVITE": "INVITE NICK #CHANNEL. Without parameters: the channels that you are invited to.",
    "ISON": "ISON NICK NICK. Which of the users are online.",
    "JOIN": "JOIN #CHANNEL KEY. Enter a channel. If there is none of this name, it is made.",
    "KICK": "KICK #CHANNEL NICK :REASON. Remove a user from a channel.",
    "LIST": "LIST MASK. The channels; >10 has those with more than ten users.",
    "LUSERS": "LUSERS. The number of users.",
    "MARKREAD": "MARKREAD TARGET timestamp=TIME. What you have read.",
    "MODE": "MODE #CHANNEL +m. Modes: o v (members), b (bans), i k l m t. Without modes: those that are set.",
    "MONITOR": "MONITOR + NICK,NICK. Be told when users come online; - ends it, L lists them, C clears the list.",
    "MOTD": "MOTD. The message of the day.",
    "NAMES": "NAMES #CHANNEL. The users of a channel.",
    "NICK": "NICK NAME. Another name, for guests.",
    "NOTICE": "NOTICE TARGET :TEXT. A message that no program answers.",
    "PART": "PART #CHANNEL :REASON. Leave a channel.",
    "PRIVMSG": "PRIVMSG TARGET :TEXT. A message to a user or a channel.",
    "QUIT": "QUIT :REASON. End the connection.",
    "REDACT": "REDACT TARGET MSGID. Delete a message.",
    "SETNAME": "SETNAME :TEXT. Describe yourself.",
    "TAGMSG": "TAGMSG TARGET. Pass tags on to the programs of others.",
    "TIME": "TIME. The time of the server.",
    "TOPIC": "TOPIC #CHANNEL :TEXT. Change the topic; without a text: show it.",
    "USERHOST": "USERHOST NICK NICK. Whether the users are away.",
    "VERSION": "VERSION. The program of the server, and its limits.",
    "WHO": "WHO #CHANNEL|MASK. Who is there.",
    "WHOIS": "WHOIS NICK. What is known of a user.",
    "WHOWAS": "WHOWAS NICK COUNT. Users who were online.",
}
# A line of names is short enough for each terminal.
_NAMES_BYTES: Final = 72
_HELP: Final = (
    "Channels are rooms; JOIN #lobby is where everybody is.",
    "Log in with SASL PLAIN, or PASS account:password; without a password you are a guest.",
    "HELP COMMAND has the parameters of one of these commands:",
    *wrap_words(_HELP_OF, _NAMES_BYTES),
)


def welcome_lines(connection: IrcConnection, welcome: Welcome, counts: Counts | None) -> list[str]:
    """The lines of a login. ``counts`` may follow the event of the login."""
    name, version = connection.settings.name, connection.settings.version
    nick = connection.nick
    return [
        connection.numeric("001", f"Welcome to the {name} Network, {nick}"),
        connection.numeric("002", f"Your host is {name}, running version {version}"),
        connection.numeric("003", "This server keeps every message"),
        connection.numeric("004", name, version, _USER_MODES, _ROOM_MODES, _MODES_WITH_PARAMETER),
        *supported_lines(connection),
        *(counts_lines(connection, counts) if counts is not None else ()),
        *motd_lines(connection),
        *([connection.numeric("221", "+o")] if welcome.operator else ()),
    ]


def supported_lines(connection: IrcConnection) -> list[str]:
    """ISUPPORT."""
    tokens = (*_SUPPORTED, f"HOSTLEN={len(connection.settings.name)}", f"NETWORK={connection.settings.name}")
    return [
        connection.numeric("005", *sorted(tokens)[start : start + _TOKENS_MAX], "are supported by this server")
        for start in range(0, len(tokens), _TOKENS_MAX)
    ]


def counts_lines(connection: IrcConnection, counts: Counts) -> list[str]:
    """The answer to LUSERS."""
    users, most = str(counts.users), str(counts.users_max)
    return [
        connection.numeric("251", f"There are {users} users and 0 invisible on {counts.servers} servers"),
        connection.numeric("252", str(counts.operators), "operator(s) online"),
        connection.numeric("253", str(counts.unknown), "unknown connection(s)"),
        connection.numeric("254", str(counts.rooms), "channels formed"),
        connection.numeric("255", f"I have {users} clients and {counts.servers - 1} servers"),
        connection.numeric("265", users, most, f"Current local users {users}, max {most}"),
        connection.numeric("266", users, most, f"Current global users {users}, max {most}"),
    ]


def motd_lines(connection: IrcConnection) -> list[str]:
    """The message of the day."""
    if not connection.settings.motd:
        return [connection.numeric("422", "MOTD File is missing")]
    return [
        connection.numeric("375", f"- {connection.settings.name} Message of the day - "),
        *(connection.numeric("372", f"- {line}") for line in connection.settings.motd),
        connection.numeric("376", "End of /MOTD command"),
    ]


def _is_for_us(connection: IrcConnection, command: Command) -> bool:
    """True if the command names no server, or this one; otherwise its error is put."""
    server = command.param(0)
    if not server or server.lower() in (connection.settings.name.lower(), "*") or server == connection.nick:
        return True
    connection.reply("402", server, "No such server")
    return False


def motd(connection: IrcConnection, command: Command) -> Iterator[Request]:
    """MOTD."""
    if _is_for_us(connection, command):
        connection.put(*motd_lines(connection))
    yield from ()


def version(connection: IrcConnection, command: Command) -> Iterator[Request]:
    """VERSION."""
    if _is_for_us(connection, command):
        connection.reply("351", connection.settings.version, connection.settings.name, "IRC over the chat room")
        connection.put(*supported_lines(connection))
    yield from ()


def time(connection: IrcConnection, command: Command) -> Iterator[Request]:
    """TIME."""
    if _is_for_us(connection, command):
        now_ms = connection.settings.now_ms()
        connection.reply("391", connection.settings.name, str(now_ms // 1000), "0", to_iso(now_ms))
    yield from ()


def info(connection: IrcConnection, command: Command) -> Iterator[Request]:
    """INFO."""
    if _is_for_us(connection, command):
        connection.reply("371", f"{connection.settings.name} runs {connection.settings.version}.")
        connection.reply("371", "It speaks several protocols; all users meet in the same rooms.")
        connection.reply("374", "End of /INFO list")
    yield from ()


def admin(connection: IrcConnection, command: Command) -> Iterator[Request]:
    """ADMIN."""
    if _is_for_us(connection, command):
        connection.reply("423", connection.settings.name, "No administrative info available")
    yield from ()


def show_help(connection: IrcConnection, command: Command) -> Iterator[Request]:
    """HELP: of the server, or of a command."""
    subject = command.param(0) or "*"
    name = subject.upper()
    lines = _HELP if name in ("*", "INDEX") else (_HELP_OF[name],) if name in _HELP_OF else ()
    if lines:
        connection.reply("704", subject, "Help of this server")
        for line in lines:
            connection.reply("705", subject, line)
        connection.reply("706", subject, "End of /HELP")
    else:
        connection.reply("524", subject, "No help available on this topic")
    yield from ()


COMMANDS: Final[Mapping[str, Handler]] = {
    "MOTD": motd,
    "VERSION": version,
    "TIME": time,
    "INFO": info,
    "ADMIN": admin,
    "HELP": show_help,
    "HELPOP": show_help,
}
