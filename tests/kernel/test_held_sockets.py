"""Which process holds a listening socket, and whether it still does."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from sidecar.errors import NotPermittedError
from sidecar.kernel import held_sockets

PROC = Path("/proc")


def test_a_held_socket_is_found_and_missed_when_closed() -> None:
    """Others that the process holds aren't told of, and neither is what it doesn't hold."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_server(("127.0.0.1", 0)):
        inode = os.fstat(server.fileno()).st_ino
        descriptor = server.fileno()
        assert held_sockets.find_descriptors(PROC, os.getpid(), {inode, 1}) == {inode: descriptor}
        assert held_sockets.holds(PROC, os.getpid(), descriptor, inode)
        assert not held_sockets.holds(PROC, os.getpid(), descriptor, inode + 1)
    assert not held_sockets.holds(PROC, os.getpid(), descriptor, inode)


def test_a_process_that_ended_holds_nothing() -> None:
    """No error: it may end at any time."""
    assert held_sockets.find_descriptors(PROC, 4_194_304, {1}) == {}
    assert not held_sockets.holds(PROC, 4_194_304, 3, 1)


def test_a_refusal_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing seen isn't nothing held."""

    def refuse(_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(NotPermittedError):
        held_sockets.find_descriptors(PROC, os.getpid(), {1})


def test_of_very_many_descriptors_the_first_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process may hold a million, so that each look would take seconds."""
    monkeypatch.setattr(held_sockets, "_MOST_DESCRIPTORS", 5)
    (tmp_path / "7/fd").mkdir(parents=True)
    for number in range(10):
        (tmp_path / "7/fd" / str(number)).symlink_to(f"socket:[{100 + number}]")
    assert len(held_sockets.find_descriptors(tmp_path, 7, range(100, 110))) == 5
