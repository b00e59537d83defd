"""Every known way to lose money, put into our code on purpose: `python -m tests.defects.run [--only O7] [--list]`.

Each row of table.py is applied to a copy of the project (rebuilt where it is compiled), and the tests that the row names must
fail there, each by its own assertion; on the sound copy they must pass. Exit status 1 if one did not.
"""

import argparse
import sys
import time

from .scratch import CannotApply, CannotRun, break_file, copied_tree, run_tests
from .table import BREAKS, Break


def caught_by(row: Break) -> list[str]:
    """Break a copy as `row` says and return what is wrong with that: nothing if every named test fails."""
    with copied_tree(to_build=row.file.endswith((".pyx", ".pxd"))) as place:
        break_file(place, row.file, row.right, row.wrong)
        verdicts = run_tests(place, row.tests, row.fails_by)
    return [
        f"{test}: {'; '.join(verdict.other) or f'{verdict.passed} passed, {verdict.failed} failed'}"
        for test, verdict in verdicts.items()
        if not verdict.is_caught
    ]


def unsound(rows: list[Break]) -> list[str]:
    """Return which tests of the rows do not pass on a copy that nothing was done to."""
    tests = list(dict.fromkeys(test for row in rows for test in row.tests))
    with copied_tree(to_build=False) as place:
        verdicts = run_tests(place, tests)
    return [f"{test}: {verdict}" for test, verdict in verdicts.items() if not verdict.is_sound]


def chosen(only: list[str]) -> list[Break]:
    """Return the rows of some ids, all rows if none are named. Raises SystemExit for an id that no row has."""
    rows = [row for row in BREAKS if not only or set(only) & set(row.ids)]
    missing = set(only) - {name for row in rows for name in row.ids}
    if missing:
        sys.exit(f"no break is listed for {', '.join(sorted(missing))}")
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description="breaks a copy of the project on purpose, and demands that tests fail")
    parser.add_argument("--only", action="append", default=[], metavar="ID", help="a defect or a threat, as O7 or A3")
    parser.add_argument("--skip", type=int, default=0, metavar="N", help="leave out the first N of them")
    parser.add_argument("--list", action="store_true", help="print the table and do nothing")
    arguments = parser.parse_args()
    rows = chosen(arguments.only)[arguments.skip :]
    if arguments.list:
        for row in rows:
            print(f"{','.join(row.ids):12} {row.file:32} {row.what}")
        return 0
    problems = unsound(rows)
    print(f"{'ok    ' if not problems else 'FAILED'} the named tests on the sound build", flush=True)
    for row in rows:
        began = time.monotonic()
        try:
            found = caught_by(row)
        except (CannotApply, CannotRun) as error:
            found = [str(error)]
        mark = "MISSED" if found else "caught"
        print(f"{mark} {','.join(row.ids):12} {time.monotonic() - began:5.0f} s  {row.what}", flush=True)
        problems += found
    print("\n".join(problems) or f"{len(rows)} breaks, all caught")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
