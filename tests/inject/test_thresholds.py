"""The threshold of the dump and the level of the brake."""

from __future__ import annotations

import pytest

from sidecar.errors import ConfigError
from sidecar.inject.model import Options
from sidecar.inject.plan import plan_injection
from tests.inject.pods import environment, injected, pod, sidecar_of


@pytest.mark.parametrize(
    ("critical", "gomemlimit", "chosen", "warns"),
    [
        (None, 90.0, "95", False),
        (None, 70.0, None, False),
        (None, 80.0, "90", False),
        (None, 99.0, "99", False),
        (None, None, None, False),
        (80.0, 90.0, "80", True),
        (92.0, 90.0, "92", False),
        (80.0, None, "80", False),
    ],
)
def test_the_threshold_stays_above_gomemlimit(
    critical: float | None, gomemlimit: float | None, chosen: str | None, *, warns: bool
) -> None:
    """Left to us it is set above; given below, it is kept and the report warns. Our own defaults never warn."""
    options = Options(bucket="my-dumps", critical_percent=critical, gomemlimit_percent=gomemlimit)
    plan = plan_injection(pod(), at="", options=options, annotations={})
    assert environment(sidecar_of(injected(pod(), options))).get("CRITICAL") == chosen
    assert any("dump in peace" in each for each in plan.warnings) == warns


@pytest.mark.parametrize(
    ("variables", "critical", "brake"),
    [
        ((("GUARD", "auto"),), None, "97.5"),
        ((("GUARD", "brake"),), 92.0, "96"),
        ((("GUARD", "auto"), ("GUARD_BRAKE", "98")), None, "98"),
        ((("GUARD", "auto"),), 85.0, None),
        ((("GUARD", "raise"),), None, None),
        ((), None, None),
    ],
)
def test_the_brake_stays_above_the_threshold(
    variables: tuple[tuple[str, str], ...], critical: float | None, brake: str | None
) -> None:
    """Or the sidecar wouldn't start. Where its default is above, or somebody chose it, it is left alone."""
    options = Options(bucket="my-dumps", env=variables, critical_percent=critical)
    assert environment(sidecar_of(injected(pod(), options))).get("GUARD_BRAKE") == brake
    plan = plan_injection(pod(), at="", options=options, annotations={})
    assert any("GUARD_BRAKE=" in note for note in plan.notes) == (brake is not None and brake != "98")


@pytest.mark.parametrize(
    ("options", "remedy"),
    [
        (Options(env=(("GUARD", "auto"), ("GUARD_BRAKE", "95"))), "above CRITICAL 95"),
        (Options(env=(("GUARD", "auto"),), critical_percent=99.0), "above CRITICAL 99"),
        (Options(env=(("S3_KMS_KEY_ID", "k"),)), "S3_SSE=aws:kms"),
        (Options(env=(("S3_KMS_KEY_ID", "k"), ("S3_SSE", "AES256"))), "S3_SSE=aws:kms"),
        (Options(env=(("OOM_GROUP_CONTAINERS", "app"),)), "OOM_GROUP=process"),
    ],
)
def test_variables_that_do_not_go_together_are_refused(options: Options, remedy: str) -> None:
    """What the sidecar wouldn't start with isn't written into a manifest."""
    with pytest.raises(ConfigError, match=remedy):
        plan_injection(pod(), at="", options=options, annotations={})


@pytest.mark.parametrize(
    "variables",
    [
        (("GUARD", "$(GUARDED)"),),
        (("GUARD", "auto"), ("GUARD_BRAKE", "$(BRAKE)")),
        (("S3_KMS_KEY_ID", "k"), ("S3_SSE", "aws:kms")),
        (("S3_KMS_KEY_ID", "k"), ("S3_SSE", "$(SSE)")),
        (("OOM_GROUP_CONTAINERS", "app"), ("OOM_GROUP", "process")),
    ],
)
def test_what_may_go_together_is_written(variables: tuple[tuple[str, str], ...]) -> None:
    """What refers to another variable is for the sidecar's start to judge."""
    after = injected(pod(), Options(bucket="my-dumps", env=variables))
    assert dict(variables).items() <= environment(sidecar_of(after)).items()
