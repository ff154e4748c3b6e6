"""Parses the arguments of the commands of moderation. Pure.

    /kick bob spam              remove bob from the current room; in the lobby: end his connections
    /ban bob #dev 7d spam       room and duration may precede the reason, in any order
    /ban 192.0.2.0/24 forever   an address or a network: always from the server
    /delete 17                  /delete alone deletes the user's own last message in the current room
    /report bob spam            /report 17 reports a message; @17 is the user of that name

A word after the user is a room if it begins with # or if the user is in a room of this name; ``lobby`` means the whole
server. It is a duration if it begins with a digit. All functions raise InputError.
"""

import re
from typing import Final, NamedTuple

from chatclient.cli.words import InputError, checked, checked_room, checked_user, first_word
from chatprotocol import requests, rules
from chatprotocol.address import ban_network, is_address
from chatprotocol.duration import is_duration, read_duration
from chatprotocol.errors import RequestError
from chatprotocol.limits import HISTORY_MAX_MESSAGES

_ID: Final = re.compile("#?([0-9]{1,18})")


class Place(NamedTuple):
    """The room in which a command is typed (empty for the lobby), and the rooms that the user is in."""

    room: str
    rooms: tuple[str, ...]


def kick(place: Place, rest: str) -> requests.Kick:
    word, rest = first_word(rest)
    username = checked_user(word)
    room, rest = _room_and_rest(place, rest)
    return requests.Kick(username=username, room=room, reason=_reason(rest))


def ban(place: Place, rest: str) -> requests.Ban:
    target, rest = first_word(rest)
    username, address = _user_or_network(target)
    room, seconds, reason = _terms(place, rest, is_network=address is not None)
    return requests.Ban(username=username, address=address, room=room, seconds=seconds, reason=reason)


def mute(place: Place, rest: str) -> requests.Mute:
    word, rest = first_word(rest)
    username = checked_user(word)
    room, seconds, reason = _terms(place, rest)
    return requests.Mute(username=username, room=room, seconds=seconds, reason=reason)


def unban(place: Place, rest: str) -> requests.Unban:
    target, rest = first_word(rest)
    username, address = _user_or_network(target)
    room = None if address is not None and not rest else _only_room(place, rest)
    if address is not None and room is not None:
        raise _no_room_for_networks()
    return requests.Unban(username=username, address=address, room=room)


def unmute(place: Place, rest: str) -> requests.Unmute:
    word, rest = first_word(rest)
    return requests.Unmute(username=checked_user(word), room=_only_room(place, rest))


def bans(place: Place, rest: str) -> requests.AskBans:
    return requests.AskBans(room=_only_room(place, rest))


def delete(place: Place, rest: str, last_own_id: int | None) -> requests.Delete:
    if not rest and last_own_id is None:
        raise InputError(
            "You have sent no message here that this client knows; /delete NUMBER deletes one by its number."
        )
    number = _ID.fullmatch(rest)
    if rest and number is None:
        raise InputError(f"/delete takes the number of a message, as in /delete 17, not {rest[:32]!r}.")
    message_id = int(number[1]) if number else last_own_id or 0
    return requests.Delete(message_id, place.room or None)


def report(place: Place, rest: str) -> requests.Report:
    word, rest = first_word(rest)
    if number := _ID.fullmatch(word):
        return requests.Report(id=int(number[1]), room=place.room or None, reason=_reason(rest))
    return requests.Report(username=checked_user(word), room=place.room or None, reason=_reason(rest))


def audit(rest: str) -> requests.AskAudit:
    try:
        return requests.AskAudit(rules.history_limit(rest))
    except RequestError:
        raise InputError(f"/audit takes a number from 1 to {HISTORY_MAX_MESSAGES}, not {rest[:32]!r}.") from None


def _terms(place: Place, rest: str, *, is_network: bool = False) -> tuple[str | None, int | None, str]:
    """Room, duration and reason. The room of a network is None: it can be banned from the server only."""
    here = Place("", place.rooms) if is_network else place
    room, others = _room_and_rest(here, rest)
    word, reason = first_word(others)
    seconds = None
    if is_duration(word):
        try:
            seconds = read_duration(word)
        except ValueError as error:
            raise InputError(f"{error}. Nothing was done.") from None
        if others == rest:  # the room may follow
            room, reason = _room_and_rest(here, reason)
    else:
        reason = others
    if is_network and room is not None:
        raise _no_room_for_networks()
    return room, seconds, _reason(reason)


def _room_and_rest(place: Place, rest: str) -> tuple[str | None, str]:
    """The room that the first word names, or the current one; and the other words."""
    word, others = first_word(rest)
    name = word.removeprefix("#")
    if rules.is_lobby(name):
        return None, others
    known = [each for each in place.rooms if rules.room_key(each) == rules.room_key(name)]
    if known or word.startswith("#"):
        return known[0] if known else checked_room(name), others
    return place.room or None, rest


def _only_room(place: Place, rest: str) -> str | None:
    """The room of a command that takes nothing else."""
    name = rest.removeprefix("#") or place.room
    return None if not name or rules.is_lobby(name) else checked_room(name)


def _user_or_network(target: str) -> tuple[str | None, str | None]:
    if not is_address(target):
        return checked_user(target), None
    try:
        return None, ban_network(target)
    except ValueError as error:
        raise InputError(f"{error}. Nothing was done.") from None


def _no_room_for_networks() -> InputError:
    return InputError("An address can be banned from the whole server only, not from a room. Nothing was done.")


def _reason(text: str) -> str:
    return checked(rules.check_reason, text)
