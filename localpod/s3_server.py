"""The program behind `localpod.s3`: moto's S3 on a free loopback port, which it prints. It ends when its stdin does."""

from __future__ import annotations

import sys

from moto.server import ThreadedMotoServer


def main() -> None:
    """Serve until stdin ends: also when whoever started us was killed."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    print(port, flush=True)  # noqa: T201 -- the one thing that our parent asks of us
    sys.stdin.read()
    server.stop()


if __name__ == "__main__":
    main()
