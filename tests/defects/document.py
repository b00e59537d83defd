"""The last column of docs/THREATS.md, from the table: `python -m tests.defects.document` writes it anew."""

import re

from .scratch import ROOT
from .table import BREAKS, NOT_APPLICABLE

PATH = ROOT / "docs" / "THREATS.md"
ROW = re.compile(r"(?m)^\| ([A-Z]\d*) \| (.+?) \| ?(.*?) ?\|$")


def evidence(name: str) -> str:
    """Return the tests that fail when the defence is taken away, or why there is nothing to take away."""
    if name in NOT_APPLICABLE:
        return NOT_APPLICABLE[name]
    tests = dict.fromkeys(test for row in BREAKS if name in row.ids for test in row.tests)
    return ", ".join(f"`{test.removeprefix('tests/')}`" for test in tests)


def main() -> None:
    PATH.write_text(ROW.sub(lambda row: f"| {row[1]} | {row[2]} | {evidence(row[1])} |", PATH.read_text()))


if __name__ == "__main__":
    main()
