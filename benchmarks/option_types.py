"""How options of the benchmarks are read."""

from __future__ import annotations

import click


def named_values(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    """Read NAME=VALUE, each as often as it was given; the callback of an option."""
    pairs = [value.partition("=") for value in values]
    for name, separator, _rest in pairs:
        if not name or not separator:
            raise click.BadParameter(f"write NAME=VALUE (got {name!r})")
    return {name: value for name, _, value in pairs}
