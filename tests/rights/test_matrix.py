"""Each row of the README's table of rights, tried in a real pod with real users and capabilities."""

from __future__ import annotations

from typing import Any

import pytest

from tests.e2e.sidecar_run import manifest_of
from tests.rights.conftest import ASSUMED_LIMIT_BYTES, LIMIT_BYTES, MIB, Ground
from tests.rights.matrix import (
    CASES,
    ENVIRONMENT,
    GUARD,
    HEAP,
    HTTP,
    MEMORY,
    NO,
    PARTLY,
    PORTS,
    PROGRAM,
    YES,
    Case,
    readme_table,
)
from tests.rights.security import SecurityContext

CALM = {"LEAK_MODE": "off"}
# Slow enough for every port to be found before the threshold; stays below the limit.
HOVER = {"LEAK_MODE": "steady", "LEAK_RATE": "15MiB/s", "LEAK_DELAY": "3s", "LEAK_MAX": "52MiB"}

each_case = pytest.mark.parametrize("case", CASES, ids=str)
each_row = pytest.mark.parametrize("case", {(case.row, case.beside): case for case in CASES}.values(), ids=str)


def memory_cell(found: dict[str, Any]) -> str:
    """From the cgroup, or from the processes against the limit of the settings."""
    if found["rights"]["cgroup"]:
        assert found["limit_bytes"] == LIMIT_BYTES
        return YES
    assert found["limit_bytes"] == ASSUMED_LIMIT_BYTES
    assert MIB < found["working_set_bytes"] < LIMIT_BYTES
    return PARTLY


def cells_of(found: dict[str, Any]) -> dict[str, str]:
    """What the README would have to say of a container that was checked."""

    def cell(granted: object) -> str:
        return YES if granted else NO

    rights = found["rights"]
    assert rights["memory"] is bool(found["heap_from_memory"])
    return {
        MEMORY: memory_cell(found),
        PORTS: YES if rights["sockets"] else PARTLY if found["pprof"] else NO,
        PROGRAM: cell(rights["executable"]),
        ENVIRONMENT: cell(rights["environment"]),
        HEAP: cell(found["heap_from_memory"]),
        HTTP: cell(found["pprof"]),
    }


def test_every_row_of_the_table_is_tried() -> None:
    """No row of the README is without a case, and none is missing there."""
    assert list(readme_table()) == list(dict.fromkeys((case.row, case.beside) for case in CASES))


@each_case
def test_check_says_what_the_table_says(case: Case, ground: Ground) -> None:
    """From inside of the pod; and the lines that it tells to add grant whatever was missing."""
    ground.start_app(case.app, CALM)
    found = ground.check(case.sidecar)["api"]
    assert cells_of(found) == {column: case.cells[column] for column in cells_of(found)}
    missing = [name for name, granted in found["rights"].items() if not granted]
    assert bool(found["remedy"]) is bool(missing)
    if missing:
        mended = ground.check(case.sidecar.with_lines(found["remedy"]))["api"]
        assert all(mended["rights"].values()), found["remedy"]
        assert mended["heap_from_memory"]
        assert not mended["remedy"]


@each_row
def test_the_dump_has_what_the_table_promises(case: Case, ground: Ground) -> None:
    """A real watch beside a leak: the profiles, the version and the collector's settings; of the rest, the best."""
    cells = case.cells
    run = ground.sidecar(case.sidecar, assume_limit=cells[MEMORY] != YES)
    run.start()
    ground.start_app(case.app, HOVER)
    run.wait_for("captured", container="api")
    run.wait_for("stored")
    path, *_ = run.stored("manifest.json")
    assert run.stop() == 0
    manifest = manifest_of(path)
    kinds = {profile["kind"] for profile in manifest["profiles"]}
    assert {"heap-newest": cells[HEAP], "heap": cells[HTTP]} == {
        kind: YES if kind in kinds else NO for kind in ("heap-newest", "heap")
    }
    limit_bytes = LIMIT_BYTES if cells[MEMORY] == YES else ASSUMED_LIMIT_BYTES
    assert manifest["memory"]["limit_bytes"] == limit_bytes
    assert bool(run.events("cgroup-unreadable")) is (cells[MEMORY] != YES)
    assert (manifest["process"]["go_version"] is not None) is (cells[PROGRAM] == YES)
    assert (manifest["process"]["environment"] == {"GOGC": "10"}) is (cells[ENVIRONMENT] == YES)


@each_case
def test_the_guard_writes_where_the_table_says(case: Case, ground: Ground) -> None:
    """With the machine's cgroups mounted writable: the app's limit goes up and comes back, or it says why not."""
    ground.start_app(case.app, CALM)
    found = ground.try_guard(case.sidecar)
    if case.cells[GUARD] == YES:
        assert found["during"] > found["before"] == found["after"] == LIMIT_BYTES, found
    else:
        assert found["why_not"]


def test_two_users_in_a_pod_are_both_seen_with_the_lines(ground: Ground) -> None:
    """Lines for one app alone would shut out the other: what ``check`` tells to add grants both."""
    ground.start_app(SecurityContext(uid=65532, gid=65532), CALM, "one")
    ground.start_app(SecurityContext(uid=2000, gid=2000), {**CALM, "ADDR": "127.0.0.1:0"}, "two")
    sidecar = SecurityContext(uid=65532, gid=65532)
    before = ground.check(sidecar)
    assert all(before["one"]["rights"].values())
    assert not any(before["two"]["rights"].values())
    assert "runAsUser: 2000" in before["two"]["remedy"][0], "the lines for it alone, as a comment"
    after = ground.check(sidecar.with_lines(before["two"]["remedy"]))
    assert all(all(container["rights"].values()) for container in after.values()), before["two"]["remedy"]


def test_a_group_alone_is_not_answered_with_a_user(ground: Ground) -> None:
    """Only what differs is told."""
    ground.start_app(SecurityContext(uid=65532, gid=65532), CALM)
    found = ground.check(SecurityContext(uid=65532, gid=1000))["api"]
    assert found["remedy"] == ["securityContext:", "  runAsGroup: 65532"]
