from __future__ import annotations

import inspect
import json
import os
import re
from pathlib import Path

import boto3
import botocore.credentials
import botocore.session
import botocore.tokens
import pytest
from botocore.exceptions import UnknownServiceError
from botocore.loaders import Loader

from sidecar import __version__

ROOT = Path(__file__).parents[2]
BOTOCORE_DATA = Path(botocore.__file__).parent / "data"


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions as (word, rest), continuation lines joined."""
    lines = [line for line in (ROOT / "Dockerfile").read_text().splitlines() if not line.startswith("#")]
    joined = re.sub(r"\s*\\\n\s*", " ", "\n".join(lines))
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in joined.splitlines() if line)]


def final_stage() -> list[tuple[str, str]]:
    """The instructions that make the image itself."""
    found = instructions()
    last = max(index for index, (word, _) in enumerate(found) if word == "FROM")
    return found[last:]


def default_of(argument: str) -> str:
    """The default of a build argument."""
    (value,) = (
        rest.partition("=")[2] for word, rest in instructions() if word == "ARG" and rest.startswith(f"{argument}=")
    )
    return value


def kept_services() -> set[str]:
    """The services whose descriptions stay in the image's botocore."""
    return set(re.findall(r"! -name (\S+)", (ROOT / "Dockerfile").read_text()))


def test_every_base_is_an_argument_with_a_pinned_default() -> None:
    """Each stage starts from a build argument, whose default names a tag other than latest, or a digest."""
    bases = [rest.split()[0] for word, rest in instructions() if word == "FROM"]
    assert len(bases) == 2
    for base in bases:
        reference = re.fullmatch(r"\$\{(\w+)\}", base)
        assert reference is not None
        tag = re.search(r"(?::(?P<tag>[\w.-]+))?(?P<digest>@sha256:[0-9a-f]{64})?$", default_of(reference[1]))
        assert tag is not None
        assert tag["digest"] or tag["tag"] not in {None, "latest"}


def test_every_package_is_pinned_by_its_hash() -> None:
    """Packages come from hashed requirements, or from the wheel that was just built, never by name alone."""
    text = "\n".join(rest for _, rest in instructions())
    installs = re.findall(r"pip --python \S+ install(.*?)(?=&&|$)", text, re.MULTILINE)
    assert len(installs) == 3
    for options in installs:
        assert "--require-hashes" in options or "--no-index" in options


def test_the_final_stage_needs_no_shell() -> None:
    """Everything that runs in the final image is in exec form, as that image may have no shell."""
    for word, rest in final_stage():
        if word in {"RUN", "ENTRYPOINT", "CMD"}:
            assert isinstance(json.loads(rest), list)
        if word == "HEALTHCHECK":
            assert json.loads(rest.partition(" CMD ")[2]) == ["oom-heap-dumper", "health"]


def test_the_image_runs_the_watch_without_root() -> None:
    """The last user is numeric and not root, and without arguments the sidecar watches."""
    last = dict(final_stage())
    assert last["USER"] == "65532:65532"
    assert json.loads(last["ENTRYPOINT"]) == ["oom-heap-dumper"]
    assert json.loads(last["CMD"]) == ["watch"]


def test_the_label_says_the_version() -> None:
    """The image's version label defaults to the package's version."""
    assert default_of("VERSION") == __version__


def test_the_build_context_holds_what_is_copied() -> None:
    """Everything the build copies exists and isn't ignored, and the context has nothing else."""
    admitted = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = [
        source.rstrip("/")
        for word, rest in instructions()
        if word == "COPY" and "--from" not in rest
        for source in rest.split()[:-1]
    ]
    assert {name.split("/")[0] for name in admitted} == set(copied)
    assert all((ROOT / name).exists() for name in admitted)


def test_the_image_keeps_every_service_that_credentials_come_from() -> None:
    """Botocore asks only services that the image keeps, whatever the source of the credentials."""
    source = inspect.getsource(botocore.credentials) + inspect.getsource(botocore.tokens)
    asked = set(re.findall(r"client(?:_creator)?\(\s*['\"]([a-z-]+)['\"]", source))
    assert {"sts", "sso"} <= asked
    assert asked <= kept_services()


@pytest.fixture
def trimmed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> boto3.Session:
    """A session that has only the data that the image keeps, and no setting of this machine."""
    for entry in BOTOCORE_DATA.iterdir():
        if entry.is_file() or entry.name in kept_services():
            (tmp_path / entry.name).symlink_to(entry)
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    session = botocore.session.Session()
    session.register_component("data_loader", Loader([str(tmp_path)], include_default_search_paths=False))
    session.set_credentials("AKIDEXAMPLE", "secret")
    return boto3.Session(botocore_session=session, region_name="eu-central-1")


def test_s3_works_with_the_data_that_the_image_keeps(trimmed: boto3.Session) -> None:
    """An S3 client resolves the bucket's endpoint, signs, and pages, without the other services' data."""
    s3 = trimmed.client("s3")
    url = s3.generate_presigned_url("get_object", Params={"Bucket": "example-heap-dumps", "Key": "a"})
    assert url.startswith("https://example-heap-dumps.s3.")
    assert s3.can_paginate("list_objects_v2")
    with pytest.raises(UnknownServiceError):
        trimmed.client("ec2")


def test_sts_works_with_the_data_that_the_image_keeps(trimmed: boto3.Session) -> None:
    """IRSA's exchange of a token for credentials has its client, at the region's own endpoint."""
    sts = trimmed.client("sts")
    assert hasattr(sts, "assume_role_with_web_identity")
    assert sts.meta.endpoint_url == "https://sts.eu-central-1.amazonaws.com"
