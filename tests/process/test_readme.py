"""Aim: the README's first payment works as printed. Method: its Python block is run against a real system, the port changed."""

import re
import subprocess
import sys

from tests.system import ROOT, running


def test_the_first_payment_in_the_readme_works_as_printed(tmp_path):
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len(block.strip().splitlines()) <= 12
    with running(tmp_path) as system:
        code = block.replace('"localhost", 8000', f'"localhost", {system.port}')
        assert code != block
        result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert result.returncode == 0, result.stderr
    opened, rest = result.stdout.splitlines()
    assert "'value_received': 83240" in opened
    assert "'value_received': 5" in rest
    assert "'channel_status': 'closed'" in rest
