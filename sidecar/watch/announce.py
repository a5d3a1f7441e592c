"""Says, once for each container, what is watched, how its heap will be had, and what is missing."""

from __future__ import annotations

import logging

from sidecar import logs
from sidecar.core import trigger
from sidecar.core.quantities import format_bytes
from sidecar.core.trigger import TriggerPolicy
from sidecar.watch.scout import Scout
from sidecar.watch.sources import MAX_PROCESSES, Source, why_no_source
from sidecar.watch.target import Target

# Until then a port may be found, or a runtime be ready to be read.
_ANNOUNCE_AFTER_S = 5.0


def announce(target: Target, policy: TriggerPolicy, scout: Scout, now_s: float) -> bool:
    """Say it if all is known or enough time has passed; whether it was said."""
    container, sample = target.surveyed.container, target.last
    if sample is None:
        return False
    sources = scout.sources(container)
    unreadable = scout.heaps.why_none(container) if scout.heaps is not None else None
    is_all_known = bool(sources) and all(source.answering for source in sources) and unreadable is None
    if not is_all_known and now_s - target.since_s < _ANNOUNCE_AFTER_S:
        return False
    limit = sample.reading.limit_bytes
    missing = []
    if limit is None:
        missing.append("it has no memory limit, so nothing will fire: set MEMORY_LIMIT or give it one")
    if not sources:
        missing.append(f"no heap profile: {why_no_source(container, scout.heaps, scout.endpoints)}")
    elif unreadable is not None:
        missing.append(f"no reading from memory, only what the program publishes: {unreadable}")
    notes = []
    if sources and not any(source.answering for source in sources):
        notes.append(f"none of its own profiles: {scout.endpoints.why_none(container)}")
    if len(sources) > MAX_PROCESSES:
        notes.append(f"of its {len(sources)} programs only the {MAX_PROCESSES} oldest are dumped")
    threshold = trigger.threshold_bytes(policy, limit) if limit else None
    at = f"dump at {format_bytes(threshold)} of {format_bytes(limit)}" if limit and threshold else "no threshold"
    logs.event(
        logging.WARNING if missing else logging.INFO,
        "watching",
        f"watching container {container.name} ({target.surveyed.source.description}): {at}"
        + "".join(f"; {_describe(source)}" for source in sources)
        + "".join(f"; {what}" for what in (*missing, *notes)),
        threshold_bytes=threshold,
        limit_bytes=limit,
        metric=policy.metric,
        source=target.surveyed.source.description,
        pprof=[source.answering.client.url for source in sources if source.answering],
        memory=[source.process.pid for source in sources if source.heap],
        missing=missing,
        notes=notes,
        **target.log_fields(),
    )
    return True


def _describe(source: Source) -> str:
    ways = [
        "its memory" if source.heap else None,
        f"pprof at {source.answering.client.url}" if source.answering else None,
    ]
    return f"heap of {source.process.name}[{source.process.pid}] from {' and '.join(filter(None, ways))}"
