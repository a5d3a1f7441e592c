"""How an option of the command line is declared, once: flag, environment variable, type, default, help."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

Command = Callable[..., None]
Decorator = Callable[[Command], Command]


def option(flag: str, env: str | list[str], kind: click.ParamType[Any], default: object, text: str) -> Decorator:
    """Declare one; its help shows the default, if there is any, and the variable."""
    return click.option(
        flag, envvar=env, type=kind, default=default, show_default=bool(default), show_envvar=True, help=text
    )
