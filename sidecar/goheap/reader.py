"""The way in: find a Go program's buckets once, when it is first seen, and read them when it matters."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Self

from sidecar.core.model import GoProgram
from sidecar.core.output import Output
from sidecar.errors import ASK_CHECK, NotPermittedError, TargetGoneError, UnreadableExecutableError
from sidecar.goheap import buckets, raw
from sidecar.goheap.elf import ElfFile
from sidecar.goheap.errors import GoHeapError, NotGoError, UnknownLayoutError
from sidecar.goheap.inline_trees import find_trees
from sidecar.goheap.layouts import GcState, GoLayout, RecordLayout, layout_of
from sidecar.goheap.mappings import executable_mappings, image_of, load_bias, read_mapped_files
from sidecar.goheap.memory import UnmappedError
from sidecar.goheap.module import find_module, functions_sha256
from sidecar.goheap.process_memory import ProcessMemory
from sidecar.goheap.proof import prove_layout, prove_totals
from sidecar.goheap.snapshot import BucketReader, Limits
from sidecar.goheap.symbols import Variables, find_variables, zeroed_pointers
from sidecar.kernel.go_executable import read_go_program

# Where the kernel shows a program's code to be, once its memory is gone or to those who may not know (fs/proc/array.c).
_NO_CODE = (b"0", b"1")
# Any program has a single list of buckets, and few have this many pointers among their zeroed data.
_MAX_POINTERS = 1 << 17
_MAX_CANDIDATES = 8


class HeapReader:
    """Reads one process's buckets; a context manager. It keeps the executable open, to name the frames afterwards."""

    def __init__(
        self,
        *,
        memory: ProcessMemory,
        executable: int,
        program: GoProgram,
        process: Path,
        image: tuple[bytes, ...],
        buckets: BucketReader,
    ) -> None:
        """Made by `prepare`."""
        self.executable = executable
        self.program = program
        self._memory = memory
        self._process = process
        self._image = image
        self._buckets = buckets

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Give the descriptors back; more than once does no harm."""
        self._memory.close()
        if self.executable >= 0:
            os.close(self.executable)
            self.executable = -1

    def refresh(self, limits: Limits = Limits()) -> int:  # noqa: B008 -- a frozen value
        """Learn the buckets that are new, which makes the next snapshot faster; tells how many there are.

        Cheap enough for every few seconds. Raises what `snapshot` does.
        """
        self._ensure_same_program()
        return self._buckets.refresh(limits)

    @property
    def known_buckets(self) -> int:
        """How many stacks of the profile are known so far."""
        return self._buckets.known_buckets

    @property
    def known_bytes(self) -> int:
        """How much memory their blocks take, which a snapshot copies."""
        return self._buckets.known_bytes

    def gc_state(self) -> GcState | None:
        """What the collector says now; None where its layout can't be told. Raises what `snapshot` does."""
        self._ensure_same_program()
        return self._buckets.readings().gc

    def snapshot(self, limits: Limits = Limits()) -> bytes:  # noqa: B008 -- a frozen value
        """The raw snapshot, self-describing: write it to a file first, and `encode` it when there is time.

        Raises `ProfilingOffError`, `TargetGoneError`, `NotPermittedError` or `TargetReadError`.
        """
        self._ensure_same_program()
        return b"".join(self._buckets.snapshot(limits))

    def write_snapshot(self, file: Output, limits: Limits = Limits()) -> int:  # noqa: B008 -- a frozen value
        """The same into a file, without a second copy in memory; tells how many bytes. Raises OSError of the file too.

        Everything is read before the first byte is written.
        """
        self._ensure_same_program()
        size_bytes = 0
        for piece in self._buckets.snapshot(limits):
            file.write(piece)
            size_bytes += len(piece)
        return size_bytes

    def _ensure_same_program(self) -> None:
        """A process that has run another program since is gone for us."""
        found = image_of(self._process)
        if found != self._image:
            has_ended = found[0] == self._image[0] and found[1] in _NO_CODE
            what = "the process has ended" if has_ended else "the process runs another program now"
            raise TargetGoneError(f"{self._process}: {what}")


def prepare(proc: Path, pid: int) -> HeapReader:
    """Find all that a snapshot needs, prove that it is what we think, and learn the buckets there are.

    Raises `ProfilingOffError` for a program without a heap profile, `UnknownLayoutError` for a runtime that we don't
    know (in the first moments after an exec it may pass: try again), another `GoHeapError` for what isn't a Go program
    or has too large an executable to search, and `NotPermittedError`, `TargetGoneError` or `TargetReadError`. Takes
    some milliseconds, with very many buckets or a very large executable some tens: call it beside the loop.
    """
    process = proc / str(pid)
    image = image_of(process)
    try:
        found = read_go_program(proc, pid)
    except UnreadableExecutableError as error:
        raise GoHeapError(str(error)) from error
    if found is None:
        raise NotGoError(f"process {pid} isn't a Go program")
    if found.go_version is None:
        raise UnknownLayoutError(f"the executable of process {pid} doesn't tell its version of Go")
    layout = layout_of(found.go_version)
    executable = _open(process / "exe", pid)
    memory = None
    try:
        memory = ProcessMemory(proc, pid)
        elf = ElfFile(executable)
        mapped = read_mapped_files(process)
        bias = load_bias(elf, mapped, memory)
        module = find_module(elf, memory, bias, layout.gofunc_at)
        if not layout.known:
            module = find_trees(memory, module, bias)
        variables = find_variables(elf, memory, module, bias)
        program = raw.Program(
            go_version=found.go_version,
            go_build_id=found.build_id,
            record=layout.records[0],
            bias=bias,
            module=module,
            mappings=tuple(executable_mappings(process, mapped, elf)),
            functions_sha256=None if found.build_id else functions_sha256(elf, module),
        )
        reader = _proven_reader(memory, program, variables, layout)
        memory.ensure_alive()
    except BaseException:
        os.close(executable)
        if memory is not None:
            memory.close()
        raise
    return HeapReader(memory=memory, executable=executable, program=found, process=process, image=image, buckets=reader)


def _proven_reader(memory: ProcessMemory, program: raw.Program, variables: Variables, layout: GoLayout) -> BucketReader:
    """The reader whose list of buckets is one, and which knows them all."""
    problem: GoHeapError = UnknownLayoutError("runtime.mbuckets isn't where the known versions of Go have it")
    for record in layout.records:
        for mbuckets in islice(_candidates(memory, program, variables, record), _MAX_CANDIDATES):
            fitting = replace(program, record=record)
            reader = BucketReader(memory, fitting, variables, mbuckets)
            head = reader.readings().head
            try:
                prove_layout(memory, head, record)
                reader.refresh(Limits())
                if not layout.known:
                    prove_totals(*raw.decode(memoryview(b"".join(reader.snapshot(Limits())))))
            except UnknownLayoutError as error:
                problem = error
                continue
            return reader
    raise problem


def _candidates(
    memory: ProcessMemory, program: raw.Program, variables: Variables, record: RecordLayout
) -> Iterator[int]:
    """Addresses, as linked, that may be runtime.mbuckets: what the code says, then all pointers to a sound bucket."""
    if variables.mbuckets is not None:
        yield variables.mbuckets
    for address, value in islice(zeroed_pointers(memory, program.module, program.bias), _MAX_POINTERS):
        try:
            bucket, _ = buckets.read_bucket(memory, value, record)
        except UnmappedError:
            continue
        if bucket is not None and address != variables.mbuckets:
            yield address


def _open(exe: Path, pid: int) -> int:
    try:
        return os.open(exe, os.O_RDONLY | os.O_CLOEXEC)
    except PermissionError as error:
        raise NotPermittedError(f"the executable of process {pid} isn't readable: {ASK_CHECK}") from error
    except OSError as error:
        raise TargetGoneError(f"process {pid} has ended") from error
