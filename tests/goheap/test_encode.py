"""Raw snapshots become profiles in a process of their own, for Go's tools to open."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from localpod import toolchain
from localpod.pprof_top import first_row
from sidecar.goheap import GoHeapError, prepare
from sidecar.goheap.__main__ import main
from sidecar.goheap.encode import encode
from tests.goheap.decoded import decode_profile
from tests.goheap.programs import NEWEST, OLDEST, UNNAMED, Cell, Running, build

PROC = Path("/proc")
# Of the size that 50,000 stacks may take; Python itself, before it has read anything, is at 12.
PEAK_KIB = 64 << 10


@pytest.fixture(scope="module")
def taken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A raw snapshot of a program that leaks, and another one of it later."""
    folder = tmp_path_factory.mktemp("taken")
    with Running(build(NEWEST)) as program, prepare(PROC, program.pid) as reader:
        program.tell("leak 100 1000000", "gc")
        (folder / "before").write_bytes(reader.snapshot())
        program.tell("leak 300 1000000")
        (folder / "after").write_bytes(reader.snapshot())
    return folder


def pprof(*arguments: str | Path) -> str:
    """What ``go tool pprof`` prints."""
    command = [str(toolchain.find("1.21").pprof()), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


def top_function(*arguments: str | Path) -> str | None:
    """What its ``-top`` names first."""
    top = first_row(pprof("-top", *arguments))
    return top.function if top else None


def test_go_tool_pprof_names_the_leak_and_tells_two_profiles_apart(taken: Path, tmp_path: Path) -> None:
    """Both views open, alone and against each other, with the comment that tells which one it is."""
    program = build(NEWEST)
    for name in ("before", "after"):
        assert main(["encode", str(taken / name), str(program), str(tmp_path / name)]) == 0
    assert main(["encode", str(taken / "after"), str(program), str(tmp_path / "old"), "--view", "published"]) == 0
    assert "inuse_space" in pprof("-top", tmp_path / "after")
    assert top_function("-unit=B", tmp_path / "after") == "main.leak"
    assert top_function("-diff_base", tmp_path / "before", tmp_path / "after") == "main.leak"
    assert top_function("-diff_base", tmp_path / "old", tmp_path / "after") == "main.leak"
    assert "includes what was allocated" in pprof("-comments", tmp_path / "after")


def test_the_command_tells_what_became_of_the_snapshot(taken: Path, tmp_path: Path) -> None:
    """A line of JSON on standard output, exit code 0, and no file but the profile."""
    files = (taken / "after", build(NEWEST), tmp_path / "out")
    command = [sys.executable, "-m", "sidecar.goheap", "encode", *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    told = json.loads(done.stdout)
    # how many more than one is the sampler's chance
    assert told["samples"] == len(decode_profile((tmp_path / "out").read_bytes()).samples) >= 1
    assert (told["dropped"], told["truncated"]) == (0, None)
    assert told["gc"]["heap_live_bytes"] > 300_000_000
    assert list(tmp_path.iterdir()) == [tmp_path / "out"]


@pytest.mark.parametrize(
    ("raw", "executable", "said"),
    [
        ("missing", None, "missing: No such file"),
        ("after", sys.executable, "isn't the executable"),
        ("after", "/dev/null", "ELF"),
        ("garbage", None, "not a raw snapshot"),
        ("empty", None, "not a raw snapshot"),
        ("cut", None, "cut short"),
    ],
)
def test_what_cannot_be_encoded_is_said_in_a_line(
    *, raw: str, executable: str | None, said: str, taken: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 1, a line that tells what is wrong, and nothing in the place of the profile."""
    (taken / "garbage").write_bytes(b"garbage" * 100)
    (taken / "empty").write_bytes(b"")
    (taken / "cut").write_bytes((taken / "after").read_bytes()[:-100])
    assert main(["encode", str(taken / raw), executable or str(build(NEWEST)), str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_another_build_of_the_program_is_not_mistaken_for_it(taken: Path, tmp_path: Path) -> None:
    """Names of another build's table would be wrong ones."""
    assert main(["encode", str(taken / "after"), str(build(Cell("1.27", "plain"))), str(tmp_path / "out")]) == 1


@pytest.mark.parametrize("cell", [NEWEST, OLDEST], ids=str)
def test_fifty_thousand_stacks_are_encoded_in_bounded_memory(cell: Cell, tmp_path: Path) -> None:
    """The peak of the process that encodes stays below 64 MiB."""
    with Running(build(cell), rate=1) as program, prepare(PROC, program.pid) as reader:
        program.tell("stacks 50000", "gc")
        with (tmp_path / "raw").open("wb") as file:
            reader.write_snapshot(file)
    script = (
        "import re, sys; from sidecar.goheap.__main__ import main\n"
        "code = main(sys.argv[1:])\n"
        "print(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1]); sys.exit(code)"
    )
    files = (tmp_path / "raw", build(cell), tmp_path / "out")
    command = [sys.executable, "-c", script, "encode", *map(str, files)]
    told, peak_kib = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\n")[:2]
    assert json.loads(told)["samples"] > 50000
    assert int(peak_kib) < PEAK_KIB


def test_the_command_for_people_makes_the_same_profile(taken: Path, tmp_path: Path) -> None:
    """At a desk, with the program's executable; with another one it says so in a line and leaves nothing."""
    program, out = build(NEWEST), tmp_path / "heap.pb.gz"
    command = [sys.executable, "-m", "sidecar", "encode", str(taken / "after")]
    done = subprocess.run([*command, str(program), "-o", str(out)], capture_output=True, text=True, check=True)
    assert done.stdout == f"go tool pprof -http=: {out}\n"
    assert top_function("-unit=B", out) == "main.leak"
    out.unlink()
    wrong = subprocess.run([*command, sys.executable, "-o", str(out)], capture_output=True, text=True, check=False)
    assert wrong.returncode == 1
    assert len(wrong.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_file_of_its_own_is_written_through(taken: Path, tmp_path: Path) -> None:
    """A link stays one, and standard output, as of kubectl exec, has the profile and nothing else."""
    command = [sys.executable, "-m", "sidecar", "encode", str(taken / "after"), str(build(NEWEST)), "-o"]
    (tmp_path / "link").symlink_to(tmp_path / "profile")
    subprocess.run([*command, str(tmp_path / "link")], capture_output=True, check=True)
    assert (tmp_path / "link").is_symlink()
    piped = subprocess.run([*command, "/dev/stdout"], capture_output=True, check=True).stdout
    assert decode_profile(piped) == decode_profile((tmp_path / "profile").read_bytes())
    assert Path("/dev/stdout").is_symlink()


def test_another_build_is_told_apart_without_a_build_id(tmp_path: Path) -> None:
    """With ``-ldflags=-buildid=`` the functions must be the same, or the blame would be another one's."""
    with Running(build(UNNAMED)) as program, prepare(PROC, program.pid) as reader:
        program.tell("leak 100 1000000", "gc")
        (tmp_path / "raw").write_bytes(reader.snapshot())
    mine, other = build(UNNAMED), tmp_path / "other"
    content = mine.read_bytes()
    name = b"\0main.leak\0"
    assert content.count(name) == 1
    other.write_bytes(content.replace(name, b"\0main.lock\0"))
    encode(tmp_path / "raw", mine, io.BytesIO())
    with pytest.raises(GoHeapError, match="is another build"):
        encode(tmp_path / "raw", other, io.BytesIO())
