"""The command line: bad input ends in one clear line and exit code 2, and everything declared is documented."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

from sidecar.commands.watch import command as watch

PROJECT = Path(__file__).resolve().parents[1]


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the real command line in an environment of nothing but these variables."""
    return subprocess.run(
        [sys.executable, "-m", "sidecar", *arguments],
        env={"PATH": os.environ["PATH"], **environment},
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    ("variable", "value", "remedy"),
    [
        ("CRITICAL", "0", "1 to 100"),
        ("CRITICAL", "120", "1 to 100"),
        ("CRITICAL", "abc", "1 to 100"),
        ("MEMORY_CRITICAL_PERCENTAGE", "101", "1 to 100"),
        ("WATCH_TIME", "100", "write 100s or 100ms"),
        ("WATCH_TIME", "1us", "10ms to 1m"),
        ("COOLDOWN", "10", "write 10s or 10ms"),
        ("COOLDOWN", "0s", "longer than 0"),
        ("BUCKET", "s3://dumps/x", "without s3://"),
        ("BUCKET", "Bad_Name", "not a bucket name"),
        ("MEMORY_LIMIT", "lots", "512Mi"),
        ("MEMORY_LIMIT", "-1Gi", "512Mi"),
        ("MEMORY_LIMIT", "0", "at least 1Mi"),
        ("MEMORY_LIMIT", "512m", "a thousandth of a byte"),
        ("MEMORY_LIMIT", "0m", "at least 1Mi"),
        ("PPROF_PORTS", "8080,http", "1 to 65535"),
        ("PPROF_PORTS", "70000", "1 to 65535"),
        ("PPROF_PATH", "debug/pprof", "begins with /"),
        ("PPROF_PATH", "/debug pprof", "percent-encoded"),
        ("PPROF_PATH", "/d\u00e9bug", "percent-encoded"),
        ("PPROF_CA_FILE", "/nowhere/ca.pem", "does not exist"),
        ("PPROF_CA_FILE", __file__, "PEM"),
        ("PPROF_CA_FILE", os.devnull, "PEM"),
        ("PROFILES", "heap,cpu", "choose from"),
        ("PROFILES", "goroutine", "must include heap"),
        ("SPOOL_SIZE", "1Ki", "at least 1Mi"),
        ("METRIC", "rss", "working-set"),
        ("CPU_BUDGET", "0", "1 to 100"),
        ("GUARD", "yes", "brake"),
        ("GUARD_BRAKE", "40", "50 to 99"),
        ("GUARD_RAISE", "1Mi", "4Mi at least"),
        ("OOM_GROUP", "container", "process"),
        ("OOM_GROUP_CONTAINERS", "api", "OOM_GROUP=process"),
        ("MAX_DUMPS_PER_HOUR", "0", "x>=1"),
        ("LOG_FORMAT", "xml", "json"),
        ("S3_KMS_KEY_ID", "alias/x", "S3_SSE=aws:kms"),
    ],
)
def test_a_bad_setting_stops_the_start(variable: str, value: str, remedy: str, tmp_path: Path) -> None:
    """One line on stderr with the variable, the value or its mistake, and the remedy; exit code 2; no trace."""
    done = run("watch", **{"SPOOL_DIR": f"{tmp_path}/spool", "DUMP_DIR": f"{tmp_path}/dumps", variable: value})
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert variable in done.stderr
    assert remedy in done.stderr


@pytest.mark.parametrize(("spool", "dumps"), [("a", "a"), ("a", "a/dumps"), ("a/spool", "a")])
def test_dumps_do_not_lie_in_the_spool(spool: str, dumps: str, tmp_path: Path) -> None:
    """Stored dumps would take up the spool's room, which only waiting ones can give back."""
    folders = {"SPOOL_DIR": f"{tmp_path}/{spool}", "DUMP_DIR": f"{tmp_path}/{dumps}"}
    done = run("watch", **folders)
    assert done.returncode == 2
    assert all(f"{name} {folder}" in done.stderr for name, folder in folders.items())


@pytest.mark.parametrize("size", ["1e9", ".5Gi", "129e6", "1500000000m", "+1Gi"])
def test_sizes_are_written_as_in_kubernetes(size: str, tmp_path: Path) -> None:
    """What a pod's limit may be, a setting may be, too: the start goes on to what it finds in its surroundings."""
    done = run("watch", SPOOL_DIR=str(tmp_path), DUMP_DIR="/proc/nowhere", MEMORY_LIMIT=size, DUMP_DIR_SIZE=size)
    assert done.returncode == 3
    assert "DUMP_DIR" in done.stderr


def test_a_brake_below_the_threshold_is_refused(tmp_path: Path) -> None:
    """It would slow the program down before anybody wants a dump; without the guard the level is nobody's business."""
    done = run("watch", SPOOL_DIR=str(tmp_path), GUARD="brake", CRITICAL="95")
    assert done.returncode == 2
    assert "GUARD_BRAKE 90 must be above CRITICAL 95" in done.stderr


@pytest.mark.parametrize(
    "header",
    [
        "Bearer-secret-token",
        "Authorization: Bearer secret-\u20ac",
        "Authorization: Bearer secret-\udcff",
        "Authorization: Bearer secret-\x7f",
        "Authorization: Bearer secret-\x01",
    ],
)
def test_a_wrong_header_is_not_quoted(header: str, tmp_path: Path) -> None:
    """It may be a token that lost its name, or one that HTTP can't carry: it must not end in a log."""
    done = run("watch", SPOOL_DIR=str(tmp_path), PPROF_HEADERS=header)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "PPROF_HEADERS" in done.stderr
    assert "secret" not in done.stderr.replace("it may be a secret", "")


@pytest.mark.parametrize("arguments", [("nope",), ("watch", "--nope"), ("watch", "--pid", "3"), ("get",)])
def test_wrong_usage_is_exit_code_2(arguments: tuple[str, ...]) -> None:
    """An unknown command, an unknown flag, a flag without its partner, a missing argument: one line each."""
    done = run(*arguments)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "Traceback" not in done.stderr


def test_surroundings_that_forbid_the_start_are_exit_code_3() -> None:
    """A directory that can't be written is no wrong setting, but nothing can start there."""
    done = run("watch", DUMP_DIR="/proc/nowhere")
    assert done.returncode == 3
    assert "BUCKET" in done.stderr
    assert "DUMP_DIR" in done.stderr


@pytest.mark.parametrize(
    "arguments", [(), ("watch",), ("check",), ("dump",), ("list",), ("get",), ("health",), ("inject",), ("uninject",)]
)
def test_help_of_every_command(arguments: tuple[str, ...]) -> None:
    """``--help`` works without any setting and says what the command is for."""
    done = run(*arguments, "--help")
    assert done.returncode == 0
    assert "Usage: oom-heap-dumper" in done.stdout
    assert done.stderr == ""


def test_health_without_a_watch(tmp_path: Path) -> None:
    """A probe of a sidecar that never sampled fails, in one line."""
    done = run("health", SPOOL_DIR=str(tmp_path))
    assert done.returncode == 1
    assert str(tmp_path) in done.stderr


DUMP = "prod/api-0/20261120T225012.123Z_app_pid42_k3x9-1"


@pytest.fixture
def dumps(tmp_path: Path) -> Path:
    """A directory with a dump and with so many notes that their list fits into no buffer."""
    for name in [DUMP, *(f"{DUMP[:-1]}{number}" for number in range(2, 200))]:
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "heap-8080.pb.gz").write_bytes(b"x")
    return tmp_path


def redirected(redirection: str, *arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the real command line with a shell's redirection."""
    return subprocess.run(
        ["sh", "-c", f'exec "$@" {redirection}', "sh", sys.executable, "-m", "sidecar", *arguments],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(PROJECT), **environment},
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


SPEAKING = [
    (),
    ("--help",),
    ("--version",),
    ("watch", "--help"),
    ("list",),
    ("list", "-o", "json"),
    ("get", DUMP),
    ("check", "--skip-store"),
]


@pytest.mark.parametrize("arguments", SPEAKING)
@pytest.mark.parametrize(
    ("redirection", "said"),
    [(">/dev/full", "No space left"), (">&-", "is closed"), ("1</dev/null", "Bad file descriptor")],
)
def test_output_that_goes_nowhere_is_one_clear_line(
    arguments: tuple[str, ...], redirection: str, said: str, dumps: Path
) -> None:
    """A full disk, no standard output at all, one that can't be written: exit code 1 and no trace."""
    done = redirected(redirection, *arguments, cwd=dumps, DUMP_DIR=str(dumps), SPOOL_DIR=f"{dumps}-spool")
    lines = [line for line in done.stderr.splitlines() if not line.startswith(DUMP.rpartition("/")[2] + " is in ")]
    lines = [line for line in lines if not line.startswith("Warning: not checked")]
    assert done.returncode == 1
    assert len(lines) == 1
    assert "standard output" in lines[0]
    assert said in lines[0]


def test_what_is_only_in_a_buffer_at_the_end_counts() -> None:
    """A command that prints without flushing has failed, too, where the disk is full."""
    code = (
        "import sys, click; from sidecar import cli;"
        "cli.root.get_command = lambda *_: click.Command('x', callback=lambda: print('x'));"
        "sys.argv = ['x', 'x'];"
        "cli.main()"
    )
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=PROJECT, stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert "No space left" in done.stderr


@pytest.mark.parametrize("redirection", [">/dev/full 2>&1", ">&- 2>&-", ">/dev/full 2>&-"])
@pytest.mark.parametrize("arguments", [("--help",), ("list",)])
def test_the_exit_code_tells_where_no_line_can(arguments: tuple[str, ...], redirection: str, dumps: Path) -> None:
    """Both outputs on a full disk, or none: still 1, and not what Python makes of it at its end."""
    done = redirected(redirection, *arguments, cwd=dumps, DUMP_DIR=str(dumps))
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "")


def test_a_command_with_nothing_to_say_needs_no_output(tmp_path: Path) -> None:
    """An empty list goes to nobody."""
    for redirection in (">/dev/full", ">&-"):
        done = redirected(redirection, "list", cwd=tmp_path, DUMP_DIR=str(tmp_path))
        assert (done.returncode, len(done.stderr.splitlines())) == (0, 1)


@pytest.mark.parametrize("arguments", SPEAKING)
def test_a_reader_that_has_gone_is_told_nothing(arguments: tuple[str, ...], dumps: Path) -> None:
    """As in ``list | head -1``: no line, no trace, but no success either."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "sidecar", *arguments],
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(PROJECT), "DUMP_DIR": str(dumps)},
            cwd=dumps,
            stdout=writing,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    finally:
        os.close(writing)
    assert done.returncode in (1, 141)
    assert "standard output" not in done.stderr
    assert "Error" not in done.stderr


def options() -> dict[str, click.Option]:
    """Every option of ``watch`` by its flag."""
    return {parameter.opts[0]: parameter for parameter in watch.params if isinstance(parameter, click.Option)}


def test_every_option_has_a_variable_and_a_help() -> None:
    """A container is set up by its environment: only ``--pid``, which is for other places, has no variable."""
    for flag, option in options().items():
        assert option.help, flag
        assert option.envvar or flag in {"--pid", "--help"}, flag


def test_the_readme_table_is_the_declared_options() -> None:
    """Each variable is in the README's table with its default, and nothing else is."""
    readme = (PROJECT / "README.md").read_text()
    rows = dict(re.findall(r"^\| `([A-Z0-9_]+)`[^|]*\| ([^|]*?) \|", readme, re.MULTILINE))
    declared = {}
    for option in options().values():
        if option.envvar:
            names = [option.envvar] if isinstance(option.envvar, str) else option.envvar
            default = option.default if isinstance(option.default, str | int) and option.default is not False else ""
            declared[names[0]] = f"`{default}`" if default != "" else "none"
    assert {name: text for name, text in rows.items() if not name.startswith("AWS_")} == declared
