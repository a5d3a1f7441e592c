from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.inject.model import Operation, Options, Plan
from sidecar.webhook import app as app_module
from sidecar.webhook import review as review_module
from sidecar.webhook.app import LARGEST_BODY_BYTES, App
from tests.webhook.reviews import patched, pod, response_of, review_of

HEADERS = [(b"content-type", b"application/json; charset=utf-8")]


async def call(
    app: App, chunks: list[bytes], headers: list[tuple[bytes, bytes]] = HEADERS
) -> tuple[int, dict[bytes, bytes], bytes]:
    """Post a body in chunks, without a server between; None at the end of the list would be a client that waits."""
    sent: list[Mapping[str, object]] = []
    left = list(chunks)

    async def receive() -> Mapping[str, object]:
        if not left:
            await asyncio.Event().wait()
        return {"type": "http.request", "body": left.pop(0), "more_body": bool(left) or len(chunks) > 1}

    async def send(message: Mapping[str, object]) -> None:
        sent.append(message)

    await app({"type": "http", "method": "POST", "path": "/mutate", "headers": headers}, receive, send)
    start, body = sent
    status, pairs, content = start["status"], start["headers"], body["body"]
    assert isinstance(status, int)
    assert isinstance(pairs, list)
    assert isinstance(content, bytes)
    return status, dict(pairs), content


def test_our_own_fault_costs_no_pod(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is raised inside, the pod is allowed as it is, and the fault is counted."""

    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(app_module, "decide", broken)
    app = App(Options())
    review = review_of(pod())
    status, _, body = asyncio.run(call(app, [json.dumps(review).encode()]))
    assert status == 200
    assert "patch" not in response_of(review, body)
    assert app.counts["failed"] == 1


def test_a_patch_that_would_not_apply_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """The API server would deny the pod for it, whatever the failurePolicy says."""
    bad = Plan(operations=(Operation(op="add", path="/spec/nowhere/-", value=1),))
    monkeypatch.setattr(review_module, "plan_injection", lambda *_, **__: bad)
    app = App(Options())
    review = review_of(pod())
    status, _, body = asyncio.run(call(app, [json.dumps(review).encode()]))
    assert status == 200
    assert "patch" not in response_of(review, body)
    assert app.counts["failed"] == 1


def test_a_slow_body_is_given_up() -> None:
    """408 once the deadline has passed, and the connection is not used again."""
    status, headers, _ = asyncio.run(call(App(Options(), body_deadline_s=0.05), [b"{", b""]))
    assert status == 408
    assert headers[b"connection"] == b"close"


def test_a_body_without_a_length_is_capped_as_well() -> None:
    """Chunks are counted: 413 at the first beyond the cap."""
    status, headers, _ = asyncio.run(call(App(Options()), [b" " * (1 << 20)] * 5))
    assert status == 413
    assert headers[b"connection"] == b"close"


def test_many_large_bodies_at_once_are_bounded_together() -> None:
    """The container's memory limit must hold whoever posts; what the bodies held is free again afterwards."""
    app = App(Options(), body_deadline_s=0.5)

    async def flood() -> list[int]:
        answers = await asyncio.gather(*(call(app, [b" " * (1 << 20), b" " * (1 << 20), b" "]) for _ in range(40)))
        return [status for status, _, _ in answers]

    statuses = asyncio.run(flood())
    assert 0 < statuses.count(503) < 40
    review = review_of(pod(annotations={"note": "x" * (LARGEST_BODY_BYTES - 10_000)}))
    status, _, _ = asyncio.run(call(app, [json.dumps(review).encode()]))
    assert status == 200


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
KEYS = ["metadata", "spec", "containers", "annotations", "labels", "name", "env", "resources", "limits", "memory"]


def places(value: object, at: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The way to each value inside of a document."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, below in inner:
        yield (*at, key)
        yield from places(below, (*at, key))


@given(changes=st.lists(st.tuples(st.sampled_from(sorted(places(pod()), key=str)), ANYTHING), max_size=3))
def test_whatever_a_pod_looks_like_it_is_allowed(changes: list[tuple[tuple[str | int, ...], object]]) -> None:
    """Anything in any place of a pod: it isn't denied, is answered, and the patch applies, if there is one."""
    made: Any = pod()
    for (*way, last), value in changes:
        with contextlib.suppress(LookupError, TypeError):  # an earlier change took the place away
            node = made
            for key in way:
                node = node[key]
            node[last] = value
    review = review_of(made)
    status, _, body = asyncio.run(call(App(Options()), [json.dumps(review).encode()]))
    assert status == 200
    patched(review, response_of(review, body))
