"""TCP and TLS for httpcore whose timeouts are moments in time, so that a request as a whole has a deadline."""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterable

import httpcore


class DeadlineBackend(httpcore.NetworkBackend):
    """TCP whose timeouts are moments on the monotonic clock.

    A timeout that each read begins anew never ends a peer that sends a byte now and then; a thread that watches can't
    wake a read, and may not start where the pod's processes are limited.
    """

    def __init__(self) -> None:
        self._tcp = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        """Connect before the moment ``timeout``; the stream's own timeouts are moments as well."""
        left_s = _left_s(timeout, httpcore.ConnectTimeout)
        return _DeadlineStream(self._tcp.connect_tcp(host, port, left_s, local_address, socket_options))


class _DeadlineStream(httpcore.NetworkStream):
    def __init__(self, stream: httpcore.NetworkStream) -> None:
        self._stream = stream

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, _left_s(timeout, httpcore.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, _left_s(timeout, httpcore.WriteTimeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        left_s = _left_s(timeout, httpcore.ConnectTimeout)
        return _DeadlineStream(self._stream.start_tls(ssl_context, server_hostname, left_s))

    def get_extra_info(self, info: str) -> object:
        return self._stream.get_extra_info(info)


def _left_s(end_s: float | None, expired: type[httpcore.TimeoutException]) -> float | None:
    left_s = None if end_s is None else end_s - time.monotonic()
    if left_s is not None and left_s <= 0:
        raise expired
    return left_s
