from __future__ import annotations

import datetime as dt
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.keys import DumpId, join_key, pod_path, profile_name
from sidecar.core.listing import (
    Dump,
    DumpFilter,
    ProfileName,
    dump_prefix,
    find_dumps,
    find_prefixes,
    parse_profile_name,
    parse_since,
)
from sidecar.stores import StoredObject

NOW = dt.datetime(2026, 11, 20, 23, tzinfo=dt.UTC)


def stored(key: str, size_bytes: int = 10) -> StoredObject:
    """An object of a store."""
    return StoredObject(key=key, size_bytes=size_bytes, modified=NOW)


def dump_name(minute: int, incident: str = "k3x9", number: int = 1, container: str = "app") -> str:
    """The id of a dump taken so many minutes past ten."""
    at = dt.datetime(2026, 11, 20, 22, minute, 12, 123000, tzinfo=dt.UTC)
    return str(DumpId(at=at, container=container, pid=42, incident=incident, number=number))


def folder(*files: str, name: str, place: str = "prod/api-0", prefix: str = "") -> list[StoredObject]:
    """The objects of a dump."""
    return [stored(join_key(prefix, place, name, file)) for file in files]


def one(dumps: list[Dump]) -> Dump:
    """The only dump of a list."""
    [dump] = dumps
    return dump


def test_objects_of_a_folder_are_one_dump() -> None:
    """A dump knows where it is from, what is in it, and the key that fetches it."""
    name = dump_name(50)
    dump = one(find_dumps(folder("heap-8080.pb.gz", "manifest.json", "memstats-8080.txt", name=name), ""))
    assert (dump.namespace, dump.pod, dump.id.container, dump.id.pid) == ("prod", "api-0", "app", 42)
    assert [(profile.kind, profile.port) for profile in dump.profiles] == [("heap", 8080), ("memstats", 8080)]
    assert (dump.key, dump.name, dump.size_bytes) == (f"prod/api-0/{name}", name, 30)


@pytest.mark.parametrize("prefix", ["", "team", "team/eu/", "/team"])
def test_dumps_are_found_below_the_prefix_only(prefix: str) -> None:
    """The prefix is cut off by whole parts; what lies beside it or elsewhere isn't ours."""
    ours = folder("heap.pb.gz", name=dump_name(1), prefix=prefix)
    others = folder("heap.pb.gz", name=dump_name(2), prefix="teammate")
    dump = one(find_dumps([*ours, *others], prefix))
    assert (dump.namespace, dump.id.at.minute) == ("prod", 1)


def test_newest_come_first() -> None:
    """Time orders dumps of different pods; the number orders those of one moment."""
    objects = [
        *folder("heap.pb.gz", name=dump_name(1), place="a/x"),
        *folder("heap.pb.gz", name=dump_name(3, number=1), place="b/x"),
        *folder("heap.pb.gz", name=dump_name(3, number=2), place="b/x"),
        *folder("heap.pb.gz", name=dump_name(2), place="z/x"),
    ]
    found = [(dump.id.at.minute, dump.id.number) for dump in find_dumps(objects, "")]
    assert found == [(3, 2), (3, 1), (2, 1), (1, 1)]


@pytest.mark.parametrize(
    "key",
    [
        "heap.pb.gz",
        "prod/heap.pb.gz",
        f"prod/{dump_name(1)}/heap.pb.gz",
        f"more/prod/api-0/{dump_name(1)}/heap.pb.gz",
        f"prod/../{dump_name(1)}/heap.pb.gz",
        f"../../etc/{dump_name(1)}/heap.pb.gz",
        f"/prod/api-0/{dump_name(1)}/heap.pb.gz",
        f"prod/api-0/{dump_name(1)}/",
        f"prod/api-0/{dump_name(1)}/..",
        f"prod/api-0/{dump_name(1)}/.part-heap.pb.gz",
        f"prod/api-0/{dump_name(1)}/heap\x1b[31m.pb.gz",
        f"prod/api-0/{dump_name(1)}/heap\n.pb.gz",
        f"prod/api\x1b[2J/{dump_name(1)}/heap.pb.gz",
        f"prod/api-0/{dump_name(1)}\n/heap.pb.gz",
        f"prod/api-0/{dump_name(1).replace('20261120', '20261320')}/heap.pb.gz",
        "prod/api-0/20261120T225012.123Z_app_pid٤٢_k3x9-1/heap.pb.gz",
    ],
)
def test_keys_that_could_not_be_ours_are_passed_over(key: str) -> None:
    """Whoever may write to the bucket can't make a name that leads elsewhere or garbles a terminal."""
    assert find_dumps([stored(key)], "") == []


@given(st.lists(st.text(st.sampled_from("./\x1b\n_-ab" + dump_name(1)), max_size=80)))
def test_whatever_a_bucket_holds_names_are_harmless(tails: list[str]) -> None:
    """Names of dumps and of their files are single harmless path components, for any keys."""
    keys = [*tails, *(f"prod/api-0/{tail}/heap.pb.gz" for tail in tails), *(f"a/b/{dump_name(1)}/{t}" for t in tails)]
    allowed = set(string.ascii_letters + string.digits + "._-")
    for dump in find_dumps([stored(key) for key in keys], ""):
        for name in (dump.name, dump.namespace, dump.pod, *(file.name for file in dump.files)):
            assert set(name) <= allowed
            assert not name.startswith(".")


def test_the_note_of_an_incidents_end_tells_the_outcome_of_all_its_dumps() -> None:
    """The note lies in one folder; other dumps of the incident ended the same way, other incidents didn't."""
    objects = [
        *folder("heap.pb.gz", name=dump_name(1, number=1)),
        *folder("heap.pb.gz", "outcome-oom-killed.json", name=dump_name(2, number=2)),
        *folder("heap.pb.gz", name=dump_name(3, incident="zzz")),
    ]
    assert [dump.outcome for dump in find_dumps(objects, "")] == [None, "oom-killed", "oom-killed"]


def test_a_container_that_lived_on_after_a_kill_was_killed_all_the_same() -> None:
    """Days later it ends in peace, under the same incident: whoever looks for OOM kills must find both dumps."""
    objects = [
        *folder("heap.pb.gz", name=dump_name(1, number=1)),
        *folder("heap.pb.gz", "outcome-process-oom-killed.json", name=dump_name(2, number=2)),
        *folder("outcome-exited.json", name=dump_name(3, number=0)),
    ]
    for listed in (objects, objects[::-1]):
        outcomes = {dump.id.number: dump.outcome for dump in find_dumps(listed, "")}
        assert outcomes == {0: "exited", 1: "process-oom-killed", 2: "process-oom-killed"}


def test_an_oom_kill_outweighs_another_ending() -> None:
    """Where several notes lie in a folder, the OOM killer's is shown."""
    notes = folder("outcome-exited.json", "outcome-oom-killed.json", "outcome-weird.json", name=dump_name(1))
    assert one(find_dumps(notes, "")).outcome == "oom-killed"


@pytest.mark.parametrize(
    ("files", "matters"),
    [
        (["outcome-exited.json"], False),
        (["outcome-oom-killed.json"], True),
        (["outcome-process-oom-killed.json"], True),
        (["outcome-exited.json", "heap.pb.gz"], True),
        (["manifest.json"], True),
    ],
)
def test_only_an_ordinary_ending_alone_does_not_matter(files: list[str], *, matters: bool) -> None:
    """A container that exited without a dump is no news; one that was killed before its dump is."""
    assert one(find_dumps(folder(*files, name=dump_name(1, number=0)), "")).matters is matters


@pytest.mark.parametrize(
    ("wanted", "admitted"),
    [
        (DumpFilter(), True),
        (DumpFilter(namespace="prod", pod="api-0", container="app"), True),
        (DumpFilter(namespace="pro"), False),
        (DumpFilter(pod="api"), False),
        (DumpFilter(container="sidecar"), False),
        (DumpFilter(since=NOW - dt.timedelta(minutes=30)), True),
        (DumpFilter(since=dt.datetime(2026, 11, 20, 22, 50, 12, 123000, tzinfo=dt.UTC)), True),
        (DumpFilter(since=NOW), False),
    ],
)
def test_a_filter_compares_whole_names_and_times(wanted: DumpFilter, *, admitted: bool) -> None:
    """Every condition must hold; part of a name isn't the name."""
    dump = one(find_dumps(folder("heap.pb.gz", name=dump_name(50)), ""))
    assert wanted.admits(dump) is admitted


@pytest.mark.parametrize("length", [63, 64, 253, 300])
def test_dumps_of_a_pod_with_a_long_name_are_found(length: int) -> None:
    """Pods of workflows have names of up to 253 characters, more than other names may."""
    pod = "p" * length
    dump = one(find_dumps(folder("heap.pb.gz", name=dump_name(1), place=pod_path("prod", pod), prefix="team"), "team"))
    wanted = DumpFilter(namespace="prod", pod=pod)
    assert wanted.admits(dump)
    assert f"team/{wanted.folder}/{dump.name}" == dump.key


def test_a_filter_spells_names_as_keys_do() -> None:
    """A container's real name may have characters that keys don't."""
    dump = one(find_dumps(folder("heap.pb.gz", name=dump_name(1, container="my app/1")), ""))
    assert DumpFilter(container="my app/1").admits(dump)


def test_a_filter_narrows_the_listing_as_far_as_it_can() -> None:
    """A pod without its namespace can be anywhere."""
    assert DumpFilter(namespace="prod", pod="api-0").folder == "prod/api-0"
    assert DumpFilter(namespace="prod").folder == "prod"
    assert DumpFilter(pod="api-0").folder == ""


@pytest.mark.parametrize("prefix", ["", "heap-dumps", "team/eu", "a//b", "my dumps"])
def test_a_manifest_tells_the_prefix_that_finds_it(prefix: str) -> None:
    """What is told of a key is what a listing below it needs."""
    [manifest] = folder("manifest.json", name=dump_name(1), prefix=prefix)
    assert dump_prefix(manifest.key) == prefix
    assert one(find_dumps([manifest], prefix)).namespace == "prod"


@pytest.mark.parametrize(
    "key",
    [
        "",
        "manifest.json",
        "heap-dumps/manifest.json",
        f"{dump_name(1)}/manifest.json",
        f"api-0/{dump_name(1)}/manifest.json",
        f"x/prod/api-0/{dump_name(1)}/heap.pb.gz",
        f"x/prod/api-0/{dump_name(1)}/old-manifest.json",
        f"x/prod/api-0/{dump_name(1)}/sub/manifest.json",
        f"x/prod/api-0/{dump_name(1)}x/manifest.json",
        f"x/prod/../{dump_name(1)}/manifest.json",
        f"x/prod//{dump_name(1)}/manifest.json",
        f"x/prod/api\x1b[2J/{dump_name(1)}/manifest.json",
        f"/prod/api-0/{dump_name(1)}/manifest.json",
        f"/x/prod/api-0/{dump_name(1)}/manifest.json",
        f"x//prod/api-0/{dump_name(1)}/manifest.json",
    ],
)
def test_other_keys_tell_no_prefix(key: str) -> None:
    """Not a dump's manifest, or below a prefix that no setting can name."""
    assert dump_prefix(key) is None


@given(st.text(st.sampled_from("./\x1b\n_-ab"), max_size=12), st.text(st.sampled_from("./ab"), max_size=5))
def test_whatever_prefix_is_told_finds_the_dump(base: str, place: str) -> None:
    """For any key: no prefix is told that would show nothing."""
    key = f"{base}{place}/api-0/{dump_name(1)}/manifest.json"
    prefix = dump_prefix(key)
    if prefix is not None:
        assert one(find_dumps([stored(key)], prefix)).key == key.removesuffix("/manifest.json")
        assert prefix == prefix.strip("/")


def test_each_prefix_is_told_once() -> None:
    """In the order of the keys, however many dumps lie below it."""
    objects = [
        *folder("heap.pb.gz", "manifest.json", name=dump_name(1), prefix="eu"),
        *folder("manifest.json", name=dump_name(2), prefix="eu"),
        stored("logs/manifest.json"),
        *folder("manifest.json", name=dump_name(1), prefix="us/east"),
    ]
    assert find_prefixes(objects) == ["eu", "us/east"]


@given(
    st.sampled_from(["heap", "heap-gc", "heap-baseline", "goroutine", "memstats"]), st.none() | st.integers(1, 65535)
)
def test_profile_names_round_trip(kind: str, port: int | None) -> None:
    """What names a profile is read back as it was."""
    assert parse_profile_name(profile_name(kind, port)) == ProfileName(kind=kind, port=port)


@pytest.mark.parametrize("name", ["manifest.json", "outcome-exited.json", "Heap.pb.gz", "heap-8080.pb", ".heap.pb.gz"])
def test_other_files_are_no_profiles(name: str) -> None:
    """Papers and foreign files aren't taken for profiles."""
    assert parse_profile_name(name) is None


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("1h", NOW - dt.timedelta(hours=1)),
        ("1m30s", NOW - dt.timedelta(seconds=90)),
        ("2026-11-20T22:50:12Z", dt.datetime(2026, 11, 20, 22, 50, 12, tzinfo=dt.UTC)),
        ("2026-11-20T22:50", dt.datetime(2026, 11, 20, 22, 50, tzinfo=dt.UTC)),
        ("2026-11-20T22:50+02:00", dt.datetime(2026, 11, 20, 20, 50, tzinfo=dt.UTC)),
        ("2026-11-20", dt.datetime(2026, 11, 20, tzinfo=dt.UTC)),
    ],
)
def test_since_is_an_age_or_a_time(text: str, moment: dt.datetime) -> None:
    """Ages count back from now; times without a zone are UTC, as the table shows them."""
    assert parse_since(text, NOW) == moment


@pytest.mark.parametrize("text", ["", "yesterday", "5", "-1h", "99999999999h"])
def test_what_is_neither_is_refused_with_an_example(text: str) -> None:
    """The message shows both forms, also for ages before the calendar begins."""
    with pytest.raises(ValueError, match="90m"):
        parse_since(text, NOW)
