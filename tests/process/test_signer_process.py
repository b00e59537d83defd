"""Aim: the signer as it runs: its socket, its files, its end, and that it forgets nothing. Method: real subprocesses.

Each test has its own state directory. Readiness is polled; only processes started here are ended, by their pid.
"""

import asyncio
import contextlib
import ctypes
import os
import re
import resource
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from coincurve import PrivateKey

from paychan._fast.frame import encode_frame
from paychan.core.channel import ChannelTerms
from paychan.core.outpoint import format_outpoint
from paychan.core.sender import sign_payment
from paychan.core.settlement import check_settlement
from paychan.rpc.connection import Address, ConnectionGone, FrameConnection, RemoteRefusal, connect
from paychan.rpc.signer_messages import PAYLOAD_MAX, Refusal, RefusalCode, SettleRequest, SignerMessage
from tests.ports import free_port

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

    def start(self, **options: object) -> "Signer":
        with self.log.open("ab") as log:
            offset = log.tell()
            self.process = subprocess.Popen([sys.executable, "-m", "signer", self.config], cwd=ROOT, stderr=log, **options)
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

    def ask(self, *frames: tuple[int, bytes], payload_max: int = PAYLOAD_MAX) -> list:
        """Send requests over one connection; return payloads, refusal codes, or ConnectionGone."""

        async def run() -> list:
            address = Address.parse("unix:run/signer.sock", self.state)
            connection = await connect(address, lambda: FrameConnection(payload_max, lambda *_: None, lambda _: None))
            calls = [connection.call(*frame) for frame in frames]
            answers = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), WAIT_SECONDS)
            connection.close()
            return [Refusal.decode(answer.payload).code if isinstance(answer, RemoteRefusal) else answer for answer in answers]

        return asyncio.run(run())

    def request(self, change_value: int = 9_000_000, fee: int = 10_000, outpoint: bytes = b"\x07" * 36) -> SettleRequest:
        terms = ChannelTerms(
            outpoint,
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


def run_command(*arguments: object, **options: object) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "signer", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=WAIT_SECONDS, check=False, **options)


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
        (answer,) = signer.ask(frame, payload_max=PAYLOAD_MAX + 1)
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


@pytest.mark.privileged("only root can connect as somebody else")
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


def test_what_the_running_signer_gave_up(signer):
    """By what the kernel says of it, not by what it says of itself."""
    signer.start()
    proc = Path("/proc") / str(signer.process.pid)
    status = dict(re.findall(r"^(\w+):\s*(\S+)", (proc / "status").read_text(), re.MULTILINE))
    assert status["NoNewPrivs"] == "1"
    assert int(status["VmLck"]) > 0
    if "Seccomp" in status:
        for thread in (proc / "task").iterdir():  # a filter is a thread's and its descendants'
            assert re.search(r"^Seccomp:\s+2$", (thread / "status").read_text(), re.MULTILINE)
    assert re.search(r"^Max core file size\s+0\s+0\s", (proc / "limits").read_text(), re.MULTILINE)
    assert (proc / "stat").stat().st_uid == 0  # not dumpable: the kernel gives these files to root
    lines = [line for line in signer.log.read_text().splitlines() if "hardened: " in line]
    assert len(lines) == 1 and "no dumps, no new privileges" in lines[0] and "system calls filtered" in lines[0]


@pytest.mark.privileged("the signer is not dumpable: the kernel shows its descriptors to root alone")
def test_what_the_running_signer_has_open(signer):
    signer.start()
    proc = Path("/proc") / str(signer.process.pid)
    links = [os.readlink(entry) for entry in (proc / "fd").iterdir()]
    # an event loop made before the filter would have a ring, which passes it by
    assert not any("io_uring" in link for link in links)
    sockets = [link for link in links if link.startswith("socket:")]
    listed = (proc / "net" / "unix").read_text() + Path("/proc/net/unix").read_text()
    assert sockets and all(f" {link[8:-1]}" in listed for link in sockets)  # every one is a Unix socket


def test_a_crash_leaves_no_core(signer):
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    before = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
    try:
        signer.start()
    finally:
        resource.setrlimit(resource.RLIMIT_CORE, before)
    os.kill(signer.process.pid, signal.SIGSEGV)
    _, status = os.waitpid(signer.process.pid, 0)
    assert os.WTERMSIG(status) == signal.SIGSEGV and not os.WCOREDUMP(status)
    signer.process = None


def no_memory_locked() -> None:
    """In a child before it runs: no memory may be locked, by root neither."""
    ctypes.CDLL(None).prctl(24, 14, 0, 0, 0)  # PR_CAPBSET_DROP, CAP_IPC_LOCK
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (0, 0))


def test_hardening_that_fails_is_a_warning(signer):
    signer.start(preexec_fn=no_memory_locked)
    warning = r" WARNING signer\[\d+\] paychan\.signer: the key is less safe than it could be: the key's memory locked: "
    assert re.search(warning, signer.log.read_text())


def live(signer: Signer, more: str = "") -> None:
    """Make the signer's configuration one of network live, with a key."""
    text = signer.config.read_text().replace('"test"', '"live"').replace("enable = true\nwaive_funding_proof = true", "")
    text = text.replace("mm9mm96b8bZRBacaAvY5MEeDd6HW46qFcY", "1BoatSLRHtKNngkdXEeobR76b53LETtpyT")
    signer.config.write_text(text.replace('signer.sock"', 'signer.sock"' + more))
    signer.state.mkdir(mode=0o700)
    assert run_command("--init", signer.state / "signer.key").returncode == 0


def test_hardening_that_fails_is_an_error_on_mainnet(signer):
    live(signer)
    ended = run_command(signer.config, preexec_fn=no_memory_locked)
    assert ended.returncode == 2
    (line,) = (line for line in ended.stderr.splitlines() if line.startswith("paychan-signer: "))
    assert line.startswith(f"paychan-signer: {signer.config}: signer.hardening_required: not possible: the key's memory locked: ")
    signer.start()
    assert signer.ask((SignerMessage.PUBLIC_KEY, b"")) == [signer.pubkey]


def test_hardening_that_fails_is_a_warning_if_the_configuration_says_so(signer):
    live(signer, "\nhardening_required = false")
    signer.start(preexec_fn=no_memory_locked)
    assert "the key is less safe than it could be" in signer.log.read_text()


def test_it_listens_on_tcp_too(signer):
    """The filter takes away socket and bind: the listening socket must be there before. Connections must work after."""
    port = free_port()
    signer.config.write_text(signer.config.read_text().replace("unix:run/signer.sock", f"tcp:127.0.0.1:{port}"))
    signer.start()
    with socket.create_connection(("127.0.0.1", port), WAIT_SECONDS) as connection:
        connection.sendall(encode_frame(SignerMessage.PUBLIC_KEY, 1))
        assert connection.recv(99)[12:] == signer.pubkey


def test_a_server_that_takes_no_answers_does_not_fill_the_memory(signer):
    """Asked for a gigabyte of answers that nobody reads, it hangs up early."""
    signer.start()
    with socket.socket(socket.AF_UNIX) as connection, inside(signer.state / "run"):
        connection.connect("signer.sock")
        connection.settimeout(WAIT_SECONDS)
        frames = encode_frame(SignerMessage.PUBLIC_KEY, 1) * 10_000
        with pytest.raises(ConnectionError):
            for _ in range(2_000):
                connection.sendall(frames)
    assert signer.ask((SignerMessage.PUBLIC_KEY, b"")) == [signer.pubkey]


@contextlib.contextmanager
def inside(directory: Path):
    """Be in a directory for a while: the path of a socket must be short."""
    before = Path.cwd()
    os.chdir(directory)
    try:
        yield
    finally:
        os.chdir(before)


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


def test_a_note_outlives_the_process_and_is_forgotten_by_its_operator_alone(signer):
    signer.start()
    request = signer.request()
    (answer,) = signer.ask((SignerMessage.NOTE, signer.request(8_000_000, 0).encode()))
    assert answer == b""
    assert signer.end(signal.SIGKILL) == -signal.SIGKILL
    signer.start()
    assert signer.settle(request) is RefusalCode.GIVES_PAYER_MORE
    forget = ("--forget-note", signer.config, format_outpoint(request.terms.outpoint))
    running = run_command(*forget)
    assert running.returncode == 2 and "another signer runs" in running.stderr
    signer.end(signal.SIGTERM)
    for told in ("forgotten", "nothing was noted"):
        done = run_command(*forget)
        assert (done.returncode, done.stdout) == (0, f"{told}: {format_outpoint(request.terms.outpoint)}\n")
    signer.start()
    check_settlement(signer.settle(request), request.terms, request.payment, request.fee)


@pytest.mark.parametrize("outpoint", ["", "x", "ab/1", f"{'ab' * 32}", f"{'ab' * 32}/-1", f"{'ab' * 32}/1/2", f"{'ab' * 32}/01"])
def test_what_is_no_outpoint_is_not_forgotten(signer, outpoint):
    done = run_command("--forget-note", signer.config, outpoint)
    assert done.returncode == 2 and "is no outpoint" in done.stderr and done.stderr.count("\n") == 1


WRONG = [
    (),
    ("a", "b"),
    ("--init",),
    ("--init", "a", "b"),
    ("--init", "a", "--init"),
    ("--forget-note", "a"),
    ("a", "--forget-note", "b", "c"),
]


@pytest.mark.parametrize("arguments", WRONG, ids=str)
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
    text = signer.config.read_text().replace('"test"', '"live"').replace("enable = true\nwaive_funding_proof = true", "")
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
