"""Fuzz the reader of HTTP heads: whatever the bytes, nothing outside them is read and what is accepted has one meaning.

    python -m tests.fuzz.http --count 10000000
    python -m tests.fuzz.http --count 10000000 --address-sanitizer
    python -m tests.fuzz.http --time

Coverage-guided, and needs nothing but the C compiler the extensions need anyway: a copy of the parser is built that counts the
edges it takes (gcc and clang both can), the loop around it is compiled (engine.pyx), the inputs are mutations of the test table
and of whatever went a new way. What must hold of each input is listed in engine.pyx. The work is done in a second process; if
that dies, the input it died of is printed. The same seed finds the same inputs.
"""

import argparse
import ctypes
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from paychan._fast import http
from tests.differential.http_cases import BAD, GOOD
from tests.fuzz.build import ROOT, SOURCE, build_engine, build_parser, load

STEP = 250_000
NAMES = ["Host", "Content-Length", "Transfer-Encoding", "Connection", "Content-Type", "Expect", "Upgrade", "X"]
VALUES = [
    *["a", "a:80", "[::1]:80", "close", "keep-alive", "close,x", "upgrade", "100-continue", "application/json", "text/plain; a=b"],
    *["0", "1", "5", "12", "4096", "4097", "00", "01", "+5", "-5", "0x5", "5,5", "18446744073709551621", "9999999999999999999"],
    *["chunked", "identity", "\x0bchunked"],
]
TOKENS = [f"{name}: {value}".encode() for name in NAMES for value in VALUES] + [
    text.encode()
    for text in [*NAMES, *VALUES, "GET", "PUT", "POST", "HEAD", "DELETE", "OPTIONS", "PATCH", "CONNECT", "M" * 17]
    + [" HTTP/1.1", " HTTP/1.0", " HTTP/1.2", " HTTP/2.0", "http://a/", "*", "\r\n", "\r\n\r\n", "\n\n", "\r\n ", "\r\n\t", ": "]
    + ["0\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", "Content-Length : 5", "Transfer-Encoding\t: chunked", "x" * 8, "%2f"]
]


def make_engine(source: Path, address_sanitizer: bool, seed: int, record: Path):
    """Build what has changed, and return an engine at the instrumented copy of the parser."""
    engine = load("tests.fuzz.engine", build_engine())
    file = build_parser(source, address_sanitizer)
    capsule = load("paychan._fast.http", file).__pyx_capi__["parse_head"]
    coverage = ctypes.addressof((ctypes.c_uint8 * 8192).in_dll(ctypes.CDLL(str(file)), "paychan_coverage"))
    seeds = [request for request, _ in (*GOOD.values(), *BAD.values())]
    statuses = {int(status) for status in http.HttpStatus}
    with record.open("w+b") as area:
        area.truncate(16384)
        return engine, engine.Engine(capsule, coverage, seeds, TOKENS, statuses, seed, area.fileno(), address_sanitizer)


def work(options: argparse.Namespace) -> int:
    """Run the engine; in a process that may die of it."""
    module, engine = make_engine(options.source, options.address_sanitizer, options.seed, options.record)
    started = time.monotonic()
    while engine.executions < options.count:
        broken = engine.run(min(STEP, options.count - engine.executions))
        if broken:
            data, cut = engine.last
            print(f"{module.Broken(broken).name} is broken, seed {options.seed}, execution {engine.executions}, cut {cut}")
            print(f"input: {data!r}")
            return 1
        if time.monotonic() - started > options.seconds:
            print(f"stopped after {options.seconds} s")
            break
    spent = time.monotonic() - started
    print(f"{engine.executions} executions in {spent:.1f} s ({engine.executions / spent:.0f}/s), nothing broken")
    print(f"edges {engine.edges}, inputs kept {len(engine.corpus)}")
    for status, count in sorted(engine.statuses.items()):
        print(f"{count:12} {http.HttpStatus(status).name}")
    missed = [status.name for status in http.HttpStatus if status not in engine.statuses]
    if missed:
        print("never reached:", *missed)
    return 1 if missed and options.count >= STEP else 0


def environment(address_sanitizer: bool) -> dict[str, str]:
    """Return the environment of the second process; the address sanitizer must be there before Python is."""
    if not address_sanitizer:
        return dict(os.environ)
    library = subprocess.run(["gcc", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True).stdout.strip()
    return {**os.environ, "LD_PRELOAD": library, "ASAN_OPTIONS": "detect_leaks=0:quarantine_size_mb=16:exitcode=99"}


def watch(options: argparse.Namespace, arguments: list[str]) -> int:
    """Build, start the second process, say how it ended."""
    build_engine()
    build_parser(options.source, options.address_sanitizer)
    with tempfile.TemporaryDirectory() as directory:
        record = Path(directory) / "last-input"
        command = [sys.executable, "-m", "tests.fuzz.http", *arguments, "--record", str(record)]
        process = subprocess.run(command, env=environment(options.address_sanitizer), cwd=ROOT, check=False)
        if process.returncode not in (0, 1):
            how = signal.strsignal(-process.returncode) if process.returncode < 0 else f"exit {process.returncode}"
            area = record.read_bytes() if record.exists() else bytes(16)
            size, cut = int.from_bytes(area[:8], "little"), int.from_bytes(area[8:16], "little")
            print(f"DIED ({how}), seed {options.seed}, cut {cut}\ninput: {area[16 : 16 + size]!r}")
        return 1 if process.returncode else 0


def show_times() -> None:
    """Print what one reading costs in the release build."""
    engine = load("tests.fuzz.engine", build_engine())
    capsule = http.__pyx_capi__["parse_head"]
    for name in ("a payment", "least", "longest head"):
        request = GOOD[name][0]
        best = min(engine.time_parse(capsule, request, 200_000) for _ in range(9))
        print(f"{best:8.1f} ns  {name}, {len(request)} bytes")


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10_000_000)
    parser.add_argument("--seconds", type=float, default=3600, help="stop after this time")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--address-sanitizer", action="store_true", help="heap blocks and AddressSanitizer, not guard pages")
    parser.add_argument("--source", type=Path, default=SOURCE, help="directory of another http.pyx and http.pxd")
    parser.add_argument("--time", action="store_true", help="only say what one reading costs")
    parser.add_argument("--record", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.time:
        show_times()
        return 0
    return work(options) if options.record else watch(options, arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
