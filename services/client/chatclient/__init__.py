"""The chat client, for people, pipes, scripts and programs. This module is the API for programs: see docs/bots.md.

The names of ``api.py`` are imported when the first of them is used. The command ``chatclient`` needs this: it handles
Ctrl-C while the rest is imported, and this module is imported before the command. So this module imports nothing else.
"""

__version__ = "0.1.0"

# As typing.TYPE_CHECKING, whose import would take longer than this module.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from chatclient.api import *  # noqa: F403 -- all names of api.py, which lists them once
else:

    def __getattr__(name: str) -> object:
        # The names are those of classes. Submodules, such as notices, are looked up here before they are imported.
        if name == "__all__" or name[0].isupper():
            import chatclient.api  # noqa: PLC0415 -- see above

            if hasattr(chatclient.api, name):
                return getattr(chatclient.api, name)
        raise AttributeError(f"module 'chatclient' has no attribute {name!r}")
