"""Parsers broken on purpose, in scratch copies, to see that the fuzzer notices: `python -m tests.fuzz.breaks`, some minutes."""

import contextlib
import io
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.fuzz.build import ROOT, SOURCE

# What is broken: (target, module, text of its .pyx, the replacement, what the fuzzer must say)
SLIPS = {
    "a header may end in a bare LF": (
        "http",
        "http",
        'if line_size == 0 or data[start + line_size - 1] != c"\\r":',
        'if line_size > 1 and data[start + line_size - 1] != c"\\r":\n            line_size += 1\n        elif line_size == 0:',
        "is broken",
    ),
    "the last length counts": ("http", "http", "if head.has_content_length:", "if False:", "LENIENT_READER is broken"),
    "a byte too many is read": ("http", "http", "Py_ssize_t limit = size if", "Py_ssize_t limit = size + 1 if", "DIED"),
    "an output's number may have more than 32 bits": (
        "path",
        "request",
        "if value > 0xFFFFFFFFULL:",
        "if value > 0xFFFFFFFFFULL:",
        "OTHER_VERDICT",
    ),
    "an escape is read beyond the query": (
        "query",
        "request",
        "high = _hex_digit(text[i + 1]) if i + 2 < size else -1",
        "high = _hex_digit(text[i + 1]) if i < size else -1",
        "DIED",
    ),
    "a second payment is taken": ("query", "request", "if parameter.text != NULL:", "if False:", "OTHER_VERDICT"),
    "unused bits may be set": ("text", "payment", "if bits & ((1 << bit_count) - 1):", "if False:", "ROUND_TRIP"),
    "a text may be longer": ("text", "payment", "if size > TEXT_SIZE_MAX:", "if size > 2 * TEXT_SIZE_MAX:", "DIED"),
    "an integer may be negative": ("payment", "payment", "if size == 0 or number[0] & 0x80:", "if size == 0:", "OTHER_VERDICT"),
    "high S is taken": ("payment", "payment", "if normalize(context, NULL, &view.signature):", "if False:", "OTHER_VERDICT"),
    "a frame's head may be cut": ("frame", "frame", "if before < HEAD_SIZE or", "if", "broken"),
    "half a forwarded payment is taken": ("owner", "forward", "if mark == NULL:", "if frame.size < 1:", "broken"),
    "a request may be answered twice": (
        "asker",
        "forward",
        "request = self._asked.pop(frame.request_id, None)",
        "request = self._asked.get(frame.request_id)",
        "broken",
    ),
    "the last payment of a batch may be cut": (
        "batch",
        "batch",
        "or size - at < OUTPOINT_SIZE + 1 + body[at + OUTPOINT_SIZE]:",
        ":",
        "broken",
    ),
    "money held may fall": ("commit", "group", "and new.change_value <= known.change_value\n", "\n", "broken"),
    "a record may be longer": ("record", "group", "if size != whole:", "if size < whole:", "broken"),
}


def is_found(name: str, directory: Path) -> bool:
    """Return whether the fuzzer finds a slip and says what it should."""
    target, module, right, wrong, finding = SLIPS[name]
    source = (SOURCE / f"{module}.pyx").read_text()
    assert source.count(right) == 1, name
    (directory / f"{module}.pyx").write_text(source.replace(right, wrong))
    command = [sys.executable, "-m", "tests.fuzz.run", target, "--count", "300000", "--source", str(directory)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, errors="replace", check=False)
    return done.returncode == 1 and finding in done.stdout


def main() -> int:
    missed = 0
    for name in SLIPS:
        with tempfile.TemporaryDirectory() as directory, contextlib.redirect_stderr(io.StringIO()):
            found = is_found(name, Path(directory))
        missed += not found
        print(f"{'found ' if found else 'MISSED'} {SLIPS[name][0]:8} {name}", flush=True)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
