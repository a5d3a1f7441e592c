"""What ends the loop's sleep before its time: other threads, signal handlers, and the kernel's notes of events."""

from __future__ import annotations

import contextlib
import os
import select


class Wakeup:
    """Cuts the loop's sleep short (eventfd(2), poll(2)). `set` is for any thread, the rest for the loop's own."""

    def __init__(self) -> None:
        self._fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._poll = select.poll()
        self._poll.register(self._fd, select.POLLIN)
        self._watched: set[int] = set()

    def set(self) -> None:
        """End the current sleep, or the next one."""
        with contextlib.suppress(BlockingIOError):  # the counter is full: it is set
            os.eventfd_write(self._fd, 1)

    def watch(self, events_fd: int) -> None:
        """Let the next event of a cgroup (POLLPRI on its memory.events) end a sleep, once.

        Kernels raise POLLERR with it, which can't be masked: what fired is watched no more until this is called again.
        """
        if events_fd not in self._watched:
            self._watched.add(events_fd)
            self._poll.register(events_fd, select.POLLPRI)

    def unwatch(self, events_fd: int) -> None:
        """The descriptor is about to be closed."""
        if events_fd in self._watched:
            self._watched.discard(events_fd)
            self._poll.unregister(events_fd)

    def sleep(self, seconds: float) -> frozenset[int]:
        """Sleep until ``set`` is called, an event comes or the time is over; tells whose events came."""
        fired = []
        for descriptor, _ in self._poll.poll(max(0.0, seconds) * 1000):
            if descriptor == self._fd:
                with contextlib.suppress(BlockingIOError):
                    os.eventfd_read(self._fd)
            else:
                self.unwatch(descriptor)
                fired.append(descriptor)
        return frozenset(fired)
