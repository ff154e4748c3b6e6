"""IRC in channels: JOIN, PART, KICK, INVITE, TOPIC, NAMES, LIST, MODE. Cases of irctest (tests/irctest), with the
section of the specification. ``modern`` is modern.ircdocs.horse."""

from integration.irc import dialogues

# alice made the channel, and bob is in it.
TWO = """
        alice :
        bob :
        alice > JOIN $room
        alice ..
        bob > JOIN $room
        bob ..
        alice ..
"""
COMING_AND_GOING = {
    "modern, JOIN message: the first one is operator": """
        alice :
        alice > JOIN $room
        alice < :$alice!*@* JOIN $room
        alice < :$S 353 $alice * $room :@$alice
        alice < :$S 366 $alice $room :*
        alice .
    """,
    "modern, JOIN message: the others are told": """
        alice :
        bob :
        alice > JOIN $room
        alice ..
        bob > JOIN $room
        bob < :$bob!*@* JOIN $room
        bob <<
        bob & 366 $bob $room :*
        alice < :$bob!*@* JOIN $room
        alice .
    """,
    "modern, JOIN message: several channels": """
        alice :
        alice > JOIN $room,$room2
        alice <<
        alice & :$alice!*@* JOIN $room
        alice & 366 $alice $room :*
        alice & :$alice!*@* JOIN $room2
        alice & 366 $alice $room2 :*
    """,
    "RFC 2812 3.2.1: joined twice": """
        alice :
        alice > JOIN $room
        alice ..
        alice > JOIN $room
        alice .
    """,
    "RFC 2812 3.2.1: JOIN 0 leaves all channels": """
        alice :
        alice > JOIN $room
        alice ..
        alice > JOIN 0
        alice <<
        alice & :$alice!*@* PART $room ...
    """,
    "modern, ERR_NEEDMOREPARAMS: JOIN": """
        alice :
        alice > JOIN
        alice < :$S 461 $alice JOIN :*
    """,
    "modern, ERR_NOSUCHCHANNEL: a name that no channel can have": """
        alice :
        alice > JOIN foo
        alice < :$S 403 $alice foo :*
        alice > JOIN #a!b
        alice < :$S 4* $alice #a!b :*
    """,
    "extended-join": """
        alice : +extended-join
        bob :
        carol : account
        alice > JOIN $room
        alice < :$alice!*@* JOIN $room * :$alice Realname
        alice ..
        bob > JOIN $room
        bob ..
        alice < :$bob!*@* JOIN $room * :$bob Realname
        carol > JOIN $room
        alice < :$carol!*@* JOIN $room $carol :$carol Realname
        bob < :$carol!*@* JOIN $room
    """,
    "no-implicit-names": """
        alice : +draft/no-implicit-names
        alice > JOIN $room
        alice < :$alice!*@* JOIN $room
        alice .
    """,
    "modern, PART message": f"""{TWO}
        bob > PART $room
        bob < :$bob!*@* PART $room ...
        alice < :$bob!*@* PART $room ...
        bob > PRIVMSG $room :hello
        bob < 40* $bob $room :*
        alice .
    """,
    "RFC 2812 3.2.2: PART with a reason": f"""{TWO}
        bob > PART $room :bye everyone
        bob < :$bob!*@* PART $room :bye everyone
        alice < :$bob!*@* PART $room :bye everyone
    """,
    "modern, ERR_NOTONCHANNEL: PART": """
        alice :
        bob :
        bob > JOIN $room
        bob ..
        alice > PART $room
        alice < :$S 442 $alice $room :*
        alice > PART $room2
        alice < :$S 403 $alice $room2 :*
        alice > PART
        alice < :$S 461 $alice PART :*
    """,
    "RFC 2812 3.1.7: QUIT is told once to all who share a channel": f"""{TWO}
        alice > JOIN $room2
        alice ..
        bob > JOIN $room2
        bob ..
        alice ..
        bob > QUIT :qux out
        bob < ERROR :*
        bob $
        alice < :$bob!*@* QUIT :*qux out
        alice .
    """,
    "RFC 2812 3.2.8: KICK": f"""{TWO}
        carol :
        carol > JOIN $room
        carol ..
        alice ..
        bob ..
        alice > KICK $room $bob :bye
        alice < :$alice!*@* KICK $room $bob bye
        bob < :$alice!*@* KICK $room $bob bye
        carol < :$alice!*@* KICK $room $bob bye
        bob > PRIVMSG $room :still here
        bob < 40* $bob $room :*
        alice .
    """,
    "RFC 2812 3.2.8: KICK without a reason has the nick": f"""{TWO}
        alice > KICK $room $bob
        bob < :$alice!*@* KICK $room $bob $alice
    """,
    "modern, ERR_CHANOPRIVSNEEDED: KICK": f"""{TWO}
        bob > KICK $room $alice :bye
        bob < :$S 482 $bob $room :*
        alice .
    """,
    "modern, ERR_USERNOTINCHANNEL and others: KICK": f"""{TWO}
        carol :
        alice > KICK $room $carol :bye
        alice < :$S 441 $alice $carol $room :*
        carol > KICK $room $bob :bye
        carol < :$S 442 $carol $room :*
        carol > KICK $nobody
        carol < :$S 461 $carol KICK :*
        carol > KICK $room2 $bob
        carol < :$S 403 $carol $room2 :*
    """,
    "RFC 2812 3.2.7: INVITE": f"""{TWO}
        carol :
        alice > INVITE $carol $room
        alice < :$S 341 $alice $carol $room
        carol < :$alice!*@* INVITE $carol $room
        bob .
        carol > JOIN $room
        carol < :$carol!*@* JOIN $room
    """,
    "invite-notify": f"""{TWO}
        carol : +invite-notify
        dave :
        carol > JOIN $room
        carol ..
        alice ..
        bob ..
        alice > INVITE $dave $room
        alice < 341 $alice $dave $room
        carol < :$alice!*@* INVITE $dave $room
        bob .
    """,
    "modern, INVITE message: errors": f"""{TWO}
        carol :
        alice > INVITE $bob $room
        alice < :$S 443 $alice $bob $room :*
        carol > INVITE $bob $room
        carol < :$S 442 $carol $room :*
        carol > INVITE $bob $room2
        carol < :$S 403 $carol $room2 :*
        alice > INVITE $nobody $room
        alice < :$S 401 $alice $nobody :*
        alice > INVITE $carol
        alice < :$S 461 $alice INVITE :*
    """,
    "RFC 2812 3.2.4: TOPIC": f"""{TWO}
        alice > TOPIC $room
        alice < :$S 331 $alice $room :*
        alice > TOPIC $room :T0P1C
        alice < :$alice!*@* TOPIC $room T0P1C
        bob < :$alice!*@* TOPIC $room T0P1C
        bob > TOPIC $room
        bob < :$S 332 $bob $room T0P1C
        bob < :$S 333 $bob $room $alice!$alice@$S *
        carol :
        carol > JOIN $room
        carol < :$carol!*@* JOIN $room
        carol < :$S 332 $carol $room T0P1C
        carol < :$S 333 $carol $room $alice!$alice@$S *
        carol < :$S 353 ...
        carol ..
        alice ..
        alice > TOPIC $room :T0P1C
        alice .
        bob < :$carol!*@* JOIN $room
        bob .
        alice > TOPIC $room :
        alice < :$alice!*@* TOPIC $room :
        alice > TOPIC $room
        alice < 331 $alice $room :*
    """,
    "modern, TOPIC message: errors": f"""{TWO}
        carol :
        bob > TOPIC $room :mine
        bob < :$S 482 $bob $room :*
        carol > TOPIC $room :mine
        carol < :$S 442 $carol $room :*
        carol > TOPIC $room2
        carol < :$S 403 $carol $room2 :*
        carol > TOPIC
        carol < :$S 461 $carol TOPIC :*
        alice .
    """,
    "RFC 2812 3.2.5: NAMES": f"""{TWO}
        alice > NAMES $room
        alice < :$S 353 $alice = $room :$names
        alice < :$S 366 $alice $room :*
        alice > NAMES $nobody
        alice < :$S 366 $alice $nobody :*
        alice > MODE $room +i
        alice ..
        alice > NAMES $room
        alice < :$S 353 $alice @ $room :$names
        alice ..
    """,
    "multi-prefix, userhost-in-names": """
        alice : +userhost-in-names
        alice > JOIN $room
        alice < :$alice!*@* JOIN $room
        alice < 353 $alice = $room :@$alice!*@$S
    """,
    "RFC 2812 3.2.6: LIST": f"""{TWO}
        alice > TOPIC $room :the topic
        alice ..
        bob ..
        carol :
        carol > LIST
        carol <<
        carol & :$S 322 $carol $room 2 :the topic
        carol & :$S 323 $carol :*
        carol > LIST $room
        carol <<
        carol & 322 $carol $room 2 :the topic
        carol & 323 $carol :*
    """,
    "modern, ELIST parameter: masks": f"""{TWO}
        carol :
        carol > LIST #nothing*like*it
        carol <<
        carol & 323 $carol :*
        carol > LIST $room*
        carol <<
        carol & 322 $carol $room 2 :*
        carol & 323 $carol :*
    """,
}
MODES = {
    "modern, MODE message: the modes of a new channel": """
        alice :
        alice > JOIN $room
        alice ..
        alice > MODE $room
        alice <<
        alice & :$S 324 $alice $room +nt
        alice & :$S 329 $alice $room *
    """,
    "RFC 2812 3.2.3: operator": f"""{TWO}
        alice > MODE $room +o $bob
        alice < :$alice!*@* MODE $room +o $bob
        bob < :$alice!*@* MODE $room +o $bob
        bob > MODE $room -o $bob
        bob < :$bob!*@* MODE $room -o $bob
        alice < :$bob!*@* MODE $room -o $bob
    """,
    "modern, MODE message: errors about operators": f"""{TWO}
        carol :
        bob > MODE $room +o $bob
        bob < :$S 482 $bob $room :*
        alice > MODE $room +o $nobody
        alice < :$S 401 $alice $nobody :*
        alice ..
        alice > MODE $room +o $carol
        alice < :$S 441 $alice $carol $room :*
        alice > MODE $room2 +o $bob
        alice < :$S 403 $alice $room2 :*
        alice > MODE $room +Z
        alice < :$S 472 $alice Z :*
        bob .
    """,
    "modern, moderated channel mode: and voice": f"""{TWO}
        alice > MODE $room +m
        alice < :$alice!*@* MODE $room +m
        bob < :$alice!*@* MODE $room +m
        bob > PRIVMSG $room :hello
        bob < :$S 404 $bob $room :*
        alice .
        alice > MODE $room +v $bob
        alice < :$alice!*@* MODE $room +v $bob
        bob < :$alice!*@* MODE $room +v $bob
        bob > PRIVMSG $room :hello again
        alice < :$bob!*@* PRIVMSG $room :hello again
        bob > NAMES $room
        bob <<
        bob & 353 $bob = $room :*+$bob*
        alice > MODE $room -v $bob
        alice ..
        bob ..
        bob > PRIVMSG $room :no more
        bob < :$S 404 $bob $room :*
        alice .
    """,
    "modern, no external messages mode": """
        alice :
        bob :
        alice > JOIN $room
        alice ..
        bob > PRIVMSG $room :from outside
        bob < :$S 40* $bob $room :*
        alice .
    """,
    "modern, key channel mode": """
        alice :
        bob :
        alice > JOIN $room
        alice ..
        alice > MODE $room +k beer
        alice < :$alice!*@* MODE $room +k beer
        bob > JOIN $room
        bob < :$S 475 $bob $room :*
        bob > JOIN $room water
        bob < :$S 475 $bob $room :*
        bob > JOIN $room beer
        bob < :$bob!*@* JOIN $room
        bob ..
        alice ..
        alice > MODE $room -k beer
        alice < :$alice!*@* MODE $room -k *
        carol :
        carol > JOIN $room
        carol < :$carol!*@* JOIN $room
    """,
    "modern, client limit channel mode": f"""{TWO}
        carol :
        alice > MODE $room +l 2
        alice < :$alice!*@* MODE $room +l 2
        bob ..
        carol > JOIN $room
        carol < :$S 471 $carol $room :*
        alice > MODE $room -l
        alice < :$alice!*@* MODE $room -l
        carol > JOIN $room
        carol < :$carol!*@* JOIN $room
    """,
    "modern, invite-only channel mode": """
        alice :
        bob :
        alice > JOIN $room
        alice ..
        alice > MODE $room +i
        alice < :$alice!*@* MODE $room +i*
        bob > JOIN $room
        bob < :$S 473 $bob $room :*
        alice .
        alice > INVITE $bob $room
        alice < 341 ...
        bob < :$alice!*@* INVITE $bob $room
        bob > JOIN $room
        bob < :$bob!*@* JOIN $room
    """,
    "modern, secret channel mode: not in LIST or WHOIS of others": """
        alice :
        bob :
        alice > JOIN $room
        alice ..
        alice > MODE $room +s
        alice ..
        bob > LIST $room
        bob <<
        bob & 323 $bob :*
        bob > NAMES $room
        bob < 366 $bob $room :*
        bob > TOPIC $room
        bob < 4* $bob $room :*
    """,
    "modern, protected topic mode": f"""{TWO}
        alice > MODE $room -t
        alice < :$alice!*@* MODE $room -t
        bob < :$alice!*@* MODE $room -t
        bob > TOPIC $room :mine
        bob < :$bob!*@* TOPIC $room mine
        alice < :$bob!*@* TOPIC $room mine
    """,
    "modern, ban channel mode": """
        alice :
        bob : account
        alice > JOIN $room
        alice ..
        alice > MODE $room +b $bob!*@*
        alice < :$alice!*@* MODE $room +b $bob!*@*
        alice > MODE $room b
        alice <<
        alice & :$S 367 $alice $room $bob!*@* ...
        alice & :$S 368 $alice $room :*
        bob > JOIN $room
        bob < :$S 474 $bob $room :*You are banned*
        alice > MODE $room -b $bob!*@*
        alice < :$alice!*@* MODE $room -b $bob!*@*
        bob > JOIN $room
        bob < :$bob!*@* JOIN $room
        bob ..
        alice < :$bob!*@* JOIN $room
        alice > MODE $room +b $bob
        alice < :$alice!*@* KICK $room $bob $alice
        alice < :$alice!*@* MODE $room +b $bob!*@*
        bob < :$alice!*@* KICK $room $bob $alice
        bob .
    """,
    "modern, ban channel mode: the list is for everybody": """
        alice :
        alice > JOIN $room
        alice ..
        bob :
        bob > JOIN $room
        bob ..
        carol :
        alice > MODE $room +b $carol
        alice ..
        bob ..
        bob > MODE $room +b
        bob < :$S 367 $bob $room $carol!*@* $alice *
        bob < :$S 368 $bob $room :*
        carol ..
        carol > MODE $room +b
        carol < :$S 442 $carol $room :*
    """,
    "RFC 2812 3.1.5: modes of a user": """
        alice :
        bob :
        alice > MODE $alice
        alice < :$S 221 $alice +*
        alice > MODE $bob
        alice < :$S 502 $alice :*
        alice > MODE $alice +o
        alice .
    """,
}
test_channels_work_as_the_specification_says = dialogues({**COMING_AND_GOING, **MODES})
