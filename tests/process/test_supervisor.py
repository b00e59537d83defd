"""Aim: nothing ends a running system but a stop: not a SIGHUP, which has the server reload, not a log that cannot be written, not a
full disk at its start. Its log has one form, and standard output has the `ready` line alone.

Method: real systems under `./runEverything.sh` and `paychan run`, with their streams in files, in broken pipes, on a full device
and on a terminal that is closed. A full disk is a small file system (root), or failing calls in the process that would fill it.
"""

import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.campaign import small_disk
from tests.log_lines import LINE, unquiet
from tests.ports import free_port, own_ports_block
from tests.system import ROOT, Client, System, make_config, processes, wait_until

START_SECONDS = 30.0
READY = re.compile(r"ready http://127\.0\.0\.1:\d+ server_pubkey=[0-9a-f]{66}\n")
FAKE_NODE = "echo 'node ready'; exec sleep 1000"
RUN = [sys.executable, "-m", "paychan", "run"]
EVERYTHING = [str(ROOT / "runEverything.sh")]


def family(pid: int) -> dict[int, str]:
    """Return the command lines of a process and of all below it, by pid."""
    everybody = list(processes())
    found, parents = {child: command for child, _, command in everybody if child == pid}, {pid}
    while parents:
        below = {child: command for child, parent, command in everybody if parent in parents}
        found |= below
        parents = set(below)
    return found


@contextmanager
def started(directory: Path, command: list[str], node: str = "", env: dict[str, str] | None = None, **options) -> Iterator[System]:
    """Start a system on a directory, with its streams in the files out and err unless the options say otherwise.

    `System.process` is what was started, which may be a shell.
    """
    with own_ports_block() as base, open(directory / "out", "wb") as out, open(directory / "err", "ab") as err:
        config = make_config(directory / "config", {"server.toml": {"base_port = ": f"base_port = {base}"}})
        if node:
            (config / "node.sh").write_text(node)
        system = System(directory / "state", config, free_port())
        variables = {
            **os.environ,
            "PORT": str(system.port),
            "PAYCHAN_STATE_DIR": str(system.state_dir),
            "PAYCHAN_PYTHON": sys.executable,
            **(env or {}),
        }
        system.process = subprocess.Popen(
            [*command, str(config)], cwd=ROOT, env=variables, **({"stdout": out, "stderr": err} | options)
        )
        try:
            yield system
        finally:
            if system.process.poll() is None:
                system.process.terminate()
                system.process.wait(60)


def wait_ready(system: System, workers: int = 1) -> None:
    wait_until(lambda: system.ready_workers() == workers or system.process.poll() is not None, START_SECONDS, "being ready")
    assert system.process.poll() is None, (system.config_dir.parent / "err").read_text()
    if not system.server_pubkey:
        answer = Client(system.port).request("GET", "/readyz")
        system.server_pubkey = bytes.fromhex(answer.json["server_pubkey"])


def pid_of(system: System, module: str) -> int:
    """Return the pid of a process of the system, once it runs. module: as in `-m MODULE`."""
    found: list[int] = []

    def look() -> bool:
        found[:] = [pid for pid, command in family(system.process.pid).items() if f"-m {module} " in command]
        return bool(found) or system.process.poll() is not None

    wait_until(look, START_SECONDS, f"finding {module}")
    assert found, "the system has ended"
    return found[0]


def workers_of(system: System) -> set[int]:
    main = pid_of(system, "paychan.server")
    return {pid for pid, parent, command in processes() if parent == main and "resource_tracker" not in command}


def wait_reloaded(system: System, before: set[int]) -> None:
    def is_done() -> bool:
        now = workers_of(system)
        return len(now) == 1 and not now & before and system.ready_workers() == 1

    wait_until(is_done, START_SECONDS, "the reload")


def said(system: System) -> str:
    return (system.config_dir.parent / "err").read_text()


@pytest.mark.parametrize("node", ["", FAKE_NODE], ids=["without a node", "with a node"])
def test_a_sighup_reloads_and_a_healthy_life_says_nothing_above_info(tmp_path, node):
    """From the first moment on, a SIGHUP ends nothing. All that is said has the one form, and the ready line stands alone."""
    with started(tmp_path, EVERYTHING, node) as system:
        supervisor = pid_of(system, "paychan run")
        os.kill(system.process.pid, signal.SIGHUP)  # the interpreter only starts: it has no handler yet
        for module in ("signer", "store", "paychan.server"):  # while the system starts, as soon as there is another process
            pid_of(system, module)
            os.kill(system.process.pid, signal.SIGHUP)
        wait_ready(system)
        payer = system.payer("reloaded")
        assert payer.open().status == 201
        wait_until(lambda: "Stopped old worker" in said(system), START_SECONDS, "the reload that the start delayed")
        wait_ready(system)
        before = workers_of(system)
        os.kill(system.process.pid, signal.SIGHUP)
        wait_reloaded(system, before)
        payer.client = system.client()
        assert payer.pay(5).json["value_received"] == 5
        assert pid_of(system, "paychan run") == supervisor
        system.process.terminate()
        assert system.process.wait(60) == 0
    assert unquiet(said(system).replace("node ready\n", "")) == []
    assert READY.fullmatch((tmp_path / "out").read_text())
    kinds = {LINE.fullmatch(line)[2] for line in said(system).splitlines() if line != "node ready"}
    assert kinds == {"supervisor", "signer", "store", "server", "worker"}


def test_a_configuration_that_must_not_run_is_not_reloaded(tmp_path):
    """The workers that run are better than none. What a reload cannot change is named, too."""
    with started(tmp_path, RUN) as system:
        wait_ready(system)
        before, file = workers_of(system), system.config_dir / "server.toml"
        good = file.read_text()
        for text, why in (
            (good.replace("base_price = 70000", "base_price = -1"), "open.base_price: "),
            (good.replace('host = "127.0.0.1"', 'host = "127.0.0.2"'), "http.host: changed, which takes a restart"),
            (good.replace("run/store.sock", "run/other.sock"), "processes.store: differs from "),
        ):
            assert text != good
            file.write_text(text)
            os.kill(system.process.pid, signal.SIGHUP)
            wait_until(lambda why=why: why in said(system), START_SECONDS, f"saying {why}")
            assert workers_of(system) == before
        file.write_text(good.replace("base_price = 70000", "base_price = 80000"))
        os.kill(system.process.pid, signal.SIGHUP)
        wait_reloaded(system, before)
        assert system.payer("dearer").open(85_000).code == "open_price_short"


@pytest.mark.parametrize("name", ["signer", "store"])
def test_a_sighup_does_not_end_signer_or_store(tmp_path, name):
    """A log rotation that sends it to everything that is called paychan."""
    with started(tmp_path, RUN) as system:
        wait_ready(system)
        pid = pid_of(system, name)
        os.kill(pid, signal.SIGHUP)
        wait_until(lambda: "SIGHUP: this process reads" in said(system), START_SECONDS, "hearing the signal")
        assert pid_of(system, name) == pid
        assert system.payer("still there").open().status == 201


def in_session_of(slave: int):
    def before() -> None:
        os.setsid()
        import fcntl
        import termios

        fcntl.ioctl(slave, termios.TIOCSCTTY, 0)

    return before


@pytest.mark.parametrize("node", ["", FAKE_NODE], ids=["without a node", "with a node"])
def test_a_terminal_that_is_closed_ends_everything(tmp_path, node):
    """It sends the same signal. Nobody wants a server that goes on without a window, with its port taken."""
    master, slave = pty.openpty()
    with started(tmp_path, EVERYTHING, node, stdin=slave, stdout=slave, stderr=slave, preexec_fn=in_session_of(slave)) as system:
        os.close(slave)
        wait_ready(system)
        everybody = family(system.process.pid)
        os.close(master)
        os.kill(system.process.pid, signal.SIGHUP)  # the kernel sends it to the terminal's shell, and that to its jobs
        system.process.wait(60)
        wait_until(lambda: not everybody.keys() & {pid for pid, _, _ in processes()}, 20, "the end of all processes")


@pytest.mark.parametrize("streams", ["full", "reader gone"])
def test_what_cannot_be_said_ends_nothing(tmp_path, streams):
    """Not the ready line, and not that a process has ended."""
    reader, writer = os.pipe()
    with open("/dev/full", "wb") as full, open(writer, "wb") as pipe:
        out = full if streams == "full" else pipe
        if streams == "reader gone":
            os.close(reader)
        with started(tmp_path, RUN, stdout=out, stderr=out) as system:
            wait_ready(system)
            payer = system.payer("unheard")
            assert payer.open().status == 201
            for name in ("store", "signer", "paychan.server"):
                before = pid_of(system, name)
                os.kill(before, signal.SIGKILL)
                wait_until(lambda name=name, before=before: pid_of(system, name) != before, START_SECONDS, f"a new {name}")
                wait_ready(system)
            payer.client = system.client()
            payer.sender.pay(5)
            assert payer.client.persist("PUT", payer.sender.channel_target(payer.sender.pay(5)))[0].status == 200
            system.process.terminate()
            assert system.process.wait(60) == 0
    if streams == "full":
        os.close(reader)


FAILING = """
import errno, os, sys
module = sys.orig_argv[2] if sys.orig_argv[1:2] == ["-m"] else ""
if module in ("signer", "store") and os.path.exists(os.environ["PAYCHAN_TEST_FULL"]):
    usual = os.open
    def opened(path, flags, *rest, **more):
        if flags & os.O_CREAT and not os.path.exists(path):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        return usual(path, flags, *rest, **more)
    os.open = opened
"""


def test_a_start_while_no_file_can_be_made_goes_on_when_one_can(tmp_path):
    (tmp_path / "failing").mkdir()
    (tmp_path / "failing" / "sitecustomize.py").write_text(FAILING)
    full = tmp_path / "full"
    full.touch()
    path = os.pathsep.join((str(tmp_path / "failing"), *filter(None, [os.environ.get("PYTHONPATH")])))
    with started(tmp_path, RUN, env={"PYTHONPATH": path, "PAYCHAN_TEST_FULL": str(full)}) as system:
        wait_until(lambda: said(system).count("signer ended with status 70; restarting") > 1, START_SECONDS, "two failures")
        assert "No space left on device" in said(system)
        assert system.process.poll() is None
        full.unlink()
        wait_ready(system)


FULL_DISK = """
import sys
from pathlib import Path
from tests.campaign.small_disk import mounted_on
from tests.process import test_supervisor as here
base = Path(sys.argv[1])
with mounted_on(base / "disk"):
    here.start_and_go_on_on_a_full_disk(base)
"""


@pytest.mark.privileged("only root can mount a file system to fill")
def test_a_real_full_disk_at_the_start_and_later_is_survived(tmp_path):
    """State and log on one disk, full when the system starts; full again while the store is away, until nothing can be logged."""
    (tmp_path / "disk").mkdir()
    done = subprocess.run([sys.executable, "-c", FULL_DISK, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr


def start_and_go_on_on_a_full_disk(base: Path) -> None:
    disk = base / "disk"
    (disk / "state" / "run").mkdir(parents=True, mode=0o700)
    (disk / "state" / "run" / "instance.lock").touch(mode=0o600)  # else the supervisor itself ends with 70: it has no lock yet
    with open(disk / "err", "ab") as err, ExitStack() as filled:
        filled.enter_context(small_disk.full(disk))
        with started(base, RUN, env={"PAYCHAN_STATE_DIR": str(disk / "state")}, stderr=err) as system:
            see_restarts(system, "signer")
            filled.close()
            wait_ready(system)
            payer = system.payer("small disk")
            assert payer.open().status == 201
            with small_disk.full(disk):
                os.kill(pid_of(system, "store"), signal.SIGKILL)
                see_restarts(system, "store")
            wait_ready(system)
            payer.client = system.client()
            target = payer.sender.channel_target(payer.sender.pay(5))
            assert payer.client.persist("PUT", target)[0].json["value_received"] == 5


def see_restarts(system: System, module: str) -> None:
    """Wait until a process has been started three times more, while the supervisor goes on."""
    seen = {pid_of(system, module)}

    def look() -> bool:
        seen.add(pid_of(system, module))
        return len(seen) > 3 or system.process.poll() is not None

    wait_until(look, START_SECONDS, f"restarts of {module}")
    assert system.process.poll() is None
