"""Turns the values of the options into settings, and refuses those that don't go together."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from sidecar.core.guard import GuardPolicy
from sidecar.core.model import Identity
from sidecar.core.trigger import TriggerPolicy
from sidecar.settings import (
    GuardSettings,
    LogSettings,
    OomGroupSettings,
    PprofSettings,
    Settings,
    SpoolSettings,
    TargetSettings,
)
from sidecar.stores import StoreSettings

_SERVICE_ACCOUNT_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


def check_together(values: Mapping[str, Any]) -> None:
    """Raise `click.UsageError` for values that don't go together. Rules about what isn't among them are passed over."""
    given = values.keys()
    has_key = given >= {"s3_sse", "s3_kms_key_id"} and values["s3_kms_key_id"]
    if has_key and values["s3_sse"] not in ("aws:kms", "aws:kms:dsse"):
        raise click.UsageError("S3_KMS_KEY_ID is set but S3_SSE isn't: set S3_SSE=aws:kms beside it")
    may_brake = given >= {"guard", "guard_brake", "critical"} and values["guard"] in ("brake", "auto")
    if may_brake and values["guard_brake"] <= values["critical"]:
        raise click.UsageError(
            f"GUARD_BRAKE {values['guard_brake']:g} must be above CRITICAL {values['critical']:g}: "
            "the brake is for what the dump at the threshold was too slow for"
        )
    if given >= {"bucket", "dump_dir", "spool_dir"} and not values["bucket"]:
        dumps, spool = values["dump_dir"], values["spool_dir"]
        if dumps.is_relative_to(spool) or spool.is_relative_to(dumps):
            raise click.UsageError(
                f"DUMP_DIR {dumps} and SPOOL_DIR {spool} must lie apart, as each is held to a size of its own: two "
                "folders of one volume will do"
            )
    names_containers = given >= {"oom_group", "oom_group_containers"} and values["oom_group_containers"]
    if names_containers and values["oom_group"] != "process":
        raise click.UsageError("OOM_GROUP_CONTAINERS is set but OOM_GROUP isn't: set OOM_GROUP=process beside it")


def take_store_settings(values: dict[str, Any]) -> StoreSettings:
    """Take the options of the store out of ``values``. Raises `click.UsageError`."""
    check_together(values)
    return _store_settings(values)


def _store_settings(values: dict[str, Any]) -> StoreSettings:
    return StoreSettings(
        bucket=values.pop("bucket"),
        prefix=values.pop("prefix").strip("/"),
        directory=values.pop("dump_dir"),
        directory_size_bytes=values.pop("dump_dir_size"),
        sse=values.pop("s3_sse"),
        kms_key=values.pop("s3_kms_key_id"),
        storage_class=values.pop("s3_storage_class"),
        path_style=values.pop("s3_path_style"),
    )


def _namespace() -> str:
    try:
        return _SERVICE_ACCOUNT_NAMESPACE.read_text().strip() or "default"
    except OSError:
        return "default"


def _authority(path: Path | None) -> Path | None:
    """The file, if it holds certificates: only here can it be said before the app is asked with TLS."""
    if path is None:
        return None
    import ssl

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except OSError as error:  # an SSLError is one, too
        reason = error.reason if isinstance(error, ssl.SSLError) else error.strerror
        raise click.UsageError(
            f"PPROF_CA_FILE {path} can't be used ({reason}): give a readable file of certificates in PEM form"
        ) from error
    return path


def take_settings(values: dict[str, Any]) -> Settings:
    """Take every option of the main job out of ``values``. Raises `click.UsageError`."""
    if values["pids"] and not values["memory_limit"]:
        raise click.UsageError("--pid needs a limit to hold the process against: add --memory-limit, such as 512Mi")
    check_together(values)
    return Settings(
        interval_s=values.pop("watch_time"),
        cpu_budget_share=values.pop("cpu_budget") / 100,
        trigger=TriggerPolicy(
            critical_ratio=values.pop("critical") / 100,
            cooldown_s=values.pop("cooldown"),
            max_per_hour=values.pop("max_dumps_per_hour"),
            metric=values.pop("metric"),
        ),
        identity=Identity(
            cluster=values.pop("cluster"),
            namespace=values.pop("namespace") or _namespace(),
            pod=values.pop("pod") or socket.gethostname(),
            node=values.pop("node"),
            image=values.pop("image"),
        ),
        targets=TargetSettings(
            pids=values.pop("pids"),
            limit_bytes=values.pop("memory_limit"),
            container_name=values.pop("container_name"),
        ),
        pprof=PprofSettings(
            ports=values.pop("pprof_ports"),
            path=values.pop("pprof_path"),
            headers=values.pop("pprof_headers"),
            scheme=values.pop("pprof_scheme"),
            ca_file=_authority(values.pop("pprof_ca_file")),
            profiles=values.pop("profiles"),
        ),
        spool=SpoolSettings(directory=values.pop("spool_dir"), size_bytes=values.pop("spool_size")),
        store=_store_settings(values),
        guard=GuardSettings(
            policy=GuardPolicy(
                mode=values.pop("guard"),
                brake_ratio=values.pop("guard_brake") / 100,
                raise_bytes=values.pop("guard_raise"),
                hold_s=values.pop("guard_hold"),
            ),
            cgroups=values.pop("guard_cgroups"),
        ),
        oom_group=OomGroupSettings(mode=values.pop("oom_group"), containers=values.pop("oom_group_containers")),
        upload_grace_s=values.pop("upload_grace"),
        log=LogSettings(format=values.pop("log_format"), level=values.pop("log_level")),
    )
