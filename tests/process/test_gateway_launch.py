"""Aim: the gateway runs under granian's own command too, speaks TLS, and says what keeps it from running.
Method: real processes."""

import os
import signal
import socket
import ssl
import subprocess
import sys

import pytest

from tests.gateways import Process, free_config, read_all, running_gateway, running_upstream, started
from tests.ports import free_port
from tests.system import ROOT, wait_until


@pytest.fixture(scope="module")
def upstream():
    with running_upstream() as process:
        yield process


def test_granians_command_serves_and_stops_though_a_stream_has_no_end(upstream, tmp_path):
    file, port = tmp_path / "gateway.toml", free_port()
    file.write_text(free_config(upstream, 'path = "/*"', gateway="stop_seconds = 1").replace("PORT", "1"))
    command = [sys.executable, "-m", "granian", "--interface", "rsgi", "--http", "1", "--ws", "--port", str(port)]
    env = {**os.environ, "PAYCHAN_GATEWAY": str(file)}
    with started(Process([*command, "paychan.gateway:app"], port, env)) as gateway:
        wait_until(lambda: gateway.client().request("GET", "/healthz").status == 200, 20, "starting a worker")
        assert gateway.client().request("GET", "/x").status == 200
        with socket.create_connection(("127.0.0.1", port), timeout=20) as stream:
            stream.sendall(b"GET /events/0 HTTP/1.1\r\nHost: h\r\n\r\n")
            assert stream.recv(1000)
            gateway.process.send_signal(signal.SIGTERM)
            assert not read_all(stream).endswith(b"0\r\n\r\n")
        assert gateway.process.wait(30) == 0


def make_certificate(directory):
    certificate, key = directory / "gateway.pem", directory / "gateway.key"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    made = subprocess.run([*command, "-keyout", key, "-out", certificate], capture_output=True, check=False)
    assert made.returncode == 0, made.stderr
    key.chmod(0o600)
    return ssl.create_default_context(cafile=str(certificate))


def test_tls_and_what_breaks_off_under_it(upstream, tmp_path):
    context = make_certificate(tmp_path)
    context.check_hostname = False
    keys = 'tls_certificate = "gateway.pem"\ntls_key = "gateway.key"'
    with running_gateway(tmp_path, free_config(upstream, 'path = "/*"', gateway=keys)) as gateway:

        def ask(target):
            with socket.create_connection(("127.0.0.1", gateway.port), timeout=20) as plain, context.wrap_socket(plain) as secure:
                secure.sendall(f"GET {target} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n".encode())
                return read_all(secure)

        assert b"x-forwarded-proto" in ask("/x") and b'"https"' in ask("/x")
        assert not ask("/cut/3").endswith(b"0\r\n\r\n") and ask("/events/3").endswith(b"0\r\n\r\n")
        assert len(ask("/big/5000000")) > 5_000_000


@pytest.mark.parametrize(
    "text, complaint",
    [
        ('[gateway]\nport = 0\n[upstreams.a]\nurl = "http://127.0.0.1:1"\n', "gateway.port: must be from 1"),
        ("", "upstreams: name at least one"),
        ('[upstreams.a]\nurl = "http://127.0.0.1:1"\n[[routes]]\npath = "/"\nprice = 1\n', "seller: is missing"),
    ],
)
def test_what_keeps_it_from_running_is_one_line_and_status_2(tmp_path, text, complaint):
    (tmp_path / "gateway.toml").write_text(text)
    command = [sys.executable, "-m", "paychan", "gateway", str(tmp_path / "gateway.toml")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 2 and complaint in done.stderr and len(done.stderr.splitlines()) == 1


def test_a_port_that_is_taken_is_not_shared(upstream, tmp_path):
    (tmp_path / "gateway.toml").write_text(free_config(upstream, 'path = "/*"').replace("PORT", str(upstream.port)))
    command = [sys.executable, "-m", "paychan", "gateway", str(tmp_path / "gateway.toml")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False, timeout=60)
    assert done.returncode == 2 and f"gateway.port: 127.0.0.1:{upstream.port}: Address already in use" in done.stderr


def test_before_its_seller_is_there_it_runs_and_says_so(upstream, tmp_path):
    text = free_config(upstream, 'path = "/free"', gateway='realm = "x"')
    text += '[seller]\nsocket = "none.sock"\n[[routes]]\npath = "/"\nprice = 1\n'
    with running_gateway(tmp_path, text) as gateway:
        answer = gateway.client().request("GET", "/")
        assert (answer.status, answer.headers.get("www-authenticate")) == (503, None) and "retry-after" in answer.headers
        assert gateway.client().request("GET", "/free").status == 200
        wait_until(lambda: "none.sock is not there" in "".join(gateway.output), 10, "a word about it")
