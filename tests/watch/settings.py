"""Settings for tests of the watch, by way of its options."""

from __future__ import annotations

from pathlib import Path

import click

from sidecar.options import watch_options
from sidecar.settings import Settings


def settings_in(directory: Path, *arguments: str) -> Settings:
    """What ``watch`` is run with: its directories below ``directory``, the rest as by default or by ``arguments``."""
    taken: list[Settings] = []

    @click.command()
    @watch_options
    def take(settings: Settings) -> None:
        taken.append(settings)

    folders = ("--spool-dir", str(directory / "spool"), "--dump-dir", str(directory / "dumps"))
    take.main([*folders, *arguments], standalone_mode=False)
    return taken[0]
