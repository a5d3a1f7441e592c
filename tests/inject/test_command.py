"""The two commands as a user runs them: what they print, write and refuse."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

PROJECT = Path(__file__).resolve().parents[2]
POD = """kind: Pod
metadata:
  name: {name}
spec:
  containers:
  - name: app
    resources:
      limits:
        memory: 1Gi
"""
SHARED_ENV = """kind: Pod
x: &e [{name: A}]
spec:
  containers:
  - name: a
    env: *e
    resources: {limits: {memory: 1Gi}}
"""
WRONG_LIMIT = POD.format(name="x").replace("1Gi", "big")
LAUGHS = [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
CHAIN = [f"a{n}: &a{n} [*a{n - 1}]" for n in range(1, 2000)]
FLAGS = ("--bucket", "my-dumps", "--image", "r.example.com/dumper:1")


def run(
    *arguments: str | Path, stdin: str | bytes = "", command: str = "inject", **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run the real command line."""
    done = subprocess.run(
        [sys.executable, "-m", "sidecar", command, *map(str, arguments)],
        input=stdin.encode() if isinstance(stdin, str) else stdin,
        env={"PATH": os.environ["PATH"], **environment},
        cwd=PROJECT,
        capture_output=True,
        timeout=300,
        check=False,
    )
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A manifest of one Pod."""
    path = tmp_path / "pod.yaml"
    path.write_text(POD.format(name="one"))
    return path


def test_standard_input_to_standard_output_and_back() -> None:
    """Nothing but manifests on stdout, the report on stderr; uninject gives the input back."""
    text = POD.format(name="one")
    done = run(*FLAGS, "-", stdin=text)
    assert done.returncode == 0
    assert yaml.safe_load(done.stdout)["spec"]["initContainers"][0]["name"] == "oom-heap-dumper"
    assert done.stderr.startswith("stdin:1: Pod/one: injected\n")
    assert "GOMEMLIMIT=921MiB" in done.stderr
    back = run("-", stdin=done.stdout, command="uninject")
    assert (back.returncode, back.stdout) == (0, text)
    assert "Pod/one: taken out" in back.stderr


def test_what_kubectl_prints_comes_back_for_kubectl_to_apply() -> None:
    """Status and managed fields of a live list stay as they are."""
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "a", "managedFields": [{"manager": "kubectl", "fieldsV1": {"f:spec": {}}}], "uid": "1-2"},
        "spec": {"template": {"metadata": {"creationTimestamp": None}, "spec": {"containers": [{"name": "app"}]}}},
        "status": {"replicas": 1, "conditions": []},
    }
    text = yaml.safe_dump(
        {"apiVersion": "v1", "items": [deployment], "kind": "List", "metadata": {"resourceVersion": ""}}
    )
    done = run(*FLAGS, "-", stdin=text)
    (changed,) = yaml.safe_load(done.stdout)["items"]
    assert {key: changed[key] for key in ("metadata", "status")} == {
        key: deployment[key] for key in ("metadata", "status")
    }
    assert changed["spec"]["template"]["spec"]["shareProcessNamespace"] is True


def test_several_files_are_one_stream(file: Path, tmp_path: Path) -> None:
    """With a document's mark between two files, also where the first doesn't end in a line break."""
    other = tmp_path / "other.yaml"
    other.write_text("kind: ConfigMap\nmetadata: {name: c}")
    done = run(*FLAGS, other, file, other)
    kinds = [document["kind"] for document in yaml.safe_load_all(done.stdout)]
    assert kinds == ["ConfigMap", "Pod", "ConfigMap"]
    assert f"{other}: no pod spec in it" in done.stderr


def test_the_diff_is_what_patch_takes(file: Path) -> None:
    """It changes nothing itself; applied, it gives what inject prints."""
    if shutil.which("patch") is None:
        pytest.skip("patch isn't on PATH")
    before = file.read_text()
    diff = run(*FLAGS, "--diff", file).stdout
    wanted = run(*FLAGS, file).stdout
    assert file.read_text() == before
    subprocess.run(["patch", "-s", str(file)], input=diff, text=True, check=True)
    assert file.read_text() == wanted


def test_the_diff_has_colours_only_where_they_are_seen(file: Path) -> None:
    """Not in a pipe, unless asked for."""
    assert "\x1b[" not in run("--diff", file).stdout
    assert "\x1b[32m" in run("--diff", "--color", file).stdout
    assert run("--diff", file, command="uninject").stdout == ""


def test_in_place_keeps_the_mode_and_leaves_nothing_behind(file: Path) -> None:
    """And a link stays a link."""
    file.chmod(0o640)
    link = file.with_name("link.yaml")
    link.symlink_to(file)
    before = file.read_bytes()
    wanted = run(*FLAGS, file).stdout
    assert run(*FLAGS, "-i", link).stdout == ""
    assert file.read_text() == wanted
    assert file.stat().st_mode & 0o777 == 0o640
    assert run("-i", link, command="uninject").returncode == 0
    assert file.read_bytes() == before
    assert link.is_symlink()
    assert sorted(each.name for each in file.parent.iterdir()) == ["link.yaml", "pod.yaml"]


def test_one_bad_file_keeps_all_as_they_are(file: Path, tmp_path: Path) -> None:
    """In place, nothing is written before everything is understood."""
    bad = tmp_path / "bad.yaml"
    bad.write_text("kind: [")
    before = file.read_bytes()
    done = run(*FLAGS, "-i", file, bad)
    assert done.returncode == 1
    assert file.read_bytes() == before


def test_output_goes_to_a_file(file: Path, tmp_path: Path) -> None:
    """The same that stdout would get."""
    target = tmp_path / "new" / "out.yaml"
    assert run("-o", target, file).returncode == 1
    target.parent.mkdir()
    assert run("-o", target, file).stdout == ""
    assert target.read_text() == run(file).stdout


@pytest.mark.parametrize("diff", [(), ("--diff",)])
@pytest.mark.parametrize(("redirection", "said"), [(">/dev/full", "No space left"), (">&-", "is closed")])
def test_output_that_goes_nowhere_is_one_clear_line(
    file: Path, diff: tuple[str, ...], redirection: str, said: str
) -> None:
    """A full disk, and no standard output at all."""
    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {redirection}', "sh", sys.executable, "-m", "sidecar", "inject", *diff, str(file)],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    (line,) = done.stderr.splitlines()
    assert done.returncode == 1
    assert said in line


def test_quiet_reports_what_needs_a_look() -> None:
    """Warnings and refusals stay, the rest goes."""
    refused = "---\nkind: Pod\nmetadata: {name: two}\nspec: {hostPID: true, containers: [{name: a}]}\n"
    done = run(*FLAGS, "-q", "--run-as-user", "7", "-", stdin=POD.format(name="one") + refused)
    assert done.stderr.splitlines() == [line for line in done.stderr.splitlines() if "Pod/two: left as it is" in line]
    assert "hostPID" in done.stderr


def test_injecting_again_says_so() -> None:
    """Whether something changed or not."""
    once = run(*FLAGS, "-", stdin=POD.format(name="one")).stdout
    again = run(*FLAGS, "-", stdin=once)
    assert again.stdout == once
    assert "Pod/one: already up to date" in again.stderr
    assert "Pod/one: renewed" in run("--bucket", "other-dumps", "-", stdin=once).stderr


def test_the_image_may_come_from_the_environment(file: Path) -> None:
    """A team sets its registry once."""
    done = run(file, OOM_HEAP_DUMPER_IMAGE="r.example.com/dumper:2")
    assert "image: r.example.com/dumper:2\n" in done.stdout
    assert "names no registry" in run(file).stderr


@pytest.mark.parametrize(
    ("text", "line", "remedy"),
    [
        ("kind: Pod\na: [\n", 3, "not YAML"),
        ("kind: Pod\nspec:\n\tcontainers: []\n", 3, "spaces"),
        ("hello", 1, "give one with a kind"),
        ("\n\n- a\n", 3, "give one with a kind"),
        ("services:\n  web:\n    image: x\n", 1, "give one with a kind"),
        ("kind: Pod\nname: {{ .Values.name }}\nspec: {containers: []}\n", 2, "helm template"),
        ("kind: Pod\n{{- if .Values.x }}\n", 2, "helm template"),
        ("kind: Pod\nspec:\n  containers:\n  - name: a\n  - name: b\n  - name: a\n", 6, "rename one"),
        ("kind: Pod\nspec: {containers: [{name: a}]}\nspec: {}\n", 3, "remove one"),
        ("kind: Pod\nspec: &s\n  containers: [{name: a}]\nother: *s\n", 2, "write it out"),
        (SHARED_ENV, 6, "write it out"),
        ("kind: Pod\nx: &s\n  volumes: [{name: a}]\nspec:\n  <<: *s\n  containers: [{name: a}]\n", 5, "merge key"),
        ("kind: Pod\na: &a [*a]\nspec: {containers: []}\n", 2, "write out"),
        (WRONG_LIMIT, 9, "512Mi"),
        ("kind: Pod\nspec:\n  containers: 7\n", 3, "must be a list"),
        ("kind: Pod\nmetadata: {annotations: {oom-heap-dumper/x: y}}\nspec: {containers: [{name: a}]}\n", 1, "unknown"),
        ("kind: Pod\nspec: {containers: [{name: a}]}\nx: \x01\n", 3, "control characters"),
        ("\n".join(["kind: Pod", "containers: &a0 [x, x]", *LAUGHS]), 1, "write out"),
        ("kind: Pod\ncontainers: " + "[" * 900 + "]" * 900, None, "deep"),
        ("kind: Pod\ncontainers:\n  " + "[" * 40_000, 3, "deep"),
        ("kind: Pod\ncontainers:\n  " + "- " * 40_000, 3, "deep"),
        ("\n".join(["kind: Pod", "containers: &a0 [x]", *CHAIN]), 302, "deep"),
        ('{"kind": "Pod",\n"x": "\\ud83d\\ude00"}', 2, "write the character itself"),
    ],
)
def test_bad_input_is_one_clear_line(text: str, line: int | None, remedy: str) -> None:
    """With the file, the line and the remedy; exit code 1, nothing on stdout."""
    done = run("-", stdin=text)
    assert done.returncode == 1
    assert done.stdout == ""
    (said,) = done.stderr.splitlines()
    assert said.startswith(f"oom-heap-dumper: stdin:{line}: " if line else "oom-heap-dumper: stdin:")
    assert remedy in said


@pytest.mark.parametrize(
    ("data", "remedy"), [("kind: Pod".encode("utf-16"), "iconv"), (b"kind: Pod\nx: \xe9\n", "save the file as UTF-8")]
)
def test_other_encodings_are_one_clear_line(data: bytes, remedy: str) -> None:
    """Kubernetes reads UTF-8."""
    done = run("-", stdin=data)
    assert done.returncode == 1
    (said,) = done.stderr.splitlines()
    assert remedy in said


def test_files_that_are_none(tmp_path: Path) -> None:
    """A directory, one for kustomize, and a name that isn't there."""
    overlay = tmp_path / "overlay"
    overlay.mkdir()
    (overlay / "kustomization.yaml").touch()
    remedies = {tmp_path: "*.yaml", overlay: "kubectl kustomize", tmp_path / "none.yaml": "No such file"}
    for path, remedy in remedies.items():
        done = run(path)
        assert done.returncode == 1
        (said,) = done.stderr.splitlines()
        assert str(path) in said
        assert remedy in said


@pytest.mark.parametrize(
    ("arguments", "remedy"),
    [
        ((), "FILE"),
        (("-", "-"), "once"),
        (("-i", "-"), "--in-place"),
        (("-i", "-o", "x", "y"), "--in-place"),
        (("--diff", "-i", "y"), "--diff"),
        (("--gomemlimit", "lots", "-"), "or off"),
        (("--critical", "0", "-"), "1 to 100"),
        (("--bucket", "s3://x", "-"), "without s3://"),
        (("--env", "SECRET", "-"), "NAME=VALUE"),
        (("--env", "BUCKET=x", "-"), "use bucket"),
        (("--env", "WATCH_TIME=5", "-"), "WATCH_TIME: '5' has no unit"),
        (("--env", "PROFILES=goroutine", "-"), "must include heap"),
        (("--env", "GUARD=on", "-"), "'auto'"),
        (("--run-as-user", "root", "-"), "2147483647"),
    ],
)
def test_wrong_usage_is_exit_code_2(arguments: tuple[str, ...], remedy: str) -> None:
    """In one line with the remedy."""
    done = run(*arguments)
    assert done.returncode == 2
    (said,) = done.stderr.splitlines()
    assert remedy in said


def test_names_from_manifests_can_not_drive_the_terminal() -> None:
    """What a manifest says is printed without control characters."""
    text = json.dumps({"kind": "Pod", "metadata": {"name": "a\x1b[2J"}, "spec": {"containers": [{"name": "a\x1b[2J"}]}})
    done = run("-", stdin=text)
    assert "\x1b" not in done.stderr


def test_ten_megabytes_are_read(tmp_path: Path) -> None:
    """Many workloads and one huge text; what isn't a pod's stays byte for byte."""
    other = "kind: ConfigMap\ndata:\n  a: |\n" + f"    {'x' * 100}\n" * 60_000
    text = "---\n".join([other, *(POD.format(name=f"p{index}") for index in range(400)), other[: 4 << 20]])
    path = tmp_path / "big.yaml"
    path.write_text(text)
    assert path.stat().st_size > 10 << 20
    done = run(*FLAGS, "-i", "-q", path)
    assert done.returncode == 0, done.stderr
    assert path.read_text().count("oom-heap-dumper/injected") == 400
    assert run("-i", "-q", path, command="uninject").returncode == 0
    assert path.read_text() == text
