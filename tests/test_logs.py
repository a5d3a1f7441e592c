"""The log's lines: what other processes call themselves must not reach a terminal as it is."""

from __future__ import annotations

import logging
import sys

import pytest

from sidecar.logs import HumanFormatter, JsonFormatter

HOSTILE = "app\x1b[2J\x07"


def fail() -> None:
    """Raise what quotes a hostile name."""
    raise ValueError(HOSTILE)


@pytest.mark.parametrize("formatter", [HumanFormatter(colour=False), JsonFormatter()])
def test_names_are_escaped_in_messages_and_in_traces(formatter: logging.Formatter) -> None:
    """A trace quotes the exception's text, and that may quote a process's name."""
    try:
        fail()
    except ValueError:
        record = logging.LogRecord("sidecar", logging.ERROR, __file__, 1, "%s", (HOSTILE,), sys.exc_info())
    text = formatter.format(record)
    assert text.count("app") >= 2
    assert "Traceback" in text
    assert "\x1b" not in text
    assert "\x07" not in text
