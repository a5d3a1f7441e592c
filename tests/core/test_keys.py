"""Names of dumps: sorted by time, unique, harmless, and readable back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from sidecar.core import keys
from sidecar.core.keys import DumpId

moments = st.datetimes(min_value=datetime(2000, 1, 1), max_value=datetime(2099, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 -- hypothesis wants naive bounds
dump_ids = st.builds(
    DumpId,
    at=moments,
    container=st.text(max_size=80),
    pid=st.integers(0, 2**22),
    incident=st.binary(min_size=8, max_size=8).map(keys.incident_id),
    number=st.integers(0, 10**6),
)


@given(dump_ids)
def test_a_dump_id_reads_back(dump_id: DumpId) -> None:
    """What was printed is parsed to the same parts, the time to the millisecond, whatever the container is called."""
    parsed = keys.parse_dump_id(str(dump_id))
    assert parsed is not None
    assert (parsed.pid, parsed.incident, parsed.number) == (dump_id.pid, dump_id.incident, dump_id.number)
    assert parsed.container == keys.safe_name(dump_id.container)
    assert timedelta(0) <= dump_id.at - parsed.at < timedelta(milliseconds=1)


@given(moments, moments, st.text(max_size=20), st.text(max_size=20))
def test_text_order_is_time_order(first: datetime, second: datetime, one: str, other: str) -> None:
    """A listing of a pod is sorted by time, whatever the containers are called."""
    ids = [
        DumpId(at=at, container=name, pid=1, incident="aaaaaaaa", number=1)
        for at, name in ((first, one), (second, other))
    ]
    earlier, later = sorted(ids, key=lambda dump_id: keys.format_time(dump_id.at))
    if keys.format_time(earlier.at) != keys.format_time(later.at):
        assert str(earlier) < str(later)


@given(st.text())
def test_safe_names_are_harmless(text: str) -> None:
    """No separator, no dot at the ends, no control character, never empty, never long."""
    name = keys.safe_name(text)
    assert 0 < len(name) <= 63
    assert all(character.isascii() and (character.isalnum() or character in ".-") for character in name)
    assert not name.startswith((".", "-"))
    assert "/" not in keys.join_key("p", name).removeprefix("p/")


@given(st.text())
def test_foreign_names_are_not_dumps(text: str) -> None:
    """Anything that isn't printed by us is None or reads back to itself."""
    parsed = keys.parse_dump_id(text)
    assert parsed is None or str(parsed) == text


def test_profile_names_tell_kind_and_port() -> None:
    """The file name carries the port; a profile without one has none; MemStats is text."""
    assert keys.profile_name("heap", 8080) == "heap-8080.pb.gz"
    assert keys.profile_name("heap-newest", None) == "heap-newest.pb.gz"
    assert keys.profile_name("memstats", 6060) == "memstats-6060.txt"
