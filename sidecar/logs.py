"""The log on stderr: one line an event, human on a terminal, JSON elsewhere, written by a thread of its own.

An event has a stable name and fields; the watch loop only puts it on a queue and never waits for whoever reads stderr.
"""

from __future__ import annotations

import atexit
import json
import logging
import logging.handlers
import os
import queue
import sys
from datetime import UTC, datetime
from typing import TextIO

from sidecar.core.printable import printable
from sidecar.settings import LogSettings

_LOGGER = logging.getLogger("sidecar")
_FIELDS = "event_fields"
_COLOURS = {"warning": "33", "error": "31"}


def event(level: int, name: str, message: str, /, **fields: object) -> None:
    """Log one event. ``name`` is stable for machines, ``message`` for people, ``fields`` are values of JSON."""
    _LOGGER.log(level, "%s", message, extra={_FIELDS: {"event": name, **fields}})


def fault(name: str, message: str, /, **fields: object) -> None:
    """Log the exception being handled, with its trace: only for faults of ours, never for what a user can mend."""
    _LOGGER.log(logging.ERROR, "%s", message, exc_info=sys.exc_info(), extra={_FIELDS: {"event": name, **fields}})


class RateLimit:
    """Lets the first of many equal events through and then one each ``interval_s``, with the number left out."""

    def __init__(self, interval_s: float = 30.0) -> None:
        """One instance serves any number of keys; ``forget`` those that ended."""
        self._interval_s = interval_s
        self._seen: dict[object, tuple[float, int]] = {}

    def admit(self, key: object, now_s: float) -> int | None:
        """None if the event is to be left out, else how many were since the last one let through."""
        last = self._seen.get(key)
        if last is not None and now_s - last[0] < self._interval_s:
            self._seen[key] = (last[0], last[1] + 1)
            return None
        self._seen[key] = (now_s, 0)
        return last[1] if last else 0

    def forget(self, key: object) -> None:
        """The matter is over: its next event is a first one again."""
        self._seen.pop(key, None)


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, event, message, then the event's fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Print the record; control characters are escaped by JSON itself."""
        fields = {
            "time": _time(record).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            **getattr(record, _FIELDS, {"event": "log"}),
            "message": record.getMessage(),
        }
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json.dumps(fields, ensure_ascii=True, default=str)


class HumanFormatter(logging.Formatter):
    """Time, level and message for a terminal, the exception below; control characters of names are escaped."""

    def __init__(self, *, colour: bool) -> None:
        super().__init__()
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:
        """Print the record."""
        level = record.levelname.lower()
        line = f"{_time(record):%H:%M:%S.%f}"[:-3] + f" {level:<7} {printable(record.getMessage())}"
        if self._colour and level in _COLOURS:
            line = f"\x1b[{_COLOURS[level]}m{line}\x1b[0m"
        trace = self.formatException(record.exc_info).splitlines() if record.exc_info else ()
        return "\n".join((line, *map(printable, trace)))


def start(settings: LogSettings, stream: TextIO | None = None) -> None:
    """Set up the log; called once by a command before its first event. Stops by itself at exit."""
    stream = stream or sys.stderr
    human = settings.format == "human" or (settings.format == "auto" and stream.isatty())
    handler = logging.StreamHandler(stream)
    colour = stream.isatty() and "NO_COLOR" not in os.environ
    handler.setFormatter(HumanFormatter(colour=colour) if human else JsonFormatter())
    lines: queue.SimpleQueue[logging.LogRecord] = queue.SimpleQueue()
    listener = logging.handlers.QueueListener(lines, handler)
    _LOGGER.addHandler(_Enqueue(lines))
    _LOGGER.setLevel(settings.level.upper())
    _LOGGER.propagate = False
    listener.start()
    atexit.register(listener.stop)


class _Enqueue(logging.handlers.QueueHandler):
    """Passes records on as they are: the formatter runs in the writer's thread, in this same process."""

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        return record


def _time(record: logging.LogRecord) -> datetime:
    return datetime.fromtimestamp(record.created, tz=UTC)
