"""Keywords of the operations, as users type them and the wire protocols frames and datagram send them.

PM is a public message and DM a direct message; in the set bm-pm these are BM (broadcast message) and PM (private
message). CH requests the chat history, and EX exits.
"""

from typing import Final, NamedTuple


class Keywords(NamedTuple):
    """One keyword set."""

    public: str
    direct: str
    history: str = "CH"
    leave: str = "EX"


# Keyword sets by the value of the setting.
KEYWORD_SETS: Final = {"pm-dm": Keywords("PM", "DM"), "bm-pm": Keywords("BM", "PM")}
DEFAULT_KEYWORDS: Final = "pm-dm"
# Keyword of a keep-alive request.
PING: Final = "PING"
# Word after a username: it requests the history id in WELCOME.
HISTORY_ID: Final = "history-id"
# The keywords of all sets.
WORDS: Final = frozenset(word for words in KEYWORD_SETS.values() for word in words)
