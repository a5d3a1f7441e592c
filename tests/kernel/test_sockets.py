"""Listening sockets: parsed, attributed, and dialled where they are bound."""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.kernel import sockets
from tests.kernel.fake_proc import FakeProc


@pytest.mark.parametrize(
    ("family", "host", "dialled"),
    [
        (socket.AF_INET, "127.0.0.1", ("127.0.0.1",)),
        (socket.AF_INET, "0.0.0.0", ("127.0.0.1",)),
        (socket.AF_INET6, "::1", ("[::1]",)),
        (socket.AF_INET6, "::", ("[::1]", "127.0.0.1")),
    ],
)
def test_a_real_socket_is_found_and_is_ours(family: socket.AddressFamily, host: str, dialled: tuple[str, ...]) -> None:
    """The kernel's own table gives address and port, and the inode is among our descriptors."""
    with socket.socket(family, socket.SOCK_STREAM) as server:
        try:
            server.bind((host, 0))
        except OSError as error:
            pytest.skip(f"{host} can't be bound here: {error}")
        server.listen()
        port = server.getsockname()[1]
        found = [one for one in sockets.read_listening(Path("/proc")) if one.port == port]
        assert [one.address for one in found] == [host]
        assert found[0].dial_hosts == dialled
        assert found[0].inode in sockets.read_socket_inodes(Path("/proc"), os.getpid())


def test_a_mapped_address_is_dialled_as_ipv4() -> None:
    """An IPv4 address in tcp6 is an IPv4 address."""
    assert sockets.parse_address("0000000000000000FFFF00000100007F:0050") == ("127.0.0.1", 80)


def test_connections_are_not_listeners(tmp_path: Path) -> None:
    """Only the state LISTEN counts, and broken lines are passed over."""
    proc = FakeProc(tmp_path / "proc")
    proc.listen(77, "0100007F", 8080)
    with (proc.root / "net/tcp").open("a") as file:
        file.write(
            "   1: 0100007F:1F91 0100007F:0001 01 0:0 0:0 0 0 0 88 1\n   2: garbage\n   3: x:y 0:0 0A 0 0 0 0 0 9 1\n"
        )
    assert [(one.port, one.inode) for one in sockets.read_listening(proc.root)] == [(8080, 77)]


def test_connections_are_not_even_read() -> None:
    """They come after the listening sockets, and there may be a million of them."""
    lines = iter(["header", "0: 0100007F:1F90 0:0 0A 0 0 0 0 0 77 1", "1: 0100007F:1F91 0:0 01 0 0 0 0 0 88 1", "more"])
    assert [one.inode for one in sockets.parse_listening(lines)] == [77]
    assert list(lines) == ["more"]


def test_the_kernel_lists_connections_after_all_that_listen() -> None:
    """Many of both, of both IP versions: none that listens is missed."""
    with contextlib.ExitStack() as held:
        ports = set()
        for number in range(40):
            family, host = ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))[number % 2]
            server = held.enter_context(socket.socket(family, socket.SOCK_STREAM))
            try:
                server.bind((host, 0))
            except OSError:
                continue
            server.listen()
            ports.add(server.getsockname()[1])
            held.enter_context(socket.create_connection(server.getsockname()[:2]))
        assert ports <= {one.port for one in sockets.read_listening(Path("/proc"))}


def test_an_ended_process_holds_nothing(tmp_path: Path) -> None:
    """A process that is gone has no sockets; that is no error."""
    assert sockets.read_socket_inodes(tmp_path, 4242) == frozenset()


@given(st.text())
def test_no_text_crashes_the_parser(text: str) -> None:
    """Whatever the file says, sockets come out or nothing."""
    for one in sockets.parse_listening(["header", *text.splitlines()]):
        assert one.inode >= 0 or str(one.inode) in text
