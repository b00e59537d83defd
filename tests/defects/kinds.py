"""What a row of table.py is."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Break:
    """`what`: what the broken build does. In `file`, `right` is replaced by `wrong`; then each of `tests` (node ids) must fail, by
    an assertion or by the exception that `fails_by` names."""

    ids: tuple[str, ...]
    what: str
    file: str
    right: str
    wrong: str
    tests: tuple[str, ...]
    fails_by: str = "assertion"
