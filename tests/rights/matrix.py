"""What the README's table of rights says, and the real settings behind each of its rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.rights.security import SecurityContext

README = Path(__file__).resolve().parents[2] / "README.md"

# The table's columns. The first two tell its rows apart.
SIDECAR, APP = "sidecar runs as", "beside"
MEMORY, PORTS, PROGRAM, ENVIRONMENT = "memory, limit", "ports", "Go version", "GOGC, GOMEMLIMIT"
HEAP, HTTP, GUARD = "heap from memory", "heap by HTTP", "guard"
YES, PARTLY, NO = "yes", "in part", "no"

_USER = SecurityContext(uid=65532, gid=65532)
_USER_BY_DEFAULT = SecurityContext(uid=65532, gid=65532, drop_all=False)
_ROOT = SecurityContext(uid=0, gid=0)
_ROOT_BY_DEFAULT = SecurityContext(uid=0, gid=0, drop_all=False)
_ANOTHER = SecurityContext(uid=1000, gid=1000)
_PRIVILEGED = SecurityContext(uid=0, gid=0, privileged=True)


def _root_with(*capabilities: str) -> SecurityContext:
    return SecurityContext(uid=0, gid=0, add=capabilities)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A pod to try. Several may stand behind one row, which ``row`` and ``beside`` name by its first two cells."""

    row: str
    beside: str
    sidecar: SecurityContext
    app: SecurityContext

    def __str__(self) -> str:
        return f"{self.sidecar} beside {self.app}"

    @property
    def cells(self) -> Mapping[str, str]:
        """What the README says, by column."""
        return readme_table()[self.row, self.beside]


def _cases(row: str, beside: str, *pairs: tuple[SecurityContext, SecurityContext]) -> list[Case]:
    return [Case(row=row, beside=beside, sidecar=sidecar, app=app) for sidecar, app in pairs]


CASES = [
    *_cases(
        "the app's UID and GID, `drop: [ALL]`",
        "a user",
        *((_USER, _USER), (_USER, _USER_BY_DEFAULT)),
    ),
    *_cases(
        "the app's UID, another GID",
        "a user",
        (SecurityContext(uid=65532, gid=1000), _USER),
    ),
    *_cases(
        "another user, whatever it adds",
        "any app",
        (_ANOTHER, _USER),
        (_ANOTHER, _ROOT_BY_DEFAULT),
        (SecurityContext(uid=1000, gid=1000, drop_all=False, add=("SYS_PTRACE", "DAC_READ_SEARCH")), _USER),
    ),
    *_cases("root, `drop: [ALL]`", "root, `drop: [ALL]`", (_ROOT, _ROOT)),
    *_cases("root, default capabilities", "root, default capabilities", (_ROOT_BY_DEFAULT, _ROOT_BY_DEFAULT)),
    *_cases("root, `drop: [ALL]`", "root, default capabilities", (_ROOT, _ROOT_BY_DEFAULT)),
    *_cases("root without `SYS_PTRACE`", "a user", (_ROOT_BY_DEFAULT, _USER), (_ROOT, _USER)),
    *_cases("root, `drop: [ALL]`, `add: [SYS_PTRACE]`", "a user", (_root_with("SYS_PTRACE"), _USER)),
    *_cases(
        "root, `drop: [ALL]`, `add: [SYS_PTRACE, DAC_READ_SEARCH]`",
        "any app",
        (_root_with("SYS_PTRACE", "DAC_READ_SEARCH"), _USER),
        (_root_with("SYS_PTRACE", "DAC_READ_SEARCH", "KILL"), _USER),
        (_root_with("SYS_PTRACE", "DAC_READ_SEARCH"), _ROOT_BY_DEFAULT),
    ),
    *_cases("`privileged: true`", "any app", (_PRIVILEGED, _USER), (_PRIVILEGED, _ROOT_BY_DEFAULT)),
]


def readme_table() -> dict[tuple[str, str], dict[str, str]]:
    """The rows of the table in the README's section, by their first two cells."""
    section = README.read_text().split("\n## Rights\n", 1)[1].split("\n## ", 1)[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    header, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    found = [dict(zip(header, row, strict=True)) for row in rows]
    return {(row[SIDECAR], row[APP]): row for row in found}
