"""Aim: the load command pays what it says, and ends in one line whatever is wrong. Method: short runs against real systems, against
nobody, and against what is no server of ours."""

import http.server
import json
import os
import re
import resource
import subprocess
import sys
import threading

import pytest

from bench import pay_channels
from bench.load.paying import Server
from paychan import printing
from tests.ports import free_port
from tests.system import ROOT, running

DONE = r"200 payments executed in [0-9.]+ s over 5 channels, no error\n[0-9]+ payments per second .*\nlatency p50 .* ms, p99 .*\n"


def load(*arguments, **options):
    argv = [sys.executable, "-m", "bench.pay_channels", *map(str, arguments)]
    return subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=300, **options)


def refused(result):
    """Return the one line in which a run ended, but for what it told of its progress."""
    assert result.returncode == 1
    assert result.stdout == ""
    *progress, line = result.stderr.splitlines()
    assert line.startswith("benchPayChanServer.sh: ")
    assert not [said for said in progress if not said.endswith(" s  opening")]
    return line


def test_every_payment_is_executed_twice_in_a_row_on_kept_state(tmp_path):
    with running(tmp_path, workers=2) as system:
        for given in ((), (system.server_pubkey.hex(),)):
            result = load(40, 5, f"127.0.0.1:{system.port}", *given)
            assert result.returncode == 0, result.stderr
            assert re.fullmatch(DONE, result.stdout)
        # Each channel was opened, paid and closed: its settlement was broadcast.
        assert len(system.broadcast()) == 10


def test_more_channels_than_a_server_opens_in_a_second(tmp_path):
    """Those that are answered 503 are asked for again."""
    changes = {"server.toml": {'backend = "debug"': 'backend = "debug"\nlookups_per_second = 4'}}
    with running(tmp_path, changes=changes) as system:
        result = load(1, 12, f"127.0.0.1:{system.port}")
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("12 payments executed in ")


def test_a_server_that_is_not_in_debug_mode(tmp_path):
    (tmp_path / "funding.json").write_text(json.dumps({"outputs": []}))
    backend = f'backend = "fixture"\nfixture_file = "{tmp_path}/funding.json"'
    with running(tmp_path, changes={"server.toml": {"backend = ": backend}}) as system:
        line = refused(load(1, 1, f"127.0.0.1:{system.port}"))
    assert "a channel was not opened, which takes debug mode: 400 funding_not_found" in line


def test_a_server_that_ends_while_it_is_paid(tmp_path):
    with running(tmp_path) as system:
        argv = [sys.executable, "-m", "bench.pay_channels", "20000", "2", f"127.0.0.1:{system.port}"]
        process = subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        said = ""
        while "paying" not in said:
            said = process.stderr.readline()
            assert said, "it ended before it paid"
        system.kill("server")
        stdout, stderr = process.communicate(timeout=120)
    assert (process.returncode, stdout) == (1, "")
    assert re.search(r"^benchPayChanServer.sh: 127.0.0.1:\d+: .* missing: a connection was closed", stderr, re.M)
    assert "Traceback" not in stderr


def test_nobody_listens():
    port = free_port()
    line = refused(load(1, 1, f"127.0.0.1:{port}"))
    why = "Connection refused: ./runEverything.sh config/debug/ starts a server"
    assert line == f"benchPayChanServer.sh: 127.0.0.1:{port}: {why}"


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a..b", "x" * 70])
def test_a_host_that_is_none(host):
    assert refused(load(1, 1, f"{host}:8000")).startswith(f"benchPayChanServer.sh: {host}:8000: ")


ANSWERS = {
    "a page": (200, b"<html>"),
    "a refusal": (404, b"{}"),
    "JSON of another kind": (200, b"[1]"),
    "another service": (200, b'{"server_pubkey": 7, "open_price": "x"}'),
    "a key that is none": (200, b'{"server_pubkey": "%s", "open_price": 1}' % (b"07" * 33)),
    "no JSON": (200, b"{"),
    "nothing of HTTP": (0, b""),
}


@pytest.mark.parametrize("answer", ANSWERS)
def test_what_listens_is_no_server_of_ours(answer):
    status, body = ANSWERS[answer]

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            if not status:
                self.wfile.write(b"220 smtp\r\n")
                return
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        line = refused(load(1, 1, f"127.0.0.1:{server.server_port}"))
        server.shutdown()
    assert "this is no paychan server" in line or "fundingInfo: 404" in line


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("1", "1"),
        ("0", "1", "localhost:1"),
        ("1", "-1", "localhost:1"),
        ("1.5", "1", "localhost:1"),
        ("١", "1", "localhost:1"),
        ("100000", "100000", "localhost:1"),
        ("1", "1", "localhost"),
        ("1", "1", "localhost:"),
        ("1", "1", ":8000"),
        ("1", "1", "localhost:0"),
        ("1", "1", "localhost:70000"),
        ("1", "1", "localhost:http"),
        ("1", "1", "http://localhost:8000"),
        ("1", "1", "localhost:8000/v1"),
        ("1", "1", "user@localhost:8000"),
        ("1", "1", "[::1:8000"),
        ("1", "1", "::1"),
        ("1", "1", "\udcff:8000\n"),
        ("1", "1", "localhost:1", "zz"),
        ("1", "1", "localhost:1", "07" * 33),
    ],
)
def test_wrong_arguments_end_with_the_usage(arguments, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["", *arguments])
    assert printing.run(pay_channels.NAME, pay_channels.main) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.splitlines()[-1].startswith("benchPayChanServer.sh: error: ")


def test_more_connections_than_files_may_be_open():
    few = lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))  # noqa: E731
    line = refused(load(1, 64, "localhost:1", preexec_fn=few))
    assert line.endswith("64 connections: at most 64 files may be open here (ulimit -Hn)")


def test_a_terminal_of_another_alphabet_and_a_reader_who_goes(tmp_path):
    with running(tmp_path) as system:
        argv = [sys.executable, "-m", "bench.pay_channels", "1", "1", f"127.0.0.1:{system.port}"]
        env = {**os.environ, "PYTHONIOENCODING": "ascii"}
        result = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=300, env=env)
        assert (result.returncode, "Traceback" in result.stderr) == (0, False)
        with open("/dev/full", "w") as full:
            result = subprocess.run(argv, cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True, timeout=300)
    assert result.returncode != 0
    assert "standard output cannot be written" in result.stderr.splitlines()[-1]


def test_an_address_of_six_is_one():
    assert Server.parse("[::1]:8000") == Server("[::1]:8000", "::1", 8000)
