"""Aim: a command that asks elsewhere says what is wrong with how it was called before it asks anybody, and sends its token nowhere
else. Method: the command itself, in this process, and servers that answer oddly."""

import http.server
import sys
import threading

import pytest

from paychan.__main__ import _main


def run(monkeypatch, capsys, *words, token="pct_secret"):
    monkeypatch.setenv("PAYCHAN_OPERATOR_TOKEN", token)
    monkeypatch.setattr(sys, "argv", ["paychan", *words])
    try:
        status = _main()
    except SystemExit as error:
        status = error.code
    told = capsys.readouterr()
    return status, told.out, told.err


@pytest.mark.parametrize(
    "words",
    [
        ("overview",), ("overview", "config", "--server", "http://127.0.0.1:1"), ("overview", "--server", "http://192.0.2.1:9109"),
        ("overview", "--server", "http://127.0.0.1:1", "--ca", "x"), ("overview", "config", "--token-file", "x"),
        ("overview", "--server", "ftp://x"), ("limits", "--server", "http://127.0.0.1:1", "--set", "x=1"), ("drain", "config"),
        ("limits", "--server", "http://127.0.0.1:1", "--set", "duration_hours_max"), ("events",),
        ("drain", "config", "--worker", "x"),
    ],
    ids=" ".join,
)  # fmt: skip
def test_wrong_usage_is_said_before_anybody_is_asked(monkeypatch, capsys, words):
    status, out, told = run(monkeypatch, capsys, *words)
    assert (status, out, len(told.splitlines())) == (2, "", 1) and "pct_secret" not in told


@pytest.mark.parametrize("token", ["", "two words", "pct_\xe9", "a\nb: c"], ids=repr)
def test_what_is_no_token_is_not_sent(monkeypatch, capsys, token):
    status, out, told = run(monkeypatch, capsys, "overview", "--server", "http://127.0.0.1:1", token=token)
    assert status in (1, 2) and out == "" and "token" in told.lower()


class Odd(http.server.BaseHTTPRequestHandler):
    answer = (200, b"{}", {})
    came: list[str] = []

    def do_GET(self):
        type(self).came.append(self.path)
        status, body, headers = self.answer
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def odd():
    Odd.came = []
    with http.server.HTTPServer(("127.0.0.1", 0), Odd) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize(
    "answer",
    [
        (200, b"", {}), (200, b"[]", {}), (200, b"{}", {}), (200, b"<html>", {}), (500, b"{}", {}), (200, b"[" * 100_000, {}),
        (302, b"{}", {"location": "http://127.0.0.1:1/"}),
    ],
    ids=lambda answer: repr(answer)[:40],
)  # fmt: skip
def test_what_is_no_answer_of_the_api_is_one_line(monkeypatch, capsys, odd, answer):
    monkeypatch.setattr(Odd, "answer", answer)
    status, out, told = run(monkeypatch, capsys, "limits", "--server", odd)
    assert (status, out, len(told.splitlines())) == (1, "", 1) and "pct_secret" not in told
    assert Odd.came == ["/operator/v1/limits"]


def test_a_refusal_is_told_with_its_code(monkeypatch, capsys, odd):
    monkeypatch.setattr(Odd, "answer", (403, b'{"status": 403, "code": "token_scope", "detail": "No."}', {}))
    assert run(monkeypatch, capsys, "limits", "--server", odd) == (1, "", "paychan: No. (token_scope)\n")
