"""The options of injections on a command line; the admission webhook has the same."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import click

from sidecar.core.quantities import parse_percent
from sidecar.inject.model import Options
from sidecar.inject.values import gomemlimit_percent, image, user_id, variable
from sidecar.option_types import Parsed, bucket_name

Command = Callable[..., None]

_DEFAULTS = Options()

_OPTIONS = [
    click.option(
        "--image",
        envvar="OOM_HEAP_DUMPER_IMAGE",
        type=Parsed("image", image),
        default=_DEFAULTS.image,
        show_default=True,
        show_envvar=True,
        help="The sidecar's image, in a registry that the cluster can pull from.",
    ),
    click.option(
        "--bucket",
        type=Parsed("name", bucket_name),
        help="S3 bucket for the dumps; without one they stay in the pod and go with it.",
    ),
    click.option("--prefix", help="Key prefix in the bucket."),
    click.option("--cluster", help="Cluster name for the dumps' manifests."),
    click.option(
        "--critical",
        "critical_percent",
        type=Parsed("percent", parse_percent),
        help="Dump at this percentage of the memory limit.  [default: between GOMEMLIMIT and the limit, else 80]",
    ),
    click.option(
        "--gomemlimit",
        "gomemlimit_percent",
        type=Parsed("percent", gomemlimit_percent),
        default="90%",
        show_default=True,
        help="Set GOMEMLIMIT to this part of each container's memory limit, where it has none; off sets none.",
    ),
    click.option(
        "--native/--ordinary",
        "native_sidecar",
        default=_DEFAULTS.native_sidecar,
        show_default=True,
        help="As a native sidecar (Kubernetes 1.29 or newer), or as one more container.",
    ),
    click.option(
        "--run-as-user",
        type=Parsed("number", user_id),
        help="The sidecar's user, which should be the app's.  [default: what the pod's spec says of the app]",
    ),
    click.option("--run-as-group", type=Parsed("number", user_id), help="Its group, likewise."),
    click.option(
        "--env",
        type=Parsed("name=value", variable),
        multiple=True,
        help="A further variable of the sidecar (see watch --help), such as AWS_REGION=eu-central-1; repeatable.",
    ),
]


def injection_options(command: Command) -> Command:
    """Give a command the options of injections; it receives ``options``."""

    @functools.wraps(command)
    def wrapper(**values: Any) -> None:  # noqa: ANN401 -- click passes every option by name
        taken = {name: values.pop(name) for name in Options.__dataclass_fields__ if name in values}
        command(options=Options(**taken), **values)

    for option in reversed(_OPTIONS):
        wrapper = option(wrapper)
    return wrapper
