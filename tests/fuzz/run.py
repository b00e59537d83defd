"""Fuzz the parsers: whatever the bytes, nothing outside them is read, and what must hold of each target holds.

    python -m tests.fuzz.run                                  # every target, 1 000 000 inputs each
    python -m tests.fuzz.run path payment --count 100000000 --seconds 3000
    python -m tests.fuzz.run http --count 10000000 --address-sanitizer
    python -m tests.fuzz.run --list

Coverage-guided, and needs nothing but the C compiler the extensions need anyway: copies of the parsers are built that count the
edges they take (gcc and clang both can), the loop around them is compiled (engine.pyx), inputs are mutations of each target's seeds
and of whatever went a new way. Targets: http_target.pyx, targets.pyx, calls.py; a new one is a row of TARGETS. Each target's work
is
done in a process of its own; if that dies, the input it died of is printed. The same seed finds the same inputs.
"""

import argparse
import ctypes
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from paychan._fast import http as compiled_http
from paychan._fast.status import Status
from tests.fuzz import calls, http
from tests.fuzz.build import ROOT, SOURCE, build_engine, build_parser, load, load_engine

Modules = dict[str, ModuleType]

RECORD_SIZE = 4 * 4096
RELIABLE_COUNT = 250_000
"""From so many inputs on, a target must have reached all its verdicts."""


@dataclass(frozen=True)
class Target:
    """`about`: what is read. modules: of paychan/_fast, copied with counters of edges; the first one's guide. verdicts: all that
    must
    be reached, by number. count_short, for the test suite."""

    about: str
    engine: tuple[str, str]
    modules: tuple[str, ...]
    attach: Callable[[Any, Modules], None]
    seeds: Callable[[], list[bytes]]
    tokens: Callable[[], list[bytes]] = list
    size_max: int = 3 * 4096
    first_line: bool = False
    verdicts: dict[int, str] = field(default_factory=dict)
    count_short: int = 20_000


def _functions(module: str) -> Callable[[Any, Modules], None]:
    return lambda engine, modules: engine.attach(modules[module].__pyx_capi__)


def _called(make: Callable[[Modules], calls.Call]) -> Callable[[Any, Modules], None]:
    return lambda engine, modules: engine.attach(make(modules))


def _statuses(*statuses: Status) -> dict[int, str]:
    return {int(status): status.name for status in statuses}


_PATH = calls.SAMPLE.path.encode()
_TEXTS = [calls.base64.urlsafe_b64encode(payment) for payment in (calls.GOOD_PAYMENT, calls.LATER_PAYMENT)]
_DER_TOKENS = [
    bytes.fromhex(text)
    for text in ["30440220", "3045022100", "0220", "022100", "0200", "0201", "020100", "7f" + "ff" * 15, "ff" * 15 + "fe"]
    + ["7fffffffffffffffffffffffffffffff5d576e7357a4501ddfe92f46681b20a0", "5d576e7357a4501ddfe92f46681b20a1"]
    + ["fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141", "82", "83", "bc02000000000000", "bb02000000000000"]
    + ["0040075af0750700", "0140075af0750700", "0000000000000000", "00" * 8 + "300602010102010182"]
]
_FRAME_TOKENS = [
    bytes.fromhex(text) for text in ["0000000001020000", "0300000001820000", "00100000", "01100000", "01ff0000", "0000"]
]


TARGETS = {
    "http": Target(
        "the head of an HTTP request",
        ("http_target", "HttpEngine"),
        ("http",),
        lambda engine, modules: engine.attach(modules["http"].__pyx_capi__, http.STATUSES),
        lambda: http.SEEDS,
        lambda: http.TOKENS,
        first_line=True,
        verdicts={int(status): status.name for status in compiled_http.HttpStatus},
        count_short=60_000,
    ),
    "path": Target(
        "the path of a channel's resource",
        ("targets", "PathEngine"),
        ("request",),
        _functions("request"),
        lambda: [_PATH, _PATH + b"/x", b"/v1/channels/" + b"f" * 64 + b"/4294967295", b"/v1/channels/" + b"0" * 64 + b"/0", b"/"],
        lambda: [b"/v1/channels/", b"4294967295", b"4294967296", b"/", b"//", b"0", b"f" * 64, b"A" * 32, b"/" * 900],
        size_max=1100,
        verdicts=_statuses(Status.OK, Status.REQUEST_TOO_LARGE, Status.NO_SUCH_ROUTE, Status.INVALID_TXID, Status.INVALID_VOUT),
        count_short=60_000,
    ),
    "query": Target(
        "a query, and the payment's text in it",
        ("targets", "QueryEngine"),
        ("request",),
        _functions("request"),
        lambda: [b"payment=" + _TEXTS[0], b"payment=%41%2d&change_address=x", b"change_address=x;payment=a+b", b"payment=&x=1"],
        lambda: [
            b"payment=",
            b"change_address=",
            b"&",
            b";",
            b"%41",
            b"%",
            b"%4",
            b"%zz",
            b"+",
            b"payment",
            b"=",
            b"a" * 100,
            b"%30" * 36,
            b"x" * 1900,
        ],
        size_max=2100,
        verdicts=_statuses(
            Status.OK,
            Status.REQUEST_TOO_LARGE,
            Status.MISSING_PARAMETER,
            Status.REPEATED_PARAMETER,
            Status.INVALID_PAYMENT,
            Status.INVALID_BASE64,
        ),
        count_short=60_000,
    ),
    "text": Target(
        "a payment in base64url",
        ("targets", "TextEngine"),
        ("payment",),
        _functions("payment"),
        lambda: [*_TEXTS, *(text.rstrip(b"=") for text in _TEXTS), b"", b"AA==", b"AAA=", b"AAAA", b"A" * 108],
        lambda: [b"=", b"==", b"A", b"-_", b"+/", b"B", b"A" * 16, b"AQ==", b"_" * 36],
        size_max=240,
        verdicts=_statuses(Status.OK, Status.INVALID_PAYMENT, Status.INVALID_BASE64),
        count_short=60_000,
    ),
    "payment": Target(
        "a payment in binary form: value, DER, sighash type",
        ("targets", "PaymentEngine"),
        ("payment",),
        _functions("payment"),
        lambda: [
            calls.GOOD_PAYMENT,
            calls.LATER_PAYMENT,
            bytes(8) + calls.GOOD_PAYMENT[8:-1] + b"\x82",
            bytes(8) + bytes.fromhex("300602010102010182"),
            calls.SAMPLE.sign(9_000_000, low_s=False).raw,
            bytes(8) + bytes.fromhex("3007020200010201" + "0182"),
            bytes(8) + bytes.fromhex("300702010102020001" + "82"),
        ],
        lambda: _DER_TOKENS,
        size_max=200,
        verdicts=_statuses(
            Status.OK,
            Status.INVALID_PAYMENT,
            Status.INVALID_DER,
            Status.HIGH_S,
            Status.INVALID_SIGHASH_TYPE,
            Status.CHANGE_VALUE_NOT_ZERO,
            Status.DUST_CHANGE,
            Status.CHANGE_VALUE_RANGE,
        ),
        count_short=60_000,
    ),
    "frame": Target(
        "a stream of frames, in one piece and in many",
        ("targets", "FrameEngine"),
        ("frame",),
        lambda engine, modules: engine.attach(modules["frame"].FrameReader, 300),
        lambda: [*calls.owner_seeds(), *calls.asker_seeds(), b"".join(calls.owner_seeds())],
        lambda: _FRAME_TOKENS,
        size_max=1500,
        verdicts={0: "NOTHING_WHOLE", 1: "BAD_AT_ONCE", 2: "FRAMES", 3: "FRAMES_THEN_BAD"},
        count_short=40_000,
    ),
    "owner": Target(
        "payments that another worker forwards",
        ("targets", "CallEngine"),
        ("forward",),
        _called(calls.owner_target),
        calls.owner_seeds,
        lambda: [*_FRAME_TOKENS, *calls.owner_seeds()[:4], _PATH, *_TEXTS],
        size_max=2500,
        count_short=4_000,
    ),
    "asker": Target(
        "the answers to forwarded payments",
        ("targets", "CallEngine"),
        ("forward",),
        _called(calls.asker_target),
        calls.asker_seeds,
        lambda: [*_FRAME_TOKENS, *calls.asker_seeds()],
        size_max=1500,
        count_short=4_000,
    ),
    "batch": Target(
        "a batch of payments",
        ("targets", "CallEngine"),
        ("batch",),
        _called(calls.batch_target),
        calls.batch_seeds,
        lambda: [*calls.batch_seeds(), *_DER_TOKENS],
        size_max=2500,
        count_short=4_000,
    ),
    "commit": Target(
        "the store's COMMIT, and its judge",
        ("targets", "CallEngine"),
        ("group",),
        _called(calls.commit_target),
        calls.commit_seeds,
        lambda: [*calls.commit_seeds(), *(seed[2:] for seed in calls.commit_seeds())],
        size_max=2500,
        count_short=6_000,
    ),
    "record": Target(
        "the records of states and terms",
        ("targets", "CallEngine"),
        ("group",),
        _called(calls.record_target),
        calls.record_seeds,
        size_max=400,
        count_short=8_000,
    ),
    "message": Target(
        "what store and signer say and hear",
        ("targets", "CallEngine"),
        ("group",),
        _called(calls.message_target),
        calls.message_seeds,
        size_max=1500,
        count_short=8_000,
    ),
    "config": Target(
        "the three configuration files",
        ("targets", "CallEngine"),
        (),
        _called(calls.config_target),
        calls.config_seeds,
        calls.config_tokens,
        size_max=3 * 4096,
        first_line=True,
        count_short=800,
    ),
}


def make_engine(target: Target, source: Path, address_sanitizer: bool, seed: int, record: Path) -> tuple[ModuleType, Any]:
    """Build what has changed; return the engine's module and an engine at the instrumented copies."""
    module = load_engine(target.engine[0])
    files = {name: build_parser(_source_of(name, source), name, address_sanitizer) for name in target.modules}
    modules = {name: load(f"paychan._fast.{name}", file) for name, file in files.items()}
    address, size = 0, 0
    if files:
        library = ctypes.CDLL(str(files[target.modules[0]]))
        size = ctypes.c_uint32.in_dll(library, "paychan_coverage_size").value
        address = ctypes.addressof((ctypes.c_uint8 * size).in_dll(library, "paychan_coverage"))
    with record.open("w+b") as area:
        area.truncate(RECORD_SIZE)
        engine = getattr(module, target.engine[1])(
            target.seeds(),
            target.tokens(),
            seed,
            area.fileno(),
            address_sanitizer,
            address,
            size,
            target.size_max,
            target.first_line,
        )
    target.attach(engine, modules)
    return module, engine


def _source_of(module: str, source: Path) -> Path:
    return source if (source / f"{module}.pyx").exists() else SOURCE


class Progress:
    """A line about how far a target is, on a terminal only."""

    def __init__(self, name: str, count: int) -> None:
        self._name, self._count, self._next = name, count, 0.0
        self._is_shown = sys.stderr.isatty()

    def show(self, done: int, rate: float, edges: int, is_over: bool = False) -> None:
        if not self._is_shown or (time.monotonic() < self._next and not is_over):
            return
        self._next = time.monotonic() + 0.5
        full = 30 * done // max(1, self._count)
        line = (
            f"{self._name:8} [{'#' * full}{'.' * (30 - full)}] {100 * done // max(1, self._count):3}% {rate:10.0f}/s {edges} edges"
        )
        print(f"\r{line}\x1b[K", end="\n" if is_over else "", file=sys.stderr, flush=True)


def work(options: argparse.Namespace) -> int:
    """Run one target, in a process that may die of it; write what it came to beside the record."""
    (name,) = options.targets
    target = TARGETS[name]
    module, engine = make_engine(target, options.source, options.address_sanitizer, options.seed, options.record)
    started = time.monotonic()
    step, broken, progress = 200, 0, Progress(name, options.count)
    while engine.executions < options.count and not broken:
        before = time.monotonic()
        broken = engine.run(min(step, options.count - engine.executions))
        now = time.monotonic()
        step = 2 * step if now - before < 0.25 else step
        progress.show(engine.executions, engine.executions / max(now - started, 1e-9), engine.edges)
        if now - started > options.seconds:
            break
    spent = time.monotonic() - started
    progress.show(engine.executions, engine.executions / spent, engine.edges, is_over=True)
    if broken:
        data, cut = engine.last
        print(f"{name}: {module.Broken(broken).name} is broken, seed {options.seed}, execution {engine.executions}, cut {cut}")
        if getattr(engine, "failure", None) is not None:
            print(f"raised: {type(engine.failure).__name__}: {str(engine.failure)[:500]}")
        print(f"input: {data!r}")
    reached = engine.statuses
    missed = [verdict for number, verdict in target.verdicts.items() if number not in reached]
    if missed and engine.executions >= RELIABLE_COUNT:
        print(f"{name}: never reached: {' '.join(missed)}")
        broken = broken or -1
    outcome = {
        "executions": engine.executions,
        "seconds": spent,
        "edges": engine.edges,
        "kept": len(engine.corpus),
        "ways": len(reached),
        "broken": bool(broken),
        "verdicts": {target.verdicts.get(number, str(number)): count for number, count in reached.items()},
    }
    options.record.with_suffix(".json").write_text(json.dumps(outcome))
    return 1 if broken else 0


def environment(address_sanitizer: bool) -> dict[str, str]:
    """Return the environment of the second process; the address sanitizer must be there before Python is."""
    if not address_sanitizer:
        return dict(os.environ)
    library = subprocess.run(["gcc", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True).stdout.strip()
    return {**os.environ, "LD_PRELOAD": library, "ASAN_OPTIONS": "detect_leaks=0:quarantine_size_mb=16:exitcode=99"}


def watch(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Run one target in a second process, say how it ended, return what it came to."""
    with tempfile.TemporaryDirectory() as directory:
        record = Path(directory) / "last-input"
        command = [sys.executable, "-m", "tests.fuzz.run", name, "--record", str(record), "--count", str(options.count)]
        command += ["--seconds", str(options.seconds), "--seed", str(options.seed), "--source", str(options.source)]
        command += ["--address-sanitizer"] * options.address_sanitizer
        process = subprocess.run(command, env=environment(options.address_sanitizer), cwd=ROOT, check=False)
        outcome: dict[str, Any] = {
            "executions": 0,
            "seconds": 0.0,
            "edges": 0,
            "kept": 0,
            "ways": 0,
            "broken": True,
            "verdicts": {},
        }
        if record.with_suffix(".json").exists():
            outcome = json.loads(record.with_suffix(".json").read_text())
        elif process.returncode != 1:
            how = signal.strsignal(-process.returncode) if process.returncode < 0 else f"exit {process.returncode}"
            area = record.read_bytes() if record.exists() else bytes(16)
            size, cut = int.from_bytes(area[:8], "little"), int.from_bytes(area[8:16], "little")
            print(f"{name}: DIED ({how}), seed {options.seed}, cut {cut}\ninput: {area[16 : 16 + size]!r}")
        return outcome


def build(names: list[str], options: argparse.Namespace) -> None:
    """Build everything, before processes that need it start."""
    for part in dict.fromkeys(("engine", *(TARGETS[name].engine[0] for name in names))):
        build_engine(part)
    for module in dict.fromkeys(module for name in names for module in TARGETS[name].modules):
        build_parser(_source_of(module, options.source), module, options.address_sanitizer)


def report(outcomes: dict[str, dict[str, Any]], with_verdicts: bool) -> None:
    """Print the table."""
    print(f"{'target':8} {'executions':>13} {'a second':>10} {'edges':>6} {'kept':>6} {'ways':>5}  outcome")
    for name, outcome in outcomes.items():
        rate = outcome["executions"] / max(outcome["seconds"], 1e-9)
        print(
            f"{name:8} {outcome['executions']:13} {rate:10.0f} {outcome['edges']:6} {outcome['kept']:6} {outcome['ways']:5}"
            f"  {'BROKEN' if outcome['broken'] else 'nothing broken'}"
        )
        if with_verdicts:
            for verdict, count in sorted(outcome["verdicts"].items()):
                print(f"{'':8} {count:13} {verdict}")
    total = sum(outcome["executions"] for outcome in outcomes.values())
    print(f"{'together':8} {total:13} executions, {sum(outcome['broken'] for outcome in outcomes.values())} targets broken")


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"some of {', '.join(TARGETS)}; all if none is named")
    parser.add_argument("--count", type=int, default=1_000_000, help="inputs for each target")
    parser.add_argument("--seconds", type=float, default=3600, help="stop a target after this time")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--short", action="store_true", help="each target's count of the test suite")
    parser.add_argument("--address-sanitizer", action="store_true", help="heap blocks and AddressSanitizer, not guard pages")
    parser.add_argument("--source", type=Path, default=SOURCE, help="a directory with other .pyx files of paychan/_fast")
    parser.add_argument("--verdicts", action="store_true", help="show how often each verdict was reached")
    parser.add_argument("--list", action="store_true", help="only say what there is")
    parser.add_argument("--record", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    unknown = [name for name in options.targets if name not in TARGETS]
    if unknown:
        parser.error(f"no such target: {' '.join(unknown)}")
    if options.list:
        for name, target in TARGETS.items():
            print(f"{name:8} {target.about}")
        return 0
    if options.record:
        return work(options)
    names = options.targets or list(TARGETS)
    build(names, options)
    outcomes = {}
    for name in names:
        count = TARGETS[name].count_short if options.short else options.count
        outcomes[name] = watch(name, argparse.Namespace(**{**vars(options), "count": count}))
    report(outcomes, options.verdicts)
    return 1 if any(outcome["broken"] for outcome in outcomes.values()) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
