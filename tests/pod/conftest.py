"""The project's images, a store that checks signatures, and pods of the manifests, all on this machine."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import astuple, dataclass
from pathlib import Path

import pytest

from localpod import images
from localpod.podman import Podman, unavailable
from localpod.toolchain import DEFAULT_CACHE, Toolchain
from tests.k8s.manifests import K8S, SIDECAR, Manifest, load, of_kind
from tests.pod.door import Door
from tests.pod.entrance import Entrance
from tests.pod.kube import Ground, for_podman, with_environment
from tests.pod.running import RunningPod
from tests.s3_servers import S3Endpoint
from tests.s3_servers.swift import SwiftServer, swift_or_skip

LOOPBACK = "127.0.0.1"

# The first test pays for what is built and installed once.
_FIRST_WITHIN_S = 900


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give each pod test the time that building the images may take."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.timeout(_FIRST_WITHIN_S))


@dataclass(frozen=True, slots=True, kw_only=True)
class Images:
    """The names of the images that the pods are made of."""

    sidecar: str
    example: str
    program: str


@pytest.fixture(scope="session")
def podman() -> Podman:
    """A podman with a state of its own in the repository's cache; the test is skipped where there is none."""
    reason = unavailable()
    if reason is not None:
        pytest.skip(f"no pods by podman here: {reason}")
    return Podman(DEFAULT_CACHE / "podman")


@pytest.fixture(scope="session")
def built(podman: Podman, go: Toolchain) -> Images:
    """The project's two images and the test program's, built once: here, unless by a machine below this one."""
    if not podman.has_foreign_images:
        return build_images(podman, go)
    there = Images(sidecar=images.SIDECAR, example=images.EXAMPLE, program="localhost/program:test")
    missing = [name for name in astuple(there) if not podman.has_image(name)]
    if missing:
        pytest.skip(f"no image {missing[0]}: python -m tests.programs builds it on the machine below this one")
    return there


def build_images(podman: Podman, go: Toolchain) -> Images:
    """Build what the pods are made of, as far as it isn't there as it would be built now."""
    program = go.build(Path(__file__).with_name("program"))
    return Images(
        sidecar=images.build_sidecar(podman),
        example=images.build_example(podman, go),
        program=images.from_scratch(podman, program, "program"),
    )


@pytest.fixture(scope="session")
def swift(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SwiftServer]:
    """A real S3 that checks signatures, outside of the pods."""
    with swift_or_skip(tmp_path_factory.mktemp("swift")) as server:
        yield server


@pytest.fixture(scope="session")
def store(swift: SwiftServer) -> S3Endpoint:
    """The store by plain HTTP."""
    return swift.http


@pytest.fixture
def door(podman: Podman, store: S3Endpoint) -> Iterator[Door]:
    """The pods' way to the store."""
    address = podman.gateway() if podman.has_bridges else LOOPBACK
    with Door(address, int(store.url.rpartition(":")[2])) as running:
        yield running


Play = Callable[..., RunningPod]


@pytest.fixture
def play(podman: Podman, built: Images, store: S3Endpoint, door: Door, tmp_path: Path) -> Iterator[Play]:
    """Runs the pod of a Deployment; without one that of k8s/deployment.yaml.

    ``app`` are variables of the container ``app``, ``sidecar`` those of the sidecar; ``images`` are those of further
    containers, or in place of the project's own. Without ``kubelet`` there are no termination logs. An ``inner`` door
    is there before any container runs, at the door's own address, be it loopback. Without ``start`` none runs yet.
    """
    pods = []
    entrances = contextlib.ExitStack()

    def make(
        deployment: Manifest | None = None,
        *,
        app: Mapping[str, str] | None = None,
        sidecar: Mapping[str, str] | None = None,
        images: Mapping[str, str] | None = None,
        kubelet: bool = True,
        inner: Door | None = None,
        start: bool = True,
    ) -> RunningPod:
        name = f"pod-{secrets.token_hex(3)}"
        ground = Ground(
            images={"app": built.example, SIDECAR: built.sidecar, **(images or {})},
            kubelet=tmp_path / "kubelet" if kubelet else None,
        )
        manifest = of_kind(load(K8S / "deployment.yaml"), "Deployment") if deployment is None else deployment
        settings = store.environment | {"AWS_ENDPOINT_URL_S3": door.url, "BUCKET": store.bucket, "PREFIX": name}
        manifest = with_environment(manifest, SIDECAR, settings | dict(sidecar or {}))
        if app is not None:
            manifest = with_environment(manifest, "app", app)
        for container in ground.images:
            log = ground.termination_log(name, container)
            if log is not None:
                log.parent.mkdir(parents=True)
                log.touch()
        pod = RunningPod(name=name, podman=podman, store=store)
        pods.append(pod)
        pid = pod.create(for_podman(manifest, ground, name), tmp_path)
        for each in ([] if podman.has_bridges else [door]) + ([inner] if inner is not None else []):
            entrances.enter_context(Entrance(pid, each))
        if start:
            pod.start()
        return pod

    try:
        with entrances:
            yield make
    finally:
        for pod in pods:
            pod.remove()
