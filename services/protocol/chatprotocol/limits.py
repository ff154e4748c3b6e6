"""Every size limit of the chat room, each with its unit in the name and its reason above it."""

# A name fits one column of a terminal and one log line.
USERNAME_MAX_BYTES = 32

# A long paste is a message; a file is not.
BODY_MAX_BYTES = 8_192

# argon2 hashes any length; the limit only keeps a login from costing more than it must.
PASSWORD_MAX_BYTES = 1_024

# Wrong passwords on one connection; then it is closed.
LOGIN_ATTEMPTS_MAX = 3

# A nonce is a random token such as a UUID (36 bytes); it is stored with the message for ever.
NONCE_MAX_BYTES = 64

# A body of 8,192 bytes in which every character is escaped as \uXXXX is 49,152 bytes long; with the other
# members of its object it stays below this. One connection can therefore hold no more than this in its buffer.
LINE_MAX_BYTES = 65_536

# The same for a frame with its header. What says that it is longer is likelier to be no frame at all.
FRAME_MAX_BYTES = 65_536

# The payload of a datagram: with its header and those of IPv6 and UDP it stays below 1,280 bytes, which every network
# of today carries in one piece (RFC 8200, section 5). A piece that was lost would lose all of them.
DATAGRAM_PAYLOAD_MAX_BYTES = 1_200

# A header is a word, a name and a length; what is longer is none. Behind it may stand a body: what is a little too long
# for a message is refused, with all that is much longer the connection ends.
HEADER_SECTION_MAX_BYTES = 1_024
SECTION_BODY_MAX_BYTES = 65_536

# JSON parsers recurse in C. The readers' stacks are small (see chatserver.app), and CPython 3.12 and later allow
# 10,000 levels, which overruns such a stack and kills the whole process. No object of ours is nested deeper than 3.
NESTING_MAX_LEVELS = 64

# What CH shows when it is not told how much, and the most it shows: one answer stays below
# 25 MiB, were every character of it written as an escape.
HISTORY_DEFAULT_MESSAGES = 50
HISTORY_MAX_MESSAGES = 500

# The identity of a history is a random token; a client keeps it and gives it back.
HISTORY_ID_MAX_CHARACTERS = 64

# What is looked for in messages. Each word is looked up by itself, so their number bounds what one search costs; more
# words than these are a text, not a question.
SEARCH_MAX_BYTES = 256
SEARCH_MAX_WORDS = 16

# Above this many users an update names who came and went only; the whole list at every login would grow with the
# square of the number of users.
USERS_LISTED_MAX = 500

# The largest id or `since` that SQLite can hold.
ID_MAX = 2**63 - 1
