"""The webhook's HTTP side, as an ASGI application: routes, bounds on bodies, the log and the count of reviews."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import cast

from sidecar import logs
from sidecar.inject.model import Options
from sidecar.webhook.review import Request, ReviewError, Verdict, decide, parse_review, respond

Message = Mapping[str, object]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

LARGEST_BODY_BYTES = 3 << 20
"""etcd takes objects of 1.5 MiB, and a review carries one besides what describes the request."""

_BODIES_BYTES = 8 << 20  # of all requests in flight, so that many large ones don't exceed the container's limit
_BODY_DEADLINE_S = 10.0  # the API server posts from memory, and asks nobody for longer than its timeoutSeconds
_METRIC = "oom_heap_dumper_webhook_reviews_total"
_LEVELS = {
    "injected": logging.INFO,
    "refused": logging.WARNING,
    "left-alone": logging.DEBUG,
    "failed": logging.ERROR,
}


class _HttpError(Exception):
    """An answer that isn't 200: its status, what to say, and further headers."""

    def __init__(self, status: int, text: str, *headers: tuple[bytes, bytes]) -> None:
        super().__init__(text)
        self.status = status
        self.text = text
        self.headers = headers


class _DisconnectError(Exception):
    """The client has gone: nobody waits for an answer."""


class App:
    """ASGI application (https://asgi.readthedocs.io, HTTP only). One loop runs it, so that nothing needs a lock.

    ``counts`` has the number of reviews by outcome, with ``bad-request`` for what was no review. While ``draining``
    it isn't ready, and asks clients to connect anew, elsewhere.
    """

    def __init__(self, options: Options, *, body_deadline_s: float = _BODY_DEADLINE_S) -> None:
        self.counts = Counter(dict.fromkeys([*_LEVELS, "bad-request"], 0))
        self.draining = False
        self._options = options
        self._body_deadline_s = body_deadline_s
        self._held_bytes = 0
        self._repeated = logs.RateLimit()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve one request."""
        try:
            status, kind, body = await self._answer(scope, receive)
            headers: Sequence[tuple[bytes, bytes]] = ()
        except _DisconnectError:
            return
        except _HttpError as error:
            status, kind, body, headers = error.status, b"text/plain; charset=utf-8", _line(error.text), error.headers
        # A refused body isn't read to its end, so the connection can't carry another request.
        closing = [(b"connection", b"close")] if self.draining or status in (408, 413, 415, 503) else []
        length = (b"content-length", b"%d" % len(body))
        start = {"type": "http.response.start", "status": status}
        await send(start | {"headers": [(b"content-type", kind), length, *headers, *closing]})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

    async def _answer(self, scope: Message, receive: Receive) -> tuple[int, bytes, bytes]:
        plain = b"text/plain; charset=utf-8"
        match scope["path"]:
            case "/mutate":
                _require_method(scope, "POST")
                return 200, b"application/json", await self._mutate(scope, receive)
            case "/healthz":
                _require_method(scope, "GET", "HEAD")
                return 200, plain, b"ok\n"
            case "/readyz":
                _require_method(scope, "GET", "HEAD")
                if self.draining:
                    raise _HttpError(503, "stopping")
                return 200, plain, b"ok\n"
            case "/metrics":
                _require_method(scope, "GET", "HEAD")
                return 200, b"text/plain; version=0.0.4; charset=utf-8", self._metrics()
        raise _HttpError(404, "there are /mutate, /healthz, /readyz and /metrics")

    async def _mutate(self, scope: Message, receive: Receive) -> bytes:
        headers = dict(cast("Sequence[tuple[bytes, bytes]]", scope["headers"]))
        if headers.get(b"content-type", b"").partition(b";")[0].strip().lower() != b"application/json":
            raise _HttpError(415, "the body must be application/json")
        declared = headers.get(b"content-length", b"0")
        if int(declared) > LARGEST_BODY_BYTES:  # the server has checked that it is a number
            raise _too_large()
        body = bytearray()
        try:
            async with asyncio.timeout(self._body_deadline_s):
                await self._read(body, receive)
            return self._review(bytes(body))
        except TimeoutError:
            raise _HttpError(408, f"the body took longer than {self._body_deadline_s:g} s") from None
        finally:
            self._held_bytes -= len(body)

    async def _read(self, body: bytearray, receive: Receive) -> None:
        more = True
        while more:
            message = await receive()
            if message["type"] != "http.request":
                raise _DisconnectError
            chunk = cast("bytes", message.get("body", b""))
            body += chunk
            self._held_bytes += len(chunk)
            if len(body) > LARGEST_BODY_BYTES:
                raise _too_large()
            if self._held_bytes > _BODIES_BYTES:
                raise _HttpError(503, "too many large requests at once", (b"retry-after", b"1"))
            more = bool(message.get("more_body", False))

    def _review(self, body: bytes) -> bytes:
        try:
            request = parse_review(body)
        except ReviewError as error:
            self.counts["bad-request"] += 1
            self._report_bad_request(str(error))
            raise _HttpError(400, str(error)) from None
        try:
            verdict = decide(request, self._options)
            answer = respond(request, verdict)
        except Exception:  # noqa: BLE001 -- whatever we got wrong, the pod must not pay for it
            logs.fault("review-fault", f"the review of {_named(request)} failed: the pod goes on without the sidecar")
            verdict = Verdict(outcome="failed", reason="a fault of the webhook's own, which its log has")
            answer = respond(request, verdict)
        self.counts[verdict.outcome] += 1
        _report(request, verdict)
        return answer

    def _report_bad_request(self, why: str) -> None:
        left_out = self._repeated.admit("bad-request", asyncio.get_running_loop().time())
        if left_out is not None:
            logs.event(logging.WARNING, "bad-request", f"refused a request: {why}", left_out=left_out)

    def _metrics(self) -> bytes:
        lines = [f"# HELP {_METRIC} Reviews by what became of them.", f"# TYPE {_METRIC} counter"]
        lines += [f'{_METRIC}{{outcome="{outcome}"}} {count}' for outcome, count in self.counts.items()]
        return "".join(f"{line}\n" for line in lines).encode()


def _require_method(scope: Message, *methods: str) -> None:
    if scope["method"] not in methods:
        allowed = ", ".join(methods)
        raise _HttpError(405, f"{scope['path']} takes {allowed}", (b"allow", allowed.encode()))


def _too_large() -> _HttpError:
    return _HttpError(413, f"the body must be {LARGEST_BODY_BYTES >> 20} MiB at most")


def _line(text: str) -> bytes:
    return f"{text}\n".encode("utf-8", "backslashreplace")


def _named(request: Request) -> str:
    return f"pod {request.namespace}/{request.name}"


def _report(request: Request, verdict: Verdict) -> None:
    said = {"injected": "injected", "refused": "not injected", "left-alone": "left alone", "failed": "not injected"}
    texts = [verdict.reason] if verdict.reason else [*verdict.warnings]
    logs.event(
        _LEVELS[verdict.outcome],
        "review",
        ": ".join([f"{_named(request)} {said[verdict.outcome]}", *filter(None, ["; ".join(texts)])]),
        outcome=verdict.outcome,
        namespace=request.namespace,
        pod=request.name,
        uid=request.uid,
        dry_run=request.dry_run,
        notes=verdict.notes,
        warnings=verdict.warnings,
    )
