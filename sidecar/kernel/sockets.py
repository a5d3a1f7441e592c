"""Listening TCP sockets and whose they are: /proc/net/tcp{,6} (proc(5)) and the socket inodes in /proc/PID/fd."""

from __future__ import annotations

import contextlib
import ipaddress
import itertools
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from sidecar.errors import ASK_CHECK, NotPermittedError

_LISTEN = "0A"  # TCP_LISTEN of include/net/tcp_states.h
_MOST_SOCKETS = 4096  # of each IP version; a pod that has more is up to no good


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


def parse_listening(lines: Iterable[str]) -> Iterator[ListeningSocket]:
    """The listening sockets in the lines of /proc/net/tcp or tcp6; what isn't of their form is passed over.

    The kernel has them first (tcp_seq_start in net/ipv4/tcp_ipv4.c), so no line is asked for after the first of another
    state: of connections there may be very many, and walking them takes the kernel milliseconds.
    """
    for line in itertools.islice(lines, 1, None):
        fields = line.split(None, 10)
        if len(fields) < 10:
            continue
        if fields[3] != _LISTEN:
            return
        try:
            address, port = parse_address(fields[1])
            yield ListeningSocket(address=address, port=port, inode=int(fields[9]))
        except ValueError:
            continue


def read_listening(proc: Path) -> tuple[ListeningSocket, ...]:
    """Every listening socket of our network namespace, which is the pod's."""
    found: list[ListeningSocket] = []
    for name in ("tcp", "tcp6"):
        with contextlib.suppress(OSError), (proc / "net" / name).open() as lines:  # no IPv6, or nothing to see
            found += itertools.islice(parse_listening(lines), _MOST_SOCKETS)
    return tuple(found)


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
