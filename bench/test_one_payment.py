"""Aim: a measurement's rows are each about one payment, have a name of their own, and nothing else is listed. Method: a real one,
whose times are not looked at; and the arithmetic on given times."""

import json
import subprocess
import sys
from types import SimpleNamespace

import pytest

from bench import one_payment
from tests.system import ROOT


def test_every_row_is_one_payment_in_microseconds_and_in_v(tmp_path):
    file = tmp_path / "rows.json"
    argv = [sys.executable, "-m", "pytest", "bench", "--benchmark-only", f"--benchmark-json={file}"]
    result = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stdout
    assert "skipped" not in result.stdout and "deselected" not in result.stdout
    rows = json.loads(file.read_text())["benchmarks"]
    for key in (lambda row: row["name"], lambda row: row["extra_info"]["what"]):
        assert len({key(row) for row in rows}) == len(rows)
    assert {"test_v_raw_verification", "test_verification_through_coincurve", "test_whole_payment"} < {row["name"] for row in rows}
    for row in rows:
        assert row["stats"]["iterations"] > 100  # payments in a round
        assert f"| {row['extra_info']['what']} |" in result.stdout
        assert row["extra_info"]["us"] == round(row["stats"]["median"] * 1e6, 4)
        assert row["extra_info"]["in_v"] > 0


def test_a_rounds_time_is_shared_out_over_its_payments(monkeypatch):
    monkeypatch.setattr(one_payment, "rows", [])
    measured = SimpleNamespace(iterations=1, stats=SimpleNamespace(data=[0.5, 1.0, 6.0]))
    benchmark = SimpleNamespace(stats=measured, extra_info={})
    one_payment._share_out(benchmark, "it", 500, [0.001, 0.001, 0.012])
    assert (measured.iterations, measured.stats.data) == (500, [0.001, 0.002, 0.012])
    assert benchmark.extra_info == {"what": "it", "us": 2000.0, "in_v": 1.0}
    assert one_payment.summary()[2:] == ["| it | 2000 | 1.00 |"]


def test_v_counts_no_signature_that_is_not_valid(monkeypatch):
    class Batch:
        def run(self):
            return one_payment.VERIFICATIONS - 1

    assert one_payment.v_now() > 0
    monkeypatch.setattr(one_payment, "_batch", Batch())
    with pytest.raises(AssertionError):
        one_payment.v_now()
