"""Entry point of ``python -m benchmarks.race``: runs the race, then prints its tables."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, TextIO

import click

from benchmarks import machine, runtime
from benchmarks.errors import BenchmarkError
from benchmarks.ground import MEBIBYTE, say
from benchmarks.option_types import named_values
from benchmarks.race import course, program
from benchmarks.race.model import PROGRAMS, Try
from benchmarks.race.plan import Attempt, cells, rest_s, schedule
from benchmarks.race.summary import by_cell, summary
from benchmarks.race.tools import GUARD, TOOLS, check_guard
from benchmarks.report import markdown
from localpod import pod, toolchain
from localpod.cgroups import new_cgroup
from localpod.errors import LocalPodError

_PROGRAMS = {one.name: one for one in PROGRAMS}
_LIMITS = {"128": 128 * MEBIBYTE, "256": 256 * MEBIBYTE, "512": 512 * MEBIBYTE}
_CPUS = {"none": None, "250m": 250}
_TRIES = 3

_QUICK_PROGRAMS = ("leak-50", "leak-800", "pointers", "doubling")
_QUICK_LIMITS = ("128",)

_CANNOT_START = 3


class _Several(click.ParamType[tuple[str, ...]]):
    """Some of the names, with commas between them."""

    name = "names"

    def __init__(self, names: Iterable[str]) -> None:
        self._names = tuple(names)

    def convert(
        self, value: str | tuple[str, ...], param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        """The names in the order in which they race, whatever the order given."""
        given = value if isinstance(value, tuple) else tuple(name.strip() for name in value.split(","))
        for name in given:
            if name not in self._names:
                self.fail(f"{name!r} is none of {', '.join(self._names)}", param, ctx)
        return tuple(name for name in self._names if name in given)


def _some(names: Iterable[str], what: str) -> dict[str, Any]:
    known = tuple(names)
    return {"type": _Several(known), "help": f"{what}: some of {','.join(known)} (default: all)."}


@click.command()
@click.option("--tries", type=click.IntRange(min=1), help=f"Most tries of a cell and tool (default: {_TRIES}).")
@click.option("--programs", **_some(_PROGRAMS, "Programs"))
@click.option("--limits", **_some(_LIMITS, "Memory limits in MiB"))
@click.option("--cpu", "cpus", **_some(_CPUS, "CPU quotas; with one the program also burns all of it"))
@click.option("--tools", **_some(TOOLS, "Tools"))
@click.option("--quick", is_flag=True, help="Some programs, the least limit, one try: about two minutes.")
@click.option("--json", "raw_file", type=click.File("w", lazy=False), help="Write the figures of each try here.")
@click.option(
    "--env", "settings", multiple=True, callback=named_values, help="NAME=VALUE for the sidecar (repeatable)."
)
@click.option("--build-only", is_flag=True, help="Build what the race needs, for a machine that can't, and end.")
def command(
    *,
    tries: int | None,
    programs: tuple[str, ...] | None,
    limits: tuple[str, ...] | None,
    cpus: tuple[str, ...] | None,
    tools: tuple[str, ...] | None,
    quick: bool,
    raw_file: TextIO | None,
    settings: dict[str, str],
    build_only: bool,
) -> None:
    """Let leaking programs run into their limits beside each tool, and print which of them saved what.

    It needs root, memory cgroups and PID namespaces. The default selection takes about 25 minutes. Slow cells are tried
    less often than --tries says. After a Ctrl-C the tables tell of the tries until then. Nothing is judged: no figure
    makes it fail.
    """
    chosen = cells(
        [_PROGRAMS[name] for name in programs or (_QUICK_PROGRAMS if quick else _PROGRAMS)],
        [_LIMITS[name] for name in limits or (_QUICK_LIMITS if quick else _LIMITS)],
        [_CPUS[name] for name in cpus or _CPUS],
    )
    racing = tools or TOOLS
    attempts = schedule(chosen, racing, tries or (1 if quick else _TRIES))
    reason = None if build_only else pod.unavailable()
    if reason is not None:
        say(f"no pod can be made here: {reason}")
        sys.exit(_CANNOT_START)
    try:
        _run(attempts, racing, settings, raw_file, build_only=build_only)
    except (BenchmarkError, LocalPodError) as error:
        say(str(error))
        sys.exit(1)


def _run(
    attempts: Sequence[Attempt],
    tools: Sequence[str],
    settings: Mapping[str, str],
    raw_file: TextIO | None,
    *,
    build_only: bool,
) -> None:
    say("building the programs and the sidecar's environment")
    go = toolchain.find()
    app, python = program.build(go), runtime.python(toolchain.DEFAULT_CACHE)
    if build_only:
        return
    if GUARD in tools:
        check_guard(python, settings)
    with new_cgroup() as cgroup:
        here = machine.describe(cgroup_version=cgroup.version, go=go.version)
    say(f"race: {len(attempts)} tries, about {rest_s(attempts, 0, 0.0) / 60:.0f} min")
    found: list[Try] = []
    exit_code = 0
    try:
        with course.Stable(python, settings) as stable:
            for one in course.run(app, attempts, stable):
                found.append(one)  # noqa: PERF402 -- what was found before a Ctrl-C counts
    except (KeyboardInterrupt, BenchmarkError) as error:
        say(f"race: cut short{f', {error}' if isinstance(error, BenchmarkError) else ''}")
        exit_code = 1
    print(machine.sentence(here))
    if settings:
        print("Settings: " + " ".join(f"{name}={value}" for name, value in settings.items()))
    print(f"\n{markdown(summary(found, tools))}\n\n{markdown(by_cell(found, tools))}", flush=True)
    if raw_file is not None:
        raw = {"machine": asdict(here), "settings": settings, "tries": [_raw(one) for one in found]}
        raw_file.write(json.dumps(raw, indent=2) + "\n")
    sys.exit(exit_code)


def _raw(one: Try) -> dict[str, object]:
    return {
        "tool": one.tool,
        "program": one.cell.program.name,
        "limit_bytes": one.cell.limit_bytes,
        "cpu": one.cell.cpu,
        **asdict(one.observed),
        "saved": asdict(one.saved) if one.saved else None,
        "lived": one.lived,
        "explained": one.explained,
        "safe_s": one.safe_s,
    }


if __name__ == "__main__":
    command(prog_name="python -m benchmarks.race")
