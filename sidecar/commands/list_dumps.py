"""``oom-heap-dumper list``: the dumps in a store, newest first."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from itertools import islice

import click

from sidecar.core.keys import join_key
from sidecar.core.listing import Dump, DumpFilter, find_dumps, find_prefixes, parse_since
from sidecar.core.printable import printable
from sidecar.core.quantities import format_bytes
from sidecar.errors import ConfigError, StoreError
from sidecar.option_types import Parsed
from sidecar.options import store_options
from sidecar.stores import Store, StoreSettings, location, open_store

_MOST_LOOKED_AT = 3000  # objects, for a hint: three pages of S3
_MOST_PREFIXES = 3
_HEADER = ("TIME (UTC)", "NAMESPACE", "POD", "CONTAINER", "PID", "INCIDENT", "OUTCOME", "PROFILES", "SIZE", "KEY")


def selection_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options that choose dumps by where they come from."""
    for flag, short, text in (
        ("--container", "-c", "Only dumps of this container."),
        ("--pod", "-p", "Only dumps of this pod."),
        ("--namespace", "-n", "Only dumps of this namespace."),
    ):
        command = click.option(flag, short, metavar="NAME", help=text)(command)
    return command


def open_for_reading(settings: StoreSettings) -> Store:
    """The store of the settings. Raises ConfigError where neither a bucket nor a directory that exists is named."""
    if not settings.bucket:
        try:
            settings.directory.stat()
        except FileNotFoundError:
            raise ConfigError(
                f"no bucket is given, and there is no directory {printable(str(settings.directory))}: set BUCKET or "
                "--bucket, or for dumps in a directory DUMP_DIR or --dump-dir"
            ) from None
        except OSError:
            pass  # the store says it with a remedy
    return open_store(settings)


def hint_at_prefix(store: Store, settings: StoreSettings) -> str:
    """What to add to a message about no dumps: where else some lie, if none lies below the prefix; else nothing.

    Looks at few objects. A store that won't show what is beside the prefix is no failure.
    """
    prefix = settings.prefix
    try:
        own = list(islice(store.list(f"{prefix}/" if prefix else ""), _MOST_LOOKED_AT))
        if find_dumps(own, prefix):
            return ""
        found = find_prefixes(islice(store.list(""), _MOST_LOOKED_AT) if prefix else own)
    except StoreError:
        return ""
    flags = [f"--prefix {shlex.quote(printable(each))}" for each in found[:_MOST_PREFIXES]]
    return f", but some lie below another prefix: set PREFIX, or add {' or '.join(flags)}" if flags else ""


def load_dumps(store: Store, prefix: str, wanted: DumpFilter) -> list[Dump]:
    """The wanted dumps of a store, newest first. Raises StoreError."""
    folder = join_key(prefix, wanted.folder)
    objects = store.list(f"{folder}/" if folder else "")
    return [dump for dump in find_dumps(objects, prefix) if wanted.admits(dump)]


@click.command("list")
@selection_options
@click.option(
    "--since",
    type=Parsed("age or time", lambda text: parse_since(text, datetime.now(UTC))),
    help="Only dumps younger than this age (90m, 12h) or taken since this UTC time (2026-11-20T22:50).",
)
@click.option("--output", "-o", type=click.Choice(["table", "json"]), default="table", show_default=True)
@click.option("--all", "show_all", is_flag=True, help="Also containers that ended without a dump and without an OOM.")
@store_options
def command(
    *,
    store_settings: StoreSettings,
    namespace: str | None,
    pod: str | None,
    container: str | None,
    since: datetime | None,
    output: str,
    show_all: bool,
) -> None:
    """List the dumps in the bucket or directory, newest first; KEY is what `get` takes."""
    store = open_for_reading(store_settings)
    wanted = DumpFilter(namespace=namespace, pod=pod, container=container, since=since)
    found = load_dumps(store, store_settings.prefix, wanted)
    dumps = [dump for dump in found if show_all or dump.matters]
    if output == "json":
        click.echo(json.dumps([_document(dump) for dump in dumps], indent=2))
    elif dumps:
        click.echo("\n".join(_table(dumps, _width())))
    if not dumps:
        hidden = f"; {len(found)} ended in an ordinary way, --all shows them." if found else ""
        hint = hidden or hint_at_prefix(store, store_settings) or "."
        click.echo(f"No dumps in {printable(location(store_settings))} match{hint}", err=True)


def _document(dump: Dump) -> dict[str, object]:
    return {
        "key": dump.key,
        "dump_id": dump.name,
        "time": dump.id.at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "namespace": dump.namespace,
        "pod": dump.pod,
        "container": dump.id.container,
        "pid": dump.id.pid,
        "incident": {"id": dump.id.incident, "number": dump.id.number},
        "outcome": dump.outcome,
        "profiles": [asdict(profile) for profile in dump.profiles],
        "size_bytes": dump.size_bytes,
    }


def _row(dump: Dump) -> tuple[str, ...]:
    kinds = dict.fromkeys(profile.kind for profile in dump.profiles)
    return (
        f"{dump.id.at:%Y-%m-%d %H:%M:%S}",
        dump.namespace,
        dump.pod,
        dump.id.container,
        str(dump.id.pid),
        f"{dump.id.incident}-{dump.id.number}",
        dump.outcome or "-",
        ",".join(kinds) or "-",
        format_bytes(dump.size_bytes),
        printable(dump.key),
    )


def _width() -> int | None:
    """Columns of the terminal; None where the output goes elsewhere."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def _table(dumps: list[Dump], width: int | None) -> list[str]:
    """Lines of the table. Where a terminal is too narrow, each key goes below its dump: it is there to be copied."""
    rows = [_HEADER, *(_row(dump) for dump in dumps)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADER))]
    narrow = width is not None and sum(widths) + 2 * len(widths) - 2 > width
    lines = []
    for row in rows:
        cells = [text.ljust(size) for text, size in zip(row[:-1], widths, strict=False)]
        if narrow:
            lines += ["  ".join(cells).rstrip(), f"  {row[-1]}"]
        else:
            lines.append("  ".join([*cells, row[-1]]))
    return lines
