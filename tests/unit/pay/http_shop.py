"""The shop of shop.py behind a socket, for payers in other processes and for HTTP clients."""

import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from paychan.pay.steps import Try
from tests.unit.pay.shop import Shop


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def _serve(self):
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        headers = {"Authorization": value} if (value := self.headers.get("Authorization")) else {}
        with self.server.mutex:
            answer = self.server.shop.answer(self.path, Try(headers, "HEAD" if self.command == "HEAD" else ""))
        if answer is None:
            self.close_connection = True
            return
        goods = answer.body or b"goods of " + self.path.encode() + b" for " + (body or b"nothing")
        self.send_response(answer.status)
        for name, value in answer.headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(goods)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(goods)

    do_GET = do_POST = do_PUT = do_HEAD = do_DELETE = _serve

    def log_message(self, *_):
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64


@contextmanager
def serving(**details):
    """Yield a shop that is open at its `origin`."""
    server = _Server(("127.0.0.1", 0), _Handler)
    shop = Shop(f"http://127.0.0.1:{server.server_address[1]}", **details)
    shop.clock = True
    server.shop, server.mutex = shop, threading.Lock()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield shop
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
