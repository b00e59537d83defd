"""Slips in the compiled modules: `python -m tests.mutation.compiled [--module NAME] [--sample N] [--seed S]`.

As `tests.mutation.run`, but the slips are made in the text of a .pyx, and for each its module is compiled again in a copy of the
project, which takes 10 s: so a sample is tried. A slip that does not compile is none.
"""

import argparse
import random
import re
import secrets
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.defects.scratch import ROOT, CannotRun, copied_tree, rebuild, run_files

from .equivalent import EQUIVALENT
from .modules import unit_tests

SCORE_MIN = 85
SLIP_SECONDS_MAX = 300


MODULES: dict[str, tuple[str, ...]] = {
    "payment": unit_tests("fast_payment"),
    "sighash": unit_tests("fast_sighash"),
    "request": unit_tests("fast_request"),
    "channel": (
        *unit_tests("fast_channel", "committer", "sharding"),
        *("tests/differential/test_compare.py", "tests/hostile/test_failures.py"),
    ),
    "commit": unit_tests("committer", "doors"),
    "intake": unit_tests("doors"),
    "group": unit_tests("store_table", "store_group", "store_sequencer"),
}
"""By name below paychan/_fast: the tests that should notice."""

_CHANGES = {
    "<": "<=",
    "<=": "<",
    ">": ">=",
    ">=": ">",
    "==": "!=",
    "!=": "==",
    " and ": " or ",
    " or ": " and ",
    " + ": " - ",
    " - ": " + ",
    " += ": " -= ",
    " -= ": " += ",
    " & ": " | ",
    " not ": " ",
    "True": "False",
    "False": "True",
}
_TOKEN = re.compile(r" (?:and|or|not|[-+&]|[-+]=) |(?<= )(?:<=|>=|==|!=|<|>)(?= )|\b(?:True|False|\d+)\b")
_CONDITION = re.compile(r"^(\s*(?:if|elif) )(.+)(:)$")
_DECLARATION = re.compile(r"\s*(cimport|from|import|cdef (class|extern|enum|inline|void)|def|class|@|#)|.*noexcept")


@dataclass(frozen=True)
class Slip:
    """One changed line. lineno: from 1; times: which of several alike."""

    lineno: int
    line: str
    changed: str
    times: int

    @property
    def name(self) -> tuple[str, str]:
        what = f"becomes {self.changed.strip()}"
        return self.line.strip(), what if self.times == 1 else f"{what} ({self.times})"


def list_slips(source: str) -> list[Slip]:
    """Return every slip in the code of a .pyx: not in comments, docstrings, declarations and texts."""
    found, seen = [], Counter[str]()
    for number, line in _code_lines(source):
        for changed in dict.fromkeys(_changed(line)):
            alike = f"{line.strip()} {changed.strip()}"
            seen[alike] += 1
            found.append(Slip(number, line, changed, seen[alike]))
    return found


def _code_lines(source: str) -> Iterator[tuple[int, str]]:
    in_text = False
    for number, line in enumerate(source.splitlines(), 1):
        quotes = line.count('"""')
        if not in_text and not quotes and line.strip() and not _DECLARATION.match(line):
            yield number, line
        in_text ^= quotes % 2 == 1


def _changed(line: str) -> Iterator[str]:
    code = line.split("  #")[0]
    if condition := _CONDITION.match(code):
        yield f"{condition[1]}not ({condition[2]}){condition[3]}"
    for token in _TOKEN.finditer(code):
        if '"' in code[: token.start()] and code[: token.start()].count('"') % 2:
            continue
        other = _CHANGES.get(token[0]) or str(int(token[0]) + 1)
        yield code[: token.start()] + other + code[token.end() :]


def is_noticed(place: Path, path: Path, source: str, slip: Slip, tests: tuple[str, ...]) -> bool | None:
    """Try one slip in a copy of the project; None if it does not compile."""
    lines = source.splitlines(keepends=True)
    lines[slip.lineno - 1] = slip.changed + "\n"
    path.write_text("".join(lines))
    try:
        rebuild(place)
    except CannotRun:
        return None
    try:
        return run_files(place, tests, SLIP_SECONDS_MAX) != 0
    except CannotRun:  # a loop that does not end
        return True


def try_module(name: str, sample: int, seed: int) -> tuple[int, int]:
    """Try a sample of a module's slips; return how many were noticed, and of how many."""
    tests, file = MODULES[name], f"paychan/_fast/{name}.pyx"
    source = (ROOT / file).read_text()
    slips = [slip for slip in list_slips(source) if slip.name not in EQUIVALENT.get(file, {})]
    chosen = random.Random(f"{seed} {name}").sample(slips, min(sample, len(slips)))
    noticed = count = 0
    with copied_tree() as place:
        if run_files(place, tests) != 0:
            raise CannotRun(f"{file}: its tests do not pass without any slip")
        for slip in chosen:
            verdict = is_noticed(place, place / file, source, slip, tests)
            noticed, count = noticed + bool(verdict), count + (verdict is not None)
            if verdict is False:
                print(f"    {file}:{slip.lineno}: {slip.name[1]}: {slip.name[0]}", flush=True)
    print(f"{file:32} {len(slips):6} slips, {count} tried, {noticed} noticed", flush=True)
    return noticed, count


def main() -> int:
    parser = argparse.ArgumentParser(description="makes small slips in compiled modules, and counts those that no test notices")
    parser.add_argument("--module", action="append", choices=MODULES, metavar="NAME", help="below paychan/_fast; default: all")
    parser.add_argument("--sample", type=int, default=20, help="so many slips of each module")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1 << 32))
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}", flush=True)
    tried = [try_module(name, arguments.sample, arguments.seed) for name in arguments.module or MODULES]
    noticed, count = sum(part[0] for part in tried), sum(part[1] for part in tried)
    print(f"{noticed} of {count} slips were noticed: {100 * noticed / max(1, count):.1f} %")
    return 0 if 100 * noticed >= SCORE_MIN * count else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (CannotRun, subprocess.SubprocessError) as error:
        sys.exit(str(error))
