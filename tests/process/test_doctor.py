"""Aim: `paychan doctor` finds what is broken on a real machine, changes nothing, tells no secret, and never ends in a traceback.

Method: a complete configuration of network live with a node (a stand-in that speaks Core's RPC) and a state directory, then one
thing broken at a time; the real command, in an interpreter of its own. And a real system, well, stuck and stopped.
"""

import asyncio
import hashlib
import json
import os
import re
import resource
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from paychan.doctor.examine import examine
from paychan.doctor.verdicts import Verdict
from tests import postgres
from tests.certificates import ALPHA, EXPIRED, USUAL, make, sign
from tests.chain.core_stand_in import CoreError, CoreStandIn
from tests.ports import free_port
from tests.system import ROOT, running, wait_until

CANARY = "c4nary" * 5
LIVE_ADDRESS = "1BoatSLRHtKNngkdXEeobR76b53LETtpyT"


@contextmanager
def node_beside(network: str = "live"):
    """Run a stand-in for Core on a thread of its own."""
    loop, core = asyncio.new_event_loop(), CoreStandIn(network)
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(core.__aenter__(), loop).result(10)
        core.user, core.password = "__cookie__", CANARY
        core.results["getblockchaininfo"] |= {"time": int(time.time()) - 300, "mediantime": int(time.time()) - 3900}
        yield core
    finally:
        asyncio.run_coroutine_threadsafe(core.__aexit__(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@dataclass
class Place:
    """A configuration of network live, its state directory, its node."""

    base: Path
    core: CoreStandIn
    port: int

    @property
    def config(self) -> Path:
        return self.base / "config"

    @property
    def state(self) -> Path:
        return self.base / "state"

    def change(self, file: str, old: str, new: str) -> None:
        path = self.config / file
        text = path.read_text()
        assert text.count(old) == 1, old
        path.write_text(text.replace(old, new))

    @property
    def env(self) -> dict[str, str]:
        return {"PORT": str(self.port), "PAYCHAN_STATE_DIR": str(self.state)}

    def ask(self, preexec=None) -> tuple[int, dict[tuple[str, str], dict], str]:
        return ask(self.config, self.env, preexec)

    def examine(self, monkeypatch) -> dict[tuple[str, str], Verdict]:
        """Ask in this process, which saves the start of an interpreter."""
        for name, value in self.env.items():
            monkeypatch.setenv(name, value)
        return {(subject, verdict.check): verdict for subject, verdict in examine(self.config)}


def ask(config: Path, env: dict[str, str], preexec=None) -> tuple[int, dict[tuple[str, str], dict], str]:
    """Return exit status, verdicts by (subject, check), and all that was printed."""
    done = subprocess.run(
        [sys.executable, "-m", "paychan", "doctor", str(config), "--json"],
        cwd=ROOT,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        preexec_fn=preexec,
        timeout=120,
    )
    assert "Traceback" not in done.stderr and "please report" not in done.stdout, done.stderr + done.stdout
    told = json.loads(done.stdout)
    assert done.returncode == {"ok": 0, "warning": 1, "bad": 2}[told["worst"]]
    return done.returncode, {(row["subject"], row["check"]): row for row in told["checks"]}, done.stdout + done.stderr


@pytest.fixture
def place(tmp_path):
    with node_beside() as core:
        made = Place(tmp_path, core, free_port())
        shutil.copytree(ROOT / "config" / "live", made.config)
        made.config.chmod(0o755)
        made.state.mkdir(mode=0o700)
        for name, text in (("node.cookie", f"__cookie__:{CANARY}"), ("signer.key", "17" * 32 + "\n")):
            (made.state / name).touch(mode=0o600)
            (made.state / name).write_text(text)
        made.change("server.toml", 'cookie_file = ""', 'cookie_file = "node.cookie"')
        made.change("server.toml", "port = 8332", f"port = {core.port}")
        made.change("signer.toml", 'funds_destination_address = ""', f'funds_destination_address = "{LIVE_ADDRESS}"')
        yield made


def contents(directory: Path) -> dict[str, tuple]:
    """Return what there is in a directory: names, modes, times, and every byte."""
    found = {}
    for path in (directory, *sorted(directory.rglob("*"))):
        about = path.lstat()
        digest = hashlib.sha256(path.read_bytes()).hexdigest() if stat.S_ISREG(about.st_mode) else ""
        found[str(path)] = (about.st_mode, about.st_uid, about.st_mtime_ns, digest)
    return found


def test_a_good_machine_is_well_and_stays_as_it_was(place):
    before = contents(place.base), dict(place.core.wallets)
    status, found, printed = place.ask()
    assert status in (0, 1), printed
    assert [row for row in found.values() if row["grade"] == "bad"] == []
    assert (contents(place.base), dict(place.core.wallets)) == before
    assert CANARY not in printed and "17" * 16 not in printed
    for asked in (
        ("node", "trusted"),
        ("disk", "sync"),
        ("disk", "room"),
        ("clock", "chain"),
        ("permissions", "key"),
        ("ports", "http.port"),
    ):
        assert found[asked]["grade"] in ("ok", "warning"), found[asked]
    assert found["node", "trusted"]["grade"] == found["clock", "chain"]["grade"] == "ok"


def shut_in_memory(place: Place) -> None:
    if not os.access("/dev/shm", os.W_OK):
        pytest.skip("no /dev/shm to write to")
    place.base = Path(shutil.copytree(place.base, f"/dev/shm/paychan-doctor-{os.getpid()}"))
    place.state.chmod(0o700)


def sellers_with(place: Place, directory: Path) -> None:
    for name in ("peer.crt", "peer.key"):
        shutil.copy(directory / name, place.state / name)
        (place.state / name).chmod(0o600)
    sell = f'[sell]\nport = {free_port()}\ntls_certificate = "peer.crt"\ntls_key = "peer.key"\n'
    place.change("server.toml", "[processes]", f"{sell}\n[processes]")


def expired(place: Place) -> None:
    directory = make(place.base / "certificates")
    sign(directory, ALPHA, USUAL, begins_and_ends=EXPIRED)
    sellers_with(place, directory / ALPHA)


def no_certificate(place: Place) -> None:
    directory = place.base / "certificates"
    directory.mkdir()
    for name in ("peer.crt", "peer.key"):
        (directory / name).write_text("no PEM\n")
    sellers_with(place, directory)


def results(place: Place, **changed) -> None:
    place.core.results.update(changed)


BROKEN = {
    "everybody may write to the state directory": (lambda p: p.state.chmod(0o777), ("permissions", "state_dir"), "bad"),
    "the key file is open": (lambda p: (p.state / "signer.key").chmod(0o644), ("permissions", "key"), "bad"),
    "everybody may write to a file": (lambda p: (p.config / "signer.toml").chmod(0o666), ("permissions", "configuration"), "bad"),
    "a key is missing": (lambda p: p.change("signer.toml", LIVE_ADDRESS, ""), ("configuration", "files"), "bad"),
    "a table is missing": (lambda p: p.change("server.toml", "[open]", "[opens]"), ("configuration", "files"), "bad"),
    "a file is missing": (lambda p: (p.config / "store.toml").unlink(), ("configuration", "files"), "bad"),
    "all files are missing": (lambda p: shutil.rmtree(p.config), ("configuration", "files"), "bad"),
    "a file is no text": (lambda p: (p.config / "server.toml").write_bytes(os.urandom(999)), ("configuration", "files"), "bad"),
    "the node is away": (
        lambda p: p.change("server.toml", f"port = {p.core.port}", f"port = {free_port()}"),
        ("node", "trusted"),
        "bad",
    ),
    "the node refuses us": (lambda p: (p.state / "node.cookie").write_text(f"__cookie__:x{CANARY}"), ("node", "trusted"), "bad"),
    "the node is of another network": (
        lambda p: results(p, getblockhash="00" * 32, getblockchaininfo={**p.core.results["getblockchaininfo"], "chain": "test"}),
        ("node", "trusted"),
        "bad",
    ),
    "the node is too old": (lambda p: p.core.is_version(24), ("node", "trusted"), "bad"),
    "the node replaces nothing": (lambda p: p.core.is_version(27), ("node", "trusted"), "bad"),
    "the node talks nonsense": (
        lambda p: setattr(p.core, "raw", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{]"),
        ("node", "trusted"),
        "bad",
    ),
    "the node has no wallets": (
        lambda p: results(p, listwallets=CoreError(-32601, "Method not found")),
        ("node", "wallets"),
        "bad",
    ),
    "the node has no index": (lambda p: results(p, getindexinfo={}), ("node", "txindex"), "warning"),
    "the best block is old": (
        lambda p: p.core.results["getblockchaininfo"].update(time=int(time.time()) - 90_000, mediantime=int(time.time()) - 95_000),
        ("clock", "chain"),
        "bad",
    ),
    "the clock is behind the chain": (
        lambda p: p.core.results["getblockchaininfo"].update(time=int(time.time()) + 3000, mediantime=int(time.time()) + 2000),
        ("clock", "chain"),
        "bad",
    ),
    "the kept time is ahead": (
        lambda p: (p.state / "clock").write_text(f"{int(time.time()) + 9999}\n"),
        ("clock", "kept time"),
        "warning",
    ),
    "a certificate has ended": (expired, ("certificates", "sellers"), "bad"),
    "a certificate is none": (no_certificate, ("certificates", "sellers"), "bad"),
    "the state directory is in memory": (shut_in_memory, ("disk", "kind"), "bad"),
    "no such address": (
        lambda p: p.change("server.toml", 'host = "127.0.0.1"\nport = 8000', 'host = "10.255.255.254"\nport = 8000'),
        ("ports", "http.port"),
        "bad",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_is_found(place, name, monkeypatch):
    base = place.base
    breaks, where, grade = BROKEN[name]
    breaks(place)
    before = contents(place.state)
    try:
        found = place.examine(monkeypatch)
        assert found[where].grade == grade, found[where]
        assert found[where].mend
        assert contents(place.state) == before
        assert CANARY not in repr(found) and "17" * 16 not in repr(found) and "report it" not in repr(found)
    finally:
        if place.base != base:
            shutil.rmtree(place.base)


def test_a_port_that_another_program_has_is_found(place, monkeypatch):
    with socket.create_server(("127.0.0.1", place.port)):
        assert place.examine(monkeypatch)["ports", "http.port"].grade == "bad"


def test_a_low_limit_of_open_files_is_found(place):
    _, found, _ = place.ask(lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (200, 200)))
    assert found["limits", "open files"]["grade"] == "bad"


def test_a_directory_that_cannot_be_written_to_is_found(place):
    if os.geteuid() == 0:
        if not shutil.which("unshare"):
            pytest.skip("no unshare")
        place.state.joinpath("inner").mkdir()
        script = 'mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" && exec "$2" -m paychan doctor "$3" --json'
        done = subprocess.run(
            ["unshare", "-m", "sh", "-c", script, "sh", str(place.state), sys.executable, str(place.config)],
            cwd=ROOT,
            env={**os.environ, "PORT": str(place.port), "PAYCHAN_STATE_DIR": str(place.state)},
            capture_output=True,
            text=True,
        )
        if not done.stdout:
            pytest.skip(f"no mounts of our own: {done.stderr.strip()[:80]}")
        rows = json.loads(done.stdout)["checks"]
        found = {(row["subject"], row["check"]): row for row in rows}
    else:
        place.state.chmod(0o500)
        _, found, _ = place.ask()
    assert found["permissions", "state_dir"]["grade"] == "bad"
    assert found["disk", "sync"]["grade"] == "not asked"


# --- a system that runs ---


def test_a_system_that_runs_is_well_until_its_store_is_stuck(tmp_path):
    with running(tmp_path, workers=2) as system:
        env = {"PORT": str(system.port), "PAYCHAN_STATE_DIR": str(system.state_dir), "PAYCHAN_WORKERS": "2"}
        _, found, _ = ask(system.config_dir, env)
        assert [row for row in found.values() if row["grade"] == "bad"] == []
        for check in (
            ("running", "server"),
            ("running", "workers"),
            ("running", "store"),
            ("signer", "filter"),
            ("ports", "http.port"),
        ):
            assert found[check]["grade"] == "ok", found[check]
        pid = system.kill("store", signal.SIGSTOP)
        try:
            wait_until(lambda: not system.ready_workers(), 10, "the server to see that its store is stuck")
            _, found, _ = ask(system.config_dir, env)
            assert found["running", "server"]["grade"] == "bad"
        finally:
            os.kill(pid, signal.SIGCONT)
        wait_until(lambda: system.ready_workers() == 2, 20, "the store to be back")
        system.stop()
        before = contents(system.state_dir)
        _, found, _ = ask(system.config_dir, env)
        assert found["running", "system"]["grade"] == "not asked"
        assert contents(system.state_dir) == before


def test_a_database_is_judged_and_one_that_is_away_is_found(place):
    postgres.use(place.config)
    _, found, printed = place.ask()
    assert found["postgres", "schema"]["grade"] == "ok", printed
    assert found["postgres", "version"]["grade"] == "ok"
    file = place.config / "store.toml"
    file.write_text(re.sub(r"(?m)^hosts = .*$", f'hosts = ["127.0.0.1:{free_port()}"]', file.read_text()))
    _, found, printed = place.ask()
    assert found["postgres", "primary"]["grade"] == "bad", printed
