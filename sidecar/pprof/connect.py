"""Finds out whether a port is a pprof endpoint of a certain program, and how it is spoken to."""

from __future__ import annotations

import ssl
from dataclasses import replace

from sidecar.errors import ASK_CHECK
from sidecar.pprof.answers import SPEAKS_TLS, WANTS_CREDENTIALS, Refusal
from sidecar.pprof.client import UNSENDABLE, PprofClient
from sidecar.pprof.owned_tcp import Owner
from sidecar.settings import PprofSettings

_WITHHELD = f"they weren't sent, as whose port it is isn't visible: name it in PPROF_PORTS, or {ASK_CHECK}"


def connect(
    hosts: tuple[str, ...],
    port: int,
    command_line: bytes,
    settings: PprofSettings,
    *,
    owner_proven: bool = False,
    owner: Owner | None = None,
) -> PprofClient | Refusal:
    """Find out whether a port serves pprof of the program with this command line, in plain HTTP or with TLS.

    ``hosts`` are tried in order; ``owner_proven`` as in `PprofClient.probe`, ``owner`` as in `PprofClient`. Returns the
    endpoint, with a warm connection where its probe was read to the end, or the most telling refusal. Never raises.

    The settings' headers may hold a token of the app's. They go to a port that is proven to be the program's, or that
    the settings name, and to no other: its answer may be a lie.
    """
    withheld = bool(settings.headers) and not owner_proven and port not in settings.ports
    if withheld:
        settings = replace(settings, headers=())
    refusal = Refusal(reason="no host to dial")
    schemes = ("http", "https") if settings.scheme == "auto" else (settings.scheme,)
    for host in hosts:
        for scheme in schemes:
            try:
                tls = _tls_context(settings) if scheme == "https" else None
                client = PprofClient(host=host, port=port, settings=settings, tls=tls, owner=owner)
            except OSError as error:
                return Refusal(reason=f"port {port}: PPROF_CA_FILE {settings.ca_file} can't be used: {error}")
            except ValueError:
                return Refusal(reason=f"port {port}: {UNSENDABLE}")
            answer = client.probe(command_line, owner_proven=owner_proven)
            if answer is None:
                return client
            client.close()
            if scheme == "http" or len(schemes) == 1 or refusal.reason == SPEAKS_TLS:
                refusal = answer
            if answer.reason != SPEAKS_TLS:
                break
    why = f"; {_WITHHELD}" if withheld and refusal.reason.endswith(WANTS_CREDENTIALS) else ""
    return Refusal(reason=f"port {port}: {refusal.reason}{why}")


def _tls_context(settings: PprofSettings) -> ssl.SSLContext:
    """Check the chain against the given CA only. Names aren't checked: an address inside the pod is dialled."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    if settings.ca_file is None:
        context.verify_mode = ssl.CERT_NONE
    else:
        context.load_verify_locations(settings.ca_file)
    return context
