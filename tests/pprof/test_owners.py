"""Nothing goes to a port that is another process's by now."""

from __future__ import annotations

import pytest

from sidecar.errors import PprofError
from sidecar.pprof import PprofClient, Refusal, connect
from sidecar.settings import PprofSettings
from tests.hostile_server import HostileServer, http
from tests.pprof.asking import COMMAND_LINE, answer_with
from tests.watch.test_uploads import wait_until


class Owner:
    """Whose port it is; ``lost_after`` says how often it may be asked until it has lost it."""

    def __init__(self, lost_after: int, *, is_proven: bool) -> None:
        self.is_proven = is_proven
        self.left = lost_after

    def why_lost(self) -> str | None:
        """As `PortOwner.why_lost`."""
        self.left -= 1
        return "process 7 has ended" if self.left < 0 else None


def owned(server: HostileServer, owner: Owner) -> PprofClient:
    """A client of a port that is this owner's."""
    settings = PprofSettings(headers=(("Authorization", "Bearer secret"),))
    return PprofClient(host="127.0.0.1", port=server.port, settings=settings, tls=None, owner=owner)


@pytest.mark.parametrize("is_proven", [False, True])
@pytest.mark.parametrize(("lost_after", "connections"), [(0, 0), (1, 1)])
def test_nothing_is_sent_to_who_has_the_port_now(lost_after: int, connections: int, is_proven: bool) -> None:  # noqa: FBT001 -- pytest passes by name
    """Not even a connection is made if the owner is gone already; one that came too late is closed unused."""
    with answer_with(http(b"heap")) as server:
        client = owned(server, Owner(lost_after, is_proven=is_proven))
        with pytest.raises(PprofError, match=r"GET http.*/heap: process 7 has ended"):
            client.fetch("/heap", lambda _: None, deadline_s=20.0)
        client.close()
        if connections:
            wait_until("the connection was seen", lambda: server.connections == connections)
    assert server.connections == connections
    assert server.requests == []


def test_a_probe_tells_that_the_port_was_lost() -> None:
    """It is a refusal as any, and the headers stay here."""
    with answer_with(http(b"/app\0--flag")) as server:
        settings = PprofSettings(headers=(("Authorization", "Bearer secret"),), ports=(server.port,))
        owner = Owner(1, is_proven=True)
        answer = connect(("127.0.0.1",), server.port, COMMAND_LINE, settings, owner_proven=True, owner=owner)
    assert isinstance(answer, Refusal)
    assert "process 7 has ended" in answer.reason
    assert server.requests == []


@pytest.mark.parametrize(("is_proven", "is_kept"), [(False, False), (True, True)])
def test_an_answer_of_an_owner_that_ended_meanwhile(is_proven: bool, is_kept: bool) -> None:  # noqa: FBT001 -- as above
    """Where the socket was seen to be its own after connecting, its last bytes count; else they may be another's."""
    with answer_with(http(b"heap")) as server:
        client = owned(server, Owner(2, is_proven=is_proven))
        pieces: list[bytes] = []
        if is_kept:
            client.fetch("/heap", pieces.append, deadline_s=20.0)
            assert pieces == [b"heap"]
        else:
            with pytest.raises(PprofError, match="whether the answer was its own isn't known"):
                client.fetch("/heap", pieces.append, deadline_s=20.0)
        client.close()


def test_a_kept_connection_leads_to_whom_it_was_made_with() -> None:
    """The owner is looked at once before the request on it, and not after."""
    with HostileServer(lambda _: iter([http(b"heap", keep_alive=True)]), keep_alive=True) as server:
        owner = Owner(100, is_proven=False)
        client = owned(server, owner)
        client.fetch("/heap", lambda _: None, deadline_s=20.0)
        owner.left = 1
        client.fetch("/heap", lambda _: None, deadline_s=20.0)
        assert (owner.left, server.connections) == (0, 1)
        client.close()
