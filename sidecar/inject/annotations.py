"""Annotations on a workload or its pod template that win over the options of a call. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from sidecar.core.quantities import parse_percent
from sidecar.errors import ConfigError
from sidecar.inject.model import PREFIX, STATE, SWITCH, Options
from sidecar.inject.values import environment, gomemlimit_percent, image, user_id
from sidecar.option_types import bucket_name

_Parse = Callable[[str], object]


def _sidecar(text: str) -> bool:
    if text not in {"native", "ordinary"}:
        raise ValueError(f"must be native or ordinary (got {text!r})")
    return text == "native"


def _switch(text: str) -> bool:
    if text not in {"enabled", "disabled"}:
        raise ValueError(f"must be enabled or disabled (got {text!r})")
    return text == "enabled"


KEYS: dict[str, tuple[str, _Parse, str]] = {
    "bucket": ("bucket", bucket_name, "S3 bucket for the dumps"),
    "prefix": ("prefix", str, "key prefix in the bucket"),
    "cluster": ("cluster", str, "cluster name for the manifests"),
    "critical": ("critical_percent", parse_percent, "percentage of the memory limit at which it dumps"),
    "image": ("image", image, "the sidecar's image"),
    "sidecar": ("native_sidecar", _sidecar, "`native` or `ordinary`"),
    "gomemlimit": ("gomemlimit_percent", gomemlimit_percent, "percentage of each memory limit, or `off`"),
    "run-as-user": ("run_as_user", user_id, "the sidecar's user, where the spec doesn't tell the app's"),
    "run-as-group": ("run_as_group", user_id, "the sidecar's group"),
    "env": ("env", environment, "further variables of the sidecar, one `NAME=VALUE` a line"),
}
"""By the key's last part: the option it sets, its parser, what it means."""


def is_switched_off(annotations: Mapping[str, str]) -> bool:
    """Whether ``oom-heap-dumper/inject: disabled`` is said. Raises ConfigError for a value that makes no sense."""
    return SWITCH in annotations and not _parsed(SWITCH, _switch, annotations[SWITCH])


def with_annotations(options: Options, annotations: Mapping[str, str]) -> Options:
    """The options as annotations change them.

    Raises ConfigError for a value that makes no sense, and for a key of ours that doesn't exist.
    """
    changes: dict[str, object] = {}
    for key in sorted(annotations):
        if key in {STATE, SWITCH} or not key.startswith(PREFIX):
            continue
        known = KEYS.get(key.removeprefix(PREFIX))
        if known is None:
            raise ConfigError(f"annotation {key} is unknown: there are {', '.join(PREFIX + name for name in KEYS)}")
        changes[known[0]] = _parsed(key, known[1], annotations[key])
    if "env" in changes:
        changes["env"] = (*options.env, *environment(annotations[f"{PREFIX}env"]))  # further ones; the last wins
    return replace(options, **changes)  # type: ignore[arg-type]  # each parser gives its field's type


def _parsed(key: str, parse: _Parse, text: str) -> object:
    try:
        return parse(text)
    except ValueError as error:
        raise ConfigError(f"annotation {key}: {error}") from None
