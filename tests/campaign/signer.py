"""The signer campaign: a hostile server asks the signer's real code, a million times; an oracle judges every signature.

    python -m tests.campaign.signer --count 1000000 [--seed N] [--jobs N]

Most requests go to the request handler in this process, over real frames and the real ledger, which is closed and opened again in
between; a part goes over the real socket to a real signer process, which is killed in between. Demanded: no signature that
breaks the policy, the right refusal for each kind of request, no good request refused, and every refusal code met.
"""

import argparse
import asyncio
import contextlib
import itertools
import logging
import multiprocessing
import os
import random
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from coincurve import PrivateKey

from paychan._fast.frame import ERROR, REPLY, FrameReader, encode_frame
from paychan.core.network import TEST, decode_address
from paychan.rpc.signer_messages import PAYLOAD_MAX, RefusalCode, SignerMessage
from signer.ledger import Ledger, lock_directory
from signer.policy import Policy
from signer.server import SignerServer
from tests.campaign.signer_oracle import Oracle, Rules, Violation
from tests.campaign.signer_requests import ANY, GENERATORS, SIGN, Attempt, Channel

ROOT = Path(__file__).parents[2]
CHUNK = 4_000
"""Requests to one signer with one ledger."""

SOCKET_SHARE = 20
"""One chunk in so many goes to a real process."""

LIVE_CHANNELS = 24
"""Channels that requests are interleaved over; a channel gets about `REQUESTS_EACH` and makes place for another."""

REQUESTS_EACH = 30
RESTARTS = 4
"""Restarts of the ledger, or of the process, in each chunk."""

KEY = PrivateKey(bytes(31) + b"\x07")
DESTINATION_ADDRESS = "mm9mm96b8bZRBacaAvY5MEeDd6HW46qFcY"
RULES = Rules(KEY.public_key.format(), decode_address(TEST, DESTINATION_ADDRESS), 100, 80, 4, 6 * 3600, 2_500_000)
WAIT_SECONDS = 60
CONFIG = f"""
network = "test"
state_dir = "{{state}}"
[debug]
enable = false
[signer]
address = "unix:run/signer.sock"
[policy]
funds_destination_address = "{DESTINATION_ADDRESS}"
fee_per_byte_max = {RULES.fee_per_byte_max}
fee_share_percent_max = {RULES.fee_share_percent_max}
versions_max = {RULES.versions_max}
settlement_period_hours = {RULES.settlement_period // 3600}
fee_sum_per_day_max = {RULES.fee_sum_per_day_max}
"""


# --- two ways to ask ----------------------------------------------------------------------------------------------------

Answers = list[tuple[int, int, bytes]] | None
"""Frames, or None if the connection was closed."""


class _Transport(asyncio.Transport):
    """Stands for the socket's transport: keeps what is written. Its socket says who is at the other end."""

    def __init__(self) -> None:
        super().__init__({"socket": self})
        self.written, self.is_closed = bytearray(), False
        self.family = socket.AF_UNIX

    def getsockopt(self, *_: int) -> bytes:
        return bytes(4) + os.geteuid().to_bytes(4, "little") + bytes(4)

    def write(self, data: bytes) -> None:
        self.written += data

    def abort(self) -> None:
        self.is_closed = True

    def is_closing(self) -> bool:
        return self.is_closed

    def get_write_buffer_size(self) -> int:
        return 0


class InProcess:
    """The real handler over the real frames and the real ledger, without a socket between."""

    def __init__(self, directory: Path, rng: random.Random) -> None:
        self._directory, self._now, self._rng = directory, 1_700_000_000, rng
        self._lock = lock_directory(directory, "campaign")
        self._policy = Policy(
            KEY,
            RULES.pubkey,
            RULES.destination,
            RULES.fee_per_byte_max,
            RULES.fee_share_percent_max,
            RULES.versions_max,
            RULES.settlement_period,
            RULES.fee_sum_per_day_max,
        )
        self._open()

    def now(self) -> int:
        """Return the signer's time, unix seconds."""
        return self._now

    def _open(self) -> None:
        self._ledger = Ledger(self._directory, "test", RULES.pubkey, "campaign")
        self._server = SignerServer(self._policy, self._ledger, self.now, _fatal)
        self._connect()

    def _connect(self) -> None:
        self._transport = _Transport()
        self._connection = self._server.connection()
        self._connection.connection_made(self._transport)

    def ask(self, data: bytes, chunk: int = 0) -> Answers:
        """Send bytes, whole or in chunks; return what is answered. Before each request a minute goes by, more or less."""
        self._now += self._rng.choice((0, 1, 60, 60, 60, 100))
        for at in range(0, len(data), chunk or len(data) or 1):
            self._connection.data_received(data[at : at + chunk] if chunk else data)
            if self._transport.is_closed:
                break
        written, self._transport.written = bytes(self._transport.written), bytearray()
        if self._transport.is_closed:
            self._connection.connection_lost(None)
            self._connect()
            return None
        return FrameReader(PAYLOAD_MAX).feed(written)

    def hang_up(self) -> None:
        self._connection.connection_lost(None)
        self._connect()

    def restart(self) -> None:
        self._ledger.close()
        self._open()

    def close(self) -> None:
        self._ledger.close()
        os.close(self._lock)


def _fatal():
    raise RuntimeError("the ledger failed")


class RealProcess:
    """A real signer over its real socket."""

    def __init__(self, directory: Path, rng: random.Random) -> None:
        self._state, self._rng = directory / "state", rng
        self._state.mkdir(mode=0o700)
        self._config, self.log = directory / "signer.toml", directory / "log"
        self._config.write_text(CONFIG.format(state=self._state))
        key_file = self._state / "signer.key"
        key_file.touch(mode=0o600)
        key_file.write_text(KEY.secret.hex() + "\n")
        self._start()

    def _start(self) -> None:
        with self.log.open("ab") as log:
            offset = log.tell()
            self._process = subprocess.Popen([sys.executable, "-m", "signer", self._config], cwd=ROOT, stderr=log)
        deadline = time.monotonic() + WAIT_SECONDS
        while b"ready at" not in self.log.read_bytes()[offset:]:
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("the signer did not start: " + self.log.read_text()[-500:])
            time.sleep(0.02)
        self._connect()

    def _connect(self) -> None:
        self._socket, self._reader = socket.socket(socket.AF_UNIX), FrameReader(PAYLOAD_MAX)
        self._socket.settimeout(WAIT_SECONDS)
        previous = os.open(".", os.O_RDONLY)  # a socket's path may have 107 bytes, a test's directory has more
        try:
            os.chdir(self._state / "run")
            self._socket.connect("signer.sock")
        finally:
            os.fchdir(previous)
            os.close(previous)

    def now(self) -> int:
        """Return the signer's time, unix seconds: it has the machine's clock."""
        return int(time.time())

    def ask(self, data: bytes, chunk: int = 0) -> Answers:
        try:
            if chunk:
                for at in range(0, len(data), chunk):
                    self._socket.sendall(data[at : at + chunk])
            else:
                self._socket.sendall(data)
            while True:
                received = self._socket.recv(1 << 16)
                if not received:
                    break
                frames = self._reader.feed(received)
                if frames:
                    return frames
        except ConnectionError:
            pass
        self._reconnect()
        return None

    def _reconnect(self) -> None:
        self._socket.close()
        if self._process.poll() is not None:
            raise Violation(f"the signer ended with status {self._process.returncode}")
        self._connect()

    def hang_up(self) -> None:
        self._reconnect()

    def restart(self) -> None:
        self._socket.close()
        self._process.send_signal(self._rng.choice((signal.SIGKILL, signal.SIGTERM)))
        self._process.wait(WAIT_SECONDS)
        self._start()

    def close(self) -> None:
        self._socket.close()
        self._process.terminate()
        self._process.wait(WAIT_SECONDS)


# --- one chunk ----------------------------------------------------------------------------------------------------------


@dataclass
class Result:
    """What came of one chunk, or of all of them."""

    requests: int = 0
    signed: int = 0
    noted: int = 0
    over_the_socket: int = 0
    kernel_checks: int = 0
    restarts: int = 0
    refusals: Counter = field(default_factory=Counter)
    asked: Counter = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    def add(self, other: "Result") -> None:
        for name in ("requests", "signed", "noted", "over_the_socket", "kernel_checks", "restarts"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.refusals += other.refusals
        self.asked += other.asked
        self.problems += other.problems

    def missing(self) -> list[str]:
        """Return the refusal codes that were never met, and the generators that never had anything to say."""
        return [code.name for code in RefusalCode if not self.refusals[code.name]] + [
            name for name in GENERATORS if not self.asked[name]
        ]


class Campaign:
    """One hostile server, one signer, one oracle."""

    def __init__(self, seed: str, signer: InProcess | RealProcess, result: Result) -> None:
        self.rng, self.signer, self.result, self.seed = random.Random(seed), signer, result, seed
        self.oracle = Oracle(RULES)
        self._clients = [PrivateKey(self.rng.randbytes(32)) for _ in range(8)]
        self._names = list(GENERATORS)
        self._weights = [GENERATORS[name][0] for name in self._names]
        self._ids = itertools.count(1)

    def run(self, count: int) -> None:
        rng, result = self.rng, self.result
        channels = [Channel(rng, RULES, self._clients, self.signer.now) for _ in range(LIVE_CHANNELS)]
        restarts = set(rng.sample(range(count), min(RESTARTS, count)))
        for number in range(count):
            if number in restarts:
                self.signer.restart()
                result.restarts += 1
            if rng.random() < 1 / REQUESTS_EACH:
                channels[rng.randrange(LIVE_CHANNELS)] = Channel(rng, RULES, self._clients, self.signer.now)
            result.requests += 1
            if rng.random() < 0.02:
                self._outside_of_requests()
                continue
            channel, attempt = rng.choice(channels), None
            while attempt is None:
                (name,) = rng.choices(self._names, self._weights)
                attempt = GENERATORS[name][1](channel)
            result.asked[name] += 1
            try:
                self._ask(channel, attempt)
            except Exception as error:
                what = str(error) if isinstance(error, Violation) else traceback.format_exc()
                result.problems.append(f"seed {self.seed}, request {number}, {name}: {what}; {attempt.payload[:1000].hex()}")
                if len(result.problems) >= 5:
                    return
        result.kernel_checks += self.oracle.kernel_checks

    def _ask(self, channel: Channel, attempt: Attempt) -> None:
        payload, expected = attempt.payload, attempt.expected
        kind_asked = SignerMessage.NOTE if attempt.is_note else SignerMessage.SETTLE
        request_id = next(self._ids)
        chunk = self.rng.choice((0, 0, 0, 0, self.rng.randint(50, 500)))
        answers = self.signer.ask(encode_frame(kind_asked, request_id, payload), chunk)
        if answers is None or len(answers) != 1 or answers[0][1] != request_id:
            raise Violation("not one answer to one request")
        ((kind, _, answer),) = answers
        if kind == ERROR:
            self._judge_refusal(payload, answer, expected)
            return
        if kind != kind_asked + REPLY:
            raise Violation(f"an answer of type {kind}")
        if attempt.is_note:
            self._judge_note(channel, payload, answer)
        else:
            self._judge_signature(channel, payload, answer)
        if expected is not ANY and expected != SIGN:
            raise Violation(f"granted, but it should be refused with {names(expected)}")

    def _judge_note(self, channel: Channel, payload: bytes, answer: bytes) -> None:
        self.result.noted += 1
        if answer:
            raise Violation("a note is answered with more than nothing")
        self.oracle.check_note(payload)
        if payload[:36] == channel.terms.outpoint:
            channel.was_noted(self.oracle.noted[payload[:36]])

    def _judge_signature(self, channel: Channel, payload: bytes, answer: bytes) -> None:
        self.result.signed += 1
        self.oracle.check(payload, answer, self.signer.now())
        memory = self.oracle.memories[payload[:36]]
        if payload[:36] == channel.terms.outpoint:
            channel.was_signed(payload, memory.change_value, memory.fee, len(memory.answers))

    def _judge_refusal(self, payload: bytes, answer: bytes, expected) -> None:
        code, fee, text = RefusalCode(answer[0]), int.from_bytes(answer[1:9], "little"), answer[9:].decode("ascii")
        self.result.refusals[code.name] += 1
        is_lower = fee < int.from_bytes(payload[36:44], "little")
        if code in (RefusalCode.FEE_TOO_HIGH, RefusalCode.FEES_OF_THE_DAY) and fee and not is_lower:
            raise Violation("a fee is too high, and no lower one would do")
        if code == RefusalCode.FEES_OF_THE_DAY:
            self._judge_days_sum(payload)
            return
        if len(text) > 120 or KEY.secret.hex() in text:
            raise Violation("a refusal tells more than why")
        if code == RefusalCode.FEE_FALLS and fee != self.oracle.memories[payload[:36]].fee:
            raise Violation("a refusal names a fee that was not signed")
        if expected == SIGN:
            raise Violation(f"refused with {code.name}: {text}; it should be signed")
        if expected is not ANY and code not in expected:
            raise Violation(f"refused with {code.name}: {text}; it should be {names(expected)}")

    def _judge_days_sum(self, payload: bytes) -> None:
        """That the day's sum is reached stands before much else that a request may be refused for: but only when it is."""
        outpoint, fee = payload[:36], int.from_bytes(payload[36:44], "little")
        expiry = int.from_bytes(payload[50:54], "little")
        if not self.oracle.is_over_the_days_sum(outpoint, expiry, fee, self.signer.now()):
            raise Violation("refused with FEES_OF_THE_DAY, and the day's sum is not reached")

    def _outside_of_requests(self) -> None:
        """Frames of other types, frames that are none, half a frame and away."""
        rng = self.rng
        self.result.asked["frames"] += 1
        which = rng.randrange(5)
        if which == 0:
            answers = self.signer.ask(encode_frame(SignerMessage.PUBLIC_KEY, 9, rng.randbytes(rng.randrange(9))))
            good = answers == [(SignerMessage.PUBLIC_KEY + REPLY, 9, RULES.pubkey)]
        elif which == 1:
            kind = rng.choice([kind for kind in range(128) if kind not in set(SignerMessage)])
            good = self.signer.ask(encode_frame(kind, 9, rng.randbytes(rng.randrange(99)))) is None
        elif which == 2:
            head = (PAYLOAD_MAX + rng.randint(1, 2**20)).to_bytes(4, "little") + b"\1\2\0\0\1\0\0\0"
            head = rng.choice((head, rng.randbytes(4) + b"\0" + rng.randbytes(60), b"\0\0\0\0\1\2\0\1\0\0\0\0"))
            good = self.signer.ask(head) is None
        elif which == 3:
            kind = rng.choice((SignerMessage.SETTLE, SignerMessage.NOTE, SignerMessage.JUDGE))
            answers = self.signer.ask(encode_frame(kind, 9, rng.randbytes(rng.randrange(99))))
            told = [(*answer[:2], answer[2][0]) for answer in answers or ()]
            good = told == [(ERROR, 9, RefusalCode.MALFORMED)]
        else:
            self.signer.hang_up()
            good = True
        if not good:
            self.result.problems.append(f"seed {self.seed}: a wrong answer to a frame that is no request (case {which})")


def names(expected) -> str:
    return " or ".join(code.name for code in expected)


def run_chunk(job: tuple[int, int, int, bool]) -> Result:
    """Run one chunk: (seed, number, count, over the socket)."""
    with quiet():
        return _run_chunk(*job)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Let the handler not log what it refuses, a million times."""
    log = logging.getLogger("paychan.signer")
    before = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(before)


def _run_chunk(seed: int, number: int, count: int, over_the_socket: bool) -> Result:
    result, rng = Result(), random.Random(f"{seed}/{number}/restarts")
    with tempfile.TemporaryDirectory(prefix="paychan-signer-", dir=fast_directory()) as directory:
        signer = RealProcess(Path(directory), rng) if over_the_socket else InProcess(Path(directory), rng)
        try:
            Campaign(f"{seed}/{number}", signer, result).run(count)
        except Exception:
            result.problems.append(f"seed {seed}/{number}: {traceback.format_exc()}")
        finally:
            with contextlib.suppress(OSError):
                signer.close()
        if over_the_socket:
            result.over_the_socket = result.requests
            if KEY.secret.hex() in signer.log.read_text():
                result.problems.append("the key is in the log")
    return result


def fast_directory() -> str | None:
    """Return a directory in memory, if there is one: what is tested is the order of writes, not the disk."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def plan(count: int, seed: int, chunk: int = CHUNK, socket_share: int = SOCKET_SHARE) -> list[tuple[int, int, int, bool]]:
    sizes = [chunk] * (count // chunk) + ([count % chunk] if count % chunk else [])
    return [(seed, number, size, number % socket_share == 1) for number, size in enumerate(sizes)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1 << 32))
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--only", type=int, help="run one chunk again, that a problem named: SEED/CHUNK")
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}", flush=True)
    jobs = plan(arguments.count, arguments.seed)
    if arguments.only is not None:
        jobs = jobs[arguments.only : arguments.only + 1]
    total, result, started = sum(job[2] for job in jobs), Result(), time.monotonic()
    with multiprocessing.get_context("spawn").Pool(arguments.jobs) as pool:
        for chunk in pool.imap_unordered(run_chunk, jobs):
            result.add(chunk)
            progress(result, total, time.monotonic() - started)
            if len(result.problems) >= 20:
                break
    return report(result, time.monotonic() - started, arguments.only is not None)


def progress(result: Result, total: int, seconds: float) -> None:
    done = result.requests / total
    bar = ("#" * int(30 * done)).ljust(30, ".")
    left = seconds / done - seconds
    text = f"[{bar}] {result.requests}/{total}, {result.signed} signed, {len(result.problems)} problems, {left:.0f} s left"
    print(text, end="\r" if sys.stdout.isatty() else "\n", flush=True)


def report(result: Result, seconds: float, is_partial: bool = False) -> int:
    """Print what came out; return the exit status."""
    print(
        f"\n{result.requests} requests ({result.over_the_socket} over the socket), {result.restarts} restarts, {seconds:.0f} s:"
        f" {result.signed} signed, {result.kernel_checks} of them verified by Bitcoin Core's interpreter; {result.noted} noted"
    )
    for code in RefusalCode:
        print(f"  {code.name:24} {result.refusals[code.name]:9}")
    for name, times in sorted(result.asked.items()):
        print(f"    asked {name:28} {times:9}")
    for problem in result.problems:
        print(f"PROBLEM {problem}")
    missing = [] if is_partial else result.missing()
    if missing:
        print(f"PROBLEM never met: {', '.join(missing)}")
    print(f"{len(result.problems)} signatures or answers that break the policy")
    return 1 if result.problems or missing else 0


if __name__ == "__main__":
    sys.exit(main())
