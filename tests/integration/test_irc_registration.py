"""IRC before and around the login: registration, CAP, SASL. Cases of irctest (tests/irctest), with the section of the
specification. ``modern`` is modern.ircdocs.horse."""

from integration.irc import dialogues

REGISTRATION = {
    "modern, connection registration: 001 to 005, LUSERS and MOTD follow": """
        alice : raw
        alice > NICK $alice
        alice > USER alice 0 * :Alice
        alice < :$S 001 $alice :Welcome *$alice*
        alice < :$S 002 $alice :Your host is $S*
        alice < :$S 003 $alice :*
        alice < :$S 004 $alice $S ...
        alice <<
        alice & :$S 005 $alice ...
        alice & :$S 251 $alice :*
        alice & :$S 255 $alice :*
        alice & :$S 422 $alice :*
    """,
    "modern, connection registration: USER may come first": """
        alice : raw
        alice > USER alice 0 * :Alice
        alice > NICK $alice
        alice < 001 $alice :*
        alice ..
    """,
    "RFC 2812 3.1.7: QUIT is answered by ERROR, and the connection ends": """
        alice :
        alice > QUIT :bye
        alice < ERROR :*
        alice $
    """,
    "RFC 1459 4.1.6: QUIT without a reason": """
        alice :
        alice > QUIT
        alice < ERROR :*
        alice $
    """,
    "modern, QUIT message: before the registration": """
        alice : raw
        alice > QUIT :bye
        alice < ERROR :*
        alice $
    """,
    "modern, ERR_NICKNAMEINUSE: a name that is online": """
        alice :
        bob : raw
        bob > NICK $alice
        bob > USER bob 0 * :Bob
        bob < :$S 433 * $alice :*
        bob > NICK $bob
        bob < 001 $bob :*
        bob ..
        alice .
    """,
    "modern, ERR_NICKNAMEINUSE: in another spelling (CASEMAPPING=ascii)": """
        Alice :
        bob : raw
        bob > USER bob 0 * :Bob
        bob > NICK $Alice
        bob < 433 * $Alice :*
    """,
    "modern, ERR_ERRONEUSNICKNAME": """
        alice : raw
        alice > USER alice 0 * :Alice
        alice > NICK al!ce
        alice < :$S 432 * al!ce :*
        alice > NICK :
        alice < :$S 43* ...
        alice > NICK
        alice < :$S 43* ...
        alice > NICK $alice
        alice < 001 $alice :*
    """,
    "modern, ERR_NEEDMOREPARAMS: an empty real name": """
        alice : raw
        alice > NICK $alice
        alice > USER alice 0 * :
        alice < 461 * USER :*
    """,
    "modern, ERR_NEEDMOREPARAMS: USER without its parameters": """
        alice : raw
        alice > NICK $alice
        alice > USER alice
        alice < 461 * USER :*
    """,
    "modern, ERR_NOTREGISTERED: commands before the registration": """
        alice : raw
        alice > NICK $alice
        alice > JOIN $room
        alice < :$S 451 * :*
        alice > PRIVMSG $room :hello
        alice < :$S 451 * :*
    """,
    "modern, ERR_ALREADYREGISTERED": """
        alice :
        alice > USER alice 0 * :Alice
        alice < :$S 462 $alice :*
        alice > PASS secret
        alice < :$S 462 $alice :*
        alice .
    """,
    "modern, ERR_UNKNOWNCOMMAND": """
        alice :
        alice > NONSENSE 1 2
        alice < :$S 421 $alice NONSENSE :*
    """,
    "modern, PING message": """
        alice :
        alice > PING abcdef
        alice < :$S PONG $S abcdef
        alice > PING :two words
        alice < :$S PONG $S :two words
        alice > PING
        alice < :$S 4* $alice ...
        alice > PONG anything
        alice .
    """,
    "RFC 2812 3.1.2: NICK of one who is logged in": """
        alice :
        alice > NICK $nobody
        alice < :$alice!*@* NICK $nobody
        alice > PING x
        alice < PONG $S x
    """,
    "RFC 2812 3.1.2: NICK tells those in the same channels once": """
        alice :
        bob :
        alice > JOIN $room
        alice ..
        bob > JOIN $room
        bob ..
        bob > JOIN $room2
        bob ..
        alice > JOIN $room2
        alice ..
        bob ..
        alice > NICK $nobody
        alice < :$alice!*@* NICK $nobody
        alice .
        bob < :$alice!*@* NICK $nobody
        bob .
        bob > PRIVMSG $nobody :there?
        alice < :$bob!*@* PRIVMSG $nobody :there?
    """,
    "modern, ERR_NICKNAMEINUSE: NICK of one who is logged in": """
        alice :
        bob :
        bob > NICK $alice
        bob < :$S 433 $bob $alice :*
        bob .
    """,
    "the registered name of another needs its password": """
        alice : account
        alice > QUIT
        alice < ERROR :*
        bob : raw
        bob > NICK $alice
        bob > USER bob 0 * :Bob
        bob < 433 * $alice :*
        bob > NICK $bob
        bob < 001 $bob :*
        bob ..
        bob > NICK $alice
        bob < 433 $bob $alice :*
    """,
    "modern, PASS message: name and password of an account": """
        alice : account
        again : raw
        again > PASS $alice:secret
        again > NICK $nobody
        again > USER again 0 * :Again
        again <<
        again & 001 $alice :*
        again & 422 $alice :*
    """,
    "modern, ERR_PASSWDMISMATCH": """
        alice : account
        again : raw
        again > PASS $alice:wrong
        again > NICK $nobody
        again > USER again 0 * :Again
        again < :$S 464 * :*
        again < ERROR :*
        again $
    """,
    "modern, RPL_ISUPPORT parameters": """
        alice :
        alice > VERSION
        alice <<
        alice & 351 $alice ...
        alice & 005 $alice ...
    """,
    "UTF8ONLY: FAIL for a line that is not UTF-8": """
        alice : +standard-replies
        bob :
        alice > PRIVMSG $bob :caf\udce9
        alice < :$S FAIL * INVALID_UTF8 :*
        bob .
    """,
    "modern, ERR_INPUTTOOLONG: a line of more than 512 bytes": f"""
        alice :
        bob :
        alice > PRIVMSG $bob :{"x" * 600}
        alice < :$S 417 $alice :*
        bob .
    """,
    "modern, ERR_INPUTTOOLONG: a line that others would get with more than 512 bytes": f"""
        alice :
        bob :
        alice > JOIN #lobby
        alice ..
        bob > JOIN #lobby
        bob ..
        alice > PRIVMSG #lobby :{"x" * 490}
        alice < :$S 417 $alice :*
        alice > PRIVMSG $bob :{"x" * 480}
        alice < :$S 417 $alice :*
        alice > PRIVMSG $bob :{"x" * 400}
        bob < PRIVMSG $bob :{"x" * 400}
        bob .
    """,
    "message-tags, size limit: more than 4,094 bytes of client tags": f"""
        alice : +message-tags
        bob : +message-tags
        alice > @+x={"y" * 4_100} PRIVMSG $bob :hello
        alice < :$S 417 $alice :*
        bob .
    """,
    "RFC 1459 2.3.1: line ends, empty lines, and lower case": """
        alice :
        alice > ping x
        alice < PONG $S x
        alice >
        alice .
    """,
}
CAPABILITIES = {
    "capability-negotiation, CAP LS: 302 has values, and holds the registration": """
        alice : raw
        alice > CAP LS 302
        alice <+ CAP * LS :*
        alice > NICK $alice
        alice > USER alice 0 * :Alice
        alice > CAP END
        alice <<
        alice & 001 $alice :*
    """,
    "capability-negotiation, CAP LS: without a version there are no values": """
        alice : raw
        alice > CAP LS
        alice < CAP * LS :*multi-prefix *server-time*
    """,
    "capability-negotiation, CAP LIST: an empty one": """
        alice : raw
        alice > CAP LIST
        alice < CAP * LIST :
    """,
    "capability-negotiation, CAP NAK: the whole list, and the registration goes on": """
        alice : raw
        alice > CAP LS 302
        alice <+ CAP * LS :*
        alice > USER alice 0 * :Alice
        alice > NICK $alice
        alice > CAP REQ :foo multi-prefix bar
        alice < CAP * NAK :foo multi-prefix bar
        alice > CAP REQ :multi-prefix
        alice < CAP * ACK :multi-prefix
        alice > CAP LIST
        alice < CAP * LIST :*multi-prefix
        alice > CAP END
        alice < 001 $alice :*
    """,
    "capability-negotiation, CAP REQ: removed by a minus": """
        alice : +server-time +echo-message
        bob :
        alice > CAP LIST
        alice < CAP $alice LIST :$both
        bob > PRIVMSG $alice :hi
        alice < @time=*Z :$bob!*@* PRIVMSG $alice hi
        alice > CAP REQ :-server-time
        alice < CAP $alice ACK :-server-time
        alice > CAP LIST
        alice < @!time CAP $alice LIST echo-message
        bob > PRIVMSG $alice :hi
        alice < @!time :$bob!*@* PRIVMSG $alice hi
    """,
    "capability-negotiation, CAP REQ: after the registration": """
        alice :
        bob :
        alice > CAP REQ :server-time
        alice < CAP $alice ACK server-time
        bob > PRIVMSG $alice :hi
        alice < @time=*Z :$bob!*@* PRIVMSG $alice hi
    """,
    "capability-negotiation: an invalid subcommand": """
        alice :
        alice > CAP NONSENSE
        alice < :$S 410 $alice NONSENSE :*
    """,
    "capability-negotiation, cap-notify: 302 enables it": """
        alice : raw
        alice > CAP LS 302
        alice <+ CAP * LS :*
        alice > CAP LIST
        alice < CAP * LIST :*cap-notify*
    """,
}
SASL = {
    "sasl, PLAIN: the account's name replaces the nick": """
        alice : account
        again : raw
        again > CAP LS 302
        again <+ CAP * LS :*
        again > CAP REQ sasl
        again < CAP * ACK sasl
        again > NICK $nobody
        again > USER again 0 * :Again
        again > AUTHENTICATE PLAIN
        again < AUTHENTICATE +
        again > AUTHENTICATE $plain
        again < :$S 900 * * $alice :*
        again < :$S 903 * :*
        again > CAP END
        again < 001 $alice :*
    """,
    "sasl, PLAIN: a wrong password, and then the right one": """
        alice : account
        again : raw
        again > CAP REQ sasl
        again < CAP * ACK sasl
        again > AUTHENTICATE PLAIN
        again < AUTHENTICATE +
        again > AUTHENTICATE $wrong
        again < :$S 904 * :*
        again > AUTHENTICATE PLAIN
        again < AUTHENTICATE +
        again > AUTHENTICATE $plain
        again < 900 * * $alice :*
        again < 903 * :*
    """,
    "sasl: a mechanism that is not there": """
        alice : raw
        alice > CAP REQ sasl
        alice < CAP * ACK sasl
        alice > AUTHENTICATE FOO
        alice < :$S 908 * PLAIN :*
        alice < :$S 904 * :*
    """,
    "sasl: a guest, after the registration": """
        alice : +sasl
        alice > AUTHENTICATE PLAIN
        alice < :$S 462 $alice :*
    """,
    "sasl: aborted": """
        alice : raw
        alice > CAP REQ sasl
        alice < CAP * ACK sasl
        alice > AUTHENTICATE PLAIN
        alice < AUTHENTICATE +
        alice > AUTHENTICATE *
        alice < :$S 906 * :*
    """,
    "sasl: the registration ends before the authentication": """
        alice : raw
        alice > CAP REQ sasl
        alice < CAP * ACK sasl
        alice > AUTHENTICATE PLAIN
        alice < AUTHENTICATE +
        alice > NICK $alice
        alice > USER alice 0 * :Alice
        alice > CAP END
        alice < :$S 906 $alice :*
        alice < 001 $alice :*
    """,
    "sasl: no base64, and no credentials": """
        alice : raw
        alice > CAP REQ sasl
        alice < CAP * ACK sasl
        alice > AUTHENTICATE PLAIN
        alice < AUTHENTICATE +
        alice > AUTHENTICATE $$$
        alice < 904 * :*
        alice > AUTHENTICATE PLAIN
        alice < AUTHENTICATE +
        alice > AUTHENTICATE +
        alice < 904 * :*
    """.replace("$$$", "!!!"),
    "sasl, AUTHENTICATE: a piece of more than 400 bytes": f"""
        alice : raw
        alice > CAP REQ sasl
        alice < CAP * ACK sasl
        alice > AUTHENTICATE PLAIN
        alice < AUTHENTICATE +
        alice > AUTHENTICATE {"A" * 401}
        alice < 905 * :*
    """,
    "sasl: after the registration": """
        alice : account
        again : raw
        again > CAP REQ sasl
        again < CAP * ACK sasl
        again > AUTHENTICATE PLAIN
        again < AUTHENTICATE +
        again > AUTHENTICATE $plain
        again < 900 * * $alice :*
        again < 903 * :*
        again > AUTHENTICATE PLAIN
        again < 907 * :*
    """,
    "account-registration, before-connect: REGISTER": """
        alice : raw
        alice > CAP LS 302
        alice <+ CAP * LS :*
        alice > CAP REQ :draft/account-registration
        alice < CAP * ACK draft/account-registration
        alice > NICK $alice
        alice > USER alice 0 * :Alice
        alice > REGISTER * * :secret
        alice <+ REGISTER SUCCESS $alice :*
        alice > CAP END
        alice <<
        alice & 001 $alice :*
    """,
    "account-registration: a name that is registered": """
        alice : account
        bob : raw
        bob > CAP REQ :draft/account-registration
        bob < CAP * ACK draft/account-registration
        bob > NICK $bob
        bob > USER bob 0 * :Bob
        bob > REGISTER $alice * :secret
        bob < FAIL REGISTER $code $alice :*
    """,
    "account-registration: REGISTER by a guest who is online": """
        alice : raw
        alice > CAP REQ account-notify
        alice > NICK $alice
        alice > USER al 0 * :Alice
        alice > CAP END
        alice ..
        bob :
        bob > JOIN #lobby
        bob ..
        alice > JOIN #lobby
        alice > JOIN $room
        alice > PRIVMSG $room :mine
        alice ..
        bob ..
        alice > REGISTER * *
        alice < 461 $alice REGISTER :*
        alice > REGISTER $bob * :secret
        alice < FAIL REGISTER ACCOUNT_NAME_MUST_BE_NICK $bob :*
        alice .
        alice > REGISTER * * :secret
        alice <<
        alice & 900 $alice $alice!al@$S ...
        alice & REGISTER SUCCESS $alice :*
        alice & :$alice!al@* PART $room :*
        alice & :$alice!*@* ACCOUNT $alice
        alice & :$alice!*@* JOIN #lobby
        alice & 366 $alice #lobby :*
        bob <+ :$alice!*@* QUIT :*
        bob <+ :$alice!*@* JOIN #lobby
        bob > WHOIS $alice
        bob <+ 330 $bob $alice $alice :*
        bob ..
        alice > PRIVMSG #lobby :hello
        bob < :$alice!*@* PRIVMSG #lobby hello
        bob > PRIVMSG $alice :hi
        alice < :$bob!*@* PRIVMSG $alice hi
        alice > REGISTER * * :secret
        alice < FAIL REGISTER ALREADY_AUTHENTICATED $alice :*
        alice > QUIT
        alice <+ ERROR :*
        again : raw
        again > PASS secret
        again > NICK $alice
        again > USER alice 0 * :Alice
        again <<
        again & 001 $alice :*
    """,
}
test_server_answers_as_the_specification_says = dialogues({**REGISTRATION, **CAPABILITIES, **SASL})
