"""The operations as people and the stepwise dialects spell them: there are two traditions of words."""

from typing import Final, NamedTuple


class Keywords(NamedTuple):
    """The operations of one tradition."""

    public: str
    direct: str
    history: str = "CH"
    leave: str = "EX"


# By the setting that names them.
KEYWORD_SETS: Final = {"pm-dm": Keywords("PM", "DM"), "bm-pm": Keywords("BM", "PM")}
DEFAULT_KEYWORDS: Final = "pm-dm"
# Asks whether the other side is there.
PING: Final = "PING"
# After a username: the login's answer is to tell the identity of the history.
HISTORY_ID: Final = "history-id"
# The words of all traditions.
WORDS: Final = frozenset(word for words in KEYWORD_SETS.values() for word in words)
