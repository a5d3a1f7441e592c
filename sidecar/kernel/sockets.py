"""Listening TCP sockets and whose they are: /proc/net/tcp{,6} (proc(5)) and the socket inodes in /proc/PID/fd."""

from __future__ import annotations

import ipaddress
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from sidecar.errors import ASK_CHECK, NotPermittedError

_LISTEN = "0A"  # TCP_LISTEN of include/net/tcp_states.h


@dataclass(frozen=True, slots=True, kw_only=True)
class ListeningSocket:
    """A listening TCP socket. ``address`` is what it is bound to, ``inode`` ties it to its process."""

    address: str
    port: int
    inode: int

    @property
    def dial_hosts(self) -> tuple[str, ...]:
        """Where to dial it, best first, written for a URL. A wildcard is dialled on loopback.

        A socket on ``::`` also takes IPv4 unless told otherwise, which matters where ``::1`` isn't configured.
        """
        if self.address == "0.0.0.0":  # noqa: S104 -- compared, not bound
            return ("127.0.0.1",)
        if self.address == "::":
            return ("[::1]", "127.0.0.1")
        return (f"[{self.address}]",) if ":" in self.address else (self.address,)


def parse_address(text: str) -> tuple[str, int]:
    """Read an address of /proc/net/tcp: each 32-bit word in host byte order, then the port.

    >>> parse_address("0500000A:0016")
    ('10.0.0.5', 22)
    >>> parse_address("00000000000000000000000001000000:1F90")
    ('::1', 8080)
    """
    words, _, port = text.partition(":")
    raw = bytes.fromhex(words)
    if sys.byteorder == "little":
        raw = b"".join(raw[start : start + 4][::-1] for start in range(0, len(raw), 4))
    address = ipaddress.ip_address(raw)
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address), int(port, 16)


def parse_listening(text: str) -> tuple[ListeningSocket, ...]:
    """The listening sockets in the text of /proc/net/tcp or tcp6; lines that aren't of its form are passed over."""
    found = []
    for line in text.splitlines()[1:]:
        fields = line.split(None, 10)
        if len(fields) < 10 or fields[3] != _LISTEN:
            continue
        try:
            address, port = parse_address(fields[1])
            found.append(ListeningSocket(address=address, port=port, inode=int(fields[9])))
        except ValueError:
            continue
    return tuple(found)


def read_listening(proc: Path) -> tuple[ListeningSocket, ...]:
    """Every listening socket of our network namespace, which is the pod's."""
    found: tuple[ListeningSocket, ...] = ()
    for name in ("tcp", "tcp6"):
        try:
            found += parse_listening((proc / "net" / name).read_text())
        except OSError:
            continue  # no IPv6, or nothing to see
    return found


def read_socket_inodes(proc: Path, pid: int) -> frozenset[int]:
    """Inodes of the sockets that a process holds; empty if it has ended. Raises `NotPermittedError`."""
    directory = proc / str(pid) / "fd"
    inodes = set()
    try:
        for name in os.listdir(directory):  # noqa: PTH208 -- no Path object for each of thousands of descriptors
            try:
                link = os.readlink(f"{directory}/{name}")  # noqa: PTH115 -- as above
            except FileNotFoundError:
                continue
            if link.startswith("socket:["):
                inodes.add(int(link[8:-1]))
    except PermissionError as error:
        raise NotPermittedError(f"the descriptors of process {pid} aren't readable: {ASK_CHECK}") from error
    except OSError:
        return frozenset()
    return frozenset(inodes)
