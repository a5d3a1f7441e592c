"""A door's other side: how a pod that has nothing but its own loopback gets to it."""

from __future__ import annotations

import ctypes
import os
import socket
from concurrent.futures import ThreadPoolExecutor

from tests.listener import Listener
from tests.pod.door import Door

_CLONE_NEWNET = 0x40000000  # linux/sched.h


class Entrance(Listener):
    """Listens at the door's address in the network namespace of a process, and hands the door what comes there."""

    def __init__(self, pid: int, door: Door) -> None:
        with ThreadPoolExecutor(1) as visitor:  # a thread of its own, which ends there: it doesn't come back
            super().__init__(visitor.submit(_listen_beside, pid, door.address).result())
        self._door = door

    def take(self, connection: socket.socket) -> None:
        self._door.take(connection)


def _listen_beside(pid: int, address: tuple[str, int]) -> socket.socket:
    with open(f"/proc/{pid}/ns/net") as namespace:  # noqa: PTH123 -- a magic link
        if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), _CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), namespace.name)
    return socket.create_server(address)
