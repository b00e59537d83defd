"""Aim: the fuzzer of request heads runs, reaches everything and would notice. Method: 300 000 inputs (the full run has 10 000 000:
`python -m tests.fuzz.http`), and parsers broken on purpose."""

import shutil
import sysconfig

import pytest

from tests.fuzz import http
from tests.fuzz.build import SOURCE

compiler = (sysconfig.get_config_var("CC") or "cc").split()[0]
pytestmark = pytest.mark.skipif(shutil.which(compiler) is None, reason="needs the C compiler that builds the extensions")

# What is broken: (text of http.pyx, its replacement, what the fuzzer must say)
SLIPS = {
    "a header may end in a bare LF": (
        'if line_size == 0 or data[start + line_size - 1] != c"\\r":',
        'if line_size > 1 and data[start + line_size - 1] != c"\\r":\n            line_size += 1\n        elif line_size == 0:',
        "PLAIN_BYTES is broken",
    ),
    "the last length counts": ("if marks.has_content_length:", "if False:", "LENIENT_READER is broken"),
    "a byte too many is read": ("Py_ssize_t limit = size if", "Py_ssize_t limit = size + 1 if", "DIED"),
}


def test_a_short_run_breaks_nothing_and_reaches_every_status(capfd):
    assert http.main(["--count", "300000", "--seed", "3"]) == 0
    assert "300000 executions" in capfd.readouterr().out


@pytest.mark.parametrize("slip", SLIPS)
def test_a_slip_is_found(slip, tmp_path, capfd):
    right, wrong, finding = SLIPS[slip]
    source = (SOURCE / "http.pyx").read_text()
    assert source.count(right) == 1
    (tmp_path / "http.pyx").write_text(source.replace(right, wrong))
    assert http.main(["--count", "300000", "--source", str(tmp_path)]) == 1
    assert finding in capfd.readouterr().out
