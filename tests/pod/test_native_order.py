"""The order of a native sidecar's life: the kubelet starts it before the app, and ends it after the app has ended.

Podman has no such order of its own, so the containers are started and stopped one by one here, as the kubelet does.
"""

from __future__ import annotations

from tests.k8s.manifests import SIDECAR, deployments
from tests.pod.conftest import Play
from tests.pod.door import Door
from tests.pod.kube import with_limit
from tests.pod.running import DEADLINE_S

MIB = 1 << 20

# It stays above the threshold of a limit of 64 MiB and below the limit.
HOVER = {"LEAK_MODE": "steady", "LEAK_RATE": "40MiB/s", "LEAK_DELAY": "3s", "LEAK_MAX": "52MiB", "GOGC": "10"}


def test_there_before_the_app_and_after_it(play: Play, door: Door) -> None:
    """Alone it is healthy, and it sees the app from its first memory; what it has when the app is gone is stored."""
    door.shut()
    manifest = with_limit(deployments()["native-sidecar"], "app", "64Mi")
    pod = play(manifest, app=HOVER, sidecar={"UPLOAD_GRACE": "60s"}, start=False)
    pod.start_container(SIDECAR)
    pod.wait_for("started")
    assert "healthy" in pod.execute("oom-heap-dumper", "health")
    assert {event["event"] for event in pod.events()} == {"started"}

    pod.start_container("app")
    key = pod.wait_for("captured", container="app")["key"]
    assert door.held.wait(DEADLINE_S), pod.log()
    pod.stop_container("app")
    # So near its limit nobody can tell whether it was killed, if the cgroup goes first.
    assert pod.wait_for("container-ended", container="app")["ending"] in {"exited", "unknown"}
    assert not pod.stored()

    door.open()
    pod.stop_container(SIDECAR)
    assert pod.wait_for_exit(SIDECAR) == 0
    assert pod.wait_for("stopped")["files_left"] == 0
    assert key in pod.dumps()
    assert pod.documents("outcome-*.json")
    samples = pod.documents("manifest.json")[0]["samples"]
    first = dict(zip(samples["columns"], samples["rows"][0], strict=True))
    assert first["working_set_bytes"] < 16 * MIB
