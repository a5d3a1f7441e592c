"""The server's certificate, loaded anew when its files change, while connections go on."""

from __future__ import annotations

import logging
import os
import ssl
import time
from pathlib import Path

from sidecar import logs
from sidecar.errors import ConfigError

_Signature = tuple[tuple[int, int, int, int], ...]


class Certificate:
    """A certificate and its key in PEM files, such as a mounted Secret's, which Kubernetes swaps by a symlink.

    ``context`` is what a server is given, once. Each handshake takes the newest pair that could be loaded; connections
    that stand keep theirs. Raises ConfigError if there is no usable pair at the start.
    """

    def __init__(self, certificate: Path, key: Path) -> None:
        self._certificate = certificate
        self._key = key
        self._seen = self._signature()
        self._current = _load(certificate, key)
        self.context = _load(certificate, key)
        # OpenSSL calls this in every handshake, also where the client names no server.
        self.context.sni_callback = self._use_current
        self.context.sslobject_class = _Handshake

    def reload_if_changed(self) -> None:
        """Take new files into use; where they can't be, say so once and keep the old ones."""
        signature = self._signature()
        if signature == self._seen:
            return
        self._seen = signature
        try:
            self._current = _load(self._certificate, self._key)
        except ConfigError as error:
            logs.event(logging.ERROR, "certificate-unusable", f"{error}; the old certificate stays in use")
        else:
            logs.event(logging.INFO, "certificate-reloaded", f"{self._certificate} has changed and is in use")

    def _use_current(self, connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        connection.context = self._current

    def _signature(self) -> _Signature | None:
        """What tells a changed file, through symlinks; None while one is missing."""
        try:
            found = [os.stat(path) for path in (self._certificate, self._key)]  # noqa: PTH116 -- one call for both
        except OSError:
            return None
        return tuple((each.st_dev, each.st_ino, each.st_mtime_ns, each.st_size) for each in found)


class _Handshake(ssl.SSLObject):
    """Tells of clients that refuse the certificate: nobody else would, as asyncio keeps failed handshakes to itself."""

    _told = logs.RateLimit()

    def do_handshake(self) -> None:
        try:
            super().do_handshake()
        except ssl.SSLError as error:
            reason = error.reason or ""
            left_out = self._told.admit(reason, time.monotonic()) if "ALERT" in reason else None
            if left_out is not None:
                logs.event(
                    logging.WARNING,
                    "certificate-refused",
                    f"a client refused our certificate ({reason}): if it was the API server, caBundle of the webhook "
                    "configuration must be the authority that signed it, and the certificate be for the service's name",
                    reason=reason,
                    left_out=left_out,
                )
            raise


def _load(certificate: Path, key: Path) -> ssl.SSLContext:
    """A context with the pair. Raises ConfigError that says which file is wrong."""
    for path, setting, marker in (
        (certificate, "WEBHOOK_TLS_CERT", b"-----BEGIN CERTIFICATE-----"),
        (key, "WEBHOOK_TLS_KEY", b"PRIVATE KEY-----"),
    ):
        try:
            content = path.read_bytes()
        except OSError as error:
            raise ConfigError(f"{setting} {path} can't be read ({error.strerror}): mount the Secret there") from error
        if marker not in content:
            raise ConfigError(f"{setting} {path} has no {marker.strip(b'-').decode().lower()} in PEM form: give one")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    both = f"WEBHOOK_TLS_CERT {certificate} and WEBHOOK_TLS_KEY {key}"
    try:
        context.load_cert_chain(certificate, key, password=_no_password)
    except OSError as error:  # an SSLError is one, too
        reason = error.reason if isinstance(error, ssl.SSLError) else error.strerror
        if reason == "KEY_VALUES_MISMATCH":
            raise ConfigError(f"{both} don't belong together: give the key that the certificate was made for") from None
        raise ConfigError(f"{both} can't be used ({reason}): give a certificate chain and its key in PEM") from None
    return context


def _no_password() -> str:
    """Called for an encrypted key, where OpenSSL would ask on the terminal."""
    raise ConfigError("the key at WEBHOOK_TLS_KEY is encrypted: give one without a password, from a Secret")
