"""IRC about users and the server: WHO, WHOIS, WHOWAS, MONITOR, AWAY, SETNAME, OPER, KILL and others. Cases of irctest
(tests/irctest), with the section of the specification. ``modern`` is modern.ircdocs.horse."""

from integration.irc import dialogues

USERS = {
    "modern, WHO message: a channel": """
        alice :
        bob :
        alice > JOIN $room
        alice ..
        bob > JOIN $room
        bob ..
        alice ..
        bob > AWAY :gone
        bob ..
        alice > WHO $room
        alice <<
        alice & :$S 352 $alice $room * * * $alice H@ :0 *
        alice & :$S 315 $alice $room :*
        alice > WHO $room
        alice <<
        alice & :$S 352 $alice $room $user $S * $bob G* :0 $bob Realname
        alice & :$S 315 $alice $room :*
    """,
    "modern, WHO message: a nick, a mask, and nobody": """
        alice :
        bob :
        alice > WHO $bob
        alice < :$S 352 $alice * * $S * $bob H :0 $bob Realname
        alice < :$S 315 $alice $bob :*
        alice > WHO $bob*
        alice <<
        alice & 352 $alice * * $S * $bob H :0 *
        alice & 315 $alice $bob* :*
        alice > WHO $nobody
        alice < :$S 315 $alice $nobody :*
    """,
    "WHOX: fields and token": """
        alice : account
        bob :
        bob > WHO $alice %tcuhnfar,42
        bob < :$S 354 $bob 42 * * $S $alice H* $alice :$alice Realname
        bob < 315 $bob $alice :*
        alice > WHO $bob %na
        alice < 354 $alice $bob 0
        alice < 315 $alice $bob :*
    """,
    "modern, WHOIS message": """
        alice :
        bob :
        bob > JOIN $room
        bob ..
        alice > WHOIS $bob
        alice < :$S 311 $alice $bob * $S * :$bob Realname
        alice <<
        alice & 319 $alice $bob :*@$room*
        alice & 312 $alice $bob $S :*
        alice & 318 $alice $bob :*
        alice > WHOIS $nobody
        alice < :$S 401 $alice $nobody :*
        alice < :$S 318 $alice $nobody :*
        alice > WHOIS
        alice < :$S 431 $alice :*
    """,
    "modern, WHOIS message: account and away": """
        alice :
        bob : account
        bob > AWAY :gone
        bob ..
        alice > WHOIS $bob
        alice <<
        alice & 301 $alice $bob gone
        alice & 318 $alice $bob :*
        alice > WHOIS $bob
        alice <<
        alice & 330 $alice $bob $bob :*
        alice & 318 $alice $bob :*
        alice > WHOIS $bob
        alice <<
        alice & 317 $alice $bob * * :*
        alice & 318 $alice $bob :*
    """,
    "modern, WHOIS message: a private channel is shown to its members": """
        alice :
        bob :
        bob > JOIN $room
        bob ..
        bob > MODE $room +s
        bob ..
        alice > WHOIS $bob
        alice < 311 ...
        alice < 312 $alice $bob $S :*
        alice ..
    """,
    "modern, WHOWAS message": """
        alice :
        bob :
        bob > QUIT :gone
        bob < ERROR :*
        bob $
        alice > WHOWAS $bob
        alice < :$S 314 $alice $bob * * * :$bob Realname
        alice <<
        alice & :$S 369 $alice $bob :*
        alice > WHOWAS $nobody
        alice < :$S 406 $alice $nobody :*
        alice < :$S 369 $alice $nobody :*
        alice > WHOWAS
        alice < :$S 4* $alice ...
    """,
    "modern, USERHOST and ISON": """
        alice :
        bob :
        alice > USERHOST $bob $nobody
        alice < :$S 302 $alice :$bob=+*@$S*
        alice > ISON $bob $nobody
        alice < :$S 303 $alice :$bob*
        bob > AWAY :gone
        bob ..
        alice > USERHOST $bob
        alice < 302 $alice :$bob=-*@$S*
    """,
    "away-notify": """
        alice : +away-notify
        bob :
        carol :
        alice > JOIN $room
        alice ..
        bob > JOIN $room
        bob ..
        alice ..
        bob > AWAY :gone
        bob < :$S 306 $bob :*
        alice < :$bob!*@* AWAY gone
        bob > AWAY
        bob < :$S 305 $bob :*
        alice < :$bob!*@* AWAY
        carol > AWAY :elsewhere
        carol ..
        alice .
        carol > JOIN $room
        carol ..
        alice < :$carol!*@* JOIN $room
        alice < :$carol!*@* AWAY elsewhere
    """,
    "setname": """
        alice : +setname
        bob : +setname
        alice > JOIN $room
        alice ..
        bob > JOIN $room
        bob ..
        alice ..
        bob > SETNAME :A new name
        bob < :$bob!*@* SETNAME :A new name
        alice < :$bob!*@* SETNAME :A new name
        alice > WHOIS $bob
        alice <<
        alice & 311 $alice $bob * * * :A new name
    """,
    "bot-mode": """
        alice : +message-tags
        bob :
        alice > MODE $bob +B
        alice ..
        bob > MODE $bob +B
        bob < MODE $bob +B
        alice > WHOIS $bob
        alice <<
        alice & 335 $alice $bob :*
        bob > PRIVMSG $alice :beep
        alice < @bot :$bob!*@* PRIVMSG $alice beep
        alice > WHO $bob
        alice < 352 $alice * * * * $bob HB :*
        alice ..
        alice > JOIN $room
        alice ..
        bob > JOIN $room
        bob ..
        alice < @bot :$bob!*@* JOIN $room
        bob > NOTICE $room :beep
        alice < @bot :$bob!*@* NOTICE $room beep
        bob > PART $room
        bob ..
        alice < @bot :$bob!*@* PART $room
        bob > JOIN $room
        bob ..
        alice ..
        bob > MODE $bob -B
        bob < MODE $bob -B
        bob > PRIVMSG $room :done
        alice < @!bot :$bob!*@* PRIVMSG $room done
    """,
}
MONITOR = {
    "RFC 2812 3.1.3: the user name of USER is the ident": """
        alice :
        bob : raw
        alice > JOIN $room
        alice ..
        bob > NICK $bob
        bob > USER a!b@c1 0 * :Bob
        bob ..
        bob > JOIN $room
        bob <+ :$bob!abc1@$S JOIN $room
        bob ..
        alice < :$bob!abc1@$S JOIN $room
        alice > WHO $bob
        alice < :$S 352 $alice * abc1 $S $S $bob H :0 Bob
        alice < 315 $alice $bob :*
        alice > WHO $bob %un
        alice < :$S 354 $alice abc1 $bob
        alice < 315 $alice $bob :*
        alice > WHOIS $bob
        alice < :$S 311 $alice $bob abc1 $S * Bob
        alice ..
        alice > USERHOST $bob
        alice < :$S 302 $alice $bob=+abc1@$S
        bob > PRIVMSG $alice :hello
        alice < :$bob!abc1@$S PRIVMSG $alice hello
        bob > NICK x$bob
        alice < :$bob!abc1@$S NICK x$bob
        bob > QUIT :bye
        alice < :x$bob!abc1@$S QUIT :*bye
        alice > WHOWAS x$bob
        alice < :$S 314 $alice x$bob abc1 $S * Bob
        alice ..
    """,
    "monitor: online and offline": """
        alice :
        bob : nick=$nobody
        alice > MONITOR + $bob
        alice < :$S 730 $alice :$bob*
        bob > QUIT :bye
        bob < ERROR :*
        alice < :$S 731 $alice $bob
        again : nick=$bob
        alice < :$S 730 $alice :$bob*
    """,
    "monitor: several, one of them online": """
        alice :
        bob :
        alice > MONITOR + $bob,$nobody
        alice <<
        alice & 730 $alice :$bob*
        alice > MONITOR S
        alice <<
        alice & 731 $alice $nobody
        alice > MONITOR L
        alice <<
        alice & :$S 732 $alice *,*
        alice & :$S 733 $alice :*
    """,
    "monitor: no longer": """
        alice :
        bob :
        alice > MONITOR + $bob
        alice ..
        alice > MONITOR - $bob
        alice .
        bob > QUIT
        bob < ERROR :*
        alice .
    """,
    "monitor: cleared": """
        alice :
        alice > MONITOR + $nobody
        alice < 731 $alice $nobody
        alice > MONITOR C
        alice > MONITOR L
        alice < 733 $alice :*
    """,
    "monitor: masks are not allowed": """
        alice :
        alice > MONITOR + *!user@localhost
        alice ..
        bob :
        alice .
    """,
    "monitor: NICK": """
        alice :
        alice > MONITOR + $nobody
        alice < 731 $alice $nobody
        bob :
        alice .
        bob > NICK $nobody
        bob ..
        alice < 730 $alice :$nobody*
        bob > NICK $bob
        bob ..
        alice < 731 $alice $nobody
    """,
    "monitor: NICK in another case": """
        alice :
        bob : nick=x$nobody
        alice > MONITOR + $bob
        alice < 730 $alice :x$nobody!*
        bob > NICK X$nobody
        bob ..
        alice .
        bob > QUIT
        alice < 731 $alice X$nobody
    """,
    "extended-monitor: with away-notify": """
        alice : +extended-monitor +away-notify
        bob :
        alice > MONITOR + $bob
        alice < 730 $alice :$bob*
        bob > AWAY :gone
        bob ..
        alice < :$bob!*@* AWAY gone
        bob > AWAY
        bob ..
        alice < :$bob!*@* AWAY
        alice .
    """,
    "extended-monitor: not without it": """
        alice : +away-notify
        bob :
        alice > MONITOR + $bob
        alice < 730 $alice :$bob*
        bob > AWAY :gone
        bob ..
        alice .
    """,
}
SERVER = {
    "modern, LUSERS message": """
        alice :
        alice > LUSERS
        alice < :$S 251 $alice :There are * users and * invisible on * servers
        alice <<
        alice & 255 $alice :I have * clients and * servers
        alice & 265 $alice ...
        alice & 266 $alice ...
    """,
    "modern, MOTD message": """
        alice :
        alice > MOTD
        alice < :$S 422 $alice :*
    """,
    "modern, TIME, VERSION, INFO, ADMIN and HELP messages": """
        alice :
        alice > TIME
        alice < :$S 391 $alice $S * 0 :*Z
        alice > VERSION
        alice < :$S 351 $alice * $S ...
        alice ..
        alice > INFO
        alice < :$S 371 $alice :*
        alice <<
        alice & :$S 374 $alice :*
        alice > HELP
        alice < :$S 704 $alice * :*
        alice <<
        alice & :$S 706 $alice * :*
        alice > HELP privmsg
        alice < :$S 704 $alice privmsg :*
        alice < :$S 705 $alice privmsg :PRIVMSG *
        alice < :$S 706 $alice privmsg :*
        alice > HELP nonsense
        alice < :$S 524 $alice nonsense :*
    """,
    "RFC 2812 3.4.5: LINKS shows no servers": """
        alice :
        alice > LINKS
        alice < :$S 365 $alice * :*
        alice .
    """,
    "modern, OPER message: errors": """
        alice :
        alice > OPER
        alice < :$S 461 $alice OPER :*
        alice > OPER nobody wrong
        alice < :$S 4* $alice ...
    """,
    "modern, KILL message: errors": """
        alice :
        bob :
        alice > KILL $bob :no
        alice < :$S 481 $alice :*
        bob .
    """,
}
test_users_are_shown_as_the_specification_says = dialogues({**USERS, **MONITOR, **SERVER})
OPERATORS = {
    "modern, OPER and KILL messages": """
        op : as=op
        bob :
        carol :
        carol > JOIN $room
        carol ..
        bob > JOIN $room
        bob ..
        carol ..
        op > OPER op secret
        op < :$S 381 $op :*
        op ..
        op > KILL $nobody :who
        op < :$S 401 $op $nobody :*
        op > KILL $bob :trouble
        bob <<<
        bob & ERROR :*trouble*
        carol < :$bob!*@* QUIT :*
    """
}
# OPER is for an account that has this role.
test_operator_ends_the_connections_of_a_user = dialogues(OPERATORS, room="moderated")
