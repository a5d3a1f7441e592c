"""The Go service of the benchmarks as a container of a local pod, and the orders that it takes."""

from __future__ import annotations

import http.client
from dataclasses import dataclass
from pathlib import Path

from benchmarks import first_words
from benchmarks.errors import BenchmarkError
from localpod.pod import LocalContainer, LocalPod
from localpod.toolchain import Toolchain

_SOURCE = Path(__file__).with_name("go-service")
_WITHIN_S = 60.0

MANY_STACKS = 512


def build(go: Toolchain) -> Path:
    """Compile the service. Raises `LocalPodError`."""
    return go.build(_SOURCE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A running service. ``pod_pid`` is how the sidecar knows its process."""

    container: LocalContainer
    pod_pid: int
    host: str
    port: int

    def hold(self, size_bytes: int) -> None:
        """Make it hold this much, no more and no less; done on return."""
        self._order(f"/hold?bytes={size_bytes}")

    def leak(self, bytes_per_s: int) -> None:
        """Make it take that much more each second from now on."""
        self._order(f"/leak?rate={bytes_per_s}")

    def _order(self, path: str) -> None:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=_WITHIN_S)
        try:
            connection.request("GET", path)
            status = connection.getresponse().status
        except OSError as error:
            raise BenchmarkError(f"container {self.container.name} doesn't answer {path}: {error}") from None
        finally:
            connection.close()
        if status != http.HTTPStatus.OK:
            raise BenchmarkError(f"container {self.container.name} answers {path} with HTTP {status}")


def start(
    pod: LocalPod,
    program: Path,
    name: str,
    *,
    memory_limit_bytes: int,
    cpu_millicores: int | None = None,
    stacks: int = 0,
    records: int = 0,
    busy: bool = False,
) -> Service:
    """Start the service as container ``name``, with as many ``records`` for its ``/work``.

    Raises `LocalPodError` or `BenchmarkError` if it can't.
    """
    container, address = first_words.start(
        pod,
        program,
        name,
        memory_limit_bytes=memory_limit_bytes,
        cpu_millicores=cpu_millicores,
        env={"STACKS": str(stacks), "RECORDS": str(records), "BUSY": str(int(busy))},
    )
    host, _, port = address.rpartition(":")
    return Service(container=container, pod_pid=container.pod_pid, host=host, port=int(port))
