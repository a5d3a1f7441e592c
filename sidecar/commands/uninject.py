"""``oom-heap-dumper uninject``: takes the sidecar out of the pods of manifests again."""

from __future__ import annotations

import click

from sidecar.inject.file_options import file_options
from sidecar.inject.files import Target, change_files
from sidecar.inject.manifests import remove_text


@click.command("uninject")
@file_options
def command(*, names: tuple[str, ...], target: Target, is_quiet: bool) -> None:
    """Take everything out again that inject put into the pods of FILE..., or - for standard input, and print them.

    Manifests that nobody has changed since are byte for byte what they were before.

    \b
      kubectl get deploy app -o yaml | oom-heap-dumper uninject - | kubectl apply -f -
    """  # noqa: D301 -- click's mark for a paragraph that keeps its lines
    change_files(names, remove_text, target, verb="taken out", is_quiet=is_quiet)
