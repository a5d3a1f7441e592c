from __future__ import annotations

import os
import ssl
import subprocess
import time
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from tests.s3_servers.certificates import CertificateFiles, write_certificates
from tests.webhook.reviews import pod, review_of
from tests.webhook.serving import DEADLINE_S, ROOT, Webhook, ask, command, post, serving

IMAGE = ["--image", "registry.example.com/oom-heap-dumper:0.1.0"]


class SecretMount:
    """A directory as the kubelet mounts a Secret: files that are symlinks through ..data, which one rename swaps."""

    def __init__(self, root: Path) -> None:
        self.certificate, self.key = root / "tls.crt", root / "tls.key"
        self._root = root
        self._count = 0
        root.mkdir()
        for path in (self.certificate, self.key):
            path.symlink_to(Path("..data") / path.name)

    def put(self, certificate: bytes, key: bytes) -> None:
        """Show this content from now on."""
        self._count += 1
        version = self._root / f"..2026_11_{self._count:02}"
        version.mkdir()
        (version / "tls.crt").write_bytes(certificate)
        (version / "tls.key").write_bytes(key)
        (self._root / "..data_tmp").symlink_to(version.name)
        os.replace(self._root / "..data_tmp", self._root / "..data")  # noqa: PTH105 -- as the kubelet does


def pair(directory: Path) -> CertificateFiles:
    """A fresh certificate of an authority of its own."""
    directory.mkdir()
    return write_certificates(directory)


def serves(webhook: Webhook, authority: Path) -> bool:
    """Whether a new connection is shown a certificate of this authority."""
    try:
        return ask(webhook.connect(authority), "GET", "/healthz")[0] == 200
    except ssl.SSLCertVerificationError:
        return False


def test_a_renewed_certificate_is_taken_while_connections_go_on(tmp_path: Path) -> None:
    """New handshakes show the new one; a connection from before goes on; a broken one is logged and not taken."""
    first, second = pair(tmp_path / "first"), pair(tmp_path / "second")
    secret = SecretMount(tmp_path / "secret")
    secret.put(first.certificate.read_bytes(), first.key.read_bytes())
    with serving(secret.certificate, secret.key, *IMAGE) as webhook:
        old = webhook.connect(first.authority)
        assert "patch" in post(old, review_of(pod()))
        bound = old.sock

        secret.put(second.certificate.read_bytes(), first.key.read_bytes())
        assert "don't belong together" in webhook.wait_for("certificate-unusable")["message"]
        assert serves(webhook, first.authority)

        secret.put(second.certificate.read_bytes(), second.key.read_bytes())
        webhook.wait_for("certificate-reloaded")
        ends_s = time.monotonic() + DEADLINE_S
        while not serves(webhook, second.authority):
            assert time.monotonic() < ends_s
        assert not serves(webhook, first.authority)
        assert "patch" in post(old, review_of(pod()))
        assert old.sock is bound

        secret.certificate.unlink()
        assert "can't be read" in webhook.wait_for("certificate-unusable", 2)["message"]
        assert serves(webhook, second.authority)
        assert webhook.stop() == 0


def encrypted(files: CertificateFiles) -> bytes:
    """A key that wants a password."""
    key = serialization.load_pem_private_key(files.key.read_bytes(), None)
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("missing", ["WEBHOOK_TLS_KEY", "does not exist"]),
        ("swapped", ["WEBHOOK_TLS_CERT", "certificate in PEM"]),
        ("empty key", ["WEBHOOK_TLS_KEY", "private key in PEM"]),
        ("another key", ["WEBHOOK_TLS_KEY", "don't belong together"]),
        ("encrypted", ["WEBHOOK_TLS_KEY", "password"]),
        ("cut", ["WEBHOOK_TLS_CERT", "can't be used"]),
    ],
)
def test_an_unusable_certificate_stops_the_start(case: str, words: list[str], tmp_path: Path) -> None:
    """Exit code 2 and one line that names the setting and the remedy, without asking anybody for a password."""
    good, other = pair(tmp_path / "good"), pair(tmp_path / "other")
    certificate, key = tmp_path / "tls.crt", tmp_path / "tls.key"
    contents = {
        "missing": (good.certificate.read_bytes(), None),
        "swapped": (good.key.read_bytes(), good.certificate.read_bytes()),
        "empty key": (good.certificate.read_bytes(), b""),
        "another key": (good.certificate.read_bytes(), other.key.read_bytes()),
        "encrypted": (good.certificate.read_bytes(), encrypted(good)),
        "cut": (good.certificate.read_bytes()[:200], good.key.read_bytes()),
    }
    for path, content in zip((certificate, key), contents[case], strict=True):
        if content is not None:
            path.write_bytes(content)
    done = subprocess.run(
        command(certificate, key, *IMAGE), cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE_S, check=False
    )
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    for word in words:
        assert word in line
