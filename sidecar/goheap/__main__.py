"""``python -m sidecar.goheap encode RAW EXECUTABLE OUT``: a profile of a raw snapshot, made by a process of its own."""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import get_args

from sidecar.errors import OomHeapDumperError
from sidecar.goheap.buckets import View
from sidecar.goheap.encode import encode


def main(arguments: list[str] | None = None) -> int:
    """Run a command; on success a line of JSON on standard output says what became of the snapshot."""
    parser = argparse.ArgumentParser(prog="python -m sidecar.goheap")
    command = parser.add_subparsers(required=True).add_parser("encode", help="write a raw snapshot as a pprof profile")
    command.add_argument("raw", type=Path, metavar="RAW", help="what HeapReader.snapshot gave")
    command.add_argument("executable", type=Path, metavar="EXECUTABLE", help="the program; /dev/fd/N will do")
    command.add_argument("out", type=Path, metavar="OUT", help="the profile to write")
    command.add_argument(
        "--view", choices=get_args(View), default="newest", help="newest counts (default) or published"
    )
    given = parser.parse_args(arguments)
    partial = given.out.with_name(f".{given.out.name}.{os.getpid()}.part")
    try:
        with partial.open("wb") as file:
            result = encode(given.raw, given.executable, file, given.view)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(given.out)
    except OSError as error:
        sys.stderr.write(f"{error.filename or given.out}: {error.strerror}\n")
        return 1
    except OomHeapDumperError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    finally:
        partial.unlink(missing_ok=True)
    sys.stdout.write(json.dumps(asdict(result)) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
