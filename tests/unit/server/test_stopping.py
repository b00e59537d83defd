"""Aim: a worker that has ended is not called one that refused to stop, nor killed. Method: granian's own worker process, whose end
another thread was told of first."""

import os
import time

import pytest
from granian.server.mp import WorkerProcess

from paychan.server import stopping


def rest() -> None:
    time.sleep(60)


@pytest.fixture
def worker():
    made = WorkerProcess.__new__(WorkerProcess)
    made._spawn_method = "fork"
    made._spawn(rest, ())
    made.inner.start()
    yield made
    if made.inner.exitcode is None and stopping.is_alive(made):
        made.inner.kill()
        made.inner.join()


def test_a_worker_that_runs_is_alive(worker):
    assert stopping.is_alive(worker)


def test_one_that_ended_is_not_though_another_thread_was_told(worker):
    worker.terminate()
    os.waitpid(worker.inner.pid, 0)  # what the other thread does
    assert worker.inner.is_alive()  # what granian would go by
    assert not stopping.is_alive(worker)


def test_granian_asks_it(monkeypatch):
    monkeypatch.setattr(WorkerProcess, "is_alive", WorkerProcess.is_alive)
    stopping.install()
    assert WorkerProcess.is_alive is stopping.is_alive
