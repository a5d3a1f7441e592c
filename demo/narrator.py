"""Tells the story on a terminal: steps with the time since the start, and the words of the programs in it."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Mapping
from typing import IO, TextIO

_BOLD, _DIM, _RED, _GREEN, _YELLOW, _CYAN = "1", "2", "31", "32", "33", "36"
_LEVEL_COLOURS = {"warning": _YELLOW, "error": _RED}


class Narrator:
    """Prints whole lines, from any thread, in colour on a terminal unless NO_COLOR is set (no-color.org)."""

    def __init__(self, out: TextIO, environment: Mapping[str, str]) -> None:
        self._out = out
        self._colour = out.isatty() and not environment.get("NO_COLOR") and environment.get("TERM") != "dumb"
        self._began_s = time.monotonic()
        self._lock = threading.Lock()
        self._steps = 0

    def title(self, text: str) -> None:
        """The first line."""
        self._print(self._paint(_BOLD, text))

    def step(self, text: str) -> None:
        """A new step of the story."""
        self._steps += 1
        self._print(f"\n{self._clock()} {self._paint(_BOLD, f'{self._steps}. {text}')}")

    def say(self, text: str) -> None:
        """Something within the step."""
        self._print(f"{self._clock()}    {text}")

    def good(self, text: str) -> None:
        """What the story was about."""
        self._print(f"\n{self._clock()} {self._paint(_GREEN, text)}")

    def bad(self, text: str) -> None:
        """What went wrong."""
        self._print(f"\n{self._clock()} {self._paint(_RED, text)}")

    def command(self, text: str) -> None:
        """A command as a person would type it."""
        self._print(f"{self._clock()}    {self._paint(_CYAN, '$ ' + text)}")

    def output(self, text: str) -> None:
        """What a command printed."""
        for line in text.rstrip().splitlines():
            self._print(f"            {line}")

    def quote(self, speaker: str, text: str, level: str = "info") -> None:
        """A line of another program's log. Who quotes needn't care whether anyone still reads."""
        colour = _LEVEL_COLOURS.get(level)
        with contextlib.suppress(BrokenPipeError):
            self._print(f"{self._clock()}    {self._paint(_DIM, f'{speaker:>8} |')} {self._paint(colour, text)}")

    def _clock(self) -> str:
        return self._paint(_DIM, f"{time.monotonic() - self._began_s:6.1f}s")

    def _paint(self, code: str | None, text: str) -> str:
        return f"\033[{code}m{text}\033[0m" if self._colour and code else text

    def _print(self, line: str) -> None:
        with self._lock:
            print(line, file=self._out, flush=True)


class SidecarLog:
    """Reads the sidecar's log as it comes, quotes its messages, and remembers which events there were."""

    def __init__(self, narrator: Narrator, stream: IO[bytes]) -> None:
        self._narrator = narrator
        self._stream = stream
        self._seen: list[str] = []
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._read, name="sidecar-log", daemon=True)
        self._reader.start()

    def count(self, event: str) -> int:
        """How often the sidecar told of an event."""
        with self._news:
            return self._seen.count(event)

    def wait_for(self, event: str, timeout_s: float) -> bool:
        """Wait until the sidecar tells of an event; False if it doesn't in time."""
        with self._news:
            return self._news.wait_for(lambda: event in self._seen, timeout_s)

    def finish(self, timeout_s: float) -> None:
        """Wait for the last line, once the sidecar has ended."""
        self._reader.join(timeout_s)

    def _read(self) -> None:
        for line in self._stream:
            event, level, message = parse_log_line(line.decode(errors="replace").strip())
            self._narrator.quote("sidecar", message, level)
            with self._news:
                self._seen.append(event)
                self._news.notify_all()


def parse_log_line(line: str) -> tuple[str, str, str]:
    """Event, level and message of a line of the sidecar's JSON log; what isn't JSON is the message of an unnamed error.

    >>> parse_log_line('{"level": "info", "event": "started", "message": "up"}')
    ('started', 'info', 'up')
    >>> parse_log_line("Traceback")
    ('', 'error', 'Traceback')
    """
    try:
        fields = json.loads(line)
        return str(fields["event"]), str(fields["level"]), str(fields["message"])
    except (ValueError, KeyError, TypeError):
        return "", "error", line


def quote_lines(narrator: Narrator, speaker: str, stream: IO[bytes]) -> None:
    """Quote each line of a program's output as it comes, in a thread of its own."""

    def read() -> None:
        for line in stream:
            narrator.quote(speaker, line.decode(errors="replace").strip().removeprefix("go-memory-leak: "))

    threading.Thread(target=read, name=speaker, daemon=True).start()
