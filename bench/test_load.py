"""Aim: the load script does not rot. Method: a short run against a real system."""

import subprocess
import sys

from tests.system import ROOT, running


def test_the_load_script_executes_every_payment_twice_in_a_row_on_kept_state(tmp_path):
    with running(tmp_path, workers=2) as system:
        argv = [sys.executable, "-m", "bench.pay_channels", "40", "5", f"localhost:{system.port}"]
        for _ in range(2):
            result = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=60)
            assert result.returncode == 0, result.stderr
            assert result.stdout.startswith("200 payments executed in ")
            assert "no error" in result.stdout
            assert "payments per second" in result.stdout
