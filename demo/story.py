"""The story itself: a leak, a kill, and the profile that outlives the program."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from demo.narrator import Narrator, SidecarLog, quote_lines
from demo.stage import REPOSITORY, Command, Stage, plain_stage, pod_stage
from localpod import pod, toolchain
from localpod.errors import LocalPodError
from localpod.pprof_top import first_row
from localpod.s3 import LocalS3, local_s3

LIMIT_BYTES = 256 << 20
LEAK = "main.serializeJSON"

_EXAMPLE = REPOSITORY / "examples" / "go-memory-leak"
_POD_NAME = "leaky-0"
_KILL_WITHIN_S = 180.0
_SIDECAR_WITHIN_S = 120.0
_POLL_S = 0.01
_ATTEMPTS = 2

# What the sidecar is to have of our environment: nothing that could be a setting of its own.
_KEPT_VARIABLES = ("HOME", "LANG", "PATH", "TMPDIR")


def play(narrator: Narrator, *, in_pod: bool, cache: Path, keep: Path | None) -> bool:
    """Play the story; true if the profile names the leak. Raises `LocalPodError` where it can't be played."""
    narrator.title("A Go program leaks until it is killed. What did it spend its memory on?")
    narrator.step("Build the program and Go's profile reader (the first time takes up to a minute)")
    go = toolchain.find(cache=cache)
    narrator.say(f"{go.version} at {go.go}")
    program = go.build(_EXAMPLE)
    pprof = go.pprof()
    narrator.say(f"built {_EXAMPLE.relative_to(REPOSITORY)}")
    with tempfile.TemporaryDirectory(prefix="oom-heap-dumper-demo-", ignore_cleanup_errors=True) as scratch:
        narrator.step("Start a local S3")
        with local_s3() as store:
            narrator.say(f"{store.url}, bucket {store.bucket}")
            environment = _environment(store, Path(scratch))
            for attempt in range(1, _ATTEMPTS + 1):
                captured = _leak_and_kill(narrator, program, environment, in_pod=in_pod)
                if captured:
                    break
                narrator.bad("This time the kill came before a profile could be taken: such a race can be lost.")
                if attempt == _ATTEMPTS:
                    return False
            dump = _fetch(narrator, environment, Path(scratch), keep)
        return _read(narrator, pprof, dump)


def _leak_and_kill(narrator: Narrator, program: Path, environment: Mapping[str, str], *, in_pod: bool) -> bool:
    """Run app and sidecar until the app is dead and the sidecar done; true if it tells of a profile."""
    app = Command(argv=(str(program),), env={"ADDR": f"127.0.0.1:{_free_port()}"})
    sidecar = Command(argv=(sys.executable, "-m", "sidecar", "watch"), env=environment)
    limit_mib = LIMIT_BYTES >> 20
    if in_pod:
        narrator.step(f"Run it with a memory limit of {limit_mib} MiB in a real cgroup, the sidecar in the same pod")
    else:
        narrator.step(f"Run it beside the sidecar, which is told its PID and a limit of {limit_mib} MiB")
        narrator.say(
            f"No real OOM killer here ({pod.unavailable() or 'as asked for'}): the demo kills it at the limit."
        )
    stage = (pod_stage if in_pod else plain_stage)(app, sidecar, LIMIT_BYTES)
    with stage as running:
        quote_lines(narrator, "app", running.app_log)
        log = SidecarLog(narrator, running.sidecar_log)
        _wait_for_the_kill(narrator, running)
        narrator.step("The program is dead")
        narrator.say(running.how_the_app_ended())
        log.wait_for("container-ended", _SIDECAR_WITHIN_S)
        try:
            status = running.stop_sidecar(_SIDECAR_WITHIN_S)
        except TimeoutError as error:
            raise LocalPodError(f"{error}: its log above may tell why") from None
        log.finish(_SIDECAR_WITHIN_S)
    if status != 0:
        raise LocalPodError(f"the sidecar ended with exit status {status}: its log above tells why")
    return log.count("captured") > 0


def _wait_for_the_kill(narrator: Narrator, stage: Stage) -> None:
    milestones = [25, 50, 75]
    deadline_s = time.monotonic() + _KILL_WITHIN_S
    while (usage_bytes := stage.usage_bytes()) is not None:
        while milestones and usage_bytes * 100 >= milestones[0] * LIMIT_BYTES:
            narrator.say(f"memory passes {milestones.pop(0)} % of the limit")
        if time.monotonic() > deadline_s:
            raise LocalPodError(f"nobody killed the program within {_KILL_WITHIN_S:g} s: is the machine very busy?")
        time.sleep(_POLL_S)


def _fetch(narrator: Narrator, environment: Mapping[str, str], scratch: Path, keep: Path | None) -> Path:
    """List the dumps and fetch the newest, with the tool's own commands; returns its folder."""
    narrator.step("Find its dumps in S3 and fetch the newest")
    _oom_heap_dumper(narrator, environment, scratch, "list", "--pod", _POD_NAME)
    directory = str(keep.resolve()) if keep else "dumps"
    folder = scratch / directory
    before = set(folder.glob("*/"))
    _oom_heap_dumper(narrator, environment, scratch, "get", "--pod", _POD_NAME, "--latest", "--dir", directory)
    fetched = sorted(set(folder.glob("*/")) - before)
    if not fetched:
        raise LocalPodError(f"oom-heap-dumper get put nothing into {folder}")
    return fetched[-1]


def _oom_heap_dumper(narrator: Narrator, environment: Mapping[str, str], scratch: Path, *arguments: str) -> None:
    narrator.command(" ".join(("oom-heap-dumper", *arguments)))
    command = [sys.executable, "-m", "sidecar", *arguments]
    done = subprocess.run(command, cwd=scratch, env=environment, capture_output=True, check=False, text=True)
    narrator.output(done.stderr + done.stdout)
    if done.returncode != 0:
        raise LocalPodError(f"oom-heap-dumper {arguments[0]} ended with exit status {done.returncode}: see above")


def _read(narrator: Narrator, pprof: Path, dump: Path) -> bool:
    narrator.step("Ask the profile")
    profile = next(iter(sorted(dump.glob("heap-newest.pb.gz"))), None)
    if profile is None:
        narrator.bad(f"There is no heap profile in {dump}.")
        return False
    narrator.command(f"go tool pprof -top -nodecount=5 {profile.name}")
    command = [str(pprof), "-top", "-nodecount=5", str(profile)]
    done = subprocess.run(command, capture_output=True, check=False, text=True)
    narrator.output(done.stdout if done.returncode == 0 else done.stderr)
    top = first_row(done.stdout)
    if top is None or top.function != LEAK:
        narrator.bad(f"The profile doesn't name {LEAK} first.")
        return False
    narrator.good(f"{LEAK} holds {top.flat_percent:g} % of the heap: the answer outlived the program.")
    return True


def _environment(store: LocalS3, scratch: Path) -> dict[str, str]:
    kept = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
    return {
        **kept,
        **store.environment,
        "PYTHONPATH": str(REPOSITORY),
        "BUCKET": store.bucket,
        "POD_NAMESPACE": "demo",
        "POD_NAME": _POD_NAME,
        "SPOOL_DIR": str(scratch / "spool"),
        "LOG_FORMAT": "json",
    }


def _free_port() -> int:
    """The example's usual port, or another if that is taken."""
    for port in (8080, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise LocalPodError("no free port on 127.0.0.1: end a program that listens there")
