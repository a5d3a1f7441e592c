"""``oom-heap-dumper encode``: a profile of a raw snapshot, where the sidecar could make none."""

from __future__ import annotations

from pathlib import Path

import click

from sidecar.errors import OomHeapDumperError
from sidecar.goheap.buckets import View
from sidecar.goheap.encode import Encoded, encode


@click.command("encode")
@click.argument("raw", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("executable", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--output",
    "-o",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The profile to write.  [default: RAW with .pb.gz in place of .raw]",
)
@click.option(
    "--view",
    type=click.Choice(["newest", "published"]),
    default="newest",
    show_default=True,
    help="All that was there, or only what /debug/pprof/heap would have said.",
)
def command(raw: Path, executable: Path, output: Path | None, view: str) -> None:
    """Make a pprof profile of RAW, a snapshot of a program's memory, and EXECUTABLE, the program it was taken of.

    The executable is in the app's image; it must be the very build that go_build_id in the manifest names.

    Only needed where a dump has heap-newest.raw: the sidecar was stopped, or out of memory, before it could do this.
    """
    target = output or raw.with_name(f"{raw.stem}.pb.gz")
    kind: View = "published" if view == "published" else "newest"
    is_file = target.is_file() or not target.exists()
    try:
        if is_file:
            result = _encode_whole(raw, executable, target.resolve(), kind)
        else:  # a device or a pipe, which nothing can be put in the place of
            with target.open("wb") as file:
                result = encode(raw, executable, file, kind)
    except OSError as error:
        raise OomHeapDumperError(f"{error.filename or target}: {error.strerror}") from error
    if result.truncated:
        click.echo(f"Warning: incomplete: {result.truncated}", err=True)
    click.echo(f"{result.samples} stacks are in {target}", err=True)
    if is_file:
        click.echo(f"go tool pprof -http=: {target}")


def _encode_whole(raw: Path, executable: Path, target: Path, view: View) -> Encoded:
    """Write a file that appears under its name when it is whole."""
    part = target.with_name(f"{target.name}.part")
    try:
        with part.open("wb") as file:
            result = encode(raw, executable, file, view)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
    return result
