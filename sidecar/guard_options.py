"""The options that change cgroups: of the guard, and of ``memory.oom.group``."""

from __future__ import annotations

from pathlib import Path

import click

from sidecar import option_types
from sidecar.option import Decorator, option

GUARD_OPTIONS: list[Decorator] = [
    option(
        "--guard",
        "GUARD",
        click.Choice(["off", "brake", "raise", "auto"]),
        "off",
        "Hold the OOM killer off while a heap is read, by changing the app's cgroup. auto: brake on v2, else raise.",
    ),
    option(
        "--guard-cgroups",
        "GUARD_CGROUPS",
        click.Path(file_okay=False, readable=False, path_type=Path),
        "/sys/fs/cgroup",
        "Where the machine's cgroup file system is mounted writable, for --guard and --oom-group.",
    ),
    option(
        "--guard-brake",
        "GUARD_BRAKE",
        option_types.Parsed("percent", option_types.brake_percent),
        "90",
        "Percentage of the limit at which the brake slows the app down.",
    ),
    option(
        "--guard-raise",
        "GUARD_RAISE",
        option_types.Parsed("size", option_types.raise_bytes),
        "64Mi",
        "Most that the limit is raised by.",
    ),
    option(
        "--guard-hold",
        "GUARD_HOLD",
        option_types.Parsed("duration", option_types.hold_s),
        "2s",
        "Longest time that the app is braked or its limit raised.",
    ),
]

OOM_GROUP_OPTIONS: list[Decorator] = [
    option(
        "--oom-group",
        "OOM_GROUP",
        click.Choice(["kubelet", "process"]),
        "kubelet",
        "What an OOM kill takes on cgroup v2. kubelet: as it was set; process: one, memory.oom.group is kept at 0.",
    ),
    option(
        "--oom-group-containers",
        "OOM_GROUP_CONTAINERS",
        option_types.Parsed("names", option_types.names),
        "",
        "Names of the containers that --oom-group process is for; without them every one.",
    ),
]
