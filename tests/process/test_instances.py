"""Aim: several systems in one run live as if each were alone: what becomes of one is nothing to the others, signals reach all, and
every line says whose it is. Method: two of them and one whose configuration must not run, under the real command."""

import os
import re
import signal
import subprocess
import sys
import threading
from contextlib import ExitStack
from types import SimpleNamespace

import pytest

from tests.log_lines import LINE
from tests.ports import free_port, own_ports_block
from tests.system import OPEN_AMOUNT, ROOT, Client, System, make_config, processes, wait_until

NAMES = ("alpha", "beta")
READY = re.compile(r"ready http://127\.0\.0\.1:(\d+) server_pubkey=([0-9a-f]{66}) instance=(\w+)")


class Run:
    """`paychan run` of some directories. `systems`: by name, each as far as tests need it."""

    def __init__(self, place, directories):
        env = {name: value for name, value in os.environ.items() if name not in ("PORT", "PAYCHAN_STATE_DIR")}
        command = [sys.executable, "-m", "paychan", "run", *map(str, directories)]
        self.lines = []
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env, cwd=ROOT, start_new_session=True
        )
        threading.Thread(target=self._collect, daemon=True).start()

    def _collect(self):
        self.lines.extend(self.process.stdout)

    def ready(self):
        """Return port and key of each that has said it is ready, in the order in which they did."""
        return [(match[3], int(match[1]), match[2]) for line in self.lines if (match := READY.match(line))]

    def supervisor_of(self, name):
        return next(pid for pid, parent, command in processes() if parent == self.process.pid and f"/{name} " in command + " ")

    def count(self, text):
        return sum(text in line for line in self.lines)


def configured(place, name, base):
    config = make_config(place / name, {"server.toml": {"base_port": f"base_port = {base}", "port = ": f"port = {free_port()}"}})
    for file in config.glob("*.toml"):
        file.write_text(re.sub("(?m)^state_dir = .*$", f'state_dir = "{place}/state/{name}"', file.read_text()))
    return config


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    place = tmp_path_factory.mktemp("instances")
    with ExitStack() as stack:
        directories = [configured(place, name, stack.enter_context(own_ports_block())) for name in (*NAMES, "gamma")]
        (directories[2] / "server.toml").write_text("nothing = 1\n")
        found = Run(place, directories)
        try:
            wait_until(lambda: len(found.ready()) == 2 or found.process.poll() is not None, 60, "starting both")
            assert {name for name, _, _ in found.ready()} == set(NAMES), "".join(found.lines)
            yield found
        finally:
            found.process.terminate()
            assert found.process.wait(60) == 0
    left = [command for _, _, command in processes() if str(place) in command]
    assert not left


def payers(run):
    """Return an open channel at each."""
    found = {}
    for name, port, key in run.ready()[:2]:
        system = SimpleNamespace(server_pubkey=bytes.fromhex(key), client=lambda port=port: Client(port))
        found[name] = System.payer(system, f"instances {name}")
        answer = found[name].open(OPEN_AMOUNT)
        assert answer.status in (201, 409)
    return found


def test_each_serves_on_its_own_and_one_that_must_not_run_is_left_out(run):
    ready = run.ready()
    assert len({port for _, port, _ in ready}) == 2 and len({key for _, _, key in ready}) == 2
    assert all(payer.pay().status == 200 for payer in payers(run).values())
    assert run.count("paychan: gamma does not run: its configuration must not; the others go on") == 1
    named = [line for line in run.lines if re.search(r" (alpha|beta)/(supervisor|signer|store|server|worker)\[\d+\] ", line)]
    assert len(named) > 6
    events = [line for line in run.lines if LINE.fullmatch(re.sub(r" (alpha|beta)/", " ", line.rstrip("\n")))]
    assert {line for line in events if "/" not in line.split("[")[0]} == set()  # none without a name


def test_the_death_of_one_is_nothing_to_the_other_and_it_comes_back(run):
    first = payers(run)
    os.kill(run.supervisor_of("alpha"), signal.SIGKILL)
    for _ in range(20):
        assert first["beta"].pay().status == 200
    wait_until(lambda: [name for name, _, _ in run.ready()].count("alpha") == 2, 60, "starting alpha again")
    assert [name for name, _, _ in run.ready()].count("beta") == 1
    answer, _ = first["alpha"].client.persist("PUT", first["alpha"].sender.channel_target(first["alpha"].sender.pay(1)))
    assert answer.status == 200


def test_a_hang_up_reaches_all(run):
    os.kill(run.process.pid, signal.SIGHUP)
    wait_until(lambda: run.count("SIGHUP: handed on to the server, which replaces its workers") == 2, 20, "reloading both")


def test_two_that_share_something_are_refused_and_told_what(tmp_path):
    with own_ports_block() as base:
        directories = [configured(tmp_path, name, base) for name in NAMES]
        for words in (("run",), ("config", "check")):
            command = [sys.executable, "-m", "paychan", *words, *map(str, directories)]
            env = {name: value for name, value in os.environ.items() if name not in ("PORT", "PAYCHAN_STATE_DIR")}
            done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=ROOT, timeout=300, check=False)
            assert done.returncode == 2
            assert f"alpha and beta share port {base} " in done.stdout + done.stderr
