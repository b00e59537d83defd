"""Aim: whatever answers on our HTTP port while the server starts, the supervisor waits on. Method: a stranger's HTTP server."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest

from paychan.ready import ready_state


@pytest.fixture
def stranger():
    class Stranger(BaseHTTPRequestHandler):
        body = b""

        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(self.body)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Stranger)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def state_of(server, body):
    server.RequestHandlerClass.body = body
    host, port = server.server_address
    return ready_state(SimpleNamespace(http_host=host, http_port=port))


NONSENSE = [b"[]", b"null", b"7", b'"ready"', b"<html>", b"", b"\xff", b"[" * 100_000, b"{" + b" " * (1 << 21)]


@pytest.mark.parametrize("body", NONSENSE, ids=range(len(NONSENSE)))
def test_what_is_no_object_says_nothing(stranger, body):
    assert state_of(stranger, body) == {}


def test_an_object_is_what_it_says(stranger):
    assert state_of(stranger, b'{"ready": true, "workers": 2}') == {"ready": True, "workers": 2}
