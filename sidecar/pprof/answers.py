"""What an answer of a port says of whose it is. Pure.

The handlers are those of Go's ``net/http/pprof``: every answer of its index for an unknown profile is a 404 with
``X-Go-Pprof: 1``; ``cmdline`` answers the program's arguments joined by NUL bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus

from sidecar.errors import ASK_CHECK

_TLS_HINT = b"HTTP request to an HTTPS server"
SPEAKS_TLS = "speaks TLS"
WANTS_CREDENTIALS = "it wants credentials, see PPROF_HEADERS"
# What cmdline's handler sets in every Go, and hardly anybody else does together.
_GO_TEXT = {b"content-type": b"text/plain; charset=utf-8", b"x-content-type-options": b"nosniff"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why a port isn't a pprof endpoint, in words for people."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SmallAnswer:
    """An answer that fits into memory. The names of its headers are in lower case."""

    status: int
    headers: dict[bytes, bytes]
    body: bytes


def judge(answer: SmallAnswer, command_line: bytes, *, owner_proven: bool) -> Refusal | None:
    """Whether an answer to ``/cmdline`` is pprof's, and this program's: a neighbour's index answers as ours would."""
    is_index = b"x-go-pprof" in answer.headers
    if is_index and owner_proven:
        return None
    if answer.status == HTTPStatus.OK:
        arguments = command_line.rstrip(b"\0")
        if arguments and answer.body.rstrip(b"\0\n") == arguments:
            return None
        if owner_proven and _GO_TEXT.items() <= answer.headers.items():
            return None
        return Refusal(reason="answers, but not with this program's arguments")
    if is_index:
        return Refusal(reason=f"pprof that doesn't tell whose it is: serve its cmdline too, or {ASK_CHECK}")
    if _TLS_HINT in answer.body:
        return Refusal(reason=SPEAKS_TLS)
    if answer.status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        return Refusal(reason=f"HTTP {answer.status}: {WANTS_CREDENTIALS}")
    if 300 <= answer.status < 400:
        return Refusal(reason=f"HTTP {answer.status}: redirects are not followed")
    return Refusal(reason=f"HTTP {answer.status}")
