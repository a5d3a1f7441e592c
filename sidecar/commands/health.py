"""``oom-heap-dumper health``: for probes; healthy means that samples succeed, not that a process exists."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from sidecar.errors import OomHeapDumperError
from sidecar.option_types import Parsed, positive_duration_s
from sidecar.options import spool_dir_option
from sidecar.watch.health import age_s, read_status

_INTERVALS = 3


@click.command("health")
@spool_dir_option
@click.option(
    "--max-age",
    type=Parsed("duration", positive_duration_s),
    default="30s",
    show_default=True,
    help="Fail when the last successful sample is older (and older than three sampling intervals).",
)
def command(spool_dir: Path, max_age: float) -> None:
    """Tell whether the watch is alive: exit code 0 if its last successful sample is recent, else 1."""
    status = read_status(spool_dir)
    age = age_s(status)
    allowed = max(max_age, _INTERVALS * status.interval_s)
    if age > allowed:
        raise OomHeapDumperError(f"the last successful sample is {age:.0f} s old, more than {allowed:g} s")
    counts = " ".join(f"{name}={value}" for name, value in asdict(status).items() if name != "last_ok_s")
    click.echo(f"healthy: last sample {age:.1f} s ago, {counts}")
