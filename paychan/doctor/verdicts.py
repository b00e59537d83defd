"""What every check comes to: a grade, a reason, and for what is not well, a mend. No secret may stand in any of them."""

from dataclasses import dataclass
from enum import StrEnum


class Grade(StrEnum):
    """From the best to the worst; what could not be asked is no worse than ok, for it says nothing."""

    OK = "ok"
    NOT_ASKED = "not asked"
    WARNING = "warning"
    BAD = "bad"


@dataclass(frozen=True)
class Verdict:
    """check: a short name, unique within its subject. mend: empty where nothing is to be done."""

    check: str
    grade: Grade
    reason: str
    mend: str = ""


class NotAsked(Exception):
    """A check that makes no sense here; the text says why."""


def ok(check: str, reason: str) -> Verdict:
    return Verdict(check, Grade.OK, reason)


def warning(check: str, reason: str, mend: str) -> Verdict:
    return Verdict(check, Grade.WARNING, reason, mend)


def bad(check: str, reason: str, mend: str) -> Verdict:
    return Verdict(check, Grade.BAD, reason, mend)


def not_asked(check: str, reason: str) -> Verdict:
    return Verdict(check, Grade.NOT_ASKED, reason)


def worst(verdicts: list[Verdict]) -> Grade:
    """Return the worst grade; ok if there is no verdict, or nothing could be asked."""
    grades = [verdict.grade for verdict in verdicts]
    return next((grade for grade in (Grade.BAD, Grade.WARNING) if grade in grades), Grade.OK)
