"""The options by which commands say which manifests they read and where the new ones go."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from sidecar.inject.files import Target

Command = Callable[..., None]

_OPTIONS = [
    click.argument("names", metavar="FILE...", nargs=-1, required=True),
    click.option("--diff", "is_diff", is_flag=True, help="Show what would change, and write nothing."),
    click.option("--output", "-o", type=click.Path(dir_okay=False, path_type=Path), help="Write to this file instead."),
    click.option("--in-place", "-i", "is_in_place", is_flag=True, help="Change the files themselves."),
    click.option(
        "--color/--no-color", default=None, help="Colour the diff.  [default: on a terminal, unless NO_COLOR]"
    ),
    click.option("--quiet", "-q", "is_quiet", is_flag=True, help="Report only warnings and what is left as it is."),
]


def file_options(command: Command) -> Command:
    """Give a command the options of files; it receives ``names``, ``target`` and ``is_quiet``."""

    @functools.wraps(command)
    def wrapper(**values: Any) -> None:  # noqa: ANN401 -- click passes every option by name
        target = Target(**{name: values.pop(name) for name in Target.__dataclass_fields__})
        command(target=target, **values)

    for option in reversed(_OPTIONS):
        wrapper = option(wrapper)
    return wrapper
