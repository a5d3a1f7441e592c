"""``oom-heap-dumper get``: fetch a dump, check it, say what its figures tell and how to open it."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import click

from sidecar.commands.list_dumps import hint_at_prefix, load_dumps, open_for_reading, selection_options
from sidecar.core.keys import MANIFEST_NAME, join_key, parse_dump_id
from sidecar.core.listing import Dump, DumpFilter, find_dumps
from sidecar.core.manifest import pprof_commands
from sidecar.core.printable import printable
from sidecar.core.verdict import line_of
from sidecar.download import Progress, fetch
from sidecar.errors import NotFoundError, StoreError
from sidecar.options import store_options
from sidecar.stores import Store, StoreSettings, location

_SCHEME = "s3://"
_LONGEST_VERDICT = 2000  # characters; those of our own are below a third of it, but anybody may have written this one


@click.command("get")
@click.argument("key", required=False)
@selection_options
@click.option("--latest", is_flag=True, help="The newest dump of what --namespace, --pod and --container name.")
@click.option(
    "--dir",
    "directory",
    type=click.Path(file_okay=False, path_type=Path),
    default=".",
    show_default=True,
    help="Directory to put the dump's folder in.",
)
@store_options
def command(
    *,
    store_settings: StoreSettings,
    key: str | None,
    namespace: str | None,
    pod: str | None,
    container: str | None,
    directory: Path,
    latest: bool,
) -> None:
    """Fetch the dump KEY (as `list` prints it, a dump id alone, or s3://BUCKET/KEY), or the newest with --latest."""
    wanted = DumpFilter(namespace=namespace, pod=pod, container=container)
    if latest == (key is not None):
        raise click.UsageError("give either a KEY, as the list command prints it, or --latest with --pod")
    if key is not None and wanted != DumpFilter():
        raise click.UsageError("a KEY says it all: leave out --namespace, --pod and --container")
    if key is not None and key.startswith(_SCHEME):
        bucket, _, key = key.removeprefix(_SCHEME).partition("/")
        store_settings = replace(store_settings, bucket=bucket)
    store = open_for_reading(store_settings)
    found = _latest(store, store_settings, wanted) if key is None else _find(store, store_settings, key)
    with _progress(found) as progress:
        downloaded = fetch(store, found, directory, progress)
    verdict = _verdict(downloaded.folder / MANIFEST_NAME)
    if verdict is not None:
        click.echo(verdict, err=True)
    for warning in downloaded.warnings:
        click.echo(f"Warning: {warning}", err=True)
    click.echo(f"{found.name} is in {downloaded.folder}", err=True)
    for line in pprof_commands(found.profiles, str(downloaded.folder)):
        click.echo(line)


def _latest(store: Store, settings: StoreSettings, wanted: DumpFilter) -> Dump:
    for dump in load_dumps(store, settings.prefix, wanted):
        if dump.profiles:
            return dump
    hint = hint_at_prefix(store, settings)
    raise NotFoundError(f"no dump in {printable(location(settings))} matches{hint}")


def _find(store: Store, settings: StoreSettings, key: str) -> Dump:
    """The dump of a key, with or without the store's prefix; the key of a file in it is as good."""
    prefix = settings.prefix
    parts = key.strip("/").split("/")
    if len(parts) > 1 and parse_dump_id(parts[-1]) is None:
        parts.pop()
    if parse_dump_id(parts[-1]) is None:
        raise click.BadParameter(f"{printable(key)} is no dump's key: take one from the list command", param_hint="KEY")
    if len(parts) == 1:
        matches = [dump for dump in load_dumps(store, prefix, DumpFilter()) if dump.name == parts[0]]
    else:
        matches = _by_key(store, prefix, "/".join(parts))
    if not matches:
        hint = hint_at_prefix(store, settings) if len(parts) <= 3 else ""  # a longer key has its prefix in it
        remedy = hint or ": the list command shows what there is"
        raise NotFoundError(f"no dump {printable(key)} in {printable(location(settings))}{remedy}")
    if len(matches) > 1:
        raise NotFoundError(f"{parts[0]} is there {len(matches)} times: give one whole key from the list command")
    return matches[0]


def _by_key(store: Store, prefix: str, key: str) -> list[Dump]:
    """The dump of a key that has the prefix, or hasn't; below the prefix first, as no more may be readable."""
    if not prefix:
        return _in_folder(store, key)
    below = join_key(prefix, key)
    if key.startswith(f"{prefix}/"):
        return _in_folder(store, key) or _in_folder(store, below)
    if found := _in_folder(store, below):
        return found
    try:
        return _in_folder(store, key)
    except StoreError as error:
        if error.transient:
            raise
        return []


def _in_folder(store: Store, folder: str) -> list[Dump]:
    prefix = "/".join(folder.split("/")[:-3])
    return find_dumps(store.list(f"{folder}/"), prefix)


def _verdict(manifest: Path) -> str | None:
    """The line that says why memory was at the limit, if there is a manifest that has one."""
    try:
        line = line_of(json.loads(manifest.read_bytes()))
    except (OSError, ValueError, RecursionError):
        return None
    return line and printable(line[:_LONGEST_VERDICT])


@contextlib.contextmanager
def _progress(dump: Dump) -> Iterator[Progress]:
    """A bar on the terminal; nothing where stderr goes elsewhere."""
    if sys.stderr is None or not sys.stderr.isatty():
        yield lambda _: None
        return
    with click.progressbar(length=dump.size_bytes, label=dump.name, file=sys.stderr) as bar:
        yield bar.update
