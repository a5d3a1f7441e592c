"""Entry point of ``python -m benchmarks``: measures, then prints the tables."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

import click

from benchmarks import footprint, harm, harm_table, latency, machine, runtime, service, snapshots, startup, uploads
from benchmarks.errors import BenchmarkError
from benchmarks.ground import FULL, QUICK, Ground, say
from benchmarks.option_types import named_values
from benchmarks.report import Table, markdown
from localpod import pod, toolchain
from localpod.cgroups import new_cgroup
from localpod.errors import LocalPodError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Figures = TypeVar("Figures", bound="DataclassInstance")
Raw = list[dict[str, Any]]
Part = Callable[[Ground], tuple[Table, Raw]]

_CANNOT_START = 3


def _part(measure: Callable[[Ground], Sequence[Figures]], table: Callable[[Sequence[Figures]], Table]) -> Part:
    def run(ground: Ground) -> tuple[Table, Raw]:
        found = measure(ground)
        return table(found), [asdict(one) for one in found]

    return run


_PARTS: dict[str, Part] = {
    "footprint": _part(footprint.measure, footprint.table),
    "uploads": _part(uploads.measure, uploads.table),
    "startup": _part(startup.measure, startup.table),
    "latency": _part(latency.measure, latency.table),
    "harm": _part(harm.measure, harm_table.table),
    "snapshots": _part(snapshots.measure, snapshots.table),
}


@click.command()
@click.argument("parts", nargs=-1, type=click.Choice(list(_PARTS)))
@click.option("--quick", is_flag=True, help="About a minute and a half in all; the figures are rough.")
@click.option("--json", "raw_file", type=click.File("w", lazy=False), help="Write the raw figures here.")
@click.option(
    "--env", "settings", multiple=True, callback=named_values, help="NAME=VALUE for the sidecar (repeatable)."
)
def command(parts: tuple[str, ...], settings: dict[str, str], raw_file: TextIO | None, *, quick: bool) -> None:
    """Measure what the sidecar costs and how fast it is, in PARTS (all of them without), and print tables.

    It needs root, memory cgroups and PID namespaces. Nothing is judged: no figure makes it fail.
    """
    reason = pod.unavailable()
    if reason is not None:
        say(f"no pod can be made here: {reason}")
        sys.exit(_CANNOT_START)
    try:
        _run(parts or tuple(_PARTS), settings, raw_file, quick=quick)
    except (BenchmarkError, LocalPodError) as error:
        say(str(error))
        sys.exit(1)


def _run(parts: tuple[str, ...], settings: dict[str, str], raw_file: TextIO | None, *, quick: bool) -> None:
    say("building the app and the sidecar's environment")
    go = toolchain.find()
    ground = Ground(
        python=runtime.python(toolchain.DEFAULT_CACHE),
        service=service.build(go),
        settings=settings,
        effort=QUICK if quick else FULL,
    )
    with new_cgroup() as cgroup:
        here = machine.describe(cgroup_version=cgroup.version, go=go.version)
    print(machine.sentence(here))
    if settings:
        print("Settings: " + " ".join(f"{name}={value}" for name, value in settings.items()))
    raw: dict[str, object] = {"machine": asdict(here), "settings": settings}
    for name in dict.fromkeys(parts):
        table, figures = _PARTS[name](ground)
        print(f"\n{markdown(table)}", flush=True)
        raw[name] = figures
    if raw_file is not None:
        raw_file.write(json.dumps(raw, indent=2) + "\n")


if __name__ == "__main__":
    command(prog_name="python -m benchmarks")
