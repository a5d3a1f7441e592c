"""moto's S3: quick to start, right in its answers, but it checks no signature."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import httpx
from moto.server import ThreadedMotoServer

from tests.s3_servers import S3Endpoint


@contextmanager
def moto_server(port: int = 0) -> Iterator[S3Endpoint]:
    """Run moto on a loopback port (0: a free one) with the bucket ``dumps``, and nothing else, in it."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
    server.start()
    try:
        _, port = server.get_host_and_port()
        httpx.post(f"http://127.0.0.1:{port}/moto-api/reset", trust_env=False)  # its objects outlive its servers
        endpoint = S3Endpoint(
            url=f"http://127.0.0.1:{port}", access_key="moto-access", secret_key="moto-secret", bucket="dumps"
        )
        client = endpoint.client()
        client.create_bucket(Bucket=endpoint.bucket)
        client.close()
        yield endpoint
    finally:
        server.stop()
