"""Aim: a service manager is told what is so, when it is so. Method: a real socket of datagrams, and workers' words with a clock of
our own."""

import socket

import pytest

from paychan.notify import Manager
from paychan.server.life import LATE_SECONDS, Lives
from paychan.supervisor import is_stuck


class Listener:
    """The service manager's end: what was sent, a datagram each."""

    def __init__(self, directory) -> None:
        self.path = directory / "notify"
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(self.path))
        self.socket.setblocking(False)

    def heard(self) -> list[str]:
        found = []
        try:
            while True:
                found.append(self.socket.recv(4096).decode())
        except BlockingIOError:
            return found


@pytest.fixture
def listener(tmp_path):
    made = Listener(tmp_path)
    yield made
    made.socket.close()


def manager_of(listener, **more) -> Manager:
    return Manager({"NOTIFY_SOCKET": str(listener.path), "WATCHDOG_USEC": "3000000", **more})


def test_what_is_said_has_the_protocols_form(listener):
    manager = manager_of(listener)
    assert manager.beat_seconds == 1.0
    manager.ready("serves\nat two\tplaces")
    manager.waiting("for the node")
    manager.alive()
    manager.stopping()
    assert listener.heard() == ["READY=1\nSTATUS=serves at two places", "STATUS=for the node", "WATCHDOG=1", "STOPPING=1"]
    manager.reloading()
    first, second = listener.heard()[0].split("\n")
    assert first == "RELOADING=1" and int(second.removeprefix("MONOTONIC_USEC=")) > 0


def test_no_child_inherits_the_word(listener):
    env = {"NOTIFY_SOCKET": str(listener.path), "WATCHDOG_USEC": "1", "WATCHDOG_PID": "1", "PATH": "/bin"}
    Manager(env)
    assert env == {"PATH": "/bin"}


@pytest.mark.parametrize("env", [{}, {"NOTIFY_SOCKET": "/nowhere/at/all"}, {"NOTIFY_SOCKET": "x" * 500, "WATCHDOG_USEC": "1000"}])
def test_without_a_manager_nothing_happens(env):
    manager = Manager(env)
    assert not manager.is_there and not manager.beat_seconds
    manager.ready("well")
    manager.alive()


def test_another_process_watchdog_is_not_fed(listener):
    assert not manager_of(listener, WATCHDOG_PID="1").beat_seconds


def test_a_manager_that_does_not_read_holds_nobody_up(listener):
    manager = manager_of(listener)
    for _ in range(10_000):
        manager.alive()
    listener.socket.close()
    manager.alive()
    manager.stopping()


@pytest.fixture
def lives(listener):
    now = [0.0]
    made = Lives(manager_of(listener), 2, lambda: now[0])
    made.now = now
    return made


def test_ready_is_said_when_every_worker_takes_payments_and_not_before(lives, listener):
    lives.hear(1, is_ready=True)
    lives.hear(1, is_ready=True)
    lives.hear(2, is_ready=False)
    assert [word for word in listener.heard() if "READY" in word] == []
    lives.hear(2, is_ready=True)
    assert [word for word in listener.heard() if "READY" in word] == ["READY=1\nSTATUS=2 workers take payments"]
    lives.hear(1, is_ready=True)
    assert "READY" not in "".join(listener.heard())


def test_the_watchdog_is_fed_while_all_workers_are_heard(lives, listener):
    lives.hear(1, is_ready=False)
    assert listener.heard() == []
    lives.hear(2, is_ready=False)
    assert listener.heard() == ["WATCHDOG=1"]  # what they wait for is no fault of theirs
    lives.now[0] += LATE_SECONDS
    lives.hear(1, is_ready=True)
    assert listener.heard() == []


def test_after_a_reload_the_successors_must_be_ready(lives, listener):
    for pid in (1, 2):
        lives.hear(pid, is_ready=True)
    listener.heard()
    lives.reload()
    assert listener.heard()[0].startswith("RELOADING=1\n")
    for pid in (1, 2, 3):
        lives.hear(pid, is_ready=True)
    assert "READY=1" not in "".join(listener.heard()).replace("RELOADING=1", "")
    lives.hear(4, is_ready=True)
    assert any(word.startswith("READY=1") for word in listener.heard())


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ({}, True),
        ({"code": "store_unavailable"}, True),
        ({"code": "owner_moved"}, True),
        ({"code": "chain_unavailable"}, False),
        ({"code": "too_much_unsettled"}, False),
        ({"ready": True}, False),
    ],
)
def test_what_a_restart_of_ours_could_mend(state, expected):
    assert is_stuck(state) is expected
