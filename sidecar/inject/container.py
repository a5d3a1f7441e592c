"""The sidecar as Kubernetes gets it: every fact of its container and its volumes, with the reason. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from sidecar.core.quantities import parse_bytes
from sidecar.errors import ConfigError
from sidecar.inject.model import SIDECAR, Options
from sidecar.inject.thresholds import Thresholds
from sidecar.variables import check_variables

SPOOL = f"{SIDECAR}-spool"
DUMPS = f"{SIDECAR}-dumps"
VOLUMES = (SPOOL, DUMPS)
"""The names of the volumes that are ours."""

SHORTEST_GRACE_S = 30
"""What the pod's grace period should be at least: uploads may go on for UPLOAD_GRACE (20s) after SIGTERM."""

_FIELDS = {"POD_NAME": "metadata.name", "POD_NAMESPACE": "metadata.namespace", "NODE_NAME": "spec.nodeName"}

# Python takes a second to start on a busy node, hence the long timeout.
_LIVENESS = {
    "exec": {"command": [SIDECAR, "health"]},
    "initialDelaySeconds": 15,
    "periodSeconds": 30,
    "timeoutSeconds": 10,
}

# Measured by benchmarks/: about 30 MiB stay resident; the processes that upload a dump and make its profile live for
# seconds and add 51 and 45 MiB. No CPU limit: loading boto3 costs a quarter of a CPU second, which under 100m would
# take 3 s of the last seconds that a pod may have.
_RESOURCES = {"requests": {"cpu": "10m", "memory": "48Mi"}, "limits": {"memory": "128Mi"}}

# Whose variable says what a volume may hold, and what it is by default. The volume is larger by a quarter, as the
# kubelet evicts a pod whose volume is over its size. On the node's disk: a memory-backed volume would count against the
# sidecar's own limit.
_SIZES = {SPOOL: ("SPOOL_SIZE", "256Mi"), DUMPS: ("DUMP_DIR_SIZE", "512Mi")}
_MEBIBYTE = 1 << 20
_MOUNT_PATHS = {SPOOL: "/var/spool/oom-heap-dumper", DUMPS: "/var/lib/oom-heap-dumper"}


def volume_names(options: Options) -> tuple[str, ...]:
    """The volumes needed: the spool, and without a bucket one for the dumps, as the root file system is read-only."""
    return (SPOOL,) if options.bucket else (SPOOL, DUMPS)


def volume(name: str, options: Options) -> dict[str, object]:
    """An entry of ``volumes``: an emptyDir, which outlives restarts of containers and goes with the pod."""
    variable, default = _SIZES[name]
    size = dict(options.env).get(variable, default)
    try:
        held_bytes = parse_bytes(size)
    except ValueError:  # it refers to another variable
        held_bytes = parse_bytes(default)
    return {"name": name, "emptyDir": {"sizeLimit": f"{-(-held_bytes * 5 // 4 // _MEBIBYTE)}Mi"}}


def sidecar_container(
    options: Options,
    *,
    thresholds: Thresholds,
    limit_of: str | None,
    security: Mapping[str, object],
) -> dict[str, object]:
    """The sidecar's container. ``limit_of`` is the container whose memory limit MEMORY_LIMIT is to be, if any.

    Raises ConfigError for variables that the sidecar wouldn't start with.
    """
    container: dict[str, object] = {"name": SIDECAR, "image": options.image}
    if options.native_sidecar:
        container["restartPolicy"] = "Always"  # what makes an init container a sidecar
    return container | {
        "env": _environment(options, thresholds, limit_of),
        "livenessProbe": _LIVENESS,
        "resources": _RESOURCES,
        "securityContext": dict(security),
        "volumeMounts": [{"name": name, "mountPath": _MOUNT_PATHS[name]} for name in volume_names(options)],
    }


def _environment(options: Options, thresholds: Thresholds, limit_of: str | None) -> list[dict[str, object]]:
    """The variables. One may refer to those above it, as the kubelet resolves: of a prefix with the pod's name, say."""
    percents = {"CRITICAL": thresholds.critical_percent, "GUARD_BRAKE": thresholds.brake_percent}
    given = {
        **dict(options.env),
        "BUCKET": options.bucket or None,
        "PREFIX": options.prefix or None,
        "CLUSTER_NAME": options.cluster or None,
        **{name: f"{percent:g}" for name, percent in percents.items() if percent is not None},
    }
    values = {name: value for name, value in given.items() if value is not None}
    try:
        check_variables(values)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    entries: list[dict[str, object]] = [
        {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}
        for name, path in _FIELDS.items()
        if name not in values
    ]
    if limit_of is not None and "MEMORY_LIMIT" not in values:
        # Needed only where the app's cgroup can't be read.
        # The divisor is the default one; without it, tools that compare with the cluster see its "0" as a difference.
        source = {"containerName": limit_of, "divisor": "1", "resource": "limits.memory"}
        entries.append({"name": "MEMORY_LIMIT", "valueFrom": {"resourceFieldRef": source}})
    return entries + [{"name": name, "value": value} for name, value in values.items()]
