"""IRC messages: PRIVMSG, NOTICE, tags, echoes, labels, batches, history. Cases of irctest (tests/irctest), with the
section of the specification. ``modern`` is modern.ircdocs.horse."""

import itertools

from integration.irc import dialogues

ALL = "+message-tags +server-time +echo-message +batch +labeled-response"
HISTORY_CAPS = f"{ALL} +draft/chathistory"
MESSAGES = {
    "RFC 2812 3.3.1: PRIVMSG to a channel and to a user": """
        alice :
        bob :
        alice > JOIN $room
        alice ..
        bob > JOIN $room
        bob ..
        alice ..
        alice > PRIVMSG $room :hello there
        bob < :$alice!*@* PRIVMSG $room :hello there
        alice .
        bob > PRIVMSG $alice :only you
        alice < :$bob!*@* PRIVMSG $alice :only you
        bob .
    """,
    "RFC 2812 3.3.2: NOTICE": """
        alice :
        bob :
        alice > NOTICE $bob :take note
        bob < :$alice!*@* NOTICE $bob :take note
        alice > NOTICE $nobody :take note
        alice .
    """,
    "modern, PRIVMSG message: errors": """
        alice :
        alice > PRIVMSG $nobody :hello
        alice < :$S 401 $alice $nobody :*
        alice > PRIVMSG $room :hello
        alice < :$S 40* $alice $room :*
        alice > PRIVMSG
        alice < :$S 4* $alice ...
        alice > PRIVMSG $alice
        alice < :$S 412 $alice :*
        alice > PRIVMSG $alice :
        alice < :$S 412 $alice :*
    """,
    "modern, PRIVMSG message: several targets": """
        alice :
        bob :
        carol :
        alice > PRIVMSG $bob,$carol :hello
        bob < :$alice!*@* PRIVMSG $bob hello
        carol < :$alice!*@* PRIVMSG $carol hello
    """,
    "RFC 1459 2.3.1: a text with colons and spaces": """
        alice :
        bob :
        alice > PRIVMSG $bob :: two  spaces :)
        bob < PRIVMSG $bob :: two  spaces :)
        alice > PRIVMSG $bob word
        bob < PRIVMSG $bob word
        alice > :$bob!x@y PRIVMSG $bob :my own source is not believed
        bob < :$alice!*@* PRIVMSG $bob :my own *
    """,
    "CTCP: ACTION": """
        alice :
        bob :
        alice > PRIVMSG $bob :\x01ACTION waves\x01
        bob < :$alice!*@* PRIVMSG $bob :\x01ACTION waves\x01
    """,
    "CTCP: other requests and their answers": """
        alice :
        bob :
        alice > PRIVMSG $bob :\x01VERSION\x01
        bob < :$alice!*@* PRIVMSG $bob :\x01VERSION\x01
        bob > NOTICE $alice :\x01VERSION test\x01
        alice < :$bob!*@* NOTICE $alice :\x01VERSION test\x01
    """,
    "modern, RPL_AWAY": """
        alice :
        bob :
        bob > AWAY :gone fishing
        bob < :$S 306 $bob :*
        alice > PRIVMSG $bob :hello
        alice < :$S 301 $alice $bob :gone fishing
        bob < PRIVMSG $bob hello
        bob > AWAY
        bob < :$S 305 $bob :*
        alice > PRIVMSG $bob :hello
        alice .
    """,
    "message-tags: client-only tags reach those who know tags": """
        alice : account +message-tags +echo-message +server-time
        bob : +message-tags +server-time +account-tag
        carol :
        alice > JOIN $room
        alice ..
        bob > JOIN $room
        bob ..
        carol > JOIN $room
        carol ..
        bob ..
        alice ..
        alice > @+typing=paused;secret=no TAGMSG $room
        alice < @time=$t;+typing=paused;!secret :$alice!*@* TAGMSG $room
        bob < @time=$t;account=$alice;+typing=paused;!secret :$alice!*@* TAGMSG $room
        carol .
        alice > @+typing=active TAGMSG $bob
        bob < @+typing=active :$alice!*@* TAGMSG $bob
        alice > PRIVMSG $bob :\x01VERSION\x01
        bob < @time=*Z;account=$alice :$alice!*@* PRIVMSG $bob :\x01VERSION\x01
        alice > PRIVMSG $carol :\x01VERSION\x01
        carol < @!time;!account :$alice!*@* PRIVMSG $carol :\x01VERSION\x01
    """,
    "message-tags, message-ids: one id for all": f"""
        alice : {ALL}
        bob : {ALL}
        alice > JOIN $room
        alice ..
        bob > JOIN $room
        bob ..
        alice ..
        alice > PRIVMSG $room :hello
        alice < @msgid=$id :$alice!*@* PRIVMSG $room hello
        bob < @msgid=$id;time=*Z :$alice!*@* PRIVMSG $room hello
    """,
    "account-tag: what a user does": """
        alice : +account-tag
        bob : account
        carol :
        bob > JOIN $room
        bob > MODE $room -t
        bob > INVITE $alice $room
        alice < @account=$bob :$bob!*@* INVITE $alice $room
        alice > JOIN $room
        alice ..
        carol > JOIN $room
        carol ..
        alice < @!account :$carol!*@* JOIN $room
        bob > TOPIC $room :hello
        alice < @account=$bob TOPIC $room hello
        carol > TOPIC $room :bye
        alice < @!account :$carol!*@* TOPIC $room bye
        bob > MODE $room +o $carol
        alice < @account=$bob MODE $room +o $carol
        bob > QUIT
        alice < @account=$bob :$bob!*@* QUIT
    """,
    "account-tag": """
        alice : +account-tag
        bob : account
        carol :
        bob > PRIVMSG $alice :hello
        alice < @account=$bob :$bob!*@* PRIVMSG $alice hello
        carol > PRIVMSG $alice :hello
        alice < @!account :$carol!*@* PRIVMSG $alice hello
    """,
    "echo-message: without it nothing comes back": """
        alice : +echo-message
        bob :
        alice > PRIVMSG $bob :hello
        alice < :$alice!*@* PRIVMSG $bob hello
        alice > NOTICE $bob :hello
        alice < :$alice!*@* NOTICE $bob hello
        alice .
        bob < PRIVMSG $bob hello
        bob < NOTICE $bob hello
        bob .
    """,
    "echo-message: to oneself": """
        alice :
        alice > PRIVMSG $alice :hello me
        alice < :$alice!*@* PRIVMSG $alice :hello me
        alice .
    """,
    "labeled-response: the echo has the label, the others do not": f"""
        alice : {ALL}
        bob : {ALL}
        alice > @label=12345 PRIVMSG $bob :hi
        alice < @label=12345 :$alice!*@* PRIVMSG $bob hi
        bob < @!label :$alice!*@* PRIVMSG $bob hi
        alice > JOIN $room
        alice ..
        bob > JOIN $room
        bob ..
        alice ..
        alice > @label=12346;+typing=paused PRIVMSG $room :hi
        alice < @label=12346 :$alice!*@* PRIVMSG $room hi
        bob < @!label :$alice!*@* PRIVMSG $room hi
        alice > @label=12347 NOTICE $room :hi
        alice < @label=12347 :$alice!*@* NOTICE $room hi
        alice > @label=12348;+typing=paused TAGMSG $room
        alice < @label=12348;+typing=paused :$alice!*@* TAGMSG $room
    """,
    "labeled-response: several lines are a batch": f"""
        alice : {ALL}
        alice > @label=abc JOIN $room
        alice < @label=abc BATCH +$batch labeled-response
        alice < @batch=$batch :$alice!*@* JOIN $room
        alice < @batch=$batch 353 ...
        alice < @batch=$batch 366 ...
        alice < BATCH -$batch
    """,
    "labeled-response: several targets are a batch": f"""
        alice : {ALL}
        bob : {ALL}
        carol : {ALL}
        alice > @label=abc PRIVMSG $bob,$carol :hi
        alice < @label=abc BATCH +$batch labeled-response
        alice < @batch=$batch :$alice!*@* PRIVMSG $bob hi
        alice < @batch=$batch :$alice!*@* PRIVMSG $carol hi
        alice < BATCH -$batch
    """,
    "labeled-response: one line has the label, none is ACK": """
        alice : +batch +labeled-response
        alice > @label=98765 PING adhoctestline
        alice < @label=98765 PONG $S adhoctestline
        alice > @label=98766 PONG adhoctestline
        alice < @label=98766 :$S ACK
        alice > @label=98767 NONSENSE
        alice < @label=98767 421 $alice NONSENSE :*
        alice > @label=98768 PRIVMSG $alice
        alice < @label=98768 412 $alice :*
    """,
    "labeled-response: without echo-message a message is ACK": """
        alice : +batch +labeled-response
        bob :
        alice > @label=abc PRIVMSG $bob :hi
        alice < @label=abc ACK
        bob < PRIVMSG $bob hi
    """,
    "multiline: a batch of lines, which others get as lines": f"""
        alice : {ALL} +draft/multiline
        bob : {ALL} +draft/multiline
        carol :
        alice > JOIN $room
        alice ..
        bob > JOIN $room
        bob ..
        carol > JOIN $room
        carol ..
        bob ..
        alice ..
        alice > BATCH +123 draft/multiline $room
        alice > @batch=123 PRIVMSG $room :hello
        alice > @batch=123 PRIVMSG $room :how is
        alice > @batch=123;draft/multiline-concat PRIVMSG $room :everyone?
        alice > BATCH -123
        alice < BATCH +$echo draft/multiline $room
        alice < @batch=$echo PRIVMSG $room hello
        alice < @batch=$echo PRIVMSG $room :how iseveryone?
        alice < BATCH -$echo
        bob < @msgid=* :$alice!*@* BATCH +$got draft/multiline $room
        bob < @batch=$got :$alice!*@* PRIVMSG $room hello
        bob < @batch=$got :$alice!*@* PRIVMSG $room :how iseveryone?
        bob < BATCH -$got
        carol < :$alice!*@* PRIVMSG $room hello
        carol < :$alice!*@* PRIVMSG $room :how iseveryone?
        carol .
    """,
    "multiline: a batch that mixes targets": f"""
        alice : {ALL} +draft/multiline
        alice > JOIN $room
        alice ..
        alice > BATCH +123 draft/multiline $room
        alice > @batch=123 PRIVMSG $room2 :hello
        alice <<
        alice & FAIL BATCH MULTILINE_INVALID_TARGET ...
    """,
    "multiline: a line of another batch, and one of none": f"""
        alice : {ALL} +draft/multiline
        alice > JOIN $room
        alice ..
        alice > @batch=7 PRIVMSG $room :hello
        alice < FAIL BATCH MULTILINE_INVALID :*
        alice > BATCH +123 draft/multiline $room
        alice > @batch=231 PRIVMSG $room :hello
        alice < FAIL BATCH MULTILINE_INVALID :*
        alice > @batch=123 PRIVMSG $room :too late
        alice > BATCH -123
        alice .
    """,
    "multiline: a blank line that continues another one": f"""
        alice : {ALL} +draft/multiline
        alice > JOIN $room
        alice ..
        alice > @label=x BATCH +123 draft/multiline $room
        alice > @batch=123 PRIVMSG $room :hello
        alice > @batch=123;draft/multiline-concat PRIVMSG $room :
        alice < @label=x FAIL BATCH MULTILINE_INVALID :*
        alice > BATCH -123
        alice .
    """,
    "message-redaction": f"""
        alice : {ALL} +draft/message-redaction
        bob : {ALL} +draft/message-redaction
        alice > JOIN $room
        alice ..
        bob > JOIN $room
        bob ..
        alice ..
        alice > PRIVMSG $room :a mistake
        alice < @msgid=$id PRIVMSG $room :a mistake
        bob < @msgid=$id PRIVMSG $room :a mistake
        bob > REDACT $room $id
        bob < FAIL REDACT REDACT_FORBIDDEN ...
        alice > REDACT $room $id :oops
        alice <<
        alice & :$alice!*@* REDACT $room $id oops
        bob < :$alice!*@* REDACT $room $id oops
        alice > REDACT $room 999999999
        alice < FAIL REDACT UNKNOWN_MSGID $room 999999999 :*
    """,
}


# Times before and after all messages: two messages may have the same time.
EARLY, LATE = "2000-01-01T00:00:00.000Z", "2100-01-01T00:00:00.000Z"


def _five(room: str, nick: str = "alice") -> str:
    """Five messages, with their ids in $m1 to $m5."""
    return "\n".join(
        f"""
        {nick} > PRIVMSG {room} :text {number}
        {nick} < @msgid=$m{number};time=$t{number} PRIVMSG {room} :text {number}
    """
        for number in range(1, 6)
    )


_BATCHES = itertools.count()


def _batch(room: str, *numbers: int) -> str:
    """The answer of CHATHISTORY with these messages."""
    name = f"batch{next(_BATCHES)}x"  # a name stands for one text in a dialogue
    lines = [f"@batch=${name};msgid=$m{number};time=$t{number} PRIVMSG {room} :text {number}" for number in numbers]
    return "\n".join(f"alice < {line}" for line in (f"BATCH +${name} chathistory {room}", *lines, f"BATCH -${name}"))


IN_ROOM = f"""
        alice : account {HISTORY_CAPS}
        alice > JOIN $room
        alice ..
        {_five("$room")}
"""
HISTORY = {
    "chathistory: LATEST": f"""{IN_ROOM}
        alice > CHATHISTORY LATEST $room * 3
        {_batch("$room", 3, 4, 5)}
        alice > CHATHISTORY LATEST $room msgid=$m2 10
        {_batch("$room", 3, 4, 5)}
        alice > CHATHISTORY LATEST $room timestamp={EARLY} 2
        {_batch("$room", 4, 5)}
    """,
    "chathistory: BEFORE": f"""{IN_ROOM}
        alice > CHATHISTORY BEFORE $room msgid=$m4 2
        {_batch("$room", 2, 3)}
        alice > CHATHISTORY BEFORE $room timestamp={LATE} 2
        {_batch("$room", 4, 5)}
    """,
    "chathistory: AFTER": f"""{IN_ROOM}
        alice > CHATHISTORY AFTER $room msgid=$m2 2
        {_batch("$room", 3, 4)}
        alice > CHATHISTORY AFTER $room timestamp={EARLY} 2
        {_batch("$room", 1, 2)}
    """,
    "chathistory: BETWEEN": f"""{IN_ROOM}
        alice > CHATHISTORY BETWEEN $room msgid=$m1 msgid=$m4 10
        {_batch("$room", 2, 3)}
        alice > CHATHISTORY BETWEEN $room msgid=$m5 msgid=$m1 2
        {_batch("$room", 3, 4)}
        alice > CHATHISTORY BETWEEN $room timestamp={EARLY} timestamp={LATE} 10
        {_batch("$room", 1, 2, 3, 4, 5)}
    """,
    "chathistory: AROUND": f"""{IN_ROOM}
        alice > CHATHISTORY AROUND $room msgid=$m3 3
        {_batch("$room", 2, 3, 4)}
        alice > CHATHISTORY AROUND $room msgid=$m3 1
        {_batch("$room", 3)}
    """,
    "chathistory, event-playback: changes of the channel are among the messages": f"""
        alice : account {HISTORY_CAPS} +draft/event-playback
        bob : account {HISTORY_CAPS}
        alice > JOIN $room
        alice ..
        bob > JOIN $room
        bob ..
        alice > PRIVMSG $room :hello
        alice > MODE $room +v $bob
        alice > TOPIC $room :the plan
        alice > KICK $room $bob :spam
        alice > MODE $room +b $bob
        alice ..
        alice > CHATHISTORY LATEST $room * 50
        alice < BATCH +$all chathistory $room
        alice < @batch=$all;msgid=$joined;time=* :$alice!*@* JOIN $room
        alice < @batch=$all;msgid=$entered :$bob!*@* JOIN $room
        alice < @batch=$all;msgid=$hello :$alice!*@* PRIVMSG $room hello
        alice < @batch=$all;msgid=$voiced :$alice!*@* MODE $room +v $bob
        alice < @batch=$all;msgid=$planned;time=* :$alice!*@* TOPIC $room :the plan
        alice < @batch=$all;msgid=$kicked :$alice!*@* KICK $room $bob spam
        alice < @batch=$all;msgid=$banned :$alice!*@* MODE $room +b $bob!*@*
        alice < BATCH -$all
        alice > CHATHISTORY AFTER $room msgid=$entered 2
        alice < BATCH +$after chathistory $room
        alice < @batch=$after;msgid=$hello :$alice!*@* PRIVMSG $room hello
        alice < @batch=$after;msgid=$voiced :$alice!*@* MODE $room +v $bob
        alice < BATCH -$after
        alice > CHATHISTORY BEFORE $room msgid=$hello 1
        alice < BATCH +$before chathistory $room
        alice < @batch=$before;msgid=$entered :$bob!*@* JOIN $room
        alice < BATCH -$before
        alice > CHATHISTORY BETWEEN $room msgid=$banned msgid=$voiced 50
        alice < BATCH +$between chathistory $room
        alice < @batch=$between;msgid=$planned :$alice!*@* TOPIC $room :the plan
        alice < @batch=$between;msgid=$kicked :$alice!*@* KICK $room $bob spam
        alice < BATCH -$between
    """,
    "chathistory, event-playback: lines of now have the msgid and time that the history gives": f"""
        alice : account {HISTORY_CAPS} +draft/event-playback
        bob : account {HISTORY_CAPS} +draft/event-playback
        alice > JOIN $room
        alice < @msgid=$m1;time=$t1 :$alice!*@* JOIN $room
        alice ..
        bob > JOIN $room
        bob < @msgid=$m2;time=$t2 :$bob!*@* JOIN $room
        bob ..
        alice < @msgid=$m2;time=$t2 :$bob!*@* JOIN $room
        alice > MODE $room +mk key
        alice < @msgid=$m3;time=$t3 :$alice!*@* MODE $room +mk key
        bob < @msgid=$m3;time=$t3 :$alice!*@* MODE $room +mk key
        alice > TOPIC $room :the plan
        alice < @msgid=$m4;time=$t4 :$alice!*@* TOPIC $room :the plan
        bob < @msgid=$m4;time=$t4 :$alice!*@* TOPIC $room :the plan
        alice > KICK $room $bob :spam
        alice < @msgid=$m5;time=$t5 :$alice!*@* KICK $room $bob spam
        bob < @msgid=$m5;time=$t5 :$alice!*@* KICK $room $bob spam
        bob > JOIN $room key
        bob < @msgid=$m6;time=$t6 :$bob!*@* JOIN $room
        bob ..
        alice < @msgid=$m6;time=$t6 :$bob!*@* JOIN $room
        alice > MODE $room +b $bob
        alice < @msgid=$m7;time=$t7 :$alice!*@* KICK $room $bob *
        alice < @msgid=$m8;time=$t8 :$alice!*@* MODE $room +b $bob!*@*
        bob < @msgid=$m7;time=$t7 :$alice!*@* KICK $room $bob *
        alice > MODE $room -b $bob
        alice < @msgid=$m9;time=$t9 :$alice!*@* MODE $room -b $bob!*@*
        bob > JOIN $room key
        bob ..
        alice < @msgid=$m10 :$bob!*@* JOIN $room
        alice > MODE $room +v $bob
        alice < @msgid=$m11;time=$t11 :$alice!*@* MODE $room +v $bob
        bob < @msgid=$m11;time=$t11 :$alice!*@* MODE $room +v $bob
        alice > PART $room :bye
        alice < @msgid=$m12;time=$t12 :$alice!*@* PART $room bye
        bob < @msgid=$m12;time=$t12 :$alice!*@* PART $room bye
        bob < @msgid=$m13;time=$t13 :$S MODE $room +o $bob
        bob > CHATHISTORY LATEST $room * 50
        bob < BATCH +$all chathistory $room
        bob < @batch=$all;msgid=$m1;time=$t1 :$alice!*@* JOIN $room
        bob < @batch=$all;msgid=$m2;time=$t2 :$bob!*@* JOIN $room
        bob < @batch=$all;msgid=$m3;time=$t3 :$alice!*@* MODE $room +mk *
        bob < @batch=$all;msgid=$m4;time=$t4 :$alice!*@* TOPIC $room :the plan
        bob < @batch=$all;msgid=$m5;time=$t5 :$alice!*@* KICK $room $bob spam
        bob < @batch=$all;msgid=$m6;time=$t6 :$bob!*@* JOIN $room
        bob < @batch=$all;msgid=$m7;time=$t7 :$alice!*@* KICK $room $bob *
        bob < @batch=$all;msgid=$m8;time=$t8 :$alice!*@* MODE $room +b $bob!*@*
        bob < @batch=$all;msgid=$m9;time=$t9 :$alice!*@* MODE $room -b $bob!*@*
        bob < @batch=$all;msgid=$m10 :$bob!*@* JOIN $room
        bob < @batch=$all;msgid=$m11;time=$t11 :$alice!*@* MODE $room +v $bob
        bob < @batch=$all;msgid=$m12;time=$t12 :$alice!*@* PART $room bye
        bob < @batch=$all;msgid=$m13;time=$t13 :$S MODE $room +o $bob
        bob < BATCH -$all
    """,
    "chathistory, event-playback: without it, and at the next login, there are messages only": f"""
        alice : account {HISTORY_CAPS}
        alice > JOIN $room
        alice > TOPIC $room :the plan
        alice > PRIVMSG $room :hello
        alice ..
        alice > CHATHISTORY LATEST $room * 50
        alice < BATCH +$batch chathistory $room
        alice < @batch=$batch :$alice!*@* PRIVMSG $room hello
        alice < BATCH -$batch
        alice > CAP REQ :draft/event-playback
        alice < CAP $alice ACK :draft/event-playback
        alice > CHATHISTORY AROUND $room timestamp={EARLY} 1
        alice < BATCH +$around chathistory $room
        alice < @batch=$around :$alice!*@* JOIN $room
        alice < BATCH -$around
    """,
    "chathistory: an empty batch": f"""
        alice : account {HISTORY_CAPS}
        alice > JOIN $room
        alice ..
        alice > CHATHISTORY LATEST $room * 10
        alice < BATCH +$batch chathistory $room
        alice < BATCH -$batch
    """,
    "chathistory: direct messages, for both": f"""
        alice : account {HISTORY_CAPS}
        bob : account {HISTORY_CAPS}
        {_five("$bob")}
        bob ..
        alice > CHATHISTORY LATEST $bob * 2
        {_batch("$bob", 4, 5)}
        bob > CHATHISTORY LATEST $alice * 1
        bob < BATCH +$hers chathistory $alice
        bob < @batch=$hers;msgid=$m5 :$alice!*@* PRIVMSG $bob :text 5
        bob < BATCH -$hers
    """,
    "chathistory, errors: no such target, or not a member": f"""
        alice : account {HISTORY_CAPS}
        bob : account {HISTORY_CAPS}
        bob > JOIN $room
        bob ..
        bob > PRIVMSG $room :hidden
        bob ..
        alice > CHATHISTORY LATEST $room2 * 10
        alice < :$S FAIL CHATHISTORY INVALID_TARGET LATEST $room2 :*
        alice > CHATHISTORY LATEST $room * 10
        alice < :$S FAIL CHATHISTORY INVALID_TARGET LATEST $room :*
        alice > CHATHISTORY LATEST $room
        alice < :$S FAIL CHATHISTORY INVALID_PARAMS LATEST :*
        alice > CHATHISTORY NONSENSE $room * 10
        alice < :$S FAIL CHATHISTORY INVALID_PARAMS NONSENSE :*
    """,
    "chathistory: TARGETS": f"""
        alice : account {HISTORY_CAPS}
        bob : account {HISTORY_CAPS}
        alice > PRIVMSG $bob :hello
        alice < @time=$t PRIVMSG $bob hello
        alice > CHATHISTORY TARGETS timestamp=2020-01-01T00:00:00.000Z timestamp=2099-01-01T00:00:00.000Z 10
        alice < BATCH +$batch draft/chathistory-targets
        alice < @batch=$batch CHATHISTORY TARGETS $bob $t
        alice < BATCH -$batch
    """,
    "chathistory: who was not there does not see it": f"""
        alice : {HISTORY_CAPS}
        alice > JOIN $room
        alice ..
        alice > PRIVMSG $room :before bob
        alice ..
        bob : {HISTORY_CAPS}
        bob > JOIN $room
        bob ..
        bob > CHATHISTORY LATEST $room * 10
        bob < BATCH +$batch chathistory $room
        bob < BATCH -$batch
    """,
    "read-marker": """
        alice : account +draft/read-marker
        alice > JOIN $room
        alice < :$alice!*@* JOIN $room
        alice <<
        alice & MARKREAD $room *
        alice & 366 ...
        alice > MARKREAD $room timestamp=2022-01-01T00:00:00.000Z
        alice < :$S MARKREAD $room timestamp=2022-01-01T00:00:00.000Z
        alice > MARKREAD $room
        alice < MARKREAD $room timestamp=2022-01-01T00:00:00.000Z
        alice > MARKREAD $room timestamp=2021-01-01T00:00:00.000Z
        alice < MARKREAD $room timestamp=2022-01-01T00:00:00.000Z
        alice > MARKREAD
        alice < FAIL MARKREAD NEED_MORE_PARAMS :*
        alice > MARKREAD $room nonsense
        alice < FAIL MARKREAD INVALID_PARAMS ...
    """,
}
WEBSOCKET = {
    f"websocket: {subprotocols}": f"""
        alice : over={subprotocols}
        bob :
        alice > PRIVMSG $bob :hello
        bob < :$alice!*@* PRIVMSG $bob hello
        bob > PRIVMSG $alice :caf\u00e9
        alice < :$bob!*@* PRIVMSG $alice caf\u00e9
        alice > JOIN $room
        alice < :$alice!*@* JOIN $room
        alice ..
        bob > JOIN $room
        bob ..
        alice ..
        bob > PRIVMSG $room :to all
        alice < :$bob!*@* PRIVMSG $room :to all
        alice > PRIVMSG $room :to all
        bob < :$alice!*@* PRIVMSG $room :to all
        alice > QUIT
        alice < ERROR :*
        alice $
    """
    for subprotocols in ("text.ircv3.net", "binary.ircv3.net", "binary.ircv3.net,text.ircv3.net")
}
GAMJA = (
    "account-notify away-notify batch chghost echo-message extended-join extended-monitor invite-notify "
    "labeled-response message-tags multi-prefix sasl server-time setname draft/account-registration draft/chathistory "
    "draft/message-redaction draft/read-marker"
)
WEBSOCKET["websocket without a subprotocol: the commands of gamja, which waits for few answers"] = f"""
    bob :
    bob > JOIN $room
    bob > PRIVMSG $room :earlier
    bob ..
    alice : raw account over=none
    alice > CAP LS 302
    alice > NICK $alice
    alice > USER $alice 0 * :Alice
    alice <+ CAP * LS :*
    alice > CAP REQ :{GAMJA}
    alice > @label=1 AUTHENTICATE PLAIN
    alice > AUTHENTICATE $plain
    alice > CAP END
    alice < CAP $alice ACK :*
    alice < AUTHENTICATE +
    alice <+ 903 ...
    alice <+ 001 $alice :*
    alice ..
    alice > @label=2 JOIN $room
    alice <+ :$alice!*@* JOIN $room $alice :*
    alice <+ 366 ...
    alice ..
    alice > @label=3 WHO $room %tcuhnfar,7
    alice <<
    alice & 354 $alice 7 $room * chat.local $alice H $alice :*
    alice & 315 ...
    alice > @label=4 CHATHISTORY BEFORE $room timestamp=2999-01-01T00:00:00.000Z 50
    alice < @label=4 BATCH +$batch chathistory $room
    alice < @batch=$batch :$bob!*@* PRIVMSG $room earlier
    alice < BATCH -$batch
    alice > PRIVMSG $room :hello
    alice < :$alice!*@* PRIVMSG $room hello
    bob <+ :$alice!*@* PRIVMSG $room hello
"""
test_messages_arrive_as_the_specification_says = dialogues({**MESSAGES, **HISTORY, **WEBSOCKET})
