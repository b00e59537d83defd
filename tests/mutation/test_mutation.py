"""Aim: the commands that count unnoticed slips do what they say. Method: the slips of a few lines by hand; the real command on one
small module, with its tests and with tests that cannot notice anything.
"""

import subprocess
import sys

import pytest

from .compiled import MODULES as COMPILED
from .compiled import list_slips
from .equivalent import EQUIVALENT
from .modules import MODULES
from .mutate import list_mutants, mutated
from .trial import ROOT

MODULE = "paychan/clock.py"

SOURCE = '''
"""A text, 1."""
def fee(size: int = 1, rate=2) -> int:
    """Return 3."""
    log.info("4")
    if not size < 5 <= rate:
        raise ValueError(f"6 {size}")
    return min(size, rate) - f(size, rate)
'''


def test_slips_are_made_in_the_code_and_nowhere_else():
    assert [mutant.what for mutant in list_mutants(SOURCE)] == [
        "1 becomes 2",
        "2 becomes 3",
        "not is lost",
        "Lt becomes LtE",
        "LtE becomes Lt",
        "5 becomes 6",
        "left out",
        "returns None",
        "Sub becomes Add",
        "the first two arguments swap",
    ]


def test_slips_alike_are_told_apart():
    assert [mutant.name[1] for mutant in list_mutants("a = 1 + 1 + 1")][2:] == ["1 becomes 2", "1 becomes 2 (2)", "1 becomes 2 (3)"]


def test_each_slip_is_another_program():
    import ast

    programs = [ast.unparse(mutated(SOURCE, mutant.number)) for mutant in list_mutants(SOURCE)]
    assert len({*programs, ast.unparse(ast.parse(SOURCE))}) == len(programs) + 1
    for program in programs:
        compile(program, "slip", "exec")
    with pytest.raises(IndexError):
        mutated(SOURCE, len(programs))


def test_slips_in_compiled_code():
    source = '"""1 < 2."""\ncdef int f(int a=1) noexcept:\n    if a < 2 and b:  # 3\n        a += 1\n    x(b"4 < 5")\n'
    assert [(slip.lineno, slip.changed.strip()) for slip in list_slips(source)] == [
        (3, "if not (a < 2 and b):"),
        (3, "if a <= 2 and b:"),
        (3, "if a < 3 and b:"),
        (3, "if a < 2 or b:"),
        (4, "a -= 1"),
        (4, "a += 2"),
    ]


@pytest.mark.parametrize("file", EQUIVALENT)
def test_what_is_said_to_be_no_slip_is_one_of_the_list(file):
    source = (ROOT / file).read_text()
    found = list_slips(source) if file.endswith(".pyx") else list_mutants(source)
    assert set(EQUIVALENT[file]) - {slip.name for slip in found} == set()
    assert all(EQUIVALENT[file].values())


def test_the_modules_and_their_tests_exist():
    files = {*MODULES, *(f"paychan/_fast/{name}.pyx" for name in COMPILED)}
    files |= {test for tests in (*MODULES.values(), *COMPILED.values()) for test in tests}
    assert [file for file in files if not (ROOT / file).is_file()] == []


def run(*before: str) -> subprocess.CompletedProcess[str]:
    """Run the command on four slips of one module, after some lines of Python."""
    lines = ("import sys", "from tests.mutation import modules, run", *before, "sys.exit(run.main())")
    command = [sys.executable, "-c", "\n".join(lines), "--module", MODULE, "--sample", "4", "--seed", "1", "--jobs", "1"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_slips_are_noticed():
    done = run()
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].split()[:4] == ["all", "4", "4", "100.0"]


def test_slips_that_no_test_notices_are_told():
    done = run(f"modules.MODULES[{MODULE!r}] = ('tests/unit/core/test_units.py',)")
    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].split()[:4] == ["all", "4", "0", "0.0"]
    assert done.stdout.count(f"    {MODULE}:") == 4


def test_tests_that_fail_without_any_slip_are_told():
    done = run(f"modules.MODULES[{MODULE!r}] = ('tests/unit/no_such_file.py',)")
    assert "do not pass without any slip" in done.stderr
    assert done.returncode == 1
