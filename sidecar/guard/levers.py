"""The limits of a cgroup that are raised together and lowered again: one on v2, that with swap beside it on v1."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path

from sidecar.core import guard
from sidecar.core.guard import Span
from sidecar.guard.cgroup_view import FILE_NAMES, NumberFile, open_writable
from sidecar.guard.journal import Change
from sidecar.kernel import cgroup_files
from sidecar.kernel.cgroup_files import CgroupVersion


class Lever:
    """One limit: what it was, how many steps it is up, and whether somebody else has changed it since."""

    def __init__(self, limit: NumberFile, usage: NumberFile) -> None:
        self.limit = limit
        self.usage = usage
        self.original_bytes: int | None = None
        self.span: Span | None = None
        self.steps = 0

    def settle(self, original_bytes: int | None, most_steps: int, step_bytes: int) -> None:
        """Take a value for the original one."""
        self.original_bytes, self.span, self.steps = original_bytes, None, 0
        if original_bytes is not None:
            self.span = Span(base_bytes=original_bytes, step_bytes=step_bytes, steps=most_steps)

    def resume(self, change: Change, value_bytes: int | None) -> bool:
        """Go on where an earlier run ended; False if the value isn't one of its."""
        for span in change.spans:
            steps = span.steps_of(value_bytes)
            if steps and span.base_bytes == change.original_bytes:
                self.original_bytes, self.span, self.steps = change.original_bytes, span, steps
                return True
        return False

    def is_ours(self) -> bool:
        """Whether the kernel says what was written last. One that was changed is given up: theirs wins."""
        if self.span is None or not self.steps:
            return False
        if self.limit.read() == self.span.value_bytes(self.steps):
            return True
        self.steps = 0
        return False

    def put(self, steps: int) -> None:
        """Write. Raises OSError."""
        if self.span is not None:
            self.limit.write(self.span.value_bytes(steps))
            self.steps = steps


class Levers:
    """The limits of one cgroup, in the order of lowering; raising goes the other way round."""

    def __init__(self, directory: Path, version: CgroupVersion) -> None:
        """Open the files. Raises `GuardUnavailableError` without the right to write them, OSError for the others."""
        names = FILE_NAMES[version]
        self._names = names
        self._levers: list[Lever] = []
        self._files: list[NumberFile] = []
        try:
            self._stat = self._keep_open(NumberFile(directory / "memory.stat"))
            self._add(directory, names.limit, names.usage)
            # not where the kernel doesn't account for swap
            if names.swap_limit and names.swap_usage and (directory / names.swap_limit).exists():
                self._add(directory, names.swap_limit, names.swap_usage)
        except BaseException:
            self.close()
            raise

    def _add(self, directory: Path, limit: str, usage: str) -> None:
        opened = self._keep_open(open_writable(directory / limit))
        self._levers.append(Lever(opened, self._keep_open(NumberFile(directory / usage, os.O_RDONLY))))

    def _keep_open(self, file: NumberFile) -> NumberFile:
        self._files.append(file)
        return file

    @property
    def main(self) -> Lever:
        """The limit of memory alone."""
        return self._levers[0]

    @property
    def are_up(self) -> bool:
        """Whether any is raised and, as far as known, still ours."""
        return any(lever.steps for lever in self._levers)

    def originals_hold(self) -> bool:
        """Whether each limit reads as its original, that is: nobody has changed it."""
        return all(lever.limit.read() == lever.original_bytes for lever in self._levers)

    def read_limits(self) -> list[int | None]:
        """What the limits say now."""
        return [lever.limit.read() for lever in self._levers]

    def settle(self, originals: list[int | None], most_steps: int, step_bytes: int) -> None:
        """Take these for the originals; nothing is raised."""
        for lever, original in zip(self._levers, originals, strict=True):
            lever.settle(original, most_steps, step_bytes)

    def changes(self, originals: list[int | None], most_steps: int, step_bytes: int) -> tuple[Change, ...]:
        """What the journal has to say before these originals may be raised."""
        return tuple(
            Change(
                file=lever.limit.name,
                original_bytes=original,
                spans=() if original is None else (Span(base_bytes=original, step_bytes=step_bytes, steps=most_steps),),
            )
            for lever, original in zip(self._levers, originals, strict=True)
        )

    def resume(self, changes: tuple[Change, ...]) -> bool:
        """Go on with what an earlier run raised; whether there was anything."""
        by_file = {change.file: change for change in changes}
        found = False
        for lever in self._levers:
            value = lever.limit.read()
            change = by_file.get(lever.limit.name)
            if change is not None and lever.resume(change, value):
                found = True
            else:
                lever.original_bytes, lever.span, lever.steps = value, None, 0
        return found

    def raise_by(self, steps: int) -> None:
        """Raise every limit that there is, that with swap first: it can't be below the other. Raises OSError."""
        for lever in reversed(self._levers):
            lever.put(steps)

    def lost(self) -> list[str]:
        """Give up what somebody else has changed; the names of those files."""
        return [lever.limit.name for lever in self._levers if lever.steps and not lever.is_ours()]

    def lower(self) -> bool:
        """Lower each as far as the usage lets, if it is still ours; whether nothing is up any more. Raises OSError."""
        least = 0
        for lever in self._levers:
            if lever.span is not None and lever.is_ours():
                usage = lever.usage.read() or 0
                steps = guard.lowered_steps(
                    lever.span, lever.steps, usage_bytes=usage, reclaimable_bytes=self._reclaimable_bytes()
                )
                steps = max(steps, min(least, lever.steps))
                if steps < lever.steps:
                    self._try(lever, steps)
            least = max(least, lever.steps)
        return not self.are_up

    def lower_fully(self) -> bool:
        """Lower until nothing is up (True), or memory in use stops it (False). Raises OSError."""
        before = None
        while not self.lower():
            # each pass asks for a little page cache only
            if before == (before := self.read_limits()):
                return False
        return True

    @staticmethod
    def _try(lever: Lever, steps: int) -> None:
        try:
            lever.put(steps)
        except OSError as error:
            # mm/memcontrol-v1.c, mem_cgroup_resize_max: EBUSY while more is in use than the limit to be; EINVAL for one
            # of memory and swap below that of memory, which here is somebody else's by now
            if error.errno == errno.EINVAL:
                lever.steps = 0
            elif error.errno != errno.EBUSY:
                raise

    def _reclaimable_bytes(self) -> int:
        """Page cache that the kernel can drop without writing to a disk."""
        stat = self._stat.read_text()
        inactive = cgroup_files.parse_flat_keyed(stat, self._names.inactive_file) or 0
        return inactive - sum(cgroup_files.parse_flat_keyed(stat, key) or 0 for key in self._names.dirty)

    def close(self) -> None:
        """Give back the descriptors."""
        while self._files:
            with contextlib.suppress(OSError):
                self._files.pop().close()
