"""``oom-heap-dumper webhook``: serves the injection as a mutating admission webhook."""

from __future__ import annotations

import functools
import logging
from pathlib import Path

import click

from sidecar import __version__, logs
from sidecar.core.quantities import parse_duration_s
from sidecar.inject.flags import injection_options
from sidecar.inject.model import Options
from sidecar.option_types import Parsed
from sidecar.options import log_options
from sidecar.settings import LogSettings

_LONGEST_DRAIN_S = 60.0


def _drain_s(text: str) -> float:
    seconds = parse_duration_s(text)
    if seconds > _LONGEST_DRAIN_S:
        raise ValueError(f"must be 1m at most (got {text!r})")
    return seconds


_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command("webhook")
@click.option(
    "--tls-cert",
    envvar="WEBHOOK_TLS_CERT",
    show_envvar=True,
    required=True,
    type=_FILE,
    help="The server's certificate chain in PEM form, as in a mounted Secret; loaded anew when it changes.",
)
@click.option(
    "--tls-key",
    envvar="WEBHOOK_TLS_KEY",
    show_envvar=True,
    required=True,
    type=_FILE,
    help="Its private key in PEM form, without a password.",
)
@click.option(
    "--address",
    envvar="WEBHOOK_ADDRESS",
    show_envvar=True,
    default="",
    help="IP address to listen on; without one all of them.",
)
# Not WEBHOOK_PORT: Kubernetes sets that, to a URL, in pods beside a Service named webhook.
@click.option(
    "--port",
    envvar="WEBHOOK_LISTEN_PORT",
    show_envvar=True,
    type=click.IntRange(0, 65535),
    default=8443,
    show_default=True,
    help="Port to listen on; 0 takes a free one, which the log names.",
)
@click.option(
    "--drain",
    envvar="WEBHOOK_DRAIN",
    show_envvar=True,
    type=Parsed("duration", _drain_s),
    default="5s",
    show_default=True,
    help="How long to go on serving after SIGTERM, until nobody is sent here any more.",
)
@injection_options
@log_options
@click.pass_context
def command(
    context: click.Context,
    /,
    *,
    tls_cert: Path,
    tls_key: Path,
    address: str,
    port: int,
    drain: float,
    options: Options,
    log_settings: LogSettings,
) -> None:
    """Serve `inject` as a mutating admission webhook: AdmissionReview by POST to /mutate, over TLS.

    The other options say how to inject, as they do for `inject`; annotations of a pod win over them. Every pod is
    allowed, whatever happens. GET /healthz and /readyz are for probes, /metrics counts reviews by outcome. Runs until
    SIGTERM or Ctrl-C. The manifests are in k8s/webhook/.
    """
    if context.get_parameter_source("image") == click.core.ParameterSource.DEFAULT:
        raise click.UsageError(
            "--image (OOM_HEAP_DUMPER_IMAGE) is missing: name the sidecar's image in a registry that the cluster can "
            "pull from, as a pod whose image isn't found doesn't start"
        )
    logs.start(log_settings)
    from sidecar.webhook.app import App
    from sidecar.webhook.certificate import Certificate
    from sidecar.webhook.server import listen, serve

    certificate = Certificate(tls_cert, tls_key)
    listener = listen(address, port)
    announce = functools.partial(_report_start, options, listener.getsockname()[1])
    serve(App(options), certificate, listener, drain_s=drain, announce=announce)


def _report_start(options: Options, port: int) -> None:
    logs.event(
        logging.INFO,
        "started",
        f"oom-heap-dumper {__version__}: webhook on port {port}, injects {options.image}",
        version=__version__,
        port=port,
        image=options.image,
        bucket=options.bucket,
    )
