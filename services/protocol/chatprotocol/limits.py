"""Every size limit of the chat room, each with its unit in the name and its reason above it."""

# A name fits one column of a terminal and one log line.
USERNAME_MAX_BYTES = 32

# A long paste is a message; a file is not.
BODY_MAX_BYTES = 8_192

# argon2 accepts any length; the limit bounds the cost of a login.
PASSWORD_MAX_BYTES = 1_024

# A room's name is as long as a username: both stand in the same lines.
ROOM_NAME_MAX_CHARACTERS = 32

# A topic is one line of a terminal or two.
TOPIC_MAX_BYTES = 256

# Rooms of one user. A connection follows the buffer of each of its rooms.
ROOMS_JOINED_MAX = 100

# Names in the ``since`` of a login: the user's rooms, and some that it is no longer in.
SINCE_MAX_NAMES = 1_000

# Rooms of a server. The list of rooms is one answer, at most 2 MiB.
ROOMS_MAX = 1_000

# Members of a room, with the invited users. Each login and logout of a member looks at the member's rooms only.
MEMBERS_MAX = 10_000

# A key of a room is a word.
ROOM_KEY_MAX_BYTES = 32

# A description of a user is one line of a terminal.
REALNAME_MAX_BYTES = 128

# The text of a user who is away, as a reason.
AWAY_MAX_BYTES = 256

# Users whom one connection watches: a list of friends.
WATCHED_MAX = 100

# Users who were online, and are remembered after they left: the answer to "who was that", as far back as a busy hour.
PAST_USERS_MAX = 1_000

# Missed messages of a room that a connection gets when it enters: as many as a person reads.
REPLAYED_MAX = 100

# A reason is one line of a terminal or two, as a topic is.
REASON_MAX_BYTES = 256

# The longest ban or mute that is not for ever: a hundred years. A longer one is a mistake.
SANCTION_MAX_SECONDS = 100 * 365 * 86_400

# Users whom one user ignores, bans and mutes of a room or of the server: each list is one answer.
IGNORED_MAX = 1_000
SANCTIONS_MAX = 10_000
# Each user may make a room, and send its list to many connections.
SANCTIONS_OF_ROOM_MAX = 1_000

# Deletions that a login with ``since`` reports.
DELETIONS_REPORTED_MAX = 500

# An invitation code has 26 characters; a longer text is a mistake.
INVITATION_MAX_BYTES = 64

# A session token has 43 characters. Its label names a device, and fits one column of a terminal.
TOKEN_LABEL_MAX_BYTES = 64

# Session tokens of a user: each list is one answer.
TOKENS_MAX = 50

# Days that a session token lasts after its last use: a holiday, and a phone that lay in a drawer.
TOKEN_DAYS = 30

# Wrong passwords before a connection is closed.
LOGIN_ATTEMPTS_MAX = 3

# A nonce is a random token such as a UUID (36 bytes); it is stored permanently with the message.
NONCE_MAX_BYTES = 64

# Line limit, and so the buffer limit of a connection. A body of 8,192 bytes with every character escaped as \uXXXX has
# 49,152 bytes; with the other members of its object it is below this limit.
LINE_MAX_BYTES = 65_536

# Lines of IRC, with the line end and without tags (RFC 1459, section 2.3), and the tags of a client, with "@" and the
# space after them (IRCv3, message-tags).
IRC_LINE_MAX_BYTES = 512
IRC_TAGS_MAX_BYTES = 4_096

# The name of the server in IRC is in each line, as the host of every user.
IRC_NAME_MAX_BYTES = 63

# The message of the day: a page of text, which every login of IRC gets.
MOTD_MAX_BYTES = 16_384

# Lines that a message is shown in, except for those of its length. Each of them has the sender's name, and a message
# of line breaks would become 300 KiB.
IRC_MESSAGE_LINES_MAX = 100

# Fragments of a message over WebSocket. Browsers and libraries send one, and a fragment may be empty.
FRAGMENTS_MAX = 1_000

# Frame limit, header included. A longer length probably means that the data is not a frame.
FRAME_MAX_BYTES = 65_536

# Datagram payload: with all headers (ours, UDP, IPv6) a datagram is below 1,280 bytes, which every IPv6 network carries
# unfragmented (RFC 8200, section 5). One lost fragment would lose the whole datagram.
DATAGRAM_PAYLOAD_MAX_BYTES = 1_200

# Header and body limits: a header is a word, a name and a length. A body above the message limit is rejected; a body
# above this limit closes the connection.
HEADER_SECTION_MAX_BYTES = 1_024
SECTION_BODY_MAX_BYTES = 65_536

# Nesting limit: JSON parsers recurse in C, and reader threads have small stacks (see chatserver.process). CPython 3.12
# and later allow 10,000 levels, which overflows such a stack and kills the process. Valid objects have at most 3.
NESTING_MAX_LEVELS = 64

# Default and maximum of CH: one reply is below 25 MiB even if every character is escaped.
HISTORY_DEFAULT_MESSAGES = 50
HISTORY_MAX_MESSAGES = 500

# What a client takes from a server, which may be another one or a hostile one: characters of a name, a label or the
# words of a search, and items of a history or another long list. A terminal would be busy with more for minutes.
SERVER_NAME_MAX_CHARACTERS = 256
SERVER_MESSAGES_MAX = 10_000

# Users in a list of conversations: as many as a person looks through.
CONVERSATIONS_MAX = 200

# Read marks of a user: of the rooms, and of users with direct messages. Above it, those with the lowest times go.
READ_MARKS_MAX = 1_000

# A history id is a random token; a client stores it and sends it back.
HISTORY_ID_MAX_CHARACTERS = 64

# Search limits: each word is looked up separately, so the number of words bounds the cost of a search.
SEARCH_MAX_BYTES = 256
SEARCH_MAX_WORDS = 16

# Users in a complete list. In larger rooms an update has changes only: a complete list at every login would cost the
# square of the number of users.
USERS_LISTED_MAX = 500

# The largest id or `since` that SQLite can hold.
ID_MAX = 2**63 - 1
