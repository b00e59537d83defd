"""Helpers of these tests: channels of the client library in a directory, against a real system or a scripted server."""

import contextlib
import io
import json
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from paychan.__main__ import main
from paychan.client import Channel, RetryPolicy, create_key
from paychan.core.network import TEST
from tests.system import CHANGE_ADDRESS, ROOT, WEEK, running

QUICK = RetryPolicy(timeout=0.3, deadline=0.6, wait_first=0.01, wait_max=0.05)
"""For tests in which the client shall give up. Others are patient, so that a busy machine does not fail them."""

PATIENT = RetryPolicy(wait_first=0.01)


def new_channel(directory: Path, port: int, name: str = "c", policy: RetryPolicy = PATIENT, is_open: bool = True) -> Channel:
    """Return a channel funded as debug mode does, opened unless told otherwise; `policy` is for what follows."""
    key, path = directory / f"{name}.key", directory / f"{name}.json"
    create_key(key)
    exp_time = int(time.time()) + WEEK
    with Channel.create(path, f"http://127.0.0.1:{port}", key, TEST, exp_time, CHANGE_ADDRESS, PATIENT) as channel:
        channel.fund_debug()
        if is_open:
            channel.open()
    return Channel(path, policy)


LARGEST, MANY, FEW = 10_000_000, 3, 1
"""Satoshi that the server with limits opens a channel on at most; confirmations that it asks for from a million on, and below."""


@contextmanager
def running_with_limits(directory: Path):
    """Run a server on network regtest that has limits. It sees no chain, so no channel opens; it is asked for its terms."""
    network = {"network = ": 'network = "regtest"'}
    (directory / "outputs").write_text("")
    server = {
        **network,
        "backend = ": f'backend = "fixture"\nfixture_file = "{directory / "outputs"}"',
        "funding_tx_min_conf = ": f"funding_tx_min_conf = {FEW}\nconfirmations_from = [[1000000, {MANY}]]\n"
        f"funding_value_max = {LARGEST}",
        "duration_hours_max = ": "duration_hours_max = 2160",
    }
    with running(directory, changes={"server.toml": server, "store.toml": network, "signer.toml": network}) as system:
        yield system


def run_paychan(state_dir: Path, *words: object, **how: object) -> subprocess.CompletedProcess[str]:
    """Run the command `paychan` as a shell does, with the payer's files in `state_dir`."""
    command = [sys.executable, "-m", "paychan", *map(str, words), "--state-dir", str(state_dir)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=60, **how)
    assert "Traceback" not in done.stderr
    return done


def ask_paychan(state_dir: Path, *words: object) -> tuple[int, dict, dict]:
    """Run the command with --json; return its exit status, its result and its error."""
    done = run_paychan(state_dir, *words, "--json")
    assert done.stdout.count("\n") <= 1
    return done.returncode, json.loads(done.stdout or "{}"), json.loads(done.stderr or "{}")


class Typed(NamedTuple):
    """What became of a command."""

    status: int
    out: str
    err: str


def type_paychan(state_dir: Path, *words: object) -> Typed:
    """Run the command in this process, which is a second faster; nobody is at the terminal."""
    out, err, before = io.StringIO(), io.StringIO(), (sys.argv, sys.stdin)
    command, *others = map(str, words)
    sys.argv, sys.stdin = ["paychan", command, "--state-dir", str(state_dir), *others], io.StringIO()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as ended:
            main()
    finally:
        sys.argv, sys.stdin = before
    assert "internal error" not in err.getvalue()
    return Typed(ended.value.code or 0, out.getvalue(), err.getvalue())
