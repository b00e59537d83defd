"""`python -m bench.metrics`, tiny: all three systems are measured, one of them read; the intervals of made-up ratios are right."""

import re
import subprocess
import sys

import pytest

from bench.metrics import ratio
from tests.system import ROOT


def test_each_variant_is_measured_and_compared():
    command = [sys.executable, "-m", "bench.metrics", "--connections", "4", "--seconds", "0", "--slice", "1.2"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    rows = {line.split()[0]: [float(word) for word in line.split()[1:]] for line in done.stdout.splitlines()[2:5]}
    assert rows.keys() == {"on", "off", "private"}
    assert all(rate > 0 and cpu > 0 and in_v > 1 for rate, cpu, in_v in rows.values())
    found = re.findall(r"^(\w+ / \w+, \S+(?: a payment)?): ([\d.]+) \(([\d.]+) to ([\d.]+)\)$", done.stdout, re.M)
    assert len(found) == 6
    assert all(float(low) <= float(middle) <= float(high) for _, middle, low, high in found)
    assert re.search(r"^on / off, CPU of workers and store alone: [\d.]+ \(", done.stdout, re.M)
    share, times = re.search(r"serving the metrics: ([\d.]+) of a core; read (\d+) times", done.stdout).groups()
    assert float(share) > 0 and int(times) >= 3


@pytest.mark.parametrize(
    ("count", "low", "high"),
    [(3, 0, 2), (5, 0, 4), (6, 0, 5), (9, 1, 7), (100, 39, 60)],  # as tables of the sign test have it; five are too few for 95 %
)
def test_the_interval_of_a_median(count, low, high):
    values = [1 + number / 1000 for number in range(count)]
    found = ratio(values[::-1])
    assert (found.low, found.high) == (values[low], values[high])
