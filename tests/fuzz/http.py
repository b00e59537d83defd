"""The reader of HTTP heads as a target of the fuzzer: what to begin with. `python -m tests.fuzz.http --time`: what a reading costs.

What must hold of each input is listed in http_target.pyx.
"""

import sys

from paychan._fast import http
from tests.differential.http_cases import BAD, GOOD
from tests.fuzz.build import load_engine

NAMES = ["Host", "Content-Length", "Transfer-Encoding", "Connection", "Expect", "Upgrade", "X"]
VALUES = [
    *["a", "a:80", "[::1]:80", "close", "keep-alive", "close,x", "upgrade", "100-continue", "caf\xe9", "a\xa0b"],
    *["0", "1", "5", "12", "4096", "4097", "00", "01", "+5", "-5", "0x5", "5,5", "18446744073709551621", "9999999999999999999"],
    *["chunked", "identity", "\x0bchunked"],
]
TOKENS = [f"{name}: {value}".encode("latin-1") for name in NAMES for value in VALUES] + [
    text.encode("latin-1")
    for text in [*NAMES, *VALUES, "GET", "PUT", "POST", "HEAD", "DELETE", "OPTIONS", "PATCH", "CONNECT", "M" * 17]
    + ["http://a/", "http://", "HTTPS://[::1]:80", "?", "*"]
    + [" HTTP/1.1", " HTTP/1.0", " HTTP/1.2", " HTTP/2.0", "\r\n", "\r\n\r\n", "\n\n", "\r\n ", "\r\n\t", ": "]
    + ["0\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", "Content-Length : 5", "Transfer-Encoding\t: chunked", "x" * 8, "%2f"]
]


SEEDS = [request for request, _ in (*GOOD.values(), *BAD.values())]
STATUSES = {int(status) for status in http.HttpStatus}


def show_times() -> None:
    """Print what one reading costs in the release build."""
    engine = load_engine("http_target")
    capsule = http.__pyx_capi__["parse_head"]
    for name in ("a payment", "least", "longest head"):
        request = GOOD[name][0]
        best = min(engine.time_parse(capsule, request, 200_000) for _ in range(9))
        print(f"{best:8.1f} ns  {name}, {len(request)} bytes")


if __name__ == "__main__" and "--time" in sys.argv:
    show_times()
