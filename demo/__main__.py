"""A real OOM kill, its heap profile in a local S3, and what the profile says.

Exit code 0 if the profile named the leak, 1 if not, 2 for wrong usage, 130 or 143 if ended early.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path
from types import FrameType


class EndedError(BaseException):
    """A signal asks to end; the clean-up runs as the stack unwinds. Its argument is the signal's number."""


def main() -> int:
    """Read the command line, play the story, and turn what goes wrong into one line."""
    options = _options()
    if sys.platform != "linux":
        return _fail("the demo needs Linux, for cgroups and /proc: run it in a Linux machine or container")
    try:
        from demo.narrator import Narrator
        from demo.story import play
        from localpod import pod
        from localpod.errors import LocalPodError
    except ModuleNotFoundError as error:
        return _fail(f"the package {error.name} is missing: run make demo, which installs it first")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _end)
    narrator = Narrator(sys.stdout, os.environ)
    try:
        in_pod = not options.plain and pod.unavailable() is None
        return 0 if play(narrator, in_pod=in_pod, cache=options.cache, keep=options.keep) else 1
    except LocalPodError as error:
        return _fail(str(error))
    except EndedError as ended:
        print("demo: ended early; everything it started is gone", file=sys.stderr)
        return 128 + int(ended.args[0])
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains of the pipe at exit
        return 141


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m demo", description=__doc__)
    cache = Path(__file__).resolve().parent.parent / ".cache"
    parser.add_argument(
        "--cache", type=Path, default=cache, metavar="DIR", help="for Go and what it builds (%(default)s)"
    )
    parser.add_argument("--keep", type=Path, metavar="DIR", help="fetch the dump into DIR and leave it there")
    parser.add_argument(
        "--plain", action="store_true", help="no pod and no cgroups, as if there were no rights for them"
    )
    return parser.parse_args()


def _end(number: int, _frame: FrameType | None) -> None:
    for later in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(later, signal.SIG_IGN)  # the clean-up is short and isn't to be cut
    raise EndedError(number)


def _fail(message: str) -> int:
    print(f"demo: {' '.join(message.split())}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
