"""``oom-heap-dumper inject``: puts the sidecar into the pods of manifests."""

from __future__ import annotations

import click

from sidecar.inject.file_options import file_options
from sidecar.inject.files import Target, change_files
from sidecar.inject.flags import injection_options
from sidecar.inject.manifests import inject_text
from sidecar.inject.model import Options


@click.command("inject")
@injection_options
@file_options
def command(*, options: Options, names: tuple[str, ...], target: Target, is_quiet: bool) -> None:
    """Put the sidecar into every pod of the manifests in FILE..., or - for standard input, and print them.

    What isn't touched stays byte for byte. Deployments, StatefulSets, DaemonSets, Jobs, CronJobs, Pods, lists and any
    other kind with a pod template are changed; a report on standard error says what was done and why. Injecting again
    renews what an earlier call put there, and uninject takes it out.

    \b
      export OOM_HEAP_DUMPER_IMAGE=registry.example.com/oom-heap-dumper:0.1.0
      oom-heap-dumper inject --bucket my-dumps --diff app.yaml
      kubectl get deploy app -o yaml | oom-heap-dumper inject --bucket my-dumps - | kubectl apply -f -

    Annotations on the workload or its pod template win over the options: oom-heap-dumper/bucket, /prefix, /cluster,
    /critical, /image, /sidecar (native or ordinary), /gomemlimit, /run-as-user, /run-as-group, /env, and
    oom-heap-dumper/inject: disabled, which as a label does the same.
    """  # noqa: D301 -- click's mark for a paragraph that keeps its lines
    change_files(names, lambda text: inject_text(text, options), target, verb="injected", is_quiet=is_quiet)
