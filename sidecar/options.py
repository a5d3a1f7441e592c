"""Every option of the command line, declared once: flag, environment variable, type, default, help.

The decorators at the end give a command its options and hand it one settings object in their place.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import click

from sidecar import option_types
from sidecar.configure import take_settings, take_store_settings
from sidecar.core import quantities
from sidecar.guard_options import GUARD_OPTIONS, OOM_GROUP_OPTIONS
from sidecar.option import Command, Decorator
from sidecar.option import option as _option
from sidecar.settings import PROFILE_KINDS, LogFormat, LogSettings

_TEXT = click.STRING
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
# Whether it can be used is found out by whoever needs it: without a bucket nobody needs the spool's neighbour.
_DIRECTORY = click.Path(file_okay=False, readable=False, path_type=Path)

_STORE_OPTIONS: list[Decorator] = [
    _option(
        "--bucket",
        "BUCKET",
        option_types.Parsed("name", option_types.bucket_name),
        None,
        "S3 bucket for the dumps; without one they stay in --dump-dir.",
    ),
    _option("--prefix", "PREFIX", _TEXT, "", "Key prefix in the bucket or directory."),
    _option(
        "--dump-dir",
        "DUMP_DIR",
        _DIRECTORY,
        "/var/lib/oom-heap-dumper",
        "Directory for the dumps when there is no bucket.",
    ),
    _option(
        "--dump-dir-size",
        "DUMP_DIR_SIZE",
        option_types.Parsed("size", option_types.directory_bytes),
        "512Mi",
        "Most that --dump-dir may hold; the first and newest dumps of each incident are kept longest.",
    ),
    _option(
        "--s3-sse",
        "S3_SSE",
        click.Choice(["AES256", "aws:kms", "aws:kms:dsse"]),
        None,
        "Server-side encryption to ask S3 for.",
    ),
    _option("--s3-kms-key-id", "S3_KMS_KEY_ID", _TEXT, None, "KMS key for --s3-sse aws:kms."),
    _option("--s3-storage-class", "S3_STORAGE_CLASS", _TEXT, None, "S3 storage class, such as STANDARD_IA."),
    click.option(
        "--s3-path-style",
        envvar="S3_PATH_STYLE",
        is_flag=True,
        show_envvar=True,
        help="Address AWS buckets in the path; custom endpoints are addressed so anyway.",
    ),
]

_LOG_OPTIONS: list[Decorator] = [
    _option(
        "--log-format",
        "LOG_FORMAT",
        click.Choice(["auto", "human", "json"]),
        "auto",
        "auto is human on a terminal and JSON elsewhere.",
    ),
    _option(
        "--log-level",
        "LOG_LEVEL",
        click.Choice(["debug", "info", "warning", "error"], case_sensitive=False),
        "info",
        "Least level that is logged.",
    ),
]

_PPROF_OPTIONS: list[Decorator] = [
    _option(
        "--pprof-ports",
        "PPROF_PORTS",
        option_types.Parsed("ports", option_types.ports),
        "",
        "Ask only these ports; without them every listening port of a Go process.",
    ),
    _option(
        "--pprof-path",
        "PPROF_PATH",
        option_types.Parsed("path", option_types.url_path),
        "/debug/pprof",
        "Path below which the app serves net/http/pprof.",
    ),
    _option(
        "--pprof-headers",
        "PPROF_HEADERS",
        option_types.Parsed("headers", option_types.headers),
        "",
        "Headers for pprof requests, one 'Name: value' a line; keep tokens in the variable, not the flag.",
    ),
    _option(
        "--pprof-scheme",
        "PPROF_SCHEME",
        click.Choice(["auto", "http", "https"]),
        "auto",
        "auto asks in plain HTTP first, then with TLS.",
    ),
    _option(
        "--pprof-ca-file",
        "PPROF_CA_FILE",
        _FILE,
        None,
        "CA to check the app's certificate against; without it none is checked.",
    ),
    _option(
        "--profiles",
        "PROFILES",
        option_types.Parsed("kinds", option_types.profile_kinds),
        ",".join(PROFILE_KINDS),
        "Which profiles to take, heap among them, in whatever order; heap-newest is read from the program's memory.",
    ),
]

_TARGET_OPTIONS: list[Decorator] = [
    _option("--cluster", "CLUSTER_NAME", _TEXT, None, "Cluster name for the manifests."),
    _option(
        "--namespace",
        "POD_NAMESPACE",
        _TEXT,
        None,
        "Namespace of the pod (downward API); else the service account's.",
    ),
    _option("--pod", "POD_NAME", _TEXT, None, "Name of the pod (downward API); else the host name."),
    _option("--node", "NODE_NAME", _TEXT, None, "Name of the node (downward API)."),
    _option(
        "--container-name",
        "CONTAINER_NAME",
        _TEXT,
        None,
        "Name of the app's container, where there is one and the kernel doesn't tell.",
    ),
    _option("--image", "CONTAINER_IMAGE", _TEXT, None, "Image of the app's container, for the manifests."),
    _option(
        "--memory-limit",
        "MEMORY_LIMIT",
        option_types.Parsed("size", option_types.limit_bytes),
        None,
        "Limit to assume where the cgroup has none.",
    ),
    click.option(
        "--pid",
        "pids",
        type=click.IntRange(min=1),
        multiple=True,
        help="Watch this process instead of the pod's containers (repeatable).",
    ),
]

_SPOOL_OPTIONS: list[Decorator] = [
    _option(
        "--spool-dir",
        "SPOOL_DIR",
        _DIRECTORY,
        "/var/spool/oom-heap-dumper",
        "Directory that holds each dump until the store has it.",
    ),
    _option(
        "--spool-size",
        "SPOOL_SIZE",
        option_types.Parsed("size", option_types.directory_bytes),
        "256Mi",
        "Most that --spool-dir may hold.",
    ),
]

_WATCH_OPTIONS: list[Decorator] = [
    _option(
        "--critical",
        ["CRITICAL", "MEMORY_CRITICAL_PERCENTAGE"],
        option_types.Parsed("percent", quantities.parse_percent),
        "80",
        "Dump at this percentage of the memory limit.",
    ),
    _option(
        "--watch-time",
        "WATCH_TIME",
        option_types.Parsed("duration", option_types.interval_s),
        "100ms",
        "Sampling interval; near the limit it looks more often.",
    ),
    _option(
        "--cpu-budget",
        "CPU_BUDGET",
        option_types.Parsed("percent", quantities.parse_percent),
        "2",
        "Percentage of a core, averaged over a minute, that looking more often near the limit may take.",
    ),
    _option(
        "--cooldown",
        "COOLDOWN",
        option_types.Parsed("duration", option_types.positive_duration_s),
        "30s",
        "Least time between dumps of one process.",
    ),
    _option(
        "--metric",
        "METRIC",
        click.Choice(["working-set", "usage"]),
        "working-set",
        "What is held against the limit; usage counts idle page cache too.",
    ),
    _option(
        "--max-dumps-per-hour",
        "MAX_DUMPS_PER_HOUR",
        click.IntRange(min=1),
        20,
        "Cap on the dumps of one container in any hour; the last moment before a kill comes on top.",
    ),
    _option(
        "--upload-grace",
        "UPLOAD_GRACE",
        option_types.Parsed("duration", option_types.positive_duration_s),
        "20s",
        "How long uploads may go on after SIGTERM.",
    ),
]


def _apply(options: list[Decorator], command: Command) -> Command:
    for option in reversed(options):
        command = option(command)
    return command


def store_options(command: Command) -> Command:
    """Give a command the options of the store; it receives ``store_settings``."""

    @functools.wraps(command)
    def wrapper(**values: Any) -> None:  # noqa: ANN401 -- click passes every option by name
        store_settings = take_store_settings(values)
        command(store_settings=store_settings, **values)

    return _apply(_STORE_OPTIONS, wrapper)


def watch_options(command: Command) -> Command:
    """Give a command every option of the main job; it receives ``settings``."""

    @functools.wraps(command)
    def wrapper(**values: Any) -> None:  # noqa: ANN401 -- click passes every option by name
        settings = take_settings(values)
        command(settings=settings, **values)

    options = [
        *_WATCH_OPTIONS,
        *_STORE_OPTIONS,
        *_TARGET_OPTIONS,
        *_PPROF_OPTIONS,
        *_SPOOL_OPTIONS,
        *GUARD_OPTIONS,
        *OOM_GROUP_OPTIONS,
        *_LOG_OPTIONS,
    ]
    return _apply(options, wrapper)


def spool_dir_option(command: Command) -> Command:
    """Give a command the option that says where the watch keeps its spool."""
    return _SPOOL_OPTIONS[0](command)


def log_options(command: Command) -> Command:
    """Give a command the options of the log; it receives ``log_settings``."""

    @functools.wraps(command)
    def wrapper(*, log_format: LogFormat, log_level: str, **values: Any) -> None:  # noqa: ANN401 -- as click passes them
        command(log_settings=LogSettings(format=log_format, level=log_level), **values)

    return _apply(_LOG_OPTIONS, wrapper)
