"""What one would write in an afternoon: look at the memory now and then, and above 80 % fetch the heap by HTTP.

Run as a file: ``http_poller.py USAGE_FILE LIMIT_BYTES URL FOLDER INTERVAL_S``. It says on stdout, a JSON object a line,
when it is ready and when a profile lies in the folder, and ends when the usage can't be read any more.
"""

from __future__ import annotations

import http.client
import json
import sys
import time
import urllib.request
from pathlib import Path

_THRESHOLD = 0.8
_COOLDOWN_S = 30.0
_TIMEOUT_S = 10.0


def poll(usage_file: Path, limit_bytes: int, url: str, folder: Path, interval_s: float) -> None:
    """Poll until the usage can't be read any more. A fetch that failed is tried again at the next look."""
    number, next_dump_s = 0, 0.0
    _tell(event="ready")
    while True:
        time.sleep(interval_s)
        try:
            usage_bytes = int(usage_file.read_text())
        except OSError:  # the container is gone
            return
        if usage_bytes < limit_bytes * _THRESHOLD or time.monotonic() < next_dump_s:
            continue
        try:
            with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as answer:
                profile = answer.read()
        except (OSError, http.client.HTTPException) as error:
            _tell(event="failed", problem=repr(error))
            continue
        number += 1
        (folder / f"heap-{number}.pb.gz").write_bytes(profile)
        next_dump_s = time.monotonic() + _COOLDOWN_S
        _tell(event="saved", at_s=time.time())


def _tell(**fields: object) -> None:
    print(json.dumps(fields), flush=True)


if __name__ == "__main__":
    poll(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], Path(sys.argv[4]), float(sys.argv[5]))
