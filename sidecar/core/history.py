"""The samples of the last minute, in a fixed and small amount of memory."""

from __future__ import annotations

from array import array

from sidecar.core.model import Sample

_NO_LIMIT = -1


class SampleHistory:
    """A ring of the last ``capacity`` samples, kept no closer together than ``spacing_s``.

    A sample is 32 bytes here; 640 of them, 95 ms apart or more, cover a minute in 20 KiB for each container.
    """

    def __init__(self, capacity: int = 640, spacing_s: float = 0.095) -> None:
        """All memory is taken at once, so that it is seen at the start and not in the crisis."""
        self._capacity = capacity
        self._spacing_s = spacing_s
        self._at_s = array("d", bytes(8 * capacity))
        self._numbers = array("q", bytes(24 * capacity))
        self._count = 0

    def add(self, sample: Sample) -> None:
        """Remember a sample, unless one was remembered just before."""
        if self._count and sample.at_s - self._at_s[(self._count - 1) % self._capacity] < self._spacing_s:
            return
        slot = self._count % self._capacity
        reading = sample.reading
        self._at_s[slot] = sample.at_s
        self._numbers[3 * slot] = reading.usage_bytes
        self._numbers[3 * slot + 1] = reading.working_set_bytes
        self._numbers[3 * slot + 2] = _NO_LIMIT if reading.limit_bytes is None else reading.limit_bytes
        self._count += 1

    def rows(self, now_s: float, window_s: float = 60.0) -> list[tuple[float, int, int, int | None]]:
        """Seconds before now (negative), usage, working set and limit of each sample in the window, oldest first."""
        rows = []
        for index in range(max(0, self._count - self._capacity), self._count):
            slot = index % self._capacity
            age_s = self._at_s[slot] - now_s
            if age_s >= -window_s:
                usage, working_set, limit = self._numbers[3 * slot : 3 * slot + 3]
                rows.append((round(age_s, 3), usage, working_set, None if limit == _NO_LIMIT else limit))
        return rows
