"""What a dump says of the cause: each verdict by the figures of a case that was seen, then over arbitrary figures."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from sidecar.core.model import Reading
from sidecar.core.verdict import MemoryVerdict, Name, judge, line_of

MIB = 1 << 20
UNSET = (1 << 63) - 1
NO_GC = "nobody looked"


def reading(used: int, limit: int | None = 512 * MIB, cache: int = 0) -> Reading:
    """A container that uses so much, of it ``cache`` that the kernel can drop."""
    return Reading(usage_bytes=used, inactive_file_bytes=cache, limit_bytes=limit, oom_kills=0)


def collector(**mib: int | None) -> dict[str, int | None]:
    """What a server's collector says that is about to be killed at 512 MiB for its garbage, changed; sizes in MiB."""
    figures = {
        "heap_marked_bytes": 350,
        "heap_live_bytes": 490,
        "heap_in_use_bytes": 492,
        "heap_goal_bytes": 700,
        "heap_free_bytes": 0,
        "heap_released_bytes": 4,
        "mapped_ready_bytes": 500,
        "stacks_bytes": 1,
        "profile_in_use_bytes": 490,
        "profile_short_lived_bytes": 400,
        "profile_largest_object_bytes": 1,
        **mib,
    }
    sizes = {name: None if value is None else value * MIB for name, value in figures.items()}
    return {"memory_limit_bytes": UNSET, "gc_percent": 100, **sizes}


def verdict(used_mib: int = 505, **mib: int | None) -> MemoryVerdict:
    """The verdict on that server."""
    return judge(reading(used_mib * MIB), collector(**mib), missing=NO_GC)


def test_garbage_that_piled_up_has_its_figures_and_remedy() -> None:
    """The collector would have looked at 700 MiB, the limit is 512, the code frees what it allocates."""
    found = verdict()
    assert found.name == "gc-headroom"
    for figure in ("350.0MiB", "700.0MiB", "512.0MiB", "GOMEMLIMIT unset", "81 %"):
        assert figure in found.why
    assert "GOMEMLIMIT=456MiB" in found.remedy  # 5 of the 512 MiB aren't the runtime's


@pytest.mark.parametrize(
    ("case", "name"),
    [
        ({"memory_limit_bytes": 512}, "gc-headroom"),
        ({"memory_limit_bytes": 460}, "near-gomemlimit"),
        ({"memory_limit_bytes": 460, "heap_marked_bytes": 440}, "live-heap"),
        ({"heap_marked_bytes": 440}, "live-heap"),
        ({"profile_short_lived_bytes": 0}, "heap-growth"),
        ({"profile_short_lived_bytes": 240}, "heap-growth"),
        ({"profile_in_use_bytes": 200, "profile_short_lived_bytes": 200}, "heap-growth"),
        ({"profile_largest_object_bytes": 256}, "heap-growth"),
        ({"heap_goal_bytes": None}, "gc-headroom"),
        ({"heap_goal_bytes": None, "heap_marked_bytes": 0, "profile_short_lived_bytes": 0}, "heap-growth"),
        ({"heap_goal_bytes": 300, "heap_marked_bytes": 150}, "heap-growth"),
        # A collection has just ended, too late: what it found to be garbage is in memory still.
        ({"heap_goal_bytes": 420, "heap_marked_bytes": 210, "heap_live_bytes": 215}, "gc-headroom"),
        ({"heap_goal_bytes": 420, "heap_marked_bytes": 210, "heap_live_bytes": 460}, "heap-growth"),
        # Its spans are swept: what they hold besides is free slots, of a cache that lost most of what it had.
        (
            {
                "heap_goal_bytes": 164,
                "heap_marked_bytes": 82,
                "heap_live_bytes": 82,
                "profile_in_use_bytes": 78,
                "profile_short_lived_bytes": 78,
            },
            "fragmented-heap",
        ),
        # A profile that shows little of the heap doesn't tell the two apart.
        (
            {
                "heap_goal_bytes": 164,
                "heap_marked_bytes": 82,
                "heap_live_bytes": 82,
                "profile_in_use_bytes": 8,
            },
            "unknown",
        ),
        # The goal of the collection that has just ended: the next one is due at 700 MiB.
        ({"heap_goal_bytes": 300, "heap_live_bytes": 360}, "gc-headroom"),
        (
            {
                "heap_goal_bytes": 300,
                "heap_marked_bytes": 100,
                "heap_live_bytes": 110,
                "profile_short_lived_bytes": 0,
            },
            "unknown",
        ),
        ({"heap_free_bytes": 300, "heap_in_use_bytes": 192, "heap_live_bytes": 190}, "room-left"),
        ({"heap_in_use_bytes": 100, "heap_live_bytes": 90, "mapped_ready_bytes": 110}, "outside-the-go-heap"),
        ({"heap_in_use_bytes": 100, "heap_live_bytes": 90, "stacks_bytes": 390}, "outside-the-go-heap"),
    ],
)
def test_each_cause_by_what_differs(case: dict[str, int | None], name: str) -> None:
    """One server, one or two figures that are other than in the case of piled up garbage."""
    sizes = dict(case)
    gomemlimit = sizes.pop("memory_limit_bytes", None)
    gc = collector(**sizes) | ({"memory_limit_bytes": gomemlimit * MIB} if gomemlimit is not None else {})
    assert judge(reading(505 * MIB), gc, missing=NO_GC).name == name


def test_untouched_memory_is_not_taken_for_live() -> None:
    """A ballast of 1 GiB that was never touched counts as live with the collector and takes no page."""
    sizes = {"heap_marked_bytes": 1224, "heap_live_bytes": 1324, "heap_in_use_bytes": 1330, "mapped_ready_bytes": 1340}
    found = verdict(450, **sizes, heap_goal_bytes=2448, profile_in_use_bytes=1324, profile_short_lived_bytes=100)
    assert found.name == "heap-growth"


def test_a_buffer_that_has_just_doubled_is_no_room_left() -> None:
    """Its pages aren't touched yet when the heap is read, and half of the limit seems free."""
    sizes = {"heap_marked_bytes": 240, "heap_live_bytes": 720, "heap_in_use_bytes": 722, "mapped_ready_bytes": 730}
    found = verdict(250, **sizes, heap_goal_bytes=480, profile_largest_object_bytes=480, profile_in_use_bytes=720)
    assert found.name == "heap-growth"
    assert "one object alone takes 480.0MiB" in found.why


def test_memory_that_is_not_at_its_limit_has_no_cause() -> None:
    """A dump on demand in calm times; page cache that can go at any time doesn't count."""
    calm = collector(heap_live_bytes=90, heap_marked_bytes=60, heap_in_use_bytes=92, mapped_ready_bytes=100)
    found = judge(reading(500 * MIB, cache=390 * MIB), calm, missing=NO_GC)
    assert found.name == "room-left"
    assert "110.0MiB of 512.0MiB" in found.why


def test_room_in_the_heap_is_no_promise_of_a_later_dump() -> None:
    """The last moment before a kill at 470 of 512 MiB, as the heap had pages to spare: true whether one follows."""
    found = verdict(470, heap_free_bytes=260, heap_in_use_bytes=200, heap_live_bytes=190, heap_marked_bytes=150)
    assert found.name == "room-left"
    assert "470.0MiB of 512.0MiB were in use, and 260.0MiB of that is the heap's to use again" in found.why
    assert "wasn't at its limit" not in found.why
    assert "if there is one" in found.remedy
    assert "killed right after" in found.remedy


def test_what_is_elsewhere_is_told_apart() -> None:
    """Stacks point to goroutines, what isn't Go's at all to cgo and mmap; each with its size."""
    outside = verdict(heap_in_use_bytes=100, heap_live_bytes=90, mapped_ready_bytes=110)
    assert "395.0MiB not the runtime's" in outside.why
    assert "cgo, mmap" in outside.remedy
    stacks = verdict(heap_in_use_bytes=100, heap_live_bytes=90, stacks_bytes=390)
    assert "390.0MiB are stacks" in stacks.why
    assert "goroutine" in stacks.remedy


def test_at_gomemlimit_little_garbage_is_told_from_much() -> None:
    """A collector that finds nothing to free wants a larger limit; one that does wants none."""
    limit = {"memory_limit_bytes": 460 * MIB}
    busy = judge(reading(480 * MIB), collector(heap_marked_bytes=380) | limit, missing=NO_GC)
    fine = judge(reading(480 * MIB), collector(heap_marked_bytes=150) | limit, missing=NO_GC)
    assert (busy.name, fine.name) == ("near-gomemlimit", "near-gomemlimit")
    assert busy.remedy.startswith("raise the limit")
    assert "CRITICAL" in fine.remedy


def test_a_leak_beside_garbage_is_not_explained_away() -> None:
    """Seen with a program that keeps one in four of its requests for good: past frees alone don't acquit it."""
    gc = collector(
        heap_marked_bytes=66,
        heap_live_bytes=125,
        heap_in_use_bytes=125,
        heap_goal_bytes=132,
        mapped_ready_bytes=129,
        profile_in_use_bytes=123,
        profile_short_lived_bytes=76,
    )
    found = judge(reading(127 * MIB, 128 * MIB), gc, missing=NO_GC)
    assert found.name == "gc-headroom"
    assert "has freed 61 % of what it allocated so far" in found.why
    assert "57 % of what the limit leaves to the heap, by work at hand or a leak" in found.why
    assert "GOMEMLIMIT=115MiB" in found.remedy
    assert "it leaks besides: the difference to the baseline says where" in found.remedy


def test_little_live_memory_is_under_no_suspicion() -> None:
    """A tenth of the limit was live; how to see a leak is said all the same."""
    found = verdict(heap_marked_bytes=50, heap_goal_bytes=None)
    assert found.name == "gc-headroom"
    assert "by work at hand or a leak" not in found.why
    assert "it leaks besides" in found.remedy


@pytest.mark.parametrize(
    ("freed_mib", "live_mib", "said"),
    [
        (5, 350, "freed 1 % of what it allocated so far, which a leak has in common with a program's first work"),
        (100, 350, "freed 20 % of what it allocated so far"),
        (5, 240, "freed 1 % of what it allocated so far"),
        (0, 0, "freed 0 % of what it allocated so far"),
    ],
    ids=["freed little", "freed a fifth", "mostly not looked at", "never looked at"],
)
def test_only_frees_that_the_collector_could_have_made_are_missed(freed_mib: int, live_mib: int, said: str) -> None:
    """Where it hasn't looked at most of the heap nothing can be freed; and first requests look as a leak does."""
    found = verdict(profile_short_lived_bytes=freed_mib, heap_marked_bytes=live_mib)
    assert found.name == "heap-growth"
    assert found.why.endswith(said)


@pytest.mark.parametrize(
    ("gc", "limit", "said"),
    [
        (None, 512 * MIB, NO_GC),
        (collector(), None, "no memory limit"),
        (collector(heap_marked_bytes=None), 512 * MIB, "heap_marked_bytes"),
        ({}, 512 * MIB, "mapped_ready_bytes"),
        (collector(heap_live_bytes=-1), 512 * MIB, "make no sense"),
    ],
)
def test_what_is_missing_is_named(gc: dict[str, int | None] | None, limit: int | None, said: str) -> None:
    """No figures, no verdict: it says which are missing, and what would bring them."""
    found = judge(reading(505 * MIB, limit), gc, missing=NO_GC)
    assert found.name == "unknown"
    assert said in found.why
    assert "oom-heap-dumper check" in found.remedy


def test_the_line_for_people() -> None:
    """Name, reason and remedy of what `document` gave; nothing of what isn't a manifest."""
    line = line_of({"verdict": verdict().document()})
    assert line is not None
    assert line.startswith("gc-headroom: garbage was left to pile up")
    assert line.endswith("the difference to the baseline says where")
    nothing: list[object] = [None, [], "x", {}, {"verdict": None}, {"verdict": {"name": 1, "why": "x", "remedy": "y"}}]
    assert not any(line_of(document) for document in nothing)


SIZES = st.integers(min_value=0, max_value=1 << 48)
FIGURES = st.fixed_dictionaries(
    {},
    optional={
        name: SIZES | st.none()
        for name in (*collector(), "something_else")
        if name not in ("memory_limit_bytes", "gc_percent")
    }
    | {"memory_limit_bytes": st.integers(0, UNSET), "gc_percent": st.integers(-1, 1 << 31)},
)
NEAR = st.integers(min_value=0, max_value=1024)


USED = st.just(505) | NEAR


@st.composite
def likely(draw: st.DrawFn) -> dict[str, int | None]:
    """Figures of a case that was seen, some of them changed to others of the order of the limit."""
    seen: dict[str, int | None] = draw(
        st.sampled_from(
            [
                {},
                {"heap_marked_bytes": 440},
                {"heap_in_use_bytes": 100, "heap_live_bytes": 90, "mapped_ready_bytes": 110},
            ]
        )
    )
    names = st.sampled_from([name for name in collector() if name not in ("memory_limit_bytes", "gc_percent")])
    gc = collector(**seen)
    for name, mib in draw(st.dictionaries(names, NEAR, max_size=4)).items():
        gc[name] = mib * MIB
    gc["memory_limit_bytes"] = draw(st.just(UNSET) | NEAR.map(lambda mib: mib * MIB))
    return gc


GROWING = {
    "heap_marked_bytes": 150,
    "heap_live_bytes": 370,
    "heap_in_use_bytes": 375,
    "mapped_ready_bytes": 385,
    "profile_in_use_bytes": 370,
    "profile_short_lived_bytes": 0,
}


@pytest.mark.parametrize(
    ("used", "case", "said", "unsaid"),
    [
        (400, {**GROWING, "heap_goal_bytes": 1600}, "was due near GOMEMLIMIT=460.0MiB", "1.6GiB"),
        (400, {**GROWING, "heap_goal_bytes": None}, "was due near GOMEMLIMIT=460.0MiB", "GOGC=off"),
        (400, {**GROWING, "heap_goal_bytes": 300}, "was due at 300.0MiB", "due near"),
        (505, {"heap_marked_bytes": 440}, "raise the limit, and GOMEMLIMIT with it", "due"),
        (505, {"memory_limit_bytes": 200, "heap_marked_bytes": 100}, "above GOMEMLIMIT=200.0MiB", "near GOMEMLIMIT"),
        (505, {}, "near GOMEMLIMIT=460.0MiB where the collector holds it", "above"),
    ],
)
def test_a_gomemlimit_that_works_is_in_what_is_said(
    used: int, case: dict[str, int | None], said: str, unsaid: str
) -> None:
    """It makes collections due, it goes up with the limit, and where it was passed it didn't hold."""
    found = judge(reading(used * MIB), collector(**{"memory_limit_bytes": 460, **case}), missing=NO_GC)
    assert said in f"{found.why}; {found.remedy}"
    assert unsaid not in found.why


@given(SIZES, st.none() | SIZES, SIZES, st.none() | FIGURES)
def test_any_figures_have_a_verdict(used: int, limit: int | None, cache: int, gc: dict[str, int | None] | None) -> None:
    """A known name, one line each of reason and remedy, whatever the figures, and no error."""
    found = judge(reading(used, limit, cache), gc, missing=NO_GC)
    assert found.name in get_args(Name)
    assert found.why.isprintable()
    assert found.remedy.isprintable()
    assert line_of({"verdict": found.document()})


@settings(suppress_health_check=[HealthCheck.filter_too_much])  # most figures are no such case
@given(USED, likely())
def test_garbage_is_said_only_where_all_speaks_for_it(used_mib: int, gc: dict[str, int | None]) -> None:
    """No GOMEMLIMIT that would have helped, a goal that the limit doesn't allow or garbage in memory, frees."""
    found = judge(reading(used_mib * MIB), gc, missing=NO_GC)
    assume(found.name == "gc-headroom")
    figures = {name: value or 0 for name, value in found.figures.items()}
    limit = figures["limit_bytes"]
    assert figures["gomemlimit_bytes"] == 0 or figures["gomemlimit_bytes"] > 0.9 * (limit - figures["outside_go_bytes"])
    objects = max(gc["heap_live_bytes"] or 0, gc["heap_marked_bytes"] or 0)
    unswept = min(gc["heap_in_use_bytes"] or 0, gc["profile_in_use_bytes"] or 0) - objects
    assert figures["gc_goal_bytes"] > 0.9 * (limit - figures["outside_go_bytes"]) or unswept >= 0.1 * limit
    assert figures["profile_short_lived_bytes"] >= 0.5 * figures["profile_in_use_bytes"]


@given(USED, likely(), NEAR)
def test_fewer_frees_never_make_it_garbage(used_mib: int, gc: dict[str, int | None], fewer_mib: int) -> None:
    """Less of a record that speaks for garbage leaves the verdict, or weakens it."""
    before = judge(reading(used_mib * MIB), gc, missing=NO_GC).name
    short_lived = max(0, (gc["profile_short_lived_bytes"] or 0) - fewer_mib * MIB)
    after = judge(reading(used_mib * MIB), gc | {"profile_short_lived_bytes": short_lived}, missing=NO_GC).name
    assert after == before or (before, after) == ("gc-headroom", "heap-growth")


@given(USED, likely(), NEAR)
def test_more_live_memory_stays_live(used_mib: int, gc: dict[str, int | None], more_mib: int) -> None:
    """What was too much to be live after a collection is so with more of it."""
    before = judge(reading(used_mib * MIB), gc, missing=NO_GC).name
    assume(before == "live-heap")
    more = gc | {"heap_marked_bytes": (gc["heap_marked_bytes"] or 0) + more_mib * MIB}
    assert judge(reading(used_mib * MIB), more, missing=NO_GC).name == "live-heap"


@given(USED, likely(), NEAR)
def test_more_memory_elsewhere_stays_elsewhere(used_mib: int, gc: dict[str, int | None], more_mib: int) -> None:
    """The Go heap's share only shrinks by memory that isn't its own."""
    heap = {"heap_in_use_bytes": used_mib * MIB // 4, "heap_free_bytes": used_mib * MIB // 8}
    gc |= heap | {"heap_live_bytes": min(gc["heap_live_bytes"] or 0, heap["heap_in_use_bytes"])}
    assume(judge(reading(used_mib * MIB), gc, missing=NO_GC).name == "outside-the-go-heap")
    assert judge(reading((used_mib + more_mib) * MIB), gc, missing=NO_GC).name == "outside-the-go-heap"
