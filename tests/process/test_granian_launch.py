"""Aim: operators can launch each process by itself, the server with plain `granian`. Method: exactly that, then a channel's
life."""

import os
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.ports import free_port
from tests.system import ROOT, Client, System, make_config, running, wait_until


@contextmanager
def started(argv: list[str], env: dict[str, str]):
    process = subprocess.Popen(argv, env=env, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)


def granian_command(port: int, workers: int) -> list[str]:
    granian = Path(sys.executable).parent / "granian"
    return [str(granian), "--interface", "rsgi", "--port", str(port), "--workers", str(workers), "paychan.server:app"]


def test_granian_without_a_configuration_ends_and_names_the_variable():
    env = {key: value for key, value in os.environ.items() if key != "PAYCHAN_CONFIG"}
    result = subprocess.run(granian_command(free_port(), 1), env=env, cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert result.returncode != 0
    assert "paychan-server: PAYCHAN_CONFIG: names no server.toml" in result.stderr


@pytest.mark.parametrize("workers", [1, 2])
def test_processes_started_one_by_one_with_plain_granian_serve_a_channel(tmp_path, workers):
    config = make_config(tmp_path / "config")
    system = System(tmp_path / "state", config, free_port(), workers)
    env = {**os.environ, "PAYCHAN_STATE_DIR": str(system.state_dir), "PAYCHAN_CONFIG": str(config / "server.toml")}
    server = granian_command(system.port, workers)
    store = [sys.executable, "-m", "store", str(config / "store.toml")]
    signer = [sys.executable, "-m", "signer", str(config / "signer.toml")]
    # The server first: it waits for the others by itself.
    with started(server, env), started(store, env), started(signer, env):
        wait_until(lambda: system.ready_workers() == workers, 30, "becoming ready")
        system.server_pubkey = bytes.fromhex(system.client().request("GET", "/readyz").json["server_pubkey"])
        for number in range(4):
            payer = system.payer(f"granian {number}")
            assert payer.open().status == 201
            assert payer.pay(5).json["value_received"] == 5
            assert payer.close().status == 202
    assert len(system.broadcast()) == 4


def test_localhost_is_an_address(tmp_path):
    """granian takes addresses only; a name once ended every start in a traceback."""
    with running(tmp_path, changes={"server.toml": {"host = ": 'host = "localhost"'}}) as system:
        payer = system.payer("localhost")
        assert payer.open().status == 201
        assert system.own_ports()
    assert "Traceback" not in "".join(system.output)


def test_an_ipv6_address_is_served_and_told_in_brackets(tmp_path):
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
            port = probe.getsockname()[1]
    except OSError:
        pytest.skip("this machine has no IPv6")
    config = make_config(tmp_path / "config", {"server.toml": {"host = ": 'host = "::1"', "base_port = ": "base_port = 0"}})
    system = System(tmp_path / "state", config, port)
    process = system.spawn()
    try:
        line = next(line for line in process.stdout if line.startswith("ready "))
        assert line.startswith(f"ready http://[::1]:{port} ")
        client = Client(port, "::1")
        assert client.request("GET", "/healthz").json == {"alive": True}
        client.close()
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
