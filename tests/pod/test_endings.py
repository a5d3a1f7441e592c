"""The sidecar's own end, at bad moments: whatever was captured is in the store afterwards."""

from __future__ import annotations

import signal

import pytest

from tests.k8s.manifests import K8S, SIDECAR, Manifest, load, of_kind
from tests.pod.conftest import Images, Play
from tests.pod.door import Door
from tests.pod.kube import with_limit
from tests.pod.running import DEADLINE_S, RunningPod

# It stays above the threshold of a limit of 64 MiB and below the limit.
HOVER = {"LEAK_MODE": "steady", "LEAK_RATE": "40MiB/s", "LEAK_DELAY": "3s", "LEAK_MAX": "52MiB", "GOGC": "10"}


@pytest.fixture
def deployment() -> Manifest:
    """k8s/deployment.yaml with a smaller app, so that it is full sooner."""
    return with_limit(of_kind(load(K8S / "deployment.yaml"), "Deployment"), "app", "64Mi")


def captured_keys(pod: RunningPod) -> set[str]:
    """Where the dumps of the sidecar's first run, as its log tells, belong in the store."""
    events = pod.events()
    starts = [index for index, event in enumerate(events) if event["event"] == "started"]
    first_run = events[: starts[1]] if len(starts) > 1 else events
    return {event["key"] for event in first_run if event["event"] == "captured"}


def test_a_hanging_store_and_sigterm_lose_nothing(play: Play, deployment: Manifest, door: Door) -> None:
    """SIGTERM while an upload hangs: the spool on the emptyDir outlives the sidecar, and its next run uploads it."""
    door.shut()
    pod = play(deployment, app=HOVER, sidecar={"UPLOAD_GRACE": "1s"})
    pod.wait_for("captured", container="app")
    assert door.held.wait(DEADLINE_S), pod.log()
    pod.signal(signal.SIGTERM)
    pod.wait_for_exit(SIDECAR)
    before = captured_keys(pod)
    assert not pod.stored()
    door.open()
    pod.wait_for("started", 2)
    pod.wait_for_dumps(before)


@pytest.mark.parametrize("moment", ["watching", "captured", "stored"])
def test_sigterm_with_the_store_at_hand_loses_nothing(play: Play, deployment: Manifest, moment: str) -> None:
    """SIGTERM before, during and after the upload: what is in the spool leaves within the grace, exit code 0."""
    pod = play(deployment, app=HOVER, sidecar={"UPLOAD_GRACE": "60s"})
    pod.wait_for(moment)
    pod.signal(signal.SIGTERM)
    assert pod.wait_for_exit(SIDECAR) == 0
    assert pod.wait_for("stopped")["files_left"] == 0
    assert captured_keys(pod) <= pod.dumps()


def test_sigterm_while_the_app_keeps_a_capture_waiting(play: Play, deployment: Manifest, built: Images) -> None:
    """The app has been asked for a profile and doesn't answer: the end isn't kept up, and what there is is stored."""
    app = {"ADDR": ":8080", "PREFIX": "/debug/pprof", "SLOW": "300", "MOST": "52", "GOGC": "10"}
    pod = play(deployment, app=app, images={"app": built.program}, sidecar={"UPLOAD_GRACE": "60s"})
    pod.wait_for("captured", container="app")
    pod.signal(signal.SIGTERM)
    assert pod.wait_for_exit(SIDECAR) == 0
    assert captured_keys(pod) <= pod.dumps()
    names = {key.rpartition("/")[2] for key in pod.stored("heap-*")}
    assert names in ({"heap-newest.pb.gz"}, {"heap-newest.raw"}), names  # raw: there was no time to encode it


def test_sigkill_and_the_spool_outlives_it(play: Play, deployment: Manifest, door: Door) -> None:
    """The sidecar itself is killed with dumps in its spool: restarted by its policy, it uploads every one."""
    door.shut()
    pod = play(deployment, app=HOVER)
    pod.wait_for("captured", container="app")
    before = captured_keys(pod)
    pod.signal(signal.SIGKILL)
    assert pod.wait_for_exit(SIDECAR) == 137
    door.open()
    pod.wait_for("started", 2)
    pod.wait_for_dumps(before)
