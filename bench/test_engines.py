"""`python -m bench.engines`, tiny: every engine is measured at each number of connections; PostgreSQL's own CPU is told apart."""

import subprocess
import sys

from tests import postgres
from tests.system import ROOT


@postgres.needed
def test_each_engine_has_a_line_for_each_number_of_connections():
    command = [sys.executable, "-m", "bench.engines", "--connections", "1,4", "--rounds", "1", "--seconds", "0.1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    rows = [line.rsplit(maxsplit=7) for line in done.stdout.splitlines()[2:]]
    names = ("RocksDB", "PostgreSQL, 1 confirms", "PostgreSQL, 2 confirm")
    assert [(row[0], row[1]) for row in rows] == [(name, count) for name in names for count in ("1", "4")]
    for name, _, rate, _, ours, _, primary, standbys in rows:
        assert float(rate) > 0 and float(ours) > 0
        assert (float(primary) > 0) is (float(standbys) > 0) is (name != "RocksDB")
