"""A store behind TLS whose certificate no public authority has signed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.k8s.manifests import K8S, SIDECAR, Manifest, load, of_kind
from tests.pod.conftest import LOOPBACK, Play
from tests.pod.door import Door
from tests.pod.kube import with_file, with_limit
from tests.s3_servers.swift import SwiftServer

# It stays above the threshold of a limit of 64 MiB and below the limit.
HOVER = {"LEAK_MODE": "steady", "LEAK_RATE": "40MiB/s", "LEAK_DELAY": "3s", "LEAK_MAX": "52MiB", "GOGC": "10"}
AUTHORITY = "/etc/store/authority.pem"


@pytest.fixture
def tls_door(swift: SwiftServer) -> Iterator[Door]:
    """The way to the store's TLS port, by the address that its certificate is for."""
    with Door(LOOPBACK, int(swift.https.url.rpartition(":")[2])) as door:
        yield door


def test_the_dump_arrives_over_tls_with_an_authority_from_a_file(
    play: Play, swift: SwiftServer, tls_door: Door
) -> None:
    """Refused, with the variable that mends it, where nobody told the authority; with AWS_CA_BUNDLE it is stored."""
    deployment: Manifest = with_limit(of_kind(load(K8S / "deployment.yaml"), "Deployment"), "app", "64Mi")
    url = {"AWS_ENDPOINT_URL_S3": tls_door.url.replace("http:", "https:")}

    strange = play(deployment, app=HOVER, sidecar=url, inner=tls_door)
    assert "AWS_CA_BUNDLE" in strange.wait_for("upload-failed")["message"]
    assert not strange.stored()

    assert swift.https.ca_file is not None
    known = with_file(deployment, SIDECAR, swift.https.ca_file, AUTHORITY)
    pod = play(known, app=HOVER, sidecar=url | {"AWS_CA_BUNDLE": AUTHORITY}, inner=tls_door)
    assert pod.wait_for_document("manifest.json")["container"] == "app"
    assert pod.stored("heap-newest.pb.gz")
    assert not pod.events("upload-failed")
