"""The three files, each and against each other: what `paychan config check` says, by the same rules."""

from .machine import Machine
from .verdicts import Verdict, bad, ok


def files(machine: Machine) -> list[Verdict]:
    """Say every problem of the files and of what they name."""
    return judge(machine.files.problems)


def judge(problems: list[str]) -> list[Verdict]:
    """problems: lines FILE: KEY: WHY."""
    if not problems:
        return [ok("files", "the three files are complete, and describe one system")]
    return [bad("files", problem, "change that key, or what it names; docs/OPERATING.md has the table") for problem in problems]
