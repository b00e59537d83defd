"""Aim: a worker that starts on a full disk serves once there is room, without anybody's help. Method: the worker's own start, with
a socket that cannot be made at first."""

import asyncio
import errno
import logging
import os
from types import SimpleNamespace

from paychan.server import worker


class FullDisk:
    """Stands for the socket for other workers."""

    def __init__(self, failures: int) -> None:
        self.failures, self.attempts = failures, 0

    async def start(self) -> None:
        self.attempts += 1
        if self.attempts <= self.failures:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_the_socket_is_tried_again_until_it_can_be_made_and_its_failure_is_said_once(monkeypatch, caplog):
    monkeypatch.setattr(worker, "PEERS_RETRY_SECONDS", 0.001)
    peers = FullDisk(5)
    with caplog.at_level(logging.WARNING, "paychan.worker"):
        asyncio.run(asyncio.wait_for(worker.Worker._start_peers(SimpleNamespace(_peers=peers)), 20))
    assert peers.attempts == 6
    (record,) = caplog.records
    assert "No space left on device" in record.getMessage()
