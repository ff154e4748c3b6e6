"""What ``chatserver admin doctor`` finds out about NATS. It makes nothing there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from integration.room import DEADLINE_SECONDS, wait_for
from msgspec.structs import replace

from chatserver.journal.nats_examination import examine_nats
from chatserver.journal.nats_log import NatsLog
from chatserver.journal.nats_settings import NatsSettings

if TYPE_CHECKING:
    from ops.nats_servers import NatsServers


@pytest.mark.long  # NATS takes ten seconds to find out
def test_lost_servers_and_the_lost_majority_are_named(nats3: NatsServers) -> None:
    settings = NatsSettings(tuple(nats3.urls), "examined")
    servers, stream = examine_nats(settings)
    assert [(server.name, server.problem) for server in servers] == [(f"nats{n}", "") for n in (1, 2, 3)]
    assert all(0 < server.round_trip_seconds < DEADLINE_SECONDS for server in servers)
    assert (stream.problem, stream.exists) == ("", False)
    log = NatsLog(settings, "a", lambda _: None)
    log.start()
    try:
        assert log.wait_until_open(DEADLINE_SECONDS)
        assert log.create_first(b"first")
    finally:
        log.close(0.0)
    _, stream = examine_nats(settings)
    assert (stream.exists, stream.records, stream.replicas) == (True, 1, 3)
    assert not examine_nats(replace(settings, stream="none"))[1].exists
    try:
        lost = next(each for each in nats3.servers if each is not nats3.leader("examined"))
        lost.kill()
        (problem,) = [server.problem for server in examine_nats(settings)[0] if server.problem]
        assert problem.startswith("It does not answer: ")
        wait_for(lambda: examine_nats(settings)[1].behind == (lost.name,), "the lost server to be behind")
        nats3.leader("examined").kill()
        assert examine_nats(settings)[1].problem
    finally:
        nats3.start()
