"""Aim: the load run does not rot. Method: its tiny form, on real processes; what the numbers are is not looked at."""

import json
import subprocess
import sys

from tests.system import ROOT


def test_every_row_gets_a_number(tmp_path):
    argv = [sys.executable, "-m", "bench.load", "--tiny", "--results", str(tmp_path)]
    result = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    content = json.loads((tmp_path / "latest.json").read_text())
    numbers = [row["number"] for row in content["rows"]]
    assert numbers == ["1", "2a", "2b", "3a", "3b", "4", "5", "6", "7a", "7b", "7c", "8a", "8b", "9", "10a", "10b", "11"]
    assert all(row["median"] > 0 for row in content["rows"])
    report = (tmp_path / "latest.md").read_text()
    assert result.stdout == report + "\n"
    assert all(f"| {number} |" in report for number in numbers)
    assert (tmp_path / "throughput.png").stat().st_size > 5000
    assert (tmp_path / "latency.png").stat().st_size > 5000
