"""Breaks of the product, one or more for each promise, and the tests that must notice them.

``make mutants`` applies each of them to a copy of the project and runs its tests. docs/testing.md lists the promises.
"""

from __future__ import annotations

from typing import NamedTuple


class Break(NamedTuple):
    """A change of one file of services/ that breaks a promise.

    Each old text must occur once in the file. ``tests`` are tests below tests/, as ``file::test``. Each of them must
    fail; of a parametrized test, one row. Rows with the marker ``long`` run only if no other row notices the break.
    """

    promise: str
    file: str
    changes: tuple[tuple[str, str], ...]
    tests: tuple[str, ...]
    needs_long_rows: bool = False


def _break(promise: str, file: str, old: str, new: str, *tests: str, needs_long_rows: bool = False) -> Break:
    return Break(promise, file, ((old, new),), tests, needs_long_rows)


_SERVER = "server/chatserver/"
_SHARED = "unit/server/test_shared_journal.py::"
_NATS = "integration/test_nats_log.py::"
_JOINING = "unit/server/test_joining.py::"
_CHAT = "server/chatserver/chat/"
_JOURNAL = "server/chatserver/journal/"
_NET = "server/chatserver/net/"
_STORE = "server/chatserver/store/"
_PROTOCOL = "protocol/chatprotocol/"
_CLIENT = "client/chatclient/"
_WIRE = "protocol/chatprotocol/wire/"
_STATIC = "server/chatserver/web/static/"
_MODEL = "browser/test_model.py::"

# --- README.md ---

_STORED = "A message is on the disk before its sender gets a confirmation, and before others see it."
_ORDER = "All members of a room see its messages in the same order."
_RESUMED = "A json client that reconnects gets each message that it missed, once."
_WAITING = "Direct messages wait for users who are offline."
_SLOW = "A slow or stuck client never delays the others."
_ONE_PORT = "Clients speak one of five wire formats, all on one port."
_GUESTS = "Guests without a password use the wire format register."
_SEARCH = "Users search the history."
_CLOSED = "Closed registration admits existing accounts only."

# --- the table in docs/architecture.md ---

_CONFIRMED = "A confirmed message is stored; a visible message is stored."
_ONE_ORDER = "All clients see one order."
_SAME_STORE = "The same entries make the same store, whenever and in which transactions they are applied."
_RECONNECT = "No message is missed or repeated after a reconnect (json)."
_PAGE = "The web page shows each message once and in order, and stores each typed one once, whatever breaks."
_TEXTS = "Texts of others are only texts in the web page: no script runs, and each stays in its row."
_TOKEN_ONLY = "A browser keeps a session token, and never a password."
_SMOOTH = "The web page shows a history of any length smoothly, in bounded memory."
_ALOUD = "The web page reads aloud what arrives, and no older messages."
_RECEIVED = "A direct message waits until a device of its recipient has received it."
_VISIBLE = "A search finds only messages that its user may see."
_MEMBERS = "A member of a room gets the messages of its membership: each once, in one order, between the right entries."
_QUIET_ROOM = "A room with no members online costs no memory and no descriptor."
_UNAWARE = "Clients that don't know rooms get nothing of them."
_ROOMS = "Only its members read and write in a room; a private room can't be told from a missing one."
_MODERATED = "Operators act only where they may, and each act is in the audit table."
_SANCTIONS = "A banned user is out, and a muted one is silent, until it ends; also after a restart."
_DELETED = "A deleted message is in no history, search or `since`; its id and nonce stay used."
_IGNORED = "The direct messages of an ignored user reach no device, and the user does not learn it."
_NO_DELAY = "A slow client delays no other client."
_BOUNDED = "Memory for waiting data is limited."
_CONNECTIONS = "The number of connections is limited."
_SLOTS = "No address, and no number of silent connections, keeps users out."
_USER_LIMITS = "No user harms the others by how much it sends, asks, or leaves unread."
_MEMORY = "If memory is short, the server refuses requests, and does not crash."
_STARVING = "Thousands of active clients don't starve the others."
_LOST_NETWORK = "A client whose network is gone leaves the room."
_STUCK_LOG = "A server's log that is not read delays no thread."
_DEAD_THREAD = "A dead thread ends the process."
_ONE_LOG = "Servers that share a log apply each entry once, in one order, whatever happens to the records on their way."
_OWN_LOG = "A server follows its own log only, and takes clients when it has applied all that was confirmed before."
_SHARE = "From one server to several and back, all ids, accounts and messages are kept, also if a command is killed."
_WEB = "Other web sites can't use the server, and only trusted proxies announce addresses of clients."
_NO_QUORUM = "While the log can't store entries, nothing is confirmed, and nothing that was confirmed is lost."
_LOST_DATA = "Lost data is reported, and no id is used twice."
_SHUTDOWN = "Shutdown takes at most 8 s, and loses nothing that was accepted."

# --- more promises of docs/architecture.md and of the pages that it links ---

_NO_ECHO = "A sender gets a confirmation, and not its own message."
_MARKED = "A notice, and a message of a guest, is marked as such, live and in the history."
_PRIVATE = "Only its sender and its recipient see a direct message."
_PASSWORD = "A wrong password is refused, and the third one closes the connection."
_HASHED = "The database has hashes of passwords only, and other users of the machine can't read it."
_FAREWELL = "All clients are told that the server shuts down."
_THROTTLE = "Guessing passwords is slow."
_OWNER = "An owner logs in while strangers guess."
_REGISTERING = "Registering names is limited."
_LOG_PRIVACY = "The log contains no passwords and no messages."
_TOKEN_HASHED = "A session token is stored as a hash only, and is in no log."
_TOKEN_REVOKED = "A revoked session token admits no login, and its connections end."
_TOKEN_PASSWORD = "Another password revokes the session tokens, and another hash of the same one does not."
_TOKEN_EXPIRES = "A session token is valid until 30 days after its last use, and ends with its account."
_DATA_FOLDER = "Two servers never use one data folder, and a removed database stops confirmations."
_HEALTH = "The health check fails if the server can't commit."
_BACKUP = "A backup has all that was confirmed before it began. A backup or a restore that fails changes nothing."
_ADMIN = "An administrator's command does the same with the server running or not, and is in the audit table."
_ENCRYPTED = (
    "With TLS, all data is encrypted; if TLS is required, other connections are refused; a handshake has a time limit."
)
_METRICS = "The metrics count what happened, and name no user. A slow reader of them is disconnected."
_SIGNALS = (
    "SIGHUP applies changed settings, or none if one is invalid. SIGUSR1 logs all stacks. Neither ends the server."
)
_NO_CORE = "A crash leaves no core dump, which would have passwords in it."
_SIZES = "Each size limit of the wire formats is enforced."
_DEPTH = "Deeply nested JSON does not reach a recursive parser."
_TIMEOUT = "A connection that does not log in, or stops inside a request, is closed."
_PRESENCE = "Joins and leaves are announced once to the users that need them."
_PEERS = "Servers of one log show the users of all, and no user who has left for more than 15 s."
_REACHED = "Users and guests of several servers reach and moderate each other."
_SHARED_THROTTLE = "Wrong passwords count on all servers."
_DIFFERS = "A server whose data differ from those of the others stops."
_ACKED = "A guest gets one message at a time, and a sender is told when all guests have acknowledged."
_GUEST_NAMES = "A guest's name belongs to one guest at one address, and to no account."
_ARQ = "Every datagram arrives once and in order, or the session is lost."
_COOKIE = "A UDP address gets a session after it proved to receive there; no answer is longer than its request."
_CLIENT_ONCE = "The client sends an unconfirmed message again, and shows each message once."
_RIGHT_ROOM = "The client sends a message only to the room for which it was typed."
_UNKNOWN = "The client reports a message if it can't know whether it was stored."
_RETRY = "The client reconnects, and gives up a silent server."
_OTHER_SERVER = "A client with several servers resumes at another one, and tells it once."
_ESCAPES = "Messages can't control the terminal."
_SECRET = "A password is not shown at the terminal."
_EXIT_CODES = "The exit code of the client tells what happened."
_SETTINGS = "Flags win over variables, and variables over .env."
_HIDDEN = "The client does not show deleted messages, nor messages of ignored users."
_PUT_OUT = "A client that is banned, kicked or replaced does not reconnect, and says why."
_RATES = "Messages of a script that are refused for their rate are sent again, one by one and in order."
_MEANT = "A command of moderation is about the user, message, room and time that were meant."
_CLIENT_MEMORY = "The client's memory for unread events is limited."
_REQUESTS = "A flood of requests delays no other user, and keeps none out."

BREAKS = (
    # TLS.
    _break(
        _RECEIVED,
        _NET + "tls.py",
        "return unsent_bytes + self._inner.unacknowledged_bytes()",
        "return self._inner.unacknowledged_bytes()",
        "unit/server/test_tls.py::test_acknowledged_bytes_have_all_arrived",
    ),
    _break(
        _RECEIVED,
        _NET + "tls.py",
        "return unsent_bytes + self._inner.written()",
        "return self._inner.written()",
        "unit/server/test_tls.py::test_acknowledged_bytes_have_all_arrived",
    ),
    _break(
        _ENCRYPTED,
        _NET + "tls.py",
        "            remaining_seconds = deadline - self._clock()\n",
        "            remaining_seconds = timeout_seconds\n",
        "unit/server/test_tls.py::test_handshake_that_fails_or_never_ends",
    ),
    _break(
        _ENCRYPTED,
        _SERVER + "app.py",
        'tls_required=_TLS_REQUIRED if config.tls == "required" else None',
        "tls_required=None",
        "integration/test_tls.py::test_required_tls_refuses_others_in_their_protocol",
    ),
    _break(
        _ENCRYPTED,
        _SERVER + "app.py",
        'tls_required=config.tls == "required"',
        "tls_required=False",
        "integration/test_tls.py::test_required_tls_refuses_datagrams",
    ),
    _break(
        _ENCRYPTED,
        _CLIENT + "links/tls.py",
        "return ssl.create_default_context(cafile=ca)",
        "return ssl._create_unverified_context(cafile=ca)",
        "integration/test_tls.py::test_client_says_why_it_does_not_trust_a_server",
    ),
    _break(
        _ENCRYPTED,
        _SERVER + "config.py",
        'if config.tls == "required" and config.tls_cert is None:',
        "if False:",
        "unit/server/test_server_config.py::test_invalid_value_is_one_line_that_names_it",
    ),
    # Stored and ordered.
    Break(
        _STORED,
        _JOURNAL + "local.py",
        (
            (
                "                if taken.is_probed:\n",
                "                self._subscribers[0](applied)\n                if taken.is_probed:\n",
            ),
            ("callback(applied)\n        for appended, its", "pass\n        for appended, its"),
        ),
        ("unit/server/test_journal.py::test_subscriber_is_called_after_the_commit",),
    ),
    _break(
        _CONFIRMED,
        _JOURNAL + "base.py",
        "failure = make_error()",
        "failure = ()",
        "unit/server/test_journal.py::test_failed_commit_refuses_its_messages_and_the_next_one_goes_on",
    ),
    _break(
        _CONFIRMED,
        _STORE + "database.py",
        "{'FULL' if self._syncs else 'NORMAL'}",
        "{'OFF' if self._syncs else 'NORMAL'}",
        "unit/server/test_database.py::test_new_database_is_durable_and_sorts_in_memory",
    ),
    _break(
        _ORDER,
        _JOURNAL + "local.py",
        "                callback(applied)\n        for appended, its",
        "                callback(applied[::-1])\n        for appended, its",
        "unit/server/test_journal.py::test_appended_batches_stay_together_despite_concurrent_senders",
        "e2e/test_public_messages.py::test_all_clients_see_one_order",
    ),
    _break(
        _ONE_ORDER,
        _NET + "sendqueue.py",
        "self._close_spans(is_staged=True)",
        "self._close_spans()",
        "unit/server/test_sendqueue.py::test_sent_data_has_all_rooms_and_own_messages_in_order",
    ),
    _break(
        _NO_ECHO,
        _CHAT + "hub.py",
        "send_queue.replace(buffer, start, end, [sent, public]",
        "send_queue.replace(buffer, end, end, [sent, public]",
        "unit/server/test_hub.py::test_public_message_reaches_all_connections_and_confirms_its_sender",
    ),
    # Reconnects and offline users.
    _break(
        _RESUMED,
        _CHAT + "login.py",
        "return [missed(0, since)], since if is_other else None",
        "return [missed(last_id, since)], since if is_other else None",
        "integration/test_resume.py::test_since_sends_missed_messages_once",
        "e2e/test_restart.py::test_no_message_is_missed_over_a_restart",
    ),
    _break(
        _RECONNECT,
        _NET + "sendqueue.py",
        "self.state = BUFFERING",
        "self.state = LIVE",
        "unit/server/test_sendqueue.py::test_sent_data_has_all_rooms_and_own_messages_in_order",
    ),
    _break(
        _RECONNECT,
        _STORE + "messages.py",
        "None, text, nonce, is_notice) for key",
        "None, text, None, is_notice) for key",
        "unit/server/test_journal.py::test_repeated_messages_are_stored_once_and_confirmed_with_their_first_id",
    ),
    _break(
        _SAME_STORE,
        _JOURNAL + "apply.py",
        "entry.password_hash, time_ms, entry.role)",
        'entry.password_hash, __import__("time").time_ns(), entry.role)',
        "unit/server/test_apply.py::test_same_entries_make_the_same_store",
    ),
    _break(
        _WAITING,
        _CHAT + "login.py",
        "return [_Range(messages.undelivered, delivered_id, last_id)], None",
        "return [_Range(messages.undelivered, last_id, last_id)], None",
        "unit/server/test_session.py::test_login_without_since_sends_waiting_direct_messages",
        "e2e/test_direct_messages.py::test_direct_message_waits_for_an_offline_user",
    ),
    _break(
        _RECEIVED,
        _CHAT + "delivery_marks.py",
        "if message_id > self._marks.get(account_id, 0):",
        "if False:",
        "unit/server/test_hub.py::test_received_direct_message_moves_the_mark",
        "e2e/test_direct_messages.py::test_direct_message_waits_for_an_offline_user",
    ),
    _break(
        _RECEIVED,
        _NET + "sendqueue.py",
        "if self.transport.unacknowledged_bytes():",
        "if False:",
        "unit/server/test_sendqueue_tracking.py::test_two_threads_check_at_the_same_time",
    ),
    # Slow clients and limits.
    _break(
        _SLOW,
        _NET + "sender.py",
        "if send_queue.lag_bytes() > self._lag_max_bytes:",
        "if False:",
        "unit/server/test_sender.py::test_lagging_peers_are_disconnected_and_logged",
    ),
    _break(
        _SLOW,
        _NET + "broadcast.py",
        "min(self.position, max(needed_from",
        "max(0, max(needed_from",
        "unit/server/test_sender.py::test_own_message_is_skipped_while_a_slow_peer_is_lost",
    ),
    _break(
        _NO_DELAY,
        _NET + "sender.py",
        "        elif send_queue not in self._full:\n            self._serve(send_queue)",
        "        elif not self._full:\n            self._serve(send_queue)",
        "unit/server/test_sender.py::test_peer_that_takes_no_replies_is_disconnected",
    ),
    _break(
        _NO_DELAY,
        _NET + "sender.py",
        "if send_queue.has_unsent_replies:",
        "if False:",
        "unit/server/test_sender.py::test_peer_that_takes_no_replies_is_disconnected",
    ),
    _break(
        _BOUNDED,
        _JOURNAL + "base.py",
        "while self._inbox.size >= self._inbox_max_entries and not self._closed:",
        "while False:",
        "unit/server/test_journal.py::test_append_waits_while_the_inbox_is_full",
    ),
    _break(
        _BOUNDED,
        _CHAT + "hub.py",
        "buffer.wait_for_sender()\n",
        "pass\n",
        "unit/server/test_hub.py::test_large_round_is_flushed_in_portions_that_wait_for_the_sender",
    ),
    _break(
        _BOUNDED,
        _NET + "sendqueue.py",
        "        if self._unread_bytes() <= self._unread_max_bytes:\n            return self.state < DRAINING\n",
        "        if self._unread_bytes() >= 0:\n            return self.state < DRAINING\n",
        "unit/server/test_sendqueue.py::test_reader_waits_while_its_peer_leaves_too_much_unread",
    ),
    _break(
        _ONE_ORDER,
        _NET + "sendqueue.py",
        "self._segments.insert(0, begun)",
        "self._segments.append(begun)",
        "unit/server/test_sendqueue.py::test_rest_of_a_cut_send_goes_before_all_other_data",
    ),
    _break(
        _BOUNDED,
        _NET + "memory_file.py",
        "os.ftruncate(segment, 0)",
        "pass",
        "unit/server/test_memory_file.py::test_kept_data_is_read_from_any_position_and_memory_stays_bounded",
    ),
    _break(
        _BOUNDED,
        _CHAT + "delivery.py",
        "if window.queued_bytes > self._lag_max_bytes:",
        "if False:",
        "unit/server/test_delivery.py::test_delivery_agrees_with_the_model",
        "unit/server/test_delivery.py::test_disconnects_are_logged_with_reason_and_user",
    ),
    _break(
        _CONNECTIONS,
        _NET + "connections.py",
        "return self._slots.total - len(self._connections) + len(self._displaced)",
        "return self._slots.total",
        "integration/test_limits.py::test_connection_over_the_limit_is_refused_in_its_protocol",
    ),
    _break(
        _CONNECTIONS,
        _NET + "reject_queue.py",
        "sock.send(data, socket.MSG_NOSIGNAL)",
        "pass",
        "unit/server/test_reject_queue.py::test_peer_that_spoke_is_told_at_once_in_its_protocol",
    ),
    _break(
        _SLOTS,
        _NET + "limits.py",
        "if self._at_once_max and counts.connections >= self._at_once_max:",
        "if False:",
        "unit/server/test_limits.py::test_network_has_a_number_of_connections_at_once",
        "integration/test_limits.py::test_address_has_a_number_of_connections_over_tcp_and_udp",
    ),
    _break(
        _SLOTS,
        _NET + "limits.py",
        "if wait_seconds := math.ceil(counts.new.wait_seconds(self._new_max, NEW_SECONDS, now)):",
        "if wait_seconds := 0:",
        "unit/server/test_limits.py::test_network_opens_a_number_of_connections_in_ten_minutes",
        "integration/test_limits.py::test_address_opens_a_number_of_connections_in_ten_minutes",
    ),
    _break(
        _SLOTS,
        _NET + "connections.py",
        "(not is_exempt and len(self._waiting) >= slots.waiting_max)",
        "False",
        "unit/server/test_connections.py::test_new_connection_displaces_the_oldest_silent_one",
        "integration/test_limits.py::test_silent_connections_keep_no_user_out",
    ),
    _break(
        _SLOTS,
        _NET + "connection.py",
        "return (self._is_waiting or is_paused) and not self.is_logged_in",
        "return True",
        "unit/server/test_connections.py::test_connection_whose_request_is_being_answered_is_not_displaced",
    ),
    _break(
        _SLOTS,
        _NET + "connections.py",
        "return awaits_turn or silent",
        "return silent",
        "unit/server/test_connections.py::test_login_that_waits_for_its_turn_gives_way_after_silent_connections",
        "reliability/test_attacks_logins.py::test_tries_that_wait_keep_no_user_out",
    ),
    _break(
        _SLOTS,
        _NET + "connection.py",
        '        problem = "it took too long"\n        self._is_waiting = True\n',
        '        problem = "it took too long"\n',
        "integration/test_limits.py::test_handshake_that_never_ends_keeps_no_user_out",
    ),
    _break(
        _SLOTS,
        _NET + "connection.py",
        "self._read_bytes = size_bytes\n",
        "pass\n",
        "integration/test_limits.py::test_client_behind_a_trusted_proxy_has_its_own_address",
    ),
    _break(
        _SLOTS,
        _CHAT + "registration.py",
        "if self._is_reserved():",
        "if False:",
        "integration/test_limits.py::test_last_slots_are_for_known_users",
    ),
    _break(
        _SLOTS,
        _NET + "connection.py",
        "            self.network = self._services.limits.admit(address)",
        "            pass",
        "integration/test_limits.py::test_client_behind_a_trusted_proxy_has_its_own_address",
    ),
    _break(
        _SLOTS,
        _NET + "limits.py",
        "if bucket.wait_seconds(self._each_max, 1.0, now):",
        "if False:",
        "unit/server/test_limits.py::test_network_opens_a_number_of_sessions_in_a_second_and_does_not_use_up_those_of_others",
        "reliability/test_attacks_connections.py::test_openings_over_udp_delay_no_user",
    ),
    _break(
        _BOUNDED,
        _SERVER + "log.py",
        "if count >= self._max_lines:",
        "if False:",
        "unit/server/test_log.py::test_entries_of_one_kind_about_one_address_are_limited_and_counted",
        "reliability/test_attacks_connections.py::test_refused_requests_do_not_fill_the_log",
    ),
    _break(
        _BOUNDED,
        _NET + "limits.py",
        "if self._networks[oldest].is_full(now):",
        "if False:",
        "unit/server/test_limits.py::test_all_networks_open_a_number_of_sessions_in_a_second",
    ),
    _break(
        _BOUNDED,
        _NET + "reject_queue.py",
        "> _SOCKETS_MAX:",
        "> 10**9:",
        "unit/server/test_reject_queue.py::test_flood_evicts_told_peers_first_and_then_the_oldest",
    ),
    _break(
        _USER_LIMITS,
        _CHAT + "rate_limit.py",
        "full_at = max(self._full_at.get(key, now), now) + count",
        "full_at = now + count",
        "unit/server/test_rate_limit.py::test_limit_is_a_bucket_of_tokens_for_each_user",
        "integration/test_limits.py::test_rates_hold_over_all_connections_of_a_user",
    ),
    _break(
        _USER_LIMITS,
        _JOURNAL + "apply.py",
        "is_full = 0 < limits.waiting_from_sender <= waiting.get(entry.sender_id, 0)",
        "is_full = False",
        "unit/server/test_apply.py::test_mailbox_of_an_offline_user_is_limited",
        "integration/test_limits.py::test_direct_messages_to_an_offline_user_are_limited",
    ),
    _break(
        _USER_LIMITS,
        _JOURNAL + "base.py",
        "                    self._refuse_growth(taken)",
        "                    pass",
        "unit/server/test_disk.py::test_journal_refuses_what_needs_space_until_the_reserve_is_restored",
        "integration/test_limits.py::test_messages_are_refused_while_the_reserve_of_the_disk_is_used",
    ),
    _break(
        _USER_LIMITS,
        _STORE + "messages.py",
        "PAGE_CHARACTERS: Final = 32 * 1024",
        "PAGE_CHARACTERS: Final = 1 << 40",
        "unit/server/test_messages.py::test_long_answer_is_read_in_pages",
        "reliability/test_attacks_messages.py::test_peers_ask_for_long_answers_and_read_nothing",
    ),
    _break(
        _USER_LIMITS,
        _STORE + "search_turns.py",
        "DEBT_FACTOR = 20.0",
        "DEBT_FACTOR = 0.0",
        "unit/server/test_search_turns.py::test_user_who_has_not_searched_lately_is_next",
    ),
    _break(
        _USER_LIMITS,
        _NET + "sender.py",
        "if self.unread_bytes > self._unread_max_bytes:",
        "if False:",
        "unit/server/test_sender.py::test_unread_bytes_of_all_peers_are_limited_and_their_memory_is_trimmed",
    ),
    _break(
        _USER_LIMITS,
        _CHAT + "delivery.py",
        "if window.rejected_points >= REJECTED_MAX_POINTS:",
        "if False:",
        "integration/test_register.py::test_guest_that_rejects_messages_is_disconnected",
    ),
    _break(
        _USER_LIMITS,
        _CHAT + "hub.py",
        "if len(counted) > self._user_connections:",
        "if False:",
        "unit/server/test_rate_limit.py::test_new_connection_replaces_the_oldest_of_its_user",
        "integration/test_limits.py::test_ninth_connection_ends_the_first",
    ),
    _break(
        _MEMORY,
        _SERVER + "memory.py",
        "if self._available_bytes() < size_bytes:",
        "if False:",
        "unit/server/test_memory.py::test_claims_are_limited_to_the_spare_memory",
    ),
    _break(
        _MEMORY,
        _NET + "sender.py",
        "add_caught_up(send_queue)\n            self._discard_sent(buffers)",
        "add_caught_up(send_queue)",
        "unit/server/test_sender.py::test_quiet_room_keeps_nothing_that_all_followers_have",
    ),
    _break(
        _MEMORY,
        _NET + "sender.py",
        "behind.pop(send_queue, None)\n        self._discard_sent(buffers)",
        "behind.pop(send_queue, None)",
        "unit/server/test_sender.py::test_quiet_room_keeps_nothing_that_all_followers_have",
    ),
    _break(
        _MEMORY,
        _NET + "memory_file.py",
        "< self._descriptors_max:",
        "< 99:",
        "unit/server/test_memory_file.py::test_file_has_no_more_descriptors_than_its_maximum",
    ),
    _break(
        _MEMORY,
        _STORE + "rooms.py",
        "self._claim(_SUMMARY_BYTES * len(rows))",
        "self._claim(0)",
        "unit/server/test_rooms.py::test_list_of_rooms_claims_its_memory_first",
    ),
    _break(
        _MEMORY,
        _NET + "sender.py",
        ">= _SHORT_MEMORY_UNSENT_BYTES:",
        ">= 10**12:",
        "unit/server/test_sender.py::test_short_memory_disconnects_the_peer_with_most_unsent_data",
    ),
    _break(
        _STARVING,
        _NET + "read_turns.py",
        "first = None if self._reader_awake else self._take_next()",
        "first = self._take_next()",
        "unit/server/test_read_turns.py::test_one_reader_at_a_time_is_awake",
    ),
    _break(
        _STARVING,
        _NET + "read_turns.py",
        "self._user_next = not self._user_next",
        "self._user_next = False",
        "unit/server/test_read_turns.py::test_users_and_strangers_alternate",
    ),
    _break(
        _LOST_NETWORK,
        _NET + "sockets.py",
        "for name, value in _lost_peer_options(peer_timeout_seconds):",
        "for name, value in ():",
        "reliability/test_lost_network.py::test_user_without_network_leaves_and_misses_nothing",
        needs_long_rows=True,  # the system gives a connection up after seconds
    ),
    _break(
        _LOST_NETWORK,
        _PROTOCOL + "udp/arq.py",
        "if now - self._received_at >= self._silence_seconds:",
        "if False:",
        "unit/protocol/test_udp_arq.py::test_any_datagram_of_the_peer_ends_its_silence",
    ),
    _break(
        _STUCK_LOG,
        _SERVER + "log.py",
        "                self._dropped += 1\n                return\n",
        "                self._dropped += 1\n",
        "unit/server/test_log.py::test_entries_that_are_not_read_are_dropped_and_counted",
    ),
    _break(
        _STUCK_LOG,
        _SERVER + "log.py",
        "            self._queued.append(text)\n",
        "            self._write_all(text)\n",
        "integration/test_server_program.py::test_blocked_log_does_not_block_the_server",
    ),
    _break(
        _DEAD_THREAD,
        _SERVER + "threads.py",
        "            self._on_crash(self._name)",
        "            pass",
        "unit/server/test_threads.py::test_crash_is_reported_even_if_it_can_not_be_logged",
    ),
    _break(
        _DEAD_THREAD,
        _SERVER + "threads.py",
        "os._exit(_EXIT_CRASHED)",
        "pass",
        "unit/server/test_threads.py::test_watchdog_ends_a_stuck_process",
    ),
    _break(
        _LOST_DATA,
        _STORE + "reconcile.py",
        "if last_id < state.last_id or account_id < state.account_id:",
        "if False:",
        "unit/server/test_reconcile.py::test_lost_messages_are_logged_once_and_their_ids_not_used_again",
    ),
    _break(
        _LOST_DATA,
        _STORE + "reconcile.py",
        "highest_id = max(last_id, state.highest_id)",
        "highest_id = last_id",
        "unit/server/test_reconcile.py::test_lost_messages_are_logged_once_and_their_ids_not_used_again",
    ),
    _break(
        _LOST_DATA,
        _CHAT + "login.py",
        "after_id = min(since, shared_id)",
        "after_id = since",
        "unit/server/test_session.py::test_client_ahead_of_a_restored_server_is_told",
    ),
    _break(
        _DATA_FOLDER,
        _STORE + "database.py",
        "            yield writer\n            self._check_files()",
        "            yield writer",
        "unit/server/test_database.py::test_commit_to_removed_files_fails",
    ),
    _break(
        _DATA_FOLDER,
        _STORE + "files.py",
        "fcntl.flock(lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)",
        "pass",
        "unit/server/test_database.py::test_folder_in_use_is_refused_with_its_holder",
    ),
    _break(
        _SHUTDOWN,
        _NET + "connections.py",
        "self._wait_until(lambda: all(each.has_received_all() for each in connections), timeout_seconds)",
        "pass",
        "reliability/test_shutdown.py::test_shutdown_waits_for_a_slow_reader",
    ),
    _break(
        _SHUTDOWN,
        _SERVER + "app.py",
        "_DRAIN_SECONDS = 3.0",
        "_DRAIN_SECONDS = 30.0",
        "integration/test_server_program.py::test_client_that_does_not_read_delays_the_end_by_seconds_only",
    ),
    Break(
        _SHUTDOWN,
        _JOURNAL + "base.py",
        (
            (
                "while (taken := self._take_inbox()).appends:",
                "while (taken := self._take_inbox()).appends and not self._closed:",
            ),
            ("            self._process(taken)\n        finally:", "            pass\n        finally:"),
        ),
        ("unit/server/test_journal.py::test_appended_batches_stay_together_despite_concurrent_senders",),
    ),
    _break(
        _FAREWELL,
        _CHAT + "session.py",
        "self._send_queue.finish([Bye(SHUTTING_DOWN)])",
        "self._send_queue.finish()",
        "e2e/test_exit_codes.py::test_server_stops_within_two_seconds",
    ),
    _break(
        _REQUESTS,
        _CHAT + "session.py",
        "if kind not in _MESSAGES and not (self._begin_answer() and self._await_rate(kind)):",
        "if kind not in _MESSAGES and not self._begin_answer():",
        "unit/server/test_rate_limit.py::test_requests_of_a_user_over_the_rate_are_delayed",
        "unit/server/test_rate_limit.py::test_requests_before_the_login_are_delayed_except_the_first",
    ),
    _break(
        _REQUESTS,
        _CHAT + "login.py",
        "self._replace_password(account, new, Urgency.CHANGE, member.token_id)",
        "self._replace_password(account, new, kept_token=member.token_id)",
        "unit/server/test_login.py::test_change_of_a_password_waits_for_logins_and_registrations",
    ),
    _break(
        _REQUESTS,
        _CHAT + "passwords.py",
        "    (Urgency.REGISTRATION, *Urgency),\n",
        "    tuple(Urgency),\n",
        "unit/server/test_passwords.py::test_known_users_who_log_in_all_the_time_keep_no_others_out",
    ),
    _break(
        _REQUESTS,
        _CHAT + "passwords.py",
        "self._waiting[urgency].append(account, task)",
        'self._waiting[urgency].append("", task)',
        "unit/server/test_passwords.py::test_accounts_take_turns",
    ),
    _break(
        _REQUESTS,
        _NET + "connections.py",
        "            displaced.displace()\n",
        "            displaced.disconnect()\n",
        "integration/test_limits.py::test_peers_that_are_made_to_wait_keep_no_user_out",
    ),
    # Visibility.
    _break(
        _PRIVATE,
        _CHAT + "hub.py",
        "        recipients = self._members_of(message.recipient_id)\n",
        "        recipients = [member for user in self._users.values() for member in user.members]\n",
        "unit/server/test_hub.py::test_direct_message_reaches_all_connections_of_both_and_no_other",
        "e2e/test_direct_messages.py::test_only_the_recipient_sees_a_direct_message",
    ),
    _break(
        _PRIVATE,
        _STORE + "messages.py",
        "WHERE sender_id = :reader AND {_IN_DIRECT}",
        "WHERE sender_id >= 0 AND {_IN_DIRECT}",
        "unit/server/test_messages.py::test_queries_return_what_the_reader_may_see_oldest_first",
        "e2e/test_history.py::test_history_has_own_and_public_messages",
    ),
    _break(
        _PRIVATE,
        _STORE + "messages.py",
        "WHERE recipient_id = :reader AND sender_id = :other AND :other",
        "WHERE sender_id = :other AND :other",
        "unit/server/test_messages.py::test_queries_return_what_the_reader_may_see_oldest_first",
    ),
    _break(
        _VISIBLE,
        _STORE + "messages.py",
        "sender_id = :reader OR (recipient_id = :reader",
        "sender_id = :reader OR (recipient_id >= 0",
        "unit/server/test_indexer.py::test_database_decides_who_may_see_a_found_message",
        "unit/server/test_messages.py::test_queries_return_what_the_reader_may_see_oldest_first",
    ),
    _break(
        _VISIBLE,
        _STORE + "messages.py",
        "WHERE account_id = :reader AND conversation_id = :room",
        "WHERE conversation_id = :room",
        "unit/server/test_messages.py::test_queries_return_what_the_reader_may_see_oldest_first",
    ),
    _break(
        _MEMBERS,
        _CHAT + "room.py",
        "        followers.buffer.flush()  # a queue follows from the flushed end on\n",
        "",
        "unit/server/test_hub_rooms.py::test_each_member_gets_the_messages_of_its_memberships_in_order_and_once",
    ),
    _break(
        _MEMBERS,
        _CHAT + "hub.py",
        "if {room.id for room in user.rooms.values()} != {room.room_id for room in rooms}:",
        "if not rooms and user.rooms:",
        "unit/server/test_hub_rooms.py::test_login_reads_again_if_the_rooms_changed_meanwhile",
    ),
    _break(
        _ROOMS,
        _CHAT + "hub.py",
        "                        room.unfollow(member)\n                    member",
        "                        pass\n                    member",
        "unit/server/test_hub_rooms.py::test_each_member_gets_the_messages_of_its_memberships_in_order_and_once",
        "integration/test_rooms.py::test_joins_and_parts_of_one_write_are_done_in_order",
    ),
    _break(
        _ROOMS,
        _CHAT + "room_commands.py",
        "        if room is None:\n            raise unknown_room(name)\n        if",
        "        if room is None:\n            raise not_a_member(name)\n        if",
        "integration/test_rooms.py::test_private_room_can_not_be_told_from_none",
    ),
    _break(
        _ROOMS,
        _CHAT + "session.py",
        "            and batch.room_id == room_id\n            and batch.room == room\n",
        "",
        "integration/test_rooms.py::test_messages_of_one_write_reach_the_rooms_that_they_name",
    ),
    _break(
        _QUIET_ROOM,
        _CHAT + "room.py",
        "            self._close_buffer(followers.buffer)\n",
        "",
        "unit/server/test_hub_rooms.py::test_each_member_gets_the_messages_of_its_memberships_in_order_and_once",
        "integration/test_rooms.py::test_room_without_members_online_costs_no_descriptor",
    ),
    _break(
        _QUIET_ROOM,
        _CHAT + "hub.py",
        "        if self._presence.remove(user.name, room.id):\n            del self._rooms[room.id]\n",
        "        self._presence.remove(user.name, room.id)\n",
        "unit/server/test_hub_rooms.py::test_each_member_gets_the_messages_of_its_memberships_in_order_and_once",
    ),
    _break(
        _UNAWARE,
        _CHAT + "hub.py",
        "if room is not None and member.knows_rooms:",
        "if room is not None:",
        "unit/server/test_hub_rooms.py::test_each_member_gets_the_messages_of_its_memberships_in_order_and_once",
    ),
    _break(
        _UNAWARE,
        _CHAT + "login.py",
        "knows_rooms = login.rooms or isinstance(login.since, dict)",
        "knows_rooms = True",
        "integration/test_rooms.py::test_other_protocols_and_older_json_clients_see_the_lobby_only",
        "integration/test_rooms.py::test_rooms_survive_a_restart_and_since_names_each_room",
    ),
    _break(
        _ROOMS,
        _CHAT + "hub.py",
        "                    if room is not None:\n                        room.unfollow(member)\n",
        "",
        "reliability/test_rooms.py::test_members_see_their_rooms_once_and_in_order",
        "e2e/test_rooms.py::test_private_room_lasts_over_restarts",
    ),
    _break(
        _RECONNECT,
        _CHAT + "login.py",
        "if last_id >= seen_id:",
        "if last_id >= -1:",
        "unit/server/test_session.py::test_client_ahead_of_a_server_that_is_behind_waits_for_it",
        "unit/server/test_session.py::test_server_that_stays_behind_refuses_the_login",
    ),
    _break(
        _NO_QUORUM,
        _JOURNAL + "shared.py",
        "super()._fail([each for each in appends if id(each.origin) not in busy], make_error)",
        "return super()._fail(appends, make_error)",
        _SHARED + "test_refusal_comes_after_what_is_in_flight",
    ),
    _break(
        _ONE_LOG,
        _JOURNAL + "shared.py",
        "if self._is_run_over():",
        "if False:",
        _SHARED + "test_late_start_of_a_lost_run_does_not_stop_the_server",
    ),
    _break(
        _ONE_LOG,
        _JOURNAL + "shared.py",
        "transaction = Transaction(connection, batch.time_ms, last_id, batch.limits)",
        "transaction = Transaction(connection, self._now_ms(), last_id, batch.limits)",
        "reliability/test_cluster.py::test_cluster_loses_nothing_in_a_few_faults",
    ),
    _break(
        _RECONNECT,
        _CHAT + "login.py",
        "after_ids[conversation_id] = min(after_id, after_ids.get(conversation_id, after_id))",
        "after_ids[conversation_id] = min(since.values())",
        "reliability/test_rooms.py::test_members_see_their_rooms_once_and_in_order",
    ),
    _break(
        _RECONNECT,
        _CHAT + "login.py",
        "after_ids[conversation_id] = min(after_id, after_ids.get(conversation_id, after_id))",
        "after_ids[conversation_id] = max(since.values())",
        "reliability/test_rooms.py::test_members_see_their_rooms_once_and_in_order",
    ),
    _break(
        _ROOMS,
        _STORE + "messages.py",
        " AND role <> 'invited'))",
        "))",
        "unit/server/test_messages.py::test_queries_return_what_the_reader_may_see_oldest_first",
        "unit/server/test_indexer.py::test_messages_of_a_room_are_found_with_that_room_by_its_members_only",
    ),
    _break(
        _ROOMS,
        _STORE + "rooms.py",
        "(is_private = 0 OR role NOTNULL)",
        "is_private >= 0",
        "unit/server/test_rooms.py::test_rooms_behave_like_the_model",
    ),
    _break(
        _ROOMS,
        _JOURNAL + "apply.py",
        "if room_id != LOBBY_ID and not rooms.is_member(connection, sender_id, room_id):",
        "if room_id < LOBBY_ID:",
        "unit/server/test_rooms.py::test_rooms_behave_like_the_model",
        "unit/server/test_rooms.py::test_ids_of_rooms_are_not_used_again",
    ),
    _break(
        _ROOMS,
        _JOURNAL + "apply.py",
        "room.role not in (None, RoomRole.MEMBER):",
        "room.role is not None:",
        "unit/server/test_rooms.py::test_rooms_behave_like_the_model",
    ),
    _break(
        _CONFIRMED,
        _STORE + "messages.py",
        " UNION ALL SELECT id FROM conversation WHERE ended_id >= :low",
        "",
        "unit/server/test_messages.py::test_queries_return_what_the_reader_may_see_oldest_first",
    ),
    _break(
        _CONFIRMED,
        _STORE + "migration.py",
        "        with transaction(writer):\n",
        "        if writer:\n",
        "unit/server/test_migration.py::test_migration_killed_at_any_statement_continues",
    ),
    _break(
        _VISIBLE,
        _STORE + "search_index.py",
        '(f"{words} {whose}", before_id, limit)',
        "(words, before_id, limit)",
        "unit/server/test_search_index.py::test_text_can_not_pass_for_an_account",
        "unit/server/test_search_index.py::test_find_agrees_with_a_scan_of_all_messages",
    ),
    _break(
        _SEARCH,
        _STORE + "search_index.py",
        "f'\"{word}\"*' if is_prefix else",
        "f'\"{word}\"' if is_prefix else",
        "unit/server/test_search_index.py::test_find_agrees_with_a_scan_of_all_messages",
    ),
    # Logins.
    _break(
        _PASSWORD,
        _CHAT + "passwords.py",
        "if password_hash is None or form is None:",
        "if password_hash is None:",
        "integration/test_chat_client.py::test_login_registers_a_name_and_then_needs_its_password",
        "e2e/test_login.py::test_third_wrong_password_ends_the_client",
    ),
    _break(
        _PASSWORD,
        _CHAT + "session.py",
        "if self._wrong_passwords < LOGIN_ATTEMPTS_MAX:",
        "if self._wrong_passwords <= LOGIN_ATTEMPTS_MAX:",
        "unit/server/test_session.py::test_third_wrong_password_ends_the_session",
        "e2e/test_login.py::test_third_wrong_password_ends_the_client",
    ),
    _break(
        _PASSWORD,
        _CHAT + "login.py",
        "if account is None or verdict is Verdict.WRONG:",
        "if account is None:",
        "unit/server/test_session.py::test_invalid_password_change_is_refused",
    ),
    _break(
        _HASHED,
        _CHAT + "passwords.py",
        "self._run_in_hasher(lambda: self._hasher.hash(_prepare(password)), urgency, is_abandoned, account)",
        "self._run_in_hasher(lambda: _prepare(password), urgency, is_abandoned)",
        "unit/server/test_passwords.py::test_any_text_is_a_password_and_no_other_text_matches",
    ),
    _break(
        _HASHED,
        _STORE + "files.py",
        "path.chmod(mode & ~_OTHERS)",
        "pass",
        "unit/server/test_database.py::test_readable_files_are_made_private_at_the_start",
    ),
    _break(
        _THROTTLE,
        _CHAT + "login_throttle.py",
        "self.over_at = max(self.over_at, now) + self.pace.interval_seconds",
        "self.over_at = now",
        "unit/server/test_login_throttle.py::test_one_network_guesses_slowly_over_all_accounts",
    ),
    _break(
        _OWNER,
        _CHAT + "login_throttle.py",
        "if is_known and is_first:",
        "if False:",
        "unit/server/test_login_throttle.py::test_one_network_guesses_slowly_over_all_accounts",
    ),
    _break(
        _OWNER,
        _CHAT + "passwords.py",
        "if task.is_abandoned(self._clock() - task.queued_at):",
        "if False:",
        "unit/server/test_passwords.py::test_urgent_tasks_are_next_and_abandoned_ones_are_dropped",
    ),
    _break(
        _REGISTERING,
        _CHAT + "registration.py",
        "if not its_wait and not wait:",
        "if True:",
        "unit/server/test_login.py::test_registrations_of_an_address_and_of_all_are_limited_before_the_hash",
    ),
    _break(
        _CLOSED,
        _CHAT + "login.py",
        "if account is None and not self._registration.is_closed:",
        "if account is None:",
        "unit/server/test_session.py::test_closed_registration_does_not_reveal_which_names_exist",
    ),
    _break(
        _TOKEN_HASHED,
        _STORE + "tokens.py",
        "return hashlib.sha256(token.encode()).hexdigest()",
        "return token",
        "unit/server/test_tokens.py::test_tokens_are_random_and_only_their_hashes_are_stored",
        "integration/test_admin.py::test_lists_exports_and_backups_have_no_secrets",
    ),
    _break(
        _TOKEN_HASHED,
        _CHAT + "tokens.py",
        "user=account.name, token=made.id)",
        "user=account.name, token=made.secret)",
        "integration/test_tokens.py::test_log_has_no_tokens",
    ),
    _break(
        _TOKEN_HASHED,
        _SERVER + "admin/commands.py",
        "requests.AddToken(call.options.name, made.hash,",
        "requests.AddToken(call.options.name, made.secret,",
        "integration/test_admin.py::test_lists_exports_and_backups_have_no_secrets",
        "integration/test_admin.py::test_token_of_a_bot_is_valid_until_it_is_revoked",
    ),
    _break(
        _TOKEN_REVOKED,
        _CHAT + "hub.py",
        "        if members:\n            self._later.append(partial(_hang_up",
        "        if False:\n            self._later.append(partial(_hang_up",
        "unit/server/test_tokens.py::test_revoked_token_ends_its_connections_and_lets_no_peer_in",
        "integration/test_tokens.py::test_revoked_session_ends_at_once_and_admits_no_login",
    ),
    _break(
        _TOKEN_REVOKED,
        _CHAT + "hub.py",
        "        user.note_change()\n        members = [member",
        "        members = [member",
        "unit/server/test_hub_rooms.py::test_login_reads_again_if_the_rights_of_its_user_changed_meanwhile",
    ),
    _break(
        _TOKEN_REVOKED,
        _CHAT + "login.py",
        "if member.token_id and self._tokens",
        "if False and self._tokens",
        "unit/server/test_tokens.py::test_token_that_is_revoked_during_the_login_lets_it_fail",
    ),
    _break(
        _TOKEN_REVOKED,
        _STORE + "tokens.py",
        "iif(?2 = '', id <> ?3, id = ?2)",
        "iif(?2 = '', id = ?3, id = ?2)",
        "unit/server/test_tokens.py::test_tokens_agree_with_the_model",
        "unit/server/test_shared_journal.py::test_token_of_one_server_is_valid_on_all_until_one_revokes_it",
    ),
    _break(
        _TOKEN_PASSWORD,
        _JOURNAL + "apply.py",
        "if has_changed and not entry.is_rehash:",
        "if False:",
        "unit/server/test_tokens.py::test_tokens_agree_with_the_model",
        "integration/test_tokens.py::test_changed_password_ends_the_other_sessions",
    ),
    _break(
        _TOKEN_PASSWORD,
        _JOURNAL + "apply.py",
        "    delete_tokens(transaction.connection, entry.account_id)\n",
        "",
        "unit/server/test_tokens.py::test_tokens_agree_with_the_model",
    ),
    _break(
        _TOKEN_PASSWORD,
        _CHAT + "hub.py",
        "if has_changed and not entry.is_rehash:",
        "if False:",
        "unit/server/test_tokens.py::test_changed_password_revokes_all_other_tokens",
        "integration/test_tokens.py::test_changed_password_ends_the_other_sessions",
    ),
    _break(
        _TOKEN_PASSWORD,
        _CHAT + "login.py",
        "new_hash, is_rehash=True)",
        "new_hash)",
        "unit/server/test_tokens.py::test_another_hash_of_the_same_password_revokes_nothing",
    ),
    _break(
        _TOKEN_EXPIRES,
        _STORE + "tokens.py",
        "hash_token(token), now_ms - LIFETIME_MS)",
        "hash_token(token), 0)",
        "unit/server/test_tokens.py::test_tokens_agree_with_the_model",
    ),
    _break(
        _TOKEN_EXPIRES,
        _STORE + "tokens.py",
        "AND used_ms > ?4",
        "AND ?4 = ?4",
        "unit/server/test_tokens.py::test_tokens_agree_with_the_model",
    ),
    _break(
        _TOKEN_EXPIRES,
        _CHAT + "tokens.py",
        "found.used_ms >= _USE_NOTED_MS:",
        "found.used_ms >= 0:",
        "unit/server/test_tokens.py::test_use_is_noted_once_a_day",
    ),
    _break(
        _TOKEN_EXPIRES,
        _JOURNAL + "apply.py",
        "    delete_tokens(connection, account_id)\n    close_account",
        "    close_account",
        "unit/server/test_tokens.py::test_deleted_account_has_no_tokens_and_gets_none",
    ),
    _break(
        _THROTTLE,
        _CHAT + "login.py",
        "self._throttle.finish(attempt, self._clock(), was_right=False)",
        "self._throttle.finish(attempt, self._clock(), was_right=True)",
        "unit/server/test_tokens.py::test_wrong_tokens_delay_the_network_as_wrong_passwords_do",
    ),
    _break(
        _PASSWORD,
        _CHAT + "login.py",
        "if found.account.must_change_password:",
        "if False:",
        "unit/server/test_tokens.py::test_token_admits_no_banned_user_and_none_who_must_change_the_password",
    ),
    _break(
        _LOG_PRIVACY,
        _CHAT + "errors.py",
        "detail = None if error.code in _QUOTING_CODES else error.reason",
        "detail = error.reason",
        "integration/test_server_log.py::test_log_has_no_passwords_and_no_messages",
    ),
    _break(
        _LOG_PRIVACY,
        _SERVER + "log.py",
        "show_locals=False",
        "show_locals=True",
        "unit/server/test_log.py::test_traceback_does_not_show_variables",
    ),
    _break(
        _HEALTH,
        _JOURNAL + "local.py",
        'return "" if self.probe(timeout_seconds) else',
        'return "" if self else',
        "integration/test_server_program.py::test_health_check_fails_if_the_server_can_not_commit",
    ),
    _break(
        _METRICS,
        _CHAT + "hub.py",
        "self._counters.deliveries -= count",
        "pass",
        "integration/test_metrics.py::test_metrics_count_what_happened",
    ),
    _break(
        _METRICS,
        _SERVER + "admin/metrics_server.py",
        "                self._cut(self._clock())\n",
        "",
        "unit/server/test_metrics.py::test_late_requests_are_ended_and_free_their_slots",
    ),
    _break(
        _SIGNALS,
        _SERVER + "__main__.py",
        '    except ConfigError as error:\n        _log.error("reload failed"',
        '    except KeyError as error:\n        _log.error("reload failed"',
        "integration/test_server_program.py::test_sighup_applies_what_can_change_and_names_the_rest",
    ),
    _break(
        _SIGNALS,
        _SERVER + "app.py",
        "        self._reloads.apply(config)\n",
        "",
        "integration/test_server_program.py::test_sighup_applies_what_can_change_and_names_the_rest",
    ),
    _break(
        _SIGNALS,
        _SERVER + "app.py",
        "                self._certificates.reload()\n",
        "                pass\n",
        "integration/test_server_program.py::test_sighup_reads_the_certificate_again",
    ),
    _break(
        _SIGNALS,
        _SERVER + "threads.py",
        '        by_stack["\\n".join(lines)].append(',
        "        by_stack[str(ident)].append(",
        "integration/test_server_program.py::test_sigusr1_logs_the_stacks_of_all_threads",
    ),
    _break(
        _NO_CORE,
        _SERVER + "__main__.py",
        "resource.setrlimit(resource.RLIMIT_CORE, (0, hard))",
        "pass",
        "integration/test_server_program.py::test_crash_writes_no_core",
    ),
    _break(
        _PRESENCE,
        _CHAT + "presence.py",
        "return self._lobby_pace if room_id == LOBBY_ID else self._rooms_pace",
        "return self._rooms_pace",
        "unit/server/test_presence.py::test_large_rooms_do_not_delay_the_lobby",
    ),
    _break(
        _PRESENCE,
        _CHAT + "presence.py",
        "if roster.counts[name] == 1:",
        "if roster.counts[name]:",
        "e2e/test_presence.py::test_user_stays_online_until_the_last_client_ends",
    ),
    _break(
        _PEERS,
        _CHAT + "peers.py",
        "        if heartbeat.version != peer.version:",
        "        if peer.version is None:",
        "unit/server/test_peers.py::test_all_servers_show_the_users_of_all_servers",
    ),
    _break(
        _PEERS,
        _CHAT + "peers.py",
        "if now - self._stepped_at > LATE_SECONDS:",
        "if False:",
        "unit/server/test_peers.py::test_paused_server_takes_no_other_for_gone",
    ),
    _break(
        _PEERS,
        _CHAT + "peers.py",
        " or broadcast.run != peer.run:",
        ":",
        "unit/server/test_peers.py::test_broadcasts_of_a_former_run_are_ignored",
    ),
    _break(
        _PEERS,
        _CHAT + "peers.py",
        "if self._shared_log.find_lease(server) == peer.run:",
        "if self._shared_log.find_lease(server):",
        "unit/server/test_peers.py::test_server_whose_lease_has_another_run_is_gone",
    ),
    _break(
        _PEERS,
        _CHAT + "presence.py",
        "if roster.elsewhere[name] == 1 and name not in roster.counts:",
        "if roster.elsewhere[name] == 1:",
        "unit/server/test_presence.py::test_users_are_those_of_all_servers",
    ),
    _break(
        _REACHED,
        _CHAT + "hub.py",
        "is_online = self._presence.is_elsewhere(message.recipient)",
        "is_online = False",
        "unit/server/test_other_servers.py::test_direct_message_to_a_user_of_another_server_is_sent",
    ),
    _break(
        _SHARED_THROTTLE,
        _CHAT + "peers.py",
        "self._throttle.charge_failure(failure, now)",
        "pass",
        "unit/server/test_peers.py::test_wrong_passwords_count_on_all_servers",
    ),
    _break(
        _DIFFERS,
        _CHAT + "peers.py",
        "if 2 * known[own] > known.total():",
        "if 2 * known[own] >= known.total():",
        "unit/server/test_peers.py::test_server_whose_data_differ_stops",
    ),
    _break(
        _TIMEOUT,
        _NET + "connection.py",
        "self._login_by = services.clock() + self.login_seconds",
        "self._login_by = services.clock() + 1e9",
        "unit/server/test_connection.py::test_silent_peer_is_turned_away_after_the_login_time",
    ),
    # The web.
    _break(
        _WEB,
        _NET + "connections.py",
        "is_proxied = protocol is None and limits.is_trusted_proxy(address)",
        "is_proxied = protocol is None",
        "integration/test_limits.py::test_header_of_a_peer_that_is_no_proxy_means_nothing",
    ),
    _break(
        _WEB,
        _WIRE + "proxy.py",
        "for item in reversed(",
        "for item in list(",
        "unit/protocol/test_proxy.py::test_last_address_that_is_no_proxy_is_that_of_the_client",
        "integration/test_limits.py::test_client_behind_a_proxy_of_http_has_its_own_address",
    ),
    _break(
        _WEB,
        _NET + "connection.py",
        "protocols = self._services.behind_proxy if received else self._services.protocols",
        "protocols = self._services.protocols",
        "unit/server/test_connection.py::test_proxy_of_http_announces_the_address_in_the_request",
        "integration/test_limits.py::test_proxy_may_use_a_connection_for_one_request",
    ),
    _break(
        _WEB,
        _WIRE + "websocket.py",
        "if not origins or ",
        "if origins or ",
        "integration/test_web.py::test_pages_of_named_origins_may_connect",
    ),
    _break(
        _WEB,
        _SERVER + "web/pages.py",
        "if each.is_dir():",
        "if False:",
        "unit/server/test_pages.py::test_pages_are_the_files_of_the_folder_by_path",
    ),
    _break(
        _SLOTS,
        _NET + "connections.py",
        "only_files=connection.files_sent > 0",
        "only_files=False",
        "integration/test_limits.py::test_connections_for_files_do_not_use_up_those_for_logins",
    ),
    _break(
        _SLOTS,
        _NET + "limits.py",
        "has_token = not counts.pages.wait_seconds(",
        "has_token = True or not counts.pages.wait_seconds(",
        "unit/server/test_limits.py::test_connections_for_files_have_a_number_of_their_own",
        "integration/test_limits.py::test_connections_for_files_do_not_use_up_those_for_logins",
    ),
    _break(
        _SLOTS,
        _NET + "connection.py",
        "if self.files_sent and not is_incomplete:",
        "if False:",
        "unit/server/test_connection.py::test_connection_that_fetched_files_is_closed_after_a_short_silence",
    ),
    _break(
        _STARVING,
        _NET + "transport.py",
        "self._waiter.is_user = True",
        "pass",
        "unit/server/test_read_turns.py::test_users_and_strangers_alternate",
    ),
    _break(
        _LOST_NETWORK,
        _NET + "connection.py",
        "if is_incomplete or not is_logged_in or has_pinged:",
        "if is_incomplete or not is_logged_in:",
        "unit/server/test_connection.py::test_silent_peer_of_websocket_gets_a_ping_and_then_the_end",
        "integration/test_web.py::test_client_that_answers_no_ping_is_disconnected",
    ),
    _break(
        _SIZES,
        _WIRE + "websocket.py",
        "if self._fragments > FRAGMENTS_MAX:",
        "if False:",
        "unit/protocol/test_websocket.py::test_frames_are_answered_as_in_autobahn",
    ),
    _break(
        _SIZES,
        _WIRE + "websocket.py",
        "self._frames = MessageReader(LINE_MAX_BYTES, is_binary=self._inner.is_binary)",
        "self._frames = MessageReader(2 * LINE_MAX_BYTES, is_binary=self._inner.is_binary)",
        "unit/protocol/test_websocket.py::test_text_over_the_limit_is_refused_by_its_header",
    ),
    _break(
        _SIZES,
        _WIRE + "http.py",
        "if len(data) < HEAD_MAX_BYTES:",
        "if True:",
        "unit/protocol/test_http.py::test_invalid_request_is_refused_and_logged_as_bad_input",
    ),
    _break(
        _REQUESTS,
        _WIRE + "websocket.py",
        "                yield Ping()\n",
        "                self._own += encode_frame(FIN | Opcode.PONG, self._pinged)\n",
        "unit/protocol/test_websocket.py::test_each_ping_is_a_request",
    ),
    _break(
        _WEB,
        _WIRE + "websocket.py",
        "        self._check_origin(head)\n",
        "",
        "unit/protocol/test_http.py::test_invalid_request_is_refused_and_logged_as_bad_input",
    ),
    # Wire formats.
    _break(
        _ONE_PORT,
        _PROTOCOL + "wire/base.py",
        "return Sniff.MORE if any(opening.startswith(text) for opening in openings) else Sniff.NO",
        "return Sniff.NO",
        "unit/protocol/test_detection.py::test_prefix_of_an_opening_needs_more_bytes",
    ),
    _break(
        _DEPTH,
        _PROTOCOL + "wire/json.py",
        "if not _is_shallow(text) and nesting(text) > NESTING_MAX_LEVELS:",
        "if False:",
        "unit/protocol/test_json.py::test_deeply_nested_object_is_refused_before_it_is_parsed",
    ),
    _break(
        _SIZES,
        _PROTOCOL + "wire/readers.py",
        "if len(self._tail) <= self._limit_bytes:",
        "if len(self._tail) >= 0:",
        "unit/protocol/test_readers.py::test_line_over_the_limit_is_dropped_to_its_end",
    ),
    _break(
        _SIZES,
        _PROTOCOL + "wire/readers.py",
        "            if size_bytes > self._payload_max_bytes:",
        "            if False:",
        "unit/protocol/test_conformance.py::test_request_over_the_limit_is_refused_with_the_limit",
    ),
    _break(
        _SIZES,
        _PROTOCOL + "wire/readers.py",
        "if length * unit_max_bytes > body_max_bytes:",
        "if False:",
        "unit/protocol/test_conformance.py::test_request_over_the_limit_is_refused_with_the_limit",
    ),
    _break(
        _SIZES,
        _PROTOCOL + "rules.py",
        "if len(value.encode()) > limit_bytes:",
        "if False:",
        "unit/protocol/test_rules.py::test_value_over_the_limit_or_empty_is_refused",
    ),
    # Guests.
    _break(
        _GUESTS,
        _CHAT + "delivery.py",
        "sender = ack.sender if ack is not None else None",
        "sender = None",
        "unit/server/test_delivery.py::test_next_message_follows_the_answer",
        "e2e/test_register.py::test_only_recipients_get_a_message",
    ),
    _break(
        _ACKED,
        _CHAT + "delivery.py",
        "elif window.in_flight is None:",
        "else:",
        "unit/server/test_delivery.py::test_next_message_follows_the_answer",
    ),
    _break(
        _ACKED,
        _CHAT + "delivery.py",
        "if sender is None or ack.acks_expected == 0:",
        "if True:",
        "unit/server/test_delivery.py::test_delivery_agrees_with_the_model",
    ),
    _break(
        _ACKED,
        _CHAT + "delivery.py",
        'self._disconnect(key, "ack_timeout")',
        "pass",
        "unit/server/test_delivery.py::test_delivery_agrees_with_the_model",
    ),
    _break(
        _GUESTS,
        _WIRE + "register.py",
        "return _NOT_SENT if is_answer else _HEADER_INCOMPLETE",
        "return _NOT_SENT",
        "unit/protocol/test_register.py::test_number_of_an_error_depends_on_the_request_and_the_registration",
    ),
    _break(
        _GUEST_NAMES,
        _CHAT + "guests.py",
        "if guest.address != address or side in",
        "if side in",
        "unit/server/test_guests.py::test_name_in_use_is_refused",
    ),
    _break(
        _GUEST_NAMES,
        _JOURNAL + "apply.py",
        "if is_claimed(connection, entry.name):",
        "if False:",
        "unit/server/test_journal.py::test_first_of_guest_and_account_gets_the_name",
    ),
    # UDP.
    _break(
        _ARQ,
        _PROTOCOL + "udp/arq.py",
        "datagrams = self._resend_overdue(now) if now >= self._resend_at else []",
        "datagrams: list[bytes] = []",
        "unit/protocol/test_udp_arq.py::test_each_datagram_is_acknowledged_separately",
    ),
    _break(
        _ARQ,
        _PROTOCOL + "udp/arq.py",
        "is_known = number < self._next_in or number in self._early",
        "is_known = number in self._early",
        "unit/protocol/test_udp_arq.py::test_duplicate_is_acknowledged_twice_and_not_delivered",
    ),
    _break(
        _ARQ,
        _PROTOCOL + "udp/arq.py",
        "if any(each.resends == RESENDS_MAX and now >= each.resend_at for each in self._in_flight.values()):",
        "if False:",
        "unit/protocol/test_udp_arq.py::test_unacknowledged_datagram_is_resent_8_times_with_doubled_waits",
    ),
    _break(
        _BOUNDED,
        _PROTOCOL + "udp/arq.py",
        "room = min(self._room(), len(self._waiting))",
        "room = len(self._waiting)",
        "unit/protocol/test_udp_arq.py::test_newest_datagram_is_less_than_64_above_the_oldest_in_flight",
    ),
    _break(
        _BOUNDED,
        _PROTOCOL + "udp/arq.py",
        "if not 0 < number < self._next_in + RECEIVE_WINDOW:",
        "if number <= 0:",
        "unit/protocol/test_udp_arq.py::test_receive_window_holds_128_datagrams",
    ),
    _break(
        _BOUNDED,
        _PROTOCOL + "udp/session.py",
        "has_room=len(self._input) < self._input_max_bytes",
        "has_room=True",
        "unit/protocol/test_udp_session.py::test_full_input_takes_acknowledgements_and_repeats_its_own",
    ),
    _break(
        _COOKIE,
        _NET + "udp_listener.py",
        "if opening.cookie is None or not self._cookies.is_valid(opening.cookie, address, opening.text, now):",
        "if opening.cookie is None:",
        "unit/server/test_udp_listener.py::test_cookie_is_good_for_one_address_and_text_for_a_while",
    ),
    _break(
        _COOKIE,
        _NET + "udp_listener.py",
        "if len(payload) <= len(datagram.payload):",
        "if True:",
        "unit/server/test_udp_listener.py::test_answer_to_a_stranger_fits_its_packet",
    ),
    _break(
        _COOKIE,
        _NET + "udp_listener.py",
        "if transport is not None and transport.address == address and not transport.closed:",
        "if transport is not None and not transport.closed:",
        "unit/server/test_udp_listener.py::test_unknown_session_is_answered_with_an_error",
    ),
    _break(
        _COOKIE,
        _NET + "cookies.py",
        "(address, period, text)",
        "(b'', period, text)",
        "unit/server/test_cookies.py::test_cookie_is_good_for_its_address_and_text",
    ),
    # Moderation in the client.
    _break(
        _HIDDEN,
        _CLIENT + "cli/controller.py",
        "case events.PublicMessage() if model.is_hidden(event):",
        "case events.PublicMessage() if False:",
        "unit/client/test_moderation.py::test_messages_of_ignored_users_are_hidden_and_not_counted",
    ),
    _break(
        _HIDDEN,
        _CLIENT + "ui/timeline.py",
        "if self._held is not None and self._held.pop(event.id, None) is not None:",
        "if False:",
        "unit/client/test_timeline.py::test_deleted_message_that_waits_for_the_history_is_not_shown",
    ),
    _break(
        _HIDDEN,
        _CLIENT + "ui/terminal.py",
        "self._output.cursor_up(min(rows_before, size.rows))",
        "pass",
        "integration/test_terminal_moderation.py::test_deleted_message_is_replaced_in_a_window_with_space_and_in_a_full_one",
    ),
    _break(
        _HIDDEN,
        _CLIENT + "ui/printed.py",
        "if below >= visible_rows:",
        "if False:",
        "unit/client/test_timeline.py::test_tombstone_replaces_the_rows_of_its_message",
    ),
    _break(
        _HIDDEN,
        _CLIENT + "session.py",
        "if self.model.was_deleted(message_id) and not is_asked_for:",
        "if False:",
        "unit/client/test_session.py::test_deletion_is_returned_once",
    ),
    _break(
        _PUT_OUT,
        _CLIENT + "links/connection.py",
        "if isinstance(event, Bye) and event.code is not None:",
        "if False:",
        "unit/client/test_connection.py::test_server_that_ends_the_connection_on_purpose_is_not_asked_again",
        "integration/test_chat_client_moderation.py::test_user_who_is_put_out_does_not_reconnect",
    ),
    _break(
        _PUT_OUT,
        _CLIENT + "cli/controller.py",
        "self._was_put_out = code is not None",
        "self._was_put_out = False",
        "unit/client/test_moderation.py::test_user_who_was_put_out_does_not_come_back",
    ),
    _break(
        _RATES,
        _CLIENT + "session.py",
        "self._unconfirmed_max = 1",
        "pass",
        "unit/client/test_session.py::test_messages_refused_for_their_rate_are_sent_again_one_by_one_in_order",
    ),
    _break(
        _RATES,
        _CLIENT + "session.py",
        " or len(unconfirmed) > len(self._limited):",
        ":",
        "unit/client/test_session.py::test_messages_refused_for_their_rate_are_sent_again_one_by_one_in_order",
    ),
    _break(
        _RATES,
        _CLIENT + "cli/controller.py",
        "elif self.resend_at is None:",
        "elif False:",
        "unit/client/test_moderation.py::test_pipe_waits_for_the_rate_of_the_server",
    ),
    _break(
        _RATES,
        _CLIENT + "cli/controller.py",
        "return self._session.resends_limited",
        "return False",
        "unit/client/test_moderation.py::test_pipe_waits_for_the_rate_of_the_server",
        "integration/test_client_program.py::test_pipe_waits_for_the_rate_of_the_server",
    ),
    _break(
        _MEANT,
        _CLIENT + "cli/controller.py",
        "return None if self._model.unconfirmed and self._needs_confirmations(line) else self._lines.popleft()",
        "return self._lines.popleft()",
        "unit/client/test_moderation.py::test_own_last_message_of_the_room_is_deleted",
    ),
    _break(
        _MEANT,
        _CLIENT + "session.py",
        'if message_id is not None and getattr(event, "id", None) != message_id:',
        "if False:",
        "unit/client/test_rooms.py::test_request_is_answered_by_its_own_event_only",
    ),
    _break(
        _MEANT,
        _CLIENT + "cli/moderation.py",
        'here = Place("", place.rooms) if is_network else place',
        "here = place",
        "unit/client/test_input.py::test_line_is_about_the_current_room",
    ),
    _break(
        _MEANT,
        _CLIENT + "cli/moderation.py",
        "if is_duration(word):",
        "if False:",
        "unit/client/test_input.py::test_line_is_about_the_current_room",
        "unit/client/test_input.py::test_bad_command_about_rooms_names_the_error",
    ),
    # The client.
    _break(
        _CLIENT_ONCE,
        _WIRE + "json.py",
        "return Effects(tuple(map(_outgoing, again)), tuple(shown))",
        "return Effects((), tuple(shown))",
        "unit/client/test_session.py::test_unconfirmed_messages_are_sent_again_with_the_same_nonce_in_order",
        "e2e/test_restart.py::test_unconfirmed_messages_are_stored_once",
    ),
    _break(
        _CLIENT_ONCE,
        _CLIENT + "session.py",
        "                if self.model.has_seen(event):\n                    return ()\n",
        "",
        "unit/client/test_session.py::test_seen_messages_are_not_returned_again_after_a_restore",
    ),
    _break(
        _CLIENT_ONCE,
        _CLIENT + "session.py",
        "return () if was_told else (ConnectionLost(reason),)",
        "return (ConnectionLost(reason),)",
        "unit/client/test_session.py::test_loss_and_refusals_of_an_outage_are_told_once",
    ),
    _break(
        _CLIENT_ONCE,
        _CLIENT + "model.py",
        "_DIRECT: self.last_seen_id, **rooms}",
        "_DIRECT: self.last_seen_id}",
        "unit/client/test_rooms.py::test_login_names_the_newest_message_of_each_room",
        "reliability/test_reconnect.py::test_program_in_rooms_with_broken_connections_misses_nothing",
    ),
    _break(
        _CLIENT_ONCE,
        _CLIENT + "session.py",
        "        self._foreseen_errors = {room_key(parted.room) for parted in lost}\n",
        "",
        "unit/client/test_rooms.py::test_room_that_the_user_was_removed_from_meanwhile_is_forgotten_once",
    ),
    _break(
        _RIGHT_ROOM,
        _WIRE + "json.py",
        "if not self._has_rooms and _names_room(action):",
        "if not self._login:",
        "unit/client/test_rooms.py::test_server_without_rooms_gets_nothing_about_them",
        "integration/test_terminal_rooms.py::test_server_without_rooms_gets_no_message_to_one",
    ),
    _break(
        _RIGHT_ROOM,
        _WIRE + "json.py",
        "if self._has_rooms or not _names_room(each)",
        "",
        "unit/client/test_rooms.py::test_message_to_a_room_is_not_sent_again_to_a_server_without_rooms",
    ),
    _break(
        _RIGHT_ROOM,
        _CLIENT + "cli/controller.py",
        "            item = item._replace(room=self._rooms.target)\n",
        "",
        "unit/client/test_rooms.py::test_waiting_line_goes_to_the_room_in_which_it_was_typed",
        "integration/test_terminal_rooms.py::test_user_talks_in_two_rooms_and_the_lobby_over_a_lost_connection",
    ),
    _break(
        _RIGHT_ROOM,
        _CLIENT + "cli/current_room.py",
        'return "" if was_requested and room_key',
        'return "" if room_key',
        "unit/client/test_rooms.py::test_kick_does_not_change_the_room_of_the_line_that_is_being_typed",
        "integration/test_terminal_rooms.py::test_removed_user_does_not_write_to_another_room",
    ),
    _break(
        _RIGHT_ROOM,
        _CLIENT + "cli/current_room.py",
        "            self.current = self._joining\n",
        "            pass\n",
        "unit/client/test_rooms.py::test_failed_join_of_a_script_keeps_its_messages_out_of_the_lobby",
        "integration/test_client_program.py::test_script_and_pipe_write_to_rooms",
    ),
    _break(
        _RETRY,
        _CLIENT + "links/connection.py",
        "self._retry_until is None or was_served or was_steady",
        "True",
        "unit/client/test_connection.py::test_server_that_ends_each_connection_is_down",
    ),
    _break(
        _EXIT_CODES,
        _CLIENT + "cli/controller.py",
        "self.exit = Exit.LOST if self._report_unsent() or self._delivery_unknown else Exit.OK",
        "self.exit = Exit.OK",
        "unit/client/test_controller.py::test_goodbye_before_a_confirmation_is_a_loss",
    ),
    _break(
        _UNKNOWN,
        _WIRE + "resume.py",
        "return DeliveryUnknown(own_message) if self._has_gap else None",
        "return None",
        "unit/client/test_frames_client.py::test_unconfirmed_message_is_looked_up_in_the_history",
    ),
    _break(
        _UNKNOWN,
        _WIRE + "register.py",
        "return (welcome, PossibleGap(has_history=False), *unknown)",
        "return (welcome, PossibleGap(has_history=False))",
        "unit/client/test_register_client.py::test_unanswered_message_is_reported_once_and_not_sent_again",
    ),
    _break(
        _RETRY,
        _CLIENT + "links/connection.py",
        "is_over = self._monotonic() >= self._retry_until",
        "is_over = True",
        "unit/client/test_connection.py::test_lost_connection_is_tried_again_with_growing_pauses_until_the_limit",
        "e2e/test_restart.py::test_operation_continues_after_a_reconnect",
    ),
    _break(
        _OTHER_SERVER,
        _CLIENT + "links/servers.py",
        "self._next = (self._current + (not with_current)) % len(self._servers)",
        "self._next = 0",
        "unit/client/test_servers.py::test_rotation_agrees_with_the_model",
        "unit/client/test_connection.py::test_rounds_begin_after_the_lost_server_and_pauses_are_between_rounds",
    ),
    _break(
        _OTHER_SERVER,
        _CLIENT + "links/connection.py",
        "if self._rotation.is_fresh and self._retry_until is not None:",
        "if self._retry_until is not None:",
        "unit/client/test_connection.py::test_rounds_begin_after_the_lost_server_and_pauses_are_between_rounds",
    ),
    _break(
        _OTHER_SERVER,
        _CLIENT + "links/connection.py",
        "self._is_about_user = event.code not in SERVER_REFUSALS",
        "pass",
        "unit/client/test_connection.py::test_refusal_about_the_user_ends_the_round",
        "unit/client/test_connection.py::test_refusal_after_the_password_may_be_the_servers",
    ),
    _break(
        _OTHER_SERVER,
        _CLIENT + "links/connection.py",
        "Rotation(self._shuffle(servers, len(servers)))",
        "Rotation(servers)",
        "unit/client/test_connection.py::test_order_of_the_servers_is_random",
    ),
    _break(
        _OTHER_SERVER,
        _CLIENT + "session.py",
        "        if tries_next:\n            return ()\n        was_told",
        "        was_told",
        "unit/client/test_session.py::test_change_of_the_server_is_told_once",
        "integration/test_several_servers.py::test_program_tells_the_change_in_one_line",
    ),
    _break(
        _OTHER_SERVER,
        _CLIENT + "session.py",
        "if self._tries_next and is_about_server:",
        "if False:",
        "unit/client/test_session.py::test_first_login_is_repeated_at_the_next_server",
        "integration/test_several_servers.py::test_all_servers_that_refuse_are_named",
    ),
    _break(
        _OTHER_SERVER,
        _CLIENT + "session.py",
        "if self._is_repeated(event) and self._leaves_after(event):",
        "if False:",
        "unit/client/test_session.py::test_server_that_becomes_unavailable_is_left",
    ),
    _break(
        _OTHER_SERVER,
        _CLIENT + "session.py",
        "return self._tries_next or not self._tells_unavailable or error.nonce in self._in_doubt",
        "return True",
        "unit/client/test_session.py::test_person_stays_if_all_servers_are_unavailable",
    ),
    _break(
        _CLIENT_ONCE,
        _CLIENT + "session.py",
        "not self._tells_unavailable or error.nonce in self._in_doubt",
        "not self._tells_unavailable",
        "unit/client/test_session.py::test_message_that_may_be_stored_is_not_rejected",
    ),
    _break(
        _RETRY,
        _CLIENT + "links/connection.py",
        "was_served = self._was_served and not self._was_unavailable",
        "was_served = self._was_served",
        "unit/client/test_connection.py::test_server_that_ends_each_connection_is_down",
    ),
    _break(
        _OTHER_SERVER,
        _CLIENT + "cli/login_flow.py",
        "elif self._is_answered and len(self._model.servers) > 1:",
        "elif False:",
        "unit/client/test_controller_terminal.py::test_typed_password_is_used_at_another_server",
    ),
    _break(
        _CLIENT_ONCE,
        _CLIENT + "session.py",
        "return self.log_in(self._new_password) if self._wants_login else (Connected(),)",
        "return (Connected(),)",
        "unit/client/test_session.py::test_first_login_is_repeated_at_the_next_server",
    ),
    _break(
        _OTHER_SERVER,
        _CLIENT + "links/servers.py",
        "self._current, self._next = self._next, (self._next + 1) % len(self._servers)",
        "self._current = self._next",
        "reliability/test_several_servers.py::test_client_of_a_killed_server_goes_on_at_another",
        "integration/test_several_servers.py::test_certificate_must_have_the_name_of_its_own_server",
    ),
    _break(
        _RETRY,
        _CLIENT + "links/watch.py",
        "if expected is ExpectedAnswer.ANSWER and now >= since + self._silence_seconds:",
        "if False:",
        "unit/client/test_watch.py::test_answer_or_login_has_a_limit_that_only_some_events_restart",
    ),
    _break(
        _ESCAPES,
        _CLIENT + "ui/text.py",
        "return letter.isprintable() or letter in _SAFE_FORMATS",
        "return letter >= ' ' or letter in _SAFE_FORMATS",
        "unit/client/test_text.py::test_text_that_acts_on_a_terminal_is_escaped",
        "integration/test_terminal_attacks.py::test_live_messages_do_not_control_the_terminal",
    ),
    _break(
        _SECRET,
        _CLIENT + "ui/terminal.py",
        "input_processors=[ConditionalProcessor(_Hidden(), self._is_secret)]",
        "input_processors=[]",
        "integration/test_terminal.py::test_password_is_never_printed",
    ),
    _break(
        _EXIT_CODES,
        _CLIENT + "cli/exits.py",
        "REFUSED = 3",
        "REFUSED = 1",
        "e2e/test_login.py::test_third_wrong_password_ends_the_client",
    ),
    _break(
        _EXIT_CODES,
        _CLIENT + "cli/exits.py",
        "LOST = 1",
        "LOST = 0",
        "integration/test_client_program.py::test_exit_codes_have_their_reasons",
    ),
    _break(
        _SETTINGS,
        _SERVER + "config.py",
        "return {**read_dotenv(), **os.environ}",
        "return {**os.environ, **read_dotenv()}",
        "unit/server/test_server_config.py::test_variable_wins_over_dotenv",
    ),
    Break(
        _SETTINGS,
        _PROTOCOL + "settings.py",
        (
            ("if text := flags.get(setting.name):", "if text := environment.get(setting.variable or ''):"),
            (
                "elif setting.variable and (text := environment.get(setting.variable)):",
                "elif text := flags.get(setting.name):",
            ),
        ),
        ("unit/protocol/test_settings.py::test_flag_wins_over_variable_and_variable_over_default",),
    ),
    _break(
        _CLIENT_MEMORY,
        _CLIENT + "inbox.py",
        "while self._kept_bytes > self._max_bytes:",
        "while False:",
        "unit/client/test_inbox.py::test_full_backlog_drops_and_counts_the_oldest_events",
    ),
    _break(
        _CLIENT_MEMORY,
        _CLIENT + "inbox.py",
        "if self._is_closed or self._put_bytes - self._taken_bytes <= self._max_bytes:",
        "if True:",
        "unit/client/test_inbox.py::test_full_inbox_blocks_the_receiver_thread_until_an_item_is_taken",
    ),
    _break(
        _BACKUP,
        _STORE + "backup.py",
        'new = path.with_name(f"{path.name}{_NEW}")',
        "new = path",
        "integration/test_admin.py::test_full_disk_leaves_neither_a_backup_nor_a_change",
    ),
    _break(
        _BACKUP,
        _STORE + "backup.py",
        "                _check_backup(new, newest_schema, examine)\n",
        "",
        "integration/test_admin.py::test_bad_input_gets_one_sentence_and_changes_nothing",
    ),
    _break(
        _BACKUP,
        _STORE + "backup.py",
        "            locks.enter_context(lock(folder / LOCK_FILE))\n            if database.exists():",
        "            if False:",
        "integration/test_admin.py::test_restore_needs_no_folder_and_refuses_a_running_server",
    ),
    _break(
        _ADMIN,
        "server/chatserver/admin/changes.py",
        "        entries.KickFromServer(**about, reason=reason, **call.acting),\n",
        "",
        "integration/test_admin.py::test_users_are_told_and_disconnected",
    ),
    _break(
        _ADMIN,
        "server/chatserver/admin/target.py",
        'raise AdminError("No server runs, so there are no sessions.")',
        "return []",
        "integration/test_admin.py::test_commands_do_the_same_with_and_without_a_running_server",
    ),
    _break(
        _LOST_DATA,
        _JOURNAL + "apply.py",
        "    raise_highest_id(connection, transaction.last_id)\n",
        "",
        "integration/test_admin.py::test_removed_messages_are_gone_and_their_ids_are_not_used_again",
    ),
    # Moderation.
    _break(
        _MODERATED,
        _JOURNAL + "apply.py",
        "is_protected = role is RoomRole.OWNER or",
        "is_protected = False and",
        "unit/server/test_moderation.py::test_who_may_do_what_to_whom",
    ),
    _break(
        _MODERATED,
        _STORE + "accounts.py",
        " AND kind = 'person' AND deleted_ms ISNULL AND NOT EXISTS (",
        " AND NOT (role = 'user') AND NOT EXISTS (SELECT 1 FROM sanction WHERE id < 0) OR NOT EXISTS (",
        "unit/server/test_moderation.py::test_last_operator_stays",
    ),
    _break(
        _SANCTIONS,
        _JOURNAL + "apply.py",
        "        if not self._has_sanctions:\n",
        "        if not self._has_sanctions or room_id == LOBBY_ID:\n",
        "unit/server/test_moderation.py::test_sanction_ends_at_its_time",
        "integration/test_moderation.py::test_muted_user_gets_the_sentence_in_its_protocol",
    ),
    _break(
        _SANCTIONS,
        _CHAT + "login.py",
        "        if standing.ban is not None:\n",
        "        if False and standing.ban is not None:\n",
        "integration/test_moderation.py::test_ban_ends_the_connections_and_refuses_logins_in_every_protocol",
        "integration/test_moderation.py::test_restart_keeps_sanctions_deletions_roles_and_ignored_users",
    ),
    _break(
        _SANCTIONS,
        _CHAT + "hub.py",
        "        member.send_queue.finish([bye], hang_up=True)\n",
        "        pass\n",
        "unit/server/test_hub_rooms.py::test_banned_user_gets_what_came_before_and_then_the_reason",
        "integration/test_moderation.py::test_ban_ends_the_connections_and_refuses_logins_in_every_protocol",
    ),
    _break(
        _DELETED,
        _STORE + "messages.py",
        """_PRESENT: Final = " AND text <> ''\"""",
        """_PRESENT: Final = " AND text <> 'x'\"""",
        "unit/server/test_messages.py::test_long_answer_is_read_in_pages",
        "integration/test_moderation.py::test_deleted_message_is_gone_and_its_nonce_and_id_stay",
    ),
    _break(
        _DELETED,
        _STORE + "moderation.py",
        "UPDATE message SET text = '' WHERE key = ?",
        "DELETE FROM message WHERE key = ?",
        "unit/server/test_moderation.py::test_deleted_message_keeps_its_id_and_nonce",
        "integration/test_moderation.py::test_deleted_message_is_gone_and_its_nonce_and_id_stay",
    ),
    _break(
        _DELETED,
        _STORE + "search_index.py",
        "if word and finds(",
        "if not word and finds(",
        "unit/server/test_indexer.py::test_deleted_message_leaves_the_index",
    ),
    _break(
        _IGNORED,
        _CHAT + "hub.py",
        "members = [] if part.is_ignored else recipients",
        "members = recipients",
        "integration/test_moderation.py::test_ignored_user_does_not_learn_it",
    ),
    # Authorisation.
    _break(
        _MODERATED,
        _CHAT + "session.py",
        "_log_in_guest,\n            requests.Authenticate",
        "_log_in_guest,\n            requests.AskAudit: _moderate,\n            requests.Authenticate",
        "unit/server/test_session.py::test_stranger_and_guest_are_refused_all_requests_but_a_few",
    ),
    _break(
        _MODERATED,
        _CHAT + "moderation.py",
        "    if not member.is_operator:\n        raise problem_error(Problem.NOT_PERMITTED)",
        "    pass",
        "integration/test_authorisation.py::test_role_is_refused_what_it_has_no_right_to",
    ),
    _break(
        _MODERATED,
        _JOURNAL + "apply.py",
        "by_id not in (message.sender_id, message.recipient_id):\n            message = None",
        "by_id not in (message.sender_id, message.recipient_id):\n            pass",
        "integration/test_authorisation.py::test_role_is_refused_what_it_has_no_right_to",
    ),
    _break(
        _ROOMS,
        _JOURNAL + "apply.py",
        "return room is not None and rooms.find_room_by_id(transaction.connection, account_id, room.room_id) is None",
        "return False",
        "integration/test_moderation.py::test_owner_moderates_a_room_and_an_operator_of_the_server_every_room",
    ),
    _break(
        _SANCTIONS,
        _CHAT + "session.py",
        "not find the guest\n            self._services.moderation.check_address(self._address)",
        "not find the guest\n            pass",
        "unit/server/test_guest_session.py::test_ban_of_the_address_during_the_login_ends_it",
    ),
    _break(
        _USER_LIMITS,
        _CHAT + "session.py",
        "        *get_args(requests.RoomRequest),",
        "        requests.Join,",
        "unit/server/test_rate_limit.py::test_every_request_about_rooms_and_conduct_has_a_rate",
    ),
    _break(
        _PASSWORD,
        _CHAT + "login.py",
        "new is None or self._passwords.check(account.password_hash, new, account=key) is not Verdict.WRONG",
        "new is None",
        "unit/server/test_login.py::test_password_that_must_be_changed_needs_a_new_one",
    ),
    _break(
        _GUEST_NAMES,
        _CHAT + "guests.py",
        "if name_key(name) in self._reserved or",
        "if False or",
        "unit/server/test_login.py::test_operators_name_needs_an_invitation_on_an_open_server",
    ),
    _break(
        _BACKUP,
        _STORE + "backup.py",
        "found.st_uid != os.geteuid() or found.st_nlink != 1",
        "False",
        "integration/test_admin.py::test_backup_is_not_written_to_a_file_that_another_prepared",
    ),
    _break(
        _ENCRYPTED,
        _NET + "tls.py",
        "ended the object meanwhile\n                    break\n                raise",
        "ended the object meanwhile\n                    break\n                break",
        "integration/test_tls.py::test_plain_bytes_beside_a_handshake_are_no_requests",
    ),
    _break(
        _ONE_LOG,
        _STORE + "log_position.py",
        'AND run = ? AND number = ?"\n    return connection.execute(query, (server, run, number - 1)).rowcount',
        'AND run = ? AND number <= ?"\n    return connection.execute(query, (server, run, number - 1)).rowcount',
        f"{_SHARED}test_batch_that_was_overtaken_comes_first",
    ),
    _break(
        _ONE_LOG,
        _STORE + "log_position.py",
        "UPDATE log_run SET number = NULL WHERE server = ? AND run <> ?",
        "DELETE FROM log_run WHERE server = ? AND run <> ?",
        f"{_SHARED}test_run_that_is_over_never_begins_again",
    ),
    _break(
        _ONE_LOG,
        _JOURNAL + "shared.py",
        "return self._commit_with(batches, _apply_one_by_one)",
        "return [_Result(number, batch, None, False) for number, batch in batches]",
        f"{_SHARED}test_entry_with_wrong_values_is_skipped_by_all",
    ),
    _break(
        _ONE_LOG,
        _JOURNAL + "records.py",
        "or checksum != _checksum(body)",
        "",
        f"{_SHARED}test_record_that_can_not_be_read_stops_the_server",
    ),
    _break(
        _OWN_LOG,
        _JOURNAL + "shared.py",
        "if holder in (None, self._former_run):",
        "if True:",
        f"{_SHARED}test_second_server_of_the_same_name_stops_the_first",
    ),
    _break(
        _OWN_LOG,
        _JOURNAL + "shared.py",
        "self._pause(self._retry_seconds)\n        return False",
        "self._pause(self._retry_seconds)\n        return True",
        f"{_SHARED}test_server_that_waits_for_its_name_can_be_stopped",
    ),
    _break(
        _NO_QUORUM,
        _JOURNAL + "shared.py",
        "        if self._problem:\n",
        "        if False:\n",
        f"{_SHARED}test_entries_are_refused_while_the_log_has_a_problem",
    ),
    _break(
        _NO_QUORUM,
        _JOURNAL + "shared.py",
        "                self._refuse(error)\n",
        "",
        f"{_SHARED}test_entries_are_refused_while_the_disk_fails",
    ),
    _break(
        _BOUNDED,
        _JOURNAL + "shared.py",
        "return has_failed_few if self._problem else",
        "return True if self._problem else",
        f"{_SHARED}test_refused_messages_that_wait_for_their_turn_are_limited",
    ),
    Break(
        _SHUTDOWN,
        _JOURNAL + "shared.py",
        (
            ("while not self._is_over():", "while self._has_news or not self._is_over():"),
            ("if self._has_ended() or not self._apply", "if not self._apply"),
        ),
        (f"{_SHARED}test_stop_does_not_wait_for_the_records_of_others",),
    ),
    _break(
        _SHUTDOWN,
        _SERVER + "app.py",
        "        if self._cluster is None:\n            self._admin.close()",
        "        if True:\n            self._admin.close()",
        "integration/test_cluster_start.py::test_signal_ends_a_server_whose_nats_is_paused",
    ),
    _break(
        _ONE_LOG,
        _JOURNAL + "entries.py",
        ", forbid_unknown_fields=True",
        "",
        f"{_SHARED}test_record_that_can_not_be_read_stops_the_server",
    ),
    _break(
        _ONE_LOG,
        _JOURNAL + "nats_log.py",
        "headers = {_MESSAGE_ID: item.record_id}",
        "headers = {_MESSAGE_ID: str(self._now())}",
        f"{_NATS}test_log_goes_on_after_lost_connections",
    ),
    _break(
        _ONE_LOG,
        _JOURNAL + "nats_log.py",
        "elif number > reading.next:\n                is_useless.set()",
        "elif number > reading.next:\n                reading.next = number",
        f"{_NATS}test_record_that_is_lost_on_the_way_is_read_again",
    ),
    _break(
        _NO_QUORUM,
        _JOURNAL + "nats_log.py",
        "if not self._is_open:\n                    await self._open(session)",
        "if True:\n                    await self._open(session)",
        f"{_NATS}test_lost_records_end_the_reading",
    ),
    _break(
        _NO_QUORUM,
        _JOURNAL + "nats_checks.py",
        "if each.syncs is False:",
        "if False:",
        f"{_NATS}test_server_that_may_lose_records_is_refused",
    ),
    _break(
        _BOUNDED,
        _JOURNAL + "nats_log.py",
        "if flow_subject and not reading.delays_flow(flow_subject):",
        "if flow_subject:",
        f"{_NATS}test_slow_reader_limits_its_memory",
    ),
    _break(
        _OWN_LOG,
        _JOURNAL + "joining.py",
        "if problem := _find_foreign(position, _decode_origin(first)):",
        'if problem := "":',
        f"{_JOINING}test_folder_follows_no_other_log",
    ),
    _break(
        _OWN_LOG,
        _JOURNAL + "joining.py",
        "while position.number > (last := log.last_number()):",
        "while False and position.number > (last := log.last_number()):",
        f"{_JOINING}test_folder_follows_no_other_log",
    ),
    _break(
        _OWN_LOG,
        _JOURNAL + "joining.py",
        "examine=lambda copy: _find_foreign(read_position(copy), origin),",
        "",
        f"{_JOINING}test_unusable_snapshot_is_left_out_if_the_log_has_everything",
    ),
    _break(
        _OWN_LOG,
        _JOURNAL + "starting.py",
        "while not journal.wait_until_ready(0.0):",
        "while False:",
        "unit/server/test_starting.py::test_progress_of_catching_up_is_told",
    ),
    _break(
        _OWN_LOG,
        _SERVER + "chat/session.py",
        "        self._services.check_available()\n        if request.password",
        "        if request.password",
        "unit/server/test_session.py::test_server_that_is_cut_off_refuses_new_users_and_keeps_the_others",
    ),
    _break(
        _SHARE,
        _JOURNAL + "joining.py",
        "release_all_names(connection))\n            write_position(connection, position)",
        "release_all_names(connection))",
        f"{_JOINING}test_share_and_start_can_be_killed_and_repeated",
    ),
    _break(
        _SHARE,
        _STORE + "reconcile.py",
        '                history_id=history_id if is_complete else "",\n',
        '                history_id="",\n',
        "integration/test_admin_cluster.py::test_server_becomes_one_of_several_and_a_single_one_again",
    ),
    _break(
        _SHARE,
        _SERVER + "admin/target.py",
        "            _refuse_shared(self.database)\n",
        "",
        "integration/test_admin_cluster.py::test_server_becomes_one_of_several_and_a_single_one_again",
    ),
    _break(
        _PAGE,
        _STATIC + "chat.js",
        "if (this.#isHeld(message)) this.#held.set(message.id, message);\n    else this.#show",
        "this.#show",
        f"{_MODEL}test_scenario",
    ),
    _break(
        _PAGE,
        _STATIC + "chat.js",
        "this.#seenDirect = Math.max(this.#seenDirect, id);",
        "",
        f"{_MODEL}test_scenario",
    ),
    _break(_PAGE, _STATIC + "conversation.js", "if (known) return known;", "", f"{_MODEL}test_scenario"),
    _break(
        _PAGE,
        _STATIC + "outbox.js",
        "    this.#wire.clear();\n  }\n\n  clear",
        "  }\n\n  clear",
        f"{_MODEL}test_scenario",
        f"{_MODEL}test_random_losses",
    ),
    _break(
        _PAGE,
        _STATIC + "session.js",
        "if (this.#decide?.isTyped && this.#isPromptWanted) delete login.password;",
        "",
        f"{_MODEL}test_scenario",
    ),
    _break(
        _TEXTS,
        _STATIC + "view/dom.js",
        "element.append(...children.filter((child) => child !== null));",
        "for (const child of children) child && element.insertAdjacentHTML('beforeend', child.outerHTML ?? child);",
        "browser/test_attacks.py::test_names_and_errors_of_a_server_do_not_control_the_page",
    ),
    _break(
        _TEXTS,
        _STATIC + "text.js",
        "return url && /^https?:$/.test(url.protocol) && !url.username && !url.password ? url.href : null;",
        "return url ? url.href : null;",
        "browser/test_attacks.py::test_texts_of_users_do_not_control_the_page",
    ),
    _break(
        _TEXTS,
        _STATIC + "text.js",
        'const limitMarks = (text) => text.replace(MARKS, "$1");',
        "const limitMarks = (text) => text;",
        "browser/test_attacks.py::test_texts_of_users_do_not_control_the_page",
    ),
    _break(
        _TOKEN_ONLY,
        _STATIC + "session.js",
        "    this.send(login);\n",
        "    this.send(login);\n    sessionStorage.setItem('chat.login', JSON.stringify(login));\n",
        "browser/test_login.py::test_user_stays_logged_in_over_a_reload",
    ),
    _break(
        _SMOOTH,
        _STATIC + "view/timeline.js",
        "const WINDOW = 150;",
        "const WINDOW = 1500;",
        "browser/test_reading.py::test_history_is_scrolled_to_its_beginning",
    ),
    _break(
        _ALOUD,
        _STATIC + "view/timeline.js",
        '    this.log.setAttribute("aria-live", "off");\n',
        "",
        "browser/test_accessibility.py::test_only_new_messages_are_read_aloud",
    ),
    _break(
        _MARKED,
        _STORE + "messages.py",
        "(first_key, time_ms, sender_id, array, is_notice)",
        "(first_key, time_ms, sender_id, array, False)",
        "unit/server/test_messages.py::test_history_tells_notices_and_messages_of_guests",
    ),
    _break(
        _MARKED,
        _CHAT + "session.py",
        "            and batch.is_notice is is_notice\n",
        "",
        "unit/server/test_session.py::test_notices_and_messages_of_guests_are_marked",
    ),
)
