from __future__ import annotations

import contextlib
import json
import signal
import ssl
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml
from kubernetes_validate import latest_version, validate  # type: ignore[import-untyped]  # the package carries no types

from tests.s3_servers.certificates import CertificateFiles, write_certificates
from tests.webhook.reviews import patched, pod, review_of
from tests.webhook.serving import DEADLINE_S, JSON, ROOT, Webhook, ask, command, post, serving

IMAGE = "registry.example.com/oom-heap-dumper:0.1.0"
INJECTION = ["--image", IMAGE, "--bucket", "example-heap-dumps", "--prefix", "heap-dumps"]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> CertificateFiles:
    """A certificate for 127.0.0.1."""
    return write_certificates(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def webhook(files: CertificateFiles) -> Iterator[Webhook]:
    """A server that the tests of this file share."""
    with serving(files.certificate, files.key, *INJECTION, "--log-level", "debug") as running:
        yield running


def open_tls(webhook: Webhook, files: CertificateFiles) -> ssl.SSLSocket:
    """A bare TLS connection."""
    return ssl.create_default_context(cafile=files.authority).wrap_socket(webhook.dial(), server_hostname="127.0.0.1")


def read_all(connection: ssl.SSLSocket) -> bytes:
    """Everything until the server closes."""
    received = b""
    while chunk := connection.recv(65536):
        received += chunk
    return received


def test_a_review_makes_of_a_pod_what_inject_makes_of_it(webhook: Webhook, files: CertificateFiles) -> None:
    """Over TLS, on one connection: the patch applied is a valid pod, equal to the command line's output."""
    review = review_of(pod())
    connection = webhook.connect(files.authority)
    injected = patched(review, post(connection, review))
    validate(injected, latest_version(), strict=True)
    done = subprocess.run(
        [sys.executable, "-m", "sidecar", "inject", *INJECTION, "-"],
        input=yaml.safe_dump(pod()),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert injected == yaml.safe_load(done.stdout)
    assert post(connection, review_of(injected))["auditAnnotations"]["outcome"] == "left-alone"


def test_what_happens_is_logged_and_counted(webhook: Webhook, files: CertificateFiles) -> None:
    """One event for each review with namespace, name and reason; the same outcome is counted for scrapers."""
    connection = webhook.connect(files.authority)
    made = pod(name="odd\n\x1b[31m")
    made["spec"]["hostPID"] = True
    review = review_of(made)
    assert "hostPID" in post(connection, review)["warnings"][0]
    logged = webhook.wait_for("review", uid=review["request"]["uid"])
    assert (logged["outcome"], logged["namespace"], logged["level"]) == ("refused", "shop", "warning")
    assert "hostPID" in logged["message"]
    _, _, metrics = ask(connection, "GET", "/metrics")
    assert b'oom_heap_dumper_webhook_reviews_total{outcome="refused"} 1\n' in metrics


def test_probes_and_wrong_doors(webhook: Webhook, files: CertificateFiles) -> None:
    """Health, readiness, and a plain status for what isn't there."""
    connection = webhook.connect(files.authority)
    assert ask(connection, "GET", "/healthz")[0] == 200
    assert ask(connection, "GET", "/readyz")[0] == 200
    assert ask(connection, "HEAD", "/readyz")[2] == b""
    assert ask(connection, "GET", "/")[0] == 404
    status, headers, _ = ask(connection, "GET", "/mutate")
    assert (status, headers["Allow"]) == (405, "POST")
    assert ask(connection, "DELETE", "/healthz")[0] == 405
    assert ask(connection, "POST", "/mutate", b"{}")[0] == 415
    status, _, body = ask(webhook.connect(files.authority), "POST", "/mutate", b"garbage", **JSON)
    assert (status, body.count(b"\n")) == (400, 1)
    assert b"AdmissionReview" in body


def test_a_huge_body_is_refused_before_it_is_read(webhook: Webhook, files: CertificateFiles) -> None:
    """413 for what is declared too large; the largest pod that etcd would take is served."""
    with open_tls(webhook, files) as connection:
        connection.sendall(
            b"POST /mutate HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 4000000\r\n\r\n"
        )
        assert read_all(connection).startswith(b"HTTP/1.1 413 ")
    large = pod()
    large["spec"]["containers"][0]["args"] = ["x" * 1_500_000]
    assert "patch" in post(webhook.connect(files.authority), review_of(large))


def test_whoever_dawdles_is_cut_off(webhook: Webhook, files: CertificateFiles) -> None:
    """No request, half a header, half a body: none of them holds a connection for good, and others are served."""
    silent, half, slow = (open_tls(webhook, files) for _ in range(3))
    with silent, half, slow:
        half.sendall(b"POST /mutate HTTP/1.1\r\nHost:")
        slow.sendall(
            b"POST /mutate HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
        )
        assert "patch" in post(webhook.connect(files.authority), review_of(pod()))
        assert read_all(slow).startswith(b"HTTP/1.1 408 ")
        for connection in (silent, half):
            with contextlib.suppress(ConnectionError, ssl.SSLError):  # cut without a goodbye
                assert read_all(connection) == b""


def test_no_pod_is_lost_in_a_crowd(webhook: Webhook, files: CertificateFiles) -> None:
    """Fifty reviews at once, each on a connection of its own: each gets the patch of its own pod."""

    def one(number: int) -> bool:
        review = review_of(pod(name=f"pod-{number}"))
        made = patched(review, post(webhook.connect(files.authority), review))
        return bool(made["metadata"]["name"] == f"pod-{number}") and "initContainers" in made["spec"]

    with ThreadPoolExecutor(50) as pool:
        assert all(pool.map(one, range(50)))


def test_connections_are_bounded_and_the_idle_make_room(files: CertificateFiles) -> None:
    """Silent clients by the hundred, without TLS and kept alive after it: few are let in, and others are served."""
    with serving(files.certificate, files.key, *INJECTION) as webhook, contextlib.ExitStack() as opened:

        def descriptors() -> int:
            return len(list(Path(f"/proc/{webhook.process.pid}/fd").iterdir()))

        before = descriptors()
        for _ in range(200):
            opened.enter_context(webhook.dial())
        kept = [webhook.connect(files.authority) for _ in range(150)]
        for connection in kept:
            assert "patch" in post(connection, review_of(pod()))
            assert descriptors() < before + 140  # 128, and what is being closed
        assert ask(webhook.connect(files.authority), "GET", "/healthz")[0] == 200
        assert ask(kept[-1], "GET", "/healthz")[0] == 200  # the newest one wasn't cut off
        assert "128" in webhook.wait_for("crowded")["message"]
        assert len(webhook.events("crowded")) < 10  # of a hundred that were cut off
        assert webhook.stop() == 0


def test_garbage_does_not_fill_the_log(files: CertificateFiles) -> None:
    """What isn't HTTP is answered with 400 each time and told of once."""
    with serving(files.certificate, files.key, *INJECTION) as webhook:
        for _ in range(20):
            with open_tls(webhook, files) as connection:
                connection.sendall(b"\x00 garbage\r\n\r\n")
                assert read_all(connection).startswith(b"HTTP/1.1 400 ")
        assert webhook.stop() == 0
        assert 1 <= len(webhook.events("http-server")) < 5


def test_what_speaks_no_tls_or_trusts_another_does_no_harm(webhook: Webhook, tmp_path: Path) -> None:
    """Plain HTTP gets nowhere, and a client that doesn't trust us is told of in the log."""
    with webhook.dial() as plain:
        plain.sendall(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
        assert not plain.recv(100).startswith(b"HTTP")
    with pytest.raises(ssl.SSLCertVerificationError):
        ask(webhook.connect(write_certificates(tmp_path).authority), "GET", "/healthz")
    assert "caBundle" in webhook.wait_for("certificate-refused")["message"]
    assert webhook.process.poll() is None


def test_sigterm_finishes_what_is_in_flight(files: CertificateFiles) -> None:
    """A review that has begun is answered, then the exit code is 0."""
    body = json.dumps(review_of(pod())).encode()
    head = f"POST /mutate HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    with serving(files.certificate, files.key, *INJECTION) as webhook, open_tls(webhook, files) as connection:
        connection.sendall(head.encode() + body[:100])
        post(webhook.connect(files.authority), review_of(pod()))  # by now the first one's header has been read as well
        webhook.process.send_signal(signal.SIGTERM)
        webhook.wait_for("stopping")
        connection.sendall(body[100:])
        answer = read_all(connection)
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert b'"patch"' in answer
        assert webhook.process.wait(DEADLINE_S) == 0
        assert webhook.wait_for("stopped")["reviews"]["injected"] == 2


def test_a_stop_serves_until_nobody_comes_any_more(files: CertificateFiles) -> None:
    """During the drain it isn't ready but serves, and asks clients to come back elsewhere; a second signal ends it."""
    with serving(files.certificate, files.key, *INJECTION, "--drain", "1m") as webhook:
        webhook.process.send_signal(signal.SIGTERM)
        webhook.wait_for("stopping")
        assert ask(webhook.connect(files.authority), "GET", "/readyz")[0] == 503
        assert ask(webhook.connect(files.authority), "GET", "/healthz")[0] == 200
        body = json.dumps(review_of(pod())).encode()
        status, headers, _ = ask(webhook.connect(files.authority), "POST", "/mutate", body, **JSON)
        assert (status, headers["Connection"]) == (200, "close")
        assert webhook.stop(signal.SIGINT) == 0


def test_a_port_in_use_is_exit_code_3(webhook: Webhook, files: CertificateFiles) -> None:
    """One line that names the port."""
    arguments = command(files.certificate, files.key, *INJECTION, "--port", str(webhook.port))
    done = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    assert done.returncode == 3
    (line,) = done.stderr.splitlines()
    assert str(webhook.port) in line


@pytest.mark.parametrize(("argument", "value"), [("--drain", "2m"), ("--port", "70000"), ("--bucket", "s3://x")])
def test_a_wrong_option_is_exit_code_2(argument: str, value: str, files: CertificateFiles) -> None:
    """One line that names the option; those of `inject` are held to the same rules here."""
    arguments = command(files.certificate, files.key, *INJECTION, argument, value)
    done = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert argument in line


def test_the_image_must_be_named(files: CertificateFiles) -> None:
    """The default has no registry, and pods whose image isn't found don't start."""
    done = subprocess.run(
        command(files.certificate, files.key), cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE_S, check=False
    )
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "--image" in line


def test_no_other_command_carries_the_server() -> None:
    """The command line and the resident watch load neither uvicorn nor asyncio."""
    code = (
        "import sys, sidecar.cli, sidecar.commands.watch, sidecar.commands.webhook;"
        "print(*sorted({'uvicorn', 'asyncio', 'h11', 'ssl'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert {"uvicorn", "asyncio"}.isdisjoint(done.stdout.split())
