"""``oom-heap-dumper health``: for probes; healthy means that samples succeed, not that a process exists."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from sidecar.errors import OomHeapDumperError
from sidecar.option_types import Parsed, positive_duration_s
from sidecar.options import spool_dir_option
from sidecar.watch.health import age_s, read_status


@click.command("health")
@spool_dir_option
@click.option(
    "--max-age",
    type=Parsed("duration", positive_duration_s),
    default="30s",
    show_default=True,
    help="Fail when the last successful sample is older.",
)
def command(spool_dir: Path, max_age: float) -> None:
    """Tell whether the watch is alive: exit code 0 if its last successful sample is recent, else 1."""
    status = read_status(spool_dir)
    age = age_s(status)
    if age > max_age:
        raise OomHeapDumperError(f"the last successful sample is {age:.0f} s old, more than {max_age:g} s")
    counts = " ".join(f"{name}={value}" for name, value in asdict(status).items() if name != "last_ok_s")
    click.echo(f"healthy: last sample {age:.1f} s ago, {counts}")
