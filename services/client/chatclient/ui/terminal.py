"""The terminal frontend: a prompt below the messages, for people. Built on prompt_toolkit.

Everything runs on prompt_toolkit's event loop in the main thread: keys, drawing, and the controller. The receiver
thread wakes the loop when the inbox has items. The loop handles items for some milliseconds at a time, and keys in
between. It draws all of them together at the next frame, because drawing is slow.

Deletions. Rows are printed above the prompt and belong to the terminal then. If a message is deleted that was printed
recently, the cursor moves up by the number of rows that were printed since, or to the top of the window, and the rows
are printed again with the tombstone: see printed.py. Rows that have left the window at its top can't be changed; a line
says so. If the prompt was higher before, a row may then be shown twice, at the top of the window and above it.

Ends. A key or a signal ends the prompt, and the controller says goodbye; the loop runs on until the controller has
ended, or its deadline. A signal ends that wait. If the loop is blocked, because the terminal does not read, the
second signal ends the process.
"""

import asyncio
import math
import os
import re
import signal
import sys
import termios
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

from prompt_toolkit import PromptSession
from prompt_toolkit.buffer import Buffer
from prompt_toolkit.clipboard import InMemoryClipboard
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.enums import DEFAULT_BUFFER
from prompt_toolkit.filters import Condition, has_focus
from prompt_toolkit.formatted_text import FormattedText
from prompt_toolkit.history import InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.keys import Keys
from prompt_toolkit.layout.processors import ConditionalProcessor, Processor, Transformation, TransformationInput
from prompt_toolkit.renderer import print_formatted_text
from prompt_toolkit.styles import Style

from chatclient.cli.controller import Controller
from chatclient.cli.exits import Exit
from chatclient.cli.frontend import Input, Interrupt, Line, SelectRoom
from chatclient.cli.input import InputParser
from chatclient.cli.signals import ENDING_SIGNALS
from chatclient.inbox import Inbox
from chatclient.model import ConnectionState, UiState
from chatclient.notices import Asked, ErrorNotice, Help, UiNotice
from chatclient.ui.layout import ASCII_GLYPHS, STYLES, Glyphs, Row
from chatclient.ui.printed import PrintedRows
from chatclient.ui.renderer import ComposingContainer, Output, PromptRenderer
from chatclient.ui.rows import RowFormatter, prompt
from chatclient.ui.timeline import Deletion, Timeline
from chatprotocol.limits import BODY_MAX_BYTES
from chatprotocol.wire.base import ClientEvent

# Minimum time between two redraws: events in between are drawn together, because drawing is slow.
_FRAME_SECONDS: Final = 0.03
# Maximum time for received items before keys are handled: not noticeable.
_TURN_SECONDS: Final = 0.01
# Maximum number of lines that one Enter sends: a longer text, often pasted by mistake, needs a second Enter.
_LINES_UNCONFIRMED_MAX: Final = 5
_MENU_ROWS: Final = 6
# Maximum time between pasted keys: typing is slower, and a paste that arrives in several reads is faster.
_PASTE_SECONDS: Final = 0.03
# Time after the first signal in which further signals are ignored, because a closed terminal and timeout(1) send two
# signals. A later signal ends the process immediately.
_SECOND_SIGNAL_SECONDS: Final = 1.0
# Minimum time between two bells.
_BELL_SECONDS: Final = 1.0
# Questions for a server or name: the answer is one line, and a program may type the password right after it.
_NAME_QUESTIONS: Final = frozenset({Asked.SERVER, Asked.USERNAME})
# Surrogates, which stand for bytes that are not UTF-8.
_SURROGATES: Final = re.compile("[\ud800-\udfff]")


class TerminalFrontend:
    """Draws events above the prompt, and passes typed lines to the controller. For the main thread."""

    is_person = True
    is_terminal = True
    is_for_programs = False

    def __init__(self, parser: InputParser, protocol: str, *, is_quiet: bool, shows_joins: bool) -> None:
        self._parser = parser
        self._protocol = protocol
        is_unicode = (sys.stdout.encoding or "").lower().replace("-", "").startswith("utf")
        self._timeline = Timeline(_now, is_quiet=is_quiet, shows_joins=shows_joins)
        self._formatter = RowFormatter(_now, glyphs=Glyphs() if is_unicode else ASCII_GLYPHS)
        self._output = Output()
        self._printed = PrintedRows()
        # The width of the window for which the rows were printed.
        self._printed_columns = 0
        # Undrawn events and the current state.
        self._shown: deque[ClientEvent | UiNotice] = deque()
        self._ui_state = UiState(ConnectionState.DISCONNECTED, is_secret=True)
        self._redraw_timer: asyncio.TimerHandle | None = None
        # Set by run().
        self._loop: asyncio.AbstractEventLoop
        self._controller: Controller
        self._inbox: Inbox
        # Set when the controller has ended, and after a bug.
        self._ended = asyncio.Event()
        self._drawn_at = 0.0
        self._bell_at = -math.inf
        self._confirmed_text = ""
        # Paste detection: see _on_key. _is_held: an Enter waits at the end of a read.
        self._key_at = -math.inf
        self._has_more_keys = self._is_fast = self._is_pasted = False
        self._is_held = False
        # The time of the last signal that was handled, and of the first one that the loop has not seen.
        self._signaled_at = -math.inf
        self._unhandled_at = math.inf
        # The terminal's modes before the prompt.
        self._modes: list[Any] = []
        self._error: BaseException | None = None
        self._is_secret = Condition(lambda: self._ui_state.is_secret)
        self._session = self._build()
        app = self._session.app
        app.renderer = PromptRenderer(app.renderer.style, self._output)
        content = app.layout.container
        app.layout.container = ComposingContainer(lambda: content)
        app.key_processor.before_key_press += lambda _: self._on_key()
        app.after_render += lambda _: self._output.release()
        # Some key bindings of the library accept the line, which would end the prompt. Here only Enter sends.
        self._session.default_buffer.accept_handler = lambda _: True

    # --- for the controller ---

    def display(self, shown: ClientEvent | UiNotice) -> None:
        self._shown.append(shown)
        self._schedule_redraw()

    def update(self, ui_state: UiState) -> None:
        if ui_state != self._ui_state:
            self._ui_state = ui_state
            self._schedule_redraw()

    # --- the event loop ---

    def run(self, controller: Controller, inbox: Inbox) -> Exit:
        self._controller = controller
        self._inbox = inbox
        self._modes = termios.tcgetattr(sys.stdin)
        signals = [each for each in ENDING_SIGNALS if signal.getsignal(each) is not signal.SIG_IGN]
        try:
            asyncio.run(self._run(signals))
        finally:
            for each in signals:  # the loop does not restore the handlers
                signal.signal(each, signal.default_int_handler)
        if self._error is not None:
            raise self._error
        assert controller.exit is not None
        return controller.exit

    async def _run(self, signals: Sequence[signal.Signals]) -> None:
        self._loop = asyncio.get_running_loop()
        self._loop.set_exception_handler(self._on_error)
        for each in signals:
            self._loop.add_signal_handler(each, self._interrupt)
            signal.signal(each, self._on_signal)  # in addition to the loop's handler
        self._inbox.wake = self._wake
        try:
            self._controller.begin()
            with suppress(EOFError):  # the terminal is gone
                await self._session.prompt_async(
                    pre_run=lambda: self._loop.call_soon(self._redraw),  # type: ignore[arg-type]
                    handle_sigint=False,
                    set_exception_handler=False,
                )
            if self._error is None:
                self._react(Interrupt())
            await self._await_goodbye()
        finally:
            self._print()
            self._output.release()

    async def _await_goodbye(self) -> None:
        """Wait for the end of the controller, for a limited time."""
        while self._controller.exit is None and self._error is None:
            assert self._controller.deadline is not None
            try:
                await asyncio.wait_for(self._ended.wait(), max(0.0, self._controller.deadline - time.monotonic()))
            except TimeoutError:
                self._controller.on_deadline()

    def _wake(self) -> None:
        """Handle the inbox soon. For the receiver thread, and for a turn that was too short."""
        with suppress(RuntimeError):  # the loop has just ended
            self._loop.call_soon_threadsafe(self._handle_received)

    def _handle_received(self) -> None:
        for item in self._inbox.take(_TURN_SECONDS):
            self._react(item)
            if self._controller.exit is not None:
                return
        if self._shown and not self._session.app.is_running:  # no frame follows
            self._print()

    def _react(self, item: Input) -> None:
        if self._controller.exit is None:
            self._controller.react(item)
        if self._controller.exit is not None:
            self._ended.set()
            self._stop()

    def _on_error(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """End the prompt after a bug; run() raises the error."""
        self._error = context.get("exception") or RuntimeError(context["message"])
        self._ended.set()
        self._stop()

    def _on_signal(self, *_: object) -> None:
        """End the process at the second signal if the loop is blocked in a write, and has not handled the first one.

        Python calls this handler during the blocked write. A normal exit would have to draw, and block again.
        """
        now = time.monotonic()
        if now >= self._unhandled_at + _SECOND_SIGNAL_SECONDS:
            termios.tcsetattr(sys.stdin, termios.TCSANOW, self._modes)
            os._exit(Exit.LOST)
        self._unhandled_at = min(self._unhandled_at, now)

    def _interrupt(self) -> None:
        """End the prompt, or the wait for the goodbye."""
        self._unhandled_at = math.inf
        now = time.monotonic()
        if now < self._signaled_at + _SECOND_SIGNAL_SECONDS:
            return
        self._signaled_at = now
        if self._session.app.is_running:
            self._stop()
        else:
            self._react(Interrupt())

    def _stop(self) -> None:
        if self._session.app.is_running and not self._session.app.is_done:
            self._session.app.exit(result="")

    def _schedule_redraw(self) -> None:
        if self._redraw_timer is None and self._session.app.is_running:
            wait_seconds = self._drawn_at + _FRAME_SECONDS - self._loop.time()
            self._redraw_timer = self._loop.call_later(max(0.0, wait_seconds), self._redraw)

    def _redraw(self) -> None:
        self._redraw_timer = None
        self._drawn_at = self._loop.time()
        app = self._session.app
        if self._controller.exit is not None:
            self._stop()
        if app.is_done or not app.is_running:
            return  # _run() draws the rest
        if self._shown:
            # The prompt is erased and drawn again below the new rows, in a single write, so that it does not flicker.
            # The drawing ends with a cursor.
            self._output.hold()
            self._output.hide_cursor()
            screen = app.renderer.last_rendered_screen
            app.renderer.erase()
            self._print(prompt_rows=screen.height if screen is not None else 1)
        app.invalidate()

    def _print(self, prompt_rows: int = 1) -> None:
        """Print the undrawn events at the cursor, which is at the beginning of the prompt."""
        waiting = [self._shown.popleft() for _ in range(len(self._shown))]
        app = self._session.app
        size = self._output.get_size()
        columns, username = size.columns, self._timeline.username
        if columns != self._printed_columns:
            self._printed.forget()
            self._printed_columns = columns
        format_again = partial(
            self._formatter.rows_again, username=username, width=columns, shows_ids=self._timeline.shows_ids
        )
        rows: list[Row] = []
        rows_before, visible_rows, is_replaced = self._printed.count, size.rows - prompt_rows, False
        for entry in self._timeline.entries(waiting):
            if isinstance(entry, Deletion) and self._printed.replace(entry.tombstone, format_again, visible_rows):
                is_replaced = True
                continue
            new = self._formatter.rows(entry, username, columns, shows_ids=self._timeline.shows_ids)
            self._printed.add(entry, new)
            rows += new
        if is_replaced:
            rows = self._printed.last(visible_rows)
            self._output.cursor_up(min(rows_before, size.rows))
            self._output.erase_down()
        text = FormattedText([piece for row in rows for piece in (*row, ("", "\n"))])
        print_formatted_text(self._output, text, app.style or Style([]), color_depth=app.color_depth)
        if self._timeline.needs_bell and time.monotonic() >= self._bell_at + _BELL_SECONDS:
            self._bell_at = time.monotonic()
            self._output.bell()
            self._output.flush()
        self._timeline.needs_bell = False

    # --- the prompt ---

    def _build(self) -> PromptSession[str]:
        return PromptSession(
            self._prompt,
            bottom_toolbar=self._toolbar,
            completer=_NameCompleter(self._parser, self._is_secret),
            complete_while_typing=False,
            reserve_space_for_menu=_MENU_ROWS,
            input_processors=[ConditionalProcessor(_Hidden(), self._is_secret)],
            key_bindings=self._keys(),
            history=InMemoryHistory(),
            erase_when_done=True,
            prompt_continuation="  ",
            style=Style.from_dict(STYLES),
            output=self._output,
        )

    def _prompt(self) -> FormattedText:
        rows = self._formatter.pending(self._ui_state, self._output.get_size().columns)
        pending = [piece for row in rows for piece in (*row, ("", "\n"))]
        return FormattedText([*pending, ("class:prompt", prompt(self._ui_state, self._output.get_size().columns))])

    def _toolbar(self) -> FormattedText:
        width = self._output.get_size().columns - 1
        is_quiet = self._timeline.is_quiet
        return FormattedText(self._formatter.status(self._ui_state, self._protocol, width, is_quiet=is_quiet))

    def _keys(self) -> KeyBindings:
        keys = KeyBindings()
        is_typing = has_focus(DEFAULT_BUFFER)  # false during a history search
        is_empty = Condition(lambda: not self._session.default_buffer.text)
        keys.add("enter", filter=is_typing)(self._on_enter)
        keys.add("escape", "enter", filter=is_typing)(lambda event: event.current_buffer.insert_text("\n"))
        keys.add("c-c", filter=is_typing)(self._on_clear)
        keys.add("c-d", filter=is_typing & is_empty)(lambda _: self._stop())
        keys.add("c-z")(self._on_suspend)
        for number in range(1, 10):
            keys.add("escape", str(number), filter=is_typing)(self._on_room_key)
        # A history search would show the password.
        for key in ("c-r", "c-s"):
            keys.add(key, filter=self._is_secret)(lambda _: None)
        keys.add(" ", filter=Condition(lambda: self._expansion() is not None))(self._on_expand)
        keys.add(Keys.BracketedPaste, filter=is_typing)(self._on_paste)
        return keys

    def _on_enter(self, event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if buffer.complete_state is not None and buffer.complete_state.current_completion is not None:
            # The first Enter selects the completion, so that it is visible before it is sent.
            buffer.complete_state = None
        elif self._ui_state.is_secret:
            text = _replace_surrogates(buffer.text)
            self._clear_line()
            self._react(Line(text, is_secret=True))
        elif not self._is_fast or (self._ui_state.question and self._ui_state.question.kind in _NAME_QUESTIONS):
            self._send()
        elif (queue := event.key_processor.input_queue) and _is_text(queue[0].key):
            self._is_pasted = True
            buffer.insert_text("\n")
        elif self._is_pasted and not queue:
            self._is_held = True
        else:
            self._send()

    def _on_key(self) -> None:
        """Detect a paste by its speed, for terminals without bracketed paste.

        An Enter faster than typing, with text after it in the same read, is a line break. After that, an Enter at the
        end of a read waits for the next key: if the paste continues it is a line break, otherwise it is dropped. A
        single pasted line is sent, because it looks like a line typed by a program.
        """
        now = self._loop.time()
        # Keys of one read are a paste, even if a busy machine handles them slowly.
        self._is_fast = self._has_more_keys or now - self._key_at < _PASTE_SECONDS
        self._has_more_keys = bool(self._session.app.key_processor.input_queue)
        self._is_pasted &= self._is_fast
        self._key_at = now
        if self._is_held and self._is_fast:
            self._session.default_buffer.insert_text("\n")
        self._is_held = False

    def _send(self) -> None:
        self._is_pasted = False
        buffer = self._session.default_buffer
        if self._may_be_sent(buffer):
            text = _replace_surrogates(buffer.text)
            if text.strip():
                buffer.append_to_history()
            buffer.reset()
            self._react(Line(text))

    def _may_be_sent(self, buffer: Buffer) -> bool:
        """True if the text can be sent. An empty text only cancels a question; many lines must be confirmed first."""
        text = buffer.text
        if not text.strip():
            return bool(self._ui_state.question)
        size_bytes = len(text.encode(errors="replace"))
        if size_bytes > BODY_MAX_BYTES:
            self._report_length(size_bytes, "sent")
            return False
        lines = text.count("\n") + 1
        if lines > _LINES_UNCONFIRMED_MAX and text != self._confirmed_text:
            self._confirmed_text = text
            self.display(Help((f"Send these {lines} lines as one message? Enter sends it, Ctrl-C does not.",)))
            return False
        self._confirmed_text = ""
        return True

    def _report_length(self, size_bytes: int, what: str) -> None:
        text = f"That is {size_bytes:,} bytes long; a message has {BODY_MAX_BYTES:,} at most. Nothing was {what}."
        self.display(ErrorNotice("too_long", text))

    def _on_clear(self, event: KeyPressEvent) -> None:
        """Ctrl-C clears the line. On an empty line it cancels a question, or ends a client that is not logged in."""
        if event.current_buffer.text:
            self._clear_line()
            self._confirmed_text = ""
        elif self._ui_state.question and self._ui_state.connection_state is ConnectionState.LOGGED_IN:
            self._react(Line(""))
        elif self._ui_state.is_secret or self._ui_state.question:
            self._stop()
        else:
            self.display(Help(("Ctrl-D or EX leaves.",)))

    def _on_suspend(self, event: KeyPressEvent) -> None:
        """Stop the process. The shell prints below our rows, until it continues the process."""
        self._printed.forget()
        event.app.suspend_to_background()

    def _on_room_key(self, event: KeyPressEvent) -> None:
        self._react(SelectRoom(int(event.key_sequence[-1].key)))

    def _clear_line(self) -> None:
        """Clear the line, and the clipboard if it may hold a password."""
        self._session.default_buffer.reset()
        if self._ui_state.is_secret:
            self._session.app.clipboard = InMemoryClipboard()

    def _expansion(self) -> str | None:
        return self._parser.expansion(self._session.default_buffer.text)

    def _on_expand(self, event: KeyPressEvent) -> None:
        text = self._expansion() or ""
        event.current_buffer.reset()
        event.current_buffer.insert_text(text)

    def _on_paste(self, event: KeyPressEvent) -> None:
        """Insert pasted text, with its line breaks. Enter sends it."""
        text = event.data.replace("\r\n", "\n").replace("\r", "\n").replace("\0", "").rstrip("\n")
        if (size_bytes := len(text.encode(errors="replace"))) > BODY_MAX_BYTES:
            self._report_length(size_bytes, "pasted")
        else:
            event.current_buffer.insert_text(text)


def _now() -> datetime:
    return datetime.now(UTC).astimezone()


def _is_text(key: Keys | str) -> bool:
    """True for a character, tab or line break. Other keys are not part of a paste."""
    return not isinstance(key, Keys) or key in (Keys.ControlM, Keys.ControlJ, Keys.ControlI)


def _replace_surrogates(text: str) -> str:
    return _SURROGATES.sub("\ufffd", text)


class _Hidden(Processor):
    """Hides a password and its length."""

    def apply_transformation(self, transformation_input: TransformationInput) -> Transformation:  # noqa: ARG002
        return Transformation([], source_to_display=lambda _: 0, display_to_source=lambda _: 0)


class _NameCompleter(Completer):
    """Completes names of users online and of rooms, operations and commands."""

    def __init__(self, parser: InputParser, is_password: Callable[[], bool]) -> None:
        self._parser = parser
        self._is_password = is_password

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:  # noqa: ARG002
        """Complete the word before the cursor. No completions in a password."""
        if document.text and not self._is_password():
            length, found = self._parser.completions(document.text_before_cursor)
            yield from (Completion(text, start_position=-length, display=text.strip()) for text in found)
