from __future__ import annotations

from benchmarks.report import Table, markdown, mebibytes, spread


def test_table_is_markdown_that_reads_well_unrendered() -> None:
    """Columns are as wide as their widest cell, numbers stand to the right, a bar in a cell doesn't end it."""
    table = Table(
        title="Cost",
        notes=("Calm.",),
        columns=("case", "MiB"),
        rows=(("one", "30.2"), ("a|b", "1234.5")),
    )
    assert markdown(table).splitlines() == [
        "## Cost",
        "",
        "Calm.",
        "",
        "| case |    MiB |",
        "|------|-------:|",
        "| one  |   30.2 |",
        "| a\\|b | 1234.5 |",
    ]


def test_what_was_not_measured_is_no_number() -> None:
    """An empty spread and an unknown size are dashes, never zeros."""
    assert spread([]) == "-"
    assert mebibytes(None) == "-"
    assert spread([0.0012, 0.0034], scale=1000, digits=1) == "2.3 / 3.4 / 3.4"
