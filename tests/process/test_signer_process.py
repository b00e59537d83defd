"""Aim: the signer as it runs: its socket, its files, its end, and that it forgets nothing. Method: real subprocesses.

Each test has its own state directory. Readiness is polled; only processes started here are ended, by their pid.
"""

import asyncio
import contextlib
import os
import resource
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from coincurve import PrivateKey

from paychan.channel import ChannelTerms
from paychan.config import Address
from paychan.rpc.connection import ConnectionGone, FrameConnection, RemoteRefusal, connect
from paychan.rpc.signer_messages import PAYLOAD_MAX, Refusal, RefusalCode, SettleRequest, SignerMessage
from paychan.sender import sign_payment
from paychan.settlement import check_settlement

ROOT = Path(__file__).parents[2]
CLIENT = PrivateKey(b"\x02" * 32)
WAIT_SECONDS = 20
CONFIG = """
network = "test"
state_dir = "{state}"
[debug]
enable = true
waive_funding_proof = true
[signer]
address = "unix:run/signer.sock"
[policy]
funds_destination_address = "mm9mm96b8bZRBacaAvY5MEeDd6HW46qFcY"
fee_per_byte_max = 500
fee_share_percent_max = 50
"""


class Signer:
    """A signer process over a state directory."""

    def __init__(self, directory: Path) -> None:
        self.state = directory / "state"
        self.config = directory / "signer.toml"
        self.config.write_text(CONFIG.format(state=self.state))
        self.log = directory / "stderr"
        self.process: subprocess.Popen | None = None

    def start(self) -> "Signer":
        with self.log.open("ab") as log:
            offset = log.tell()
            self.process = subprocess.Popen([sys.executable, "-m", "signer", self.config], cwd=ROOT, stderr=log)
        deadline = time.monotonic() + WAIT_SECONDS
        while b"ready at" not in self.log.read_bytes()[offset:]:
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, "the signer is not ready"
            time.sleep(0.01)
        return self

    def end(self, number: int) -> int:
        self.process.send_signal(number)
        return self.process.wait(WAIT_SECONDS)

    @property
    def pubkey(self) -> bytes:
        return bytes.fromhex((self.state / "signer.pub").read_text())

    def ask(self, *frames: tuple[int, bytes]) -> list:
        """Send requests over one connection; return payloads, refusal codes, or ConnectionGone."""

        async def run() -> list:
            address = Address.parse("unix:run/signer.sock", self.state)
            connection = await connect(address, lambda: FrameConnection(PAYLOAD_MAX, lambda *_: None, lambda _: None))
            calls = [connection.call(*frame) for frame in frames]
            answers = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), WAIT_SECONDS)
            connection.close()
            return [
                Refusal.decode(answer.payload).code if isinstance(answer, RemoteRefusal) else answer
                for answer in answers
            ]

        return asyncio.run(run())

    def request(self, change_value: int = 9_000_000, fee: int = 10_000) -> SettleRequest:
        terms = ChannelTerms(
            b"\x07" * 36,
            self.pubkey,
            CLIENT.public_key.format(),
            1_900_000_000,
            10_000_000,
            b"\xa9\x14" + bytes(20) + b"\x87",
        )
        return SettleRequest(terms, sign_payment(terms, change_value, CLIENT), fee, b"")

    def settle(self, request: SettleRequest):
        (answer,) = self.ask((SignerMessage.SETTLE, request.encode()))
        return answer


@pytest.fixture
def signer(tmp_path):
    signer = Signer(tmp_path)
    yield signer
    if signer.process and signer.process.poll() is None:
        signer.process.kill()
        signer.process.wait()


def run_command(*arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "signer", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=WAIT_SECONDS, check=False)


def test_it_tells_its_key_and_signs(signer):
    signer.start()
    request = signer.request()
    frames = (SignerMessage.PUBLIC_KEY, b""), (SignerMessage.SETTLE, request.encode()), (SignerMessage.SETTLE, b"junk")
    pubkey, raw, malformed = signer.ask(*frames)
    assert pubkey == signer.pubkey
    check_settlement(raw, request.terms, request.payment, request.fee)
    assert malformed == RefusalCode.MALFORMED
    assert signer.settle(request) == raw


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_cleanly_when_told(signer, number):
    assert signer.start().end(number) == 0


def test_an_unknown_type_or_an_oversized_frame_closes_only_that_connection(signer):
    signer.start()
    for frame in ((100, b""), (SignerMessage.SETTLE, bytes(PAYLOAD_MAX + 1))):
        (answer,) = signer.ask(frame)
        assert isinstance(answer, ConnectionGone)
    assert signer.ask((SignerMessage.PUBLIC_KEY, b"")) == [signer.pubkey]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_what_was_signed_is_remembered_after_a_restart(signer, number):
    signer.start()
    request = signer.request()
    raw = signer.settle(request)
    signer.end(number)
    signer.start()
    assert signer.settle(signer.request(9_000_001)) == RefusalCode.GIVES_PAYER_MORE
    assert signer.settle(signer.request(fee=9_999)) == RefusalCode.FEE_FALLS
    assert signer.settle(request) == raw


def test_a_signer_that_cannot_write_its_ledger_signs_nothing_and_ends(signer):
    signer.start()
    first = signer.settle(signer.request())
    assert isinstance(first, bytes)
    resource.prlimit(signer.process.pid, resource.RLIMIT_FSIZE, (0, 0))
    answer = signer.settle(signer.request(8_000_000))
    assert isinstance(answer, ConnectionGone)
    assert signer.process.wait(WAIT_SECONDS) == 70
    signer.log.write_bytes(b"")
    signer.start()
    assert signer.settle(signer.request()) == first


def test_files_are_private_but_for_the_public_key(signer):
    signer.start()
    signer.settle(signer.request())
    modes = {path.relative_to(signer.state): stat.S_IMODE(path.stat().st_mode) for path in signer.state.rglob("*")}
    assert modes.pop(Path("signer.pub")) == 0o644
    assert {mode & 0o077 for mode in modes.values()} == {0}
    assert Path("signer.key") in modes


def test_its_memory_is_not_dumped(signer):
    signer.start()
    status = Path(f"/proc/{signer.process.pid}/limits").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("Max core file size"))
    assert line.split()[4:6] == ["0", "0"]
    assert "NoNewPrivs:\t1" in Path(f"/proc/{signer.process.pid}/status").read_text()


def test_a_second_signer_on_the_same_directory_refuses(signer):
    signer.start()
    second = run_command(signer.config)
    assert second.returncode == 2
    assert "another signer" in second.stderr
    assert signer.ask((SignerMessage.PUBLIC_KEY, b"")) == [signer.pubkey]


def test_a_state_directory_of_another_key_is_refused(signer):
    signer.start()
    signer.end(signal.SIGTERM)
    (signer.state / "signer.key").unlink()
    other = run_command(signer.config)
    assert other.returncode == 2
    assert "another key or network" in other.stderr


def test_it_works_from_a_deep_directory(tmp_path):
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    deep.mkdir(parents=True)
    signer = Signer(deep).start()
    try:
        assert signer.ask((SignerMessage.PUBLIC_KEY, b"")) == [signer.pubkey]
    finally:
        signer.end(signal.SIGTERM)


def test_neither_key_nor_payment_is_written_to_the_log(signer):
    signer.start()
    request = signer.request()
    signer.settle(request)
    signer.settle(signer.request(9_000_001))
    signer.settle(signer.request(9_000_000, 10**9))
    signer.ask((SignerMessage.SETTLE, request.encode()[:-3]))
    signer.end(signal.SIGTERM)
    text = signer.log.read_text()
    assert text.count("refused") == 2
    key = (signer.state / "signer.key").read_text().strip()
    signature = request.payment.signature
    for canary in (key, signature.hex(), request.payment.encode(), repr(signature), CLIENT.secret.hex()):
        assert canary not in text


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can connect as somebody else")
def test_another_user_gets_no_answer(signer):
    signer.start()
    directory = signer.state / "run"
    directory.chmod(0o711)
    (directory / "signer.sock").chmod(0o777)
    script = (
        "import os, socket, sys; os.setuid(65534); s = socket.socket(socket.AF_UNIX); s.connect('signer.sock');"
        "s.settimeout(20)\n"
        "try: s.sendall(bytes([0, 0, 0, 0, 1, 1, 0, 0, 1, 0, 0, 0])); sys.exit(len(s.recv(99)))\n"
        "except ConnectionError: sys.exit(0)"
    )
    command = [sys.executable, "-c", script]
    assert subprocess.run(command, cwd=directory, timeout=WAIT_SECONDS, check=False).returncode == 0
    assert "refused a connection from user 65534" in signer.log.read_text()


def test_init_makes_a_key_and_never_overwrites_one(tmp_path):
    path = tmp_path / "new.key"
    made = run_command("--init", path)
    assert made.returncode == 0
    key = PrivateKey(bytes.fromhex(path.read_text()))
    assert made.stdout == key.public_key.format().hex() + "\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    again = run_command("--init", path)
    assert (again.returncode, again.stdout) == (2, "")
    assert again.stderr.startswith("paychan-signer: ") and again.stderr.count("\n") == 1
    assert path.read_text() == key.secret.hex() + "\n"


@pytest.mark.parametrize("arguments", [(), ("a", "b"), ("--help",), ("--init",), ("--init", "a", "b")], ids=str)
def test_a_wrong_command_line_gets_the_usage(arguments):
    ended = run_command(*arguments)
    assert ended.returncode == 2
    assert ended.stderr.startswith("usage: paychan-signer")


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ('network = "test"', 'network = "live"', "debug.enable"),
        ("fee_share_percent_max = 50", "fee_share_percent_max = 500", "policy.fee_share_percent_max"),
        ("enable = true\nwaive_funding_proof = true", "enable = false", "signer.key_file"),
    ],
)
def test_a_bad_configuration_ends_with_one_line(signer, old, new, key):
    signer.config.write_text(signer.config.read_text().replace(old, new))
    ended = run_command(signer.config)
    assert ended.returncode == 2
    assert ended.stderr.startswith(f"paychan-signer: {signer.config}: {key}: ")
    assert ended.stderr.count("\n") == 1


def test_mainnet_needs_a_unix_socket(signer):
    text = (
        signer.config.read_text().replace('"test"', '"live"').replace("enable = true\nwaive_funding_proof = true", "")
    )
    text = text.replace("unix:run/signer.sock", "tcp:127.0.0.1:1").replace(
        "mm9mm96b8bZRBacaAvY5MEeDd6HW46qFcY", "1BoatSLRHtKNngkdXEeobR76b53LETtpyT"
    )
    signer.config.write_text(text)
    ended = run_command(signer.config)
    assert ended.returncode == 2
    assert "signer.address" in ended.stderr


def test_a_dead_signers_socket_is_replaced(signer):
    signer.start()
    signer.end(signal.SIGKILL)
    assert (signer.state / "run" / "signer.sock").exists()
    with contextlib.suppress(ConnectionRefusedError):
        signer.ask((SignerMessage.PUBLIC_KEY, b""))
        raise AssertionError("a dead signer answered")
    signer.start()
    assert signer.ask((SignerMessage.PUBLIC_KEY, b"")) == [signer.pubkey]
