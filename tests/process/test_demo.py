"""Aim: what is shown to people works: the demonstration, a regtest with its node by one command, a whole cluster. Method: the real
scripts."""

import os
import re
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from tests import postgres
from tests.log_lines import unquiet
from tests.ports import free_port
from tests.system import PATIENCE_FACTOR, ROOT, processes, wait_until

SECONDS_MAX = 120


def environment(directory: Path, **more: object) -> dict[str, str]:
    """Return variables that have the scripts use this Python, and this directory for temporary files."""
    clean = {name: value for name, value in os.environ.items() if name != "PORT" and not name.startswith("PAYCHAN_")}
    return clean | {"PAYCHAN_PYTHON": sys.executable, "TMPDIR": str(directory)} | {k: str(v) for k, v in more.items()}


def left_in(directory: Path) -> list[str]:
    """Return the processes that work in `directory`, or were told of a file in it."""
    found = []
    for pid, _, command in processes():
        place = ""
        with suppress(OSError):
            place = os.readlink(f"/proc/{pid}/cwd")
        if f"{place} {command}".count(str(directory)):
            found.append(command)
    return found


def test_the_demonstration_ends_well_and_leaves_nothing_behind(tmp_path):
    done = subprocess.run(
        [str(ROOT / "demo.sh")],
        env=environment(tmp_path, PAYMENTS=50),
        capture_output=True,
        text=True,
        timeout=PATIENCE_FACTOR * SECONDS_MAX,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("\ndemo: all well\n")
    assert "confirmations: 6" in done.stdout and "non-final" in done.stdout
    assert list(tmp_path.iterdir()) == []
    assert left_in(tmp_path) == []


def test_a_demonstration_that_fails_says_why_and_leaves_nothing_behind(tmp_path):
    env = environment(tmp_path, PAYMENTS="none")
    done = subprocess.run([str(ROOT / "demo.sh")], env=env, capture_output=True, text=True, timeout=PATIENCE_FACTOR * SECONDS_MAX)
    assert done.returncode == 1
    assert "demo: failed: the payments failed\n" in done.stdout and "ValueError" in done.stdout
    assert list(tmp_path.iterdir()) == []
    assert left_in(tmp_path) == []


@pytest.fixture
def regtest(tmp_path):
    """config/regtest on free ports: its directory, and the variables to start it with."""
    config = tmp_path / "config"
    shutil.copytree(ROOT / "config" / "regtest", config)
    server = config / "server.toml"
    server.write_text(re.sub(r"(?m)^port = 18443", f"port = {free_port()}", server.read_text()))
    return config, environment(tmp_path, PORT=free_port(), PAYCHAN_STATE_DIR=tmp_path / "state")


def node(config: Path, env: dict[str, str], *words: object) -> str:
    command = [sys.executable, "-m", "tests.node", "--config", config, *words]
    return subprocess.run(list(map(str, command)), env=env, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True).stdout


def mine_one_block_and_stop(config: Path, env: dict[str, str], directory: Path, number: int) -> str:
    """Start everything, mine a block, send the signal; return what `mine` said."""
    with open(directory / "log", "w+") as log:
        everything = subprocess.Popen(
            [str(ROOT / "runEverything.sh"), str(config)],
            env=env,
            cwd=directory,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        try:
            wait_until(lambda: everything.stdout.readline().startswith("ready http") or everything.poll(), 60, "the start")
            mined = node(config, env, "mine", 1)
        finally:
            everything.send_signal(number)
            status = everything.wait(30)
            everything.stdout.close()
    said = (directory / "log").read_text()
    assert (status, unquiet(said)) == (0, [])
    return mined


def test_one_command_starts_and_stops_a_node_that_keeps_its_chain(tmp_path, regtest):
    for height, number in ((111, signal.SIGTERM), (112, signal.SIGINT)):
        assert mine_one_block_and_stop(*regtest, tmp_path, number) == f"height: {height}\n"
        wait_until(lambda: left_in(tmp_path) == [], 5, "the end of all processes")
    assert (tmp_path / "state" / "node.cookie").stat().st_mode & 0o777 == 0o600


def test_a_node_that_does_not_start_is_an_error(tmp_path):
    (tmp_path / "node.sh").write_text("exit 3\n")
    done = subprocess.run(
        [str(ROOT / "runEverything.sh"), str(tmp_path)], env=environment(tmp_path), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert done.stderr == f"paychan: {tmp_path}/node.sh did not start\n"


def test_the_server_s_exit_status_is_kept_with_a_node(tmp_path, regtest):
    config, env = regtest
    (config / "store.toml").unlink()
    done = subprocess.run([str(ROOT / "runEverything.sh"), str(config)], env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "store.toml: cannot be read" in done.stderr
    assert left_in(config) == []


def test_the_test_configuration_names_what_to_fill_in(tmp_path):
    env = environment(tmp_path, PAYCHAN_STATE_DIR=tmp_path / "state")
    command = [str(ROOT / "runEverything.sh"), "config/test/"]
    done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr.startswith("paychan: config/test/server.toml: bitcoind.cookie_file: ")
    assert done.stderr.count("\n") == 1


@postgres.needed
def test_a_cluster_to_try_loses_nothing_to_what_it_kills_and_ends_at_ctrl_c_with_nothing_left_behind(tmp_path):
    (tmp_path / "made").mkdir()
    said = tmp_path / "said"
    with said.open("w") as out:
        command, env = [str(ROOT / "runCluster.sh"), "--faults"], environment(tmp_path / "made")
        process = subprocess.Popen(command, env=env, stdout=out, stderr=out, start_new_session=True)
    try:
        wait_until(lambda: "kill -9: " in said.read_text() or process.poll() is not None, SECONDS_MAX, "a fault")
        assert process.poll() is None, said.read_text()
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(PATIENCE_FACTOR * SECONDS_MAX) == 0, said.read_text()
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    text = said.read_text()
    assert re.search(r"^\d+ payments answered: 0 lost, 0 counted twice$", text, re.MULTILINE), text
    assert text.count("examples/pay.py http://") == 3
    assert list((tmp_path / "made").iterdir()) == []
    assert left_in(tmp_path / "made") == []
