"""Branch coverage of the code that holds money: `python -m tests.coverage [--quick] [pytest arguments]`.

Runs tests with coverage.py, which follows them into every process that they start, and prints a table: core, store, signer, and
what of the server decides about money. Exit status 1 if a test failed, or if less than COVERAGE_MIN percent of the branches were
taken in all. A process that is killed with -9 tells nothing of what it ran. The compiled modules are not counted: they have mutants
instead (`python -m tests.mutation.compiled`). --quick: without the tests that start whole processes.
"""

import argparse
import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import coverage

ROOT = Path(__file__).parents[1]
COVERAGE_MIN = 95.0
ROOMS = ("protocol", "shards", "settlement", "channels")
MONEY = [
    "paychan/core/*.py",
    "paychan/settings/*.py",
    "paychan/clock.py",
    *(f"paychan/server/{room}/*.py" for room in ROOMS),
    "store/*.py",
    "signer/*.py",
]
IN_PROCESS = ["tests/unit", "tests/property", "tests/simulation"]
WHOLE_SYSTEMS = [
    f"tests/process/test_{name}.py"
    for name in ("store_process", "store_maintenance", "signer_process", "start_refusals", "signed_before", "conformance_rules")
]

SETTINGS = """
[run]
branch = true
parallel = true
sigterm = true
data_file = {data}
include = {include}
patch = subprocess, _exit, fork
[report]
exclude_also =
    if TYPE_CHECKING:
    raise NotImplementedError
    if __name__ == .__main__.:
    ^\\s*def .*: \\.\\.\\.$
    assert_never
"""


def run_tests(settings: Path, arguments: list[str]) -> int:
    """Run pytest under coverage.py; return its exit status."""
    command = [sys.executable, "-m", "coverage", "run", f"--rcfile={settings}", "-m", "pytest", "-q", *arguments]
    return subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False).returncode


def report(settings: Path) -> float:
    """Print the table; return the percentage of branches that were taken."""
    measured = coverage.Coverage(config_file=str(settings))
    measured.combine()
    measured.report(show_missing=True, skip_empty=True, file=sys.stdout)
    totals = settings.with_name("totals.json")
    with contextlib.redirect_stdout(io.StringIO()):
        measured.json_report(outfile=str(totals))
    found = json.loads(totals.read_text())["totals"]
    return 100 * found["covered_branches"] / found["num_branches"]


def main() -> int:
    parser = argparse.ArgumentParser(description="branch coverage of the code that holds money")
    parser.add_argument("--quick", action="store_true", help="without the tests that start whole systems")
    known, arguments = parser.parse_known_args()
    tests = arguments or [*IN_PROCESS, *([] if known.quick else WHOLE_SYSTEMS)]
    with tempfile.TemporaryDirectory() as directory:
        settings = Path(directory) / "coveragerc"
        include = "".join(f"\n    {ROOT / pattern}" for pattern in MONEY)
        settings.write_text(SETTINGS.format(data=Path(directory) / "data", include=include))
        status = run_tests(settings, tests)
        percent = report(settings)
    print(f"{percent:.1f} % of all branches" + (f"; the tests failed (status {status})" if status else ""))
    return 1 if status or percent < COVERAGE_MIN else 0


if __name__ == "__main__":
    sys.exit(main())
