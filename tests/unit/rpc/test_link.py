"""Aim: a link says what operators should act on as a warning, and nothing else; it outlives whatever answers at the other end.
Method: a real listener on a Unix socket that comes, goes, and talks nonsense."""

import asyncio
import logging

import pytest

from paychan.rpc.connection import Address, FrameConnection, listen
from paychan.rpc.link import Link

HELLO = 7


async def until(is_true) -> None:
    async with asyncio.timeout(20):
        while not is_true():
            await asyncio.sleep(0.005)


class Listener:
    """Answers HELLO with `answer`."""

    def __init__(self, path: str, answer: bytes = b"welcome") -> None:
        self.address, self.answer = Address(path=path), answer
        self.connections: list[FrameConnection] = []

    async def start(self) -> None:
        self._server = await listen(self.address, self._connection)

    def _connection(self) -> FrameConnection:
        return FrameConnection(100, self._on_frame, lambda _: None, self.connections.append)

    def _on_frame(self, connection: FrameConnection, kind: int, request_id: int, _: bytes) -> None:
        connection.reply(kind, request_id, self.answer)

    async def end(self) -> None:
        self._server.close()
        for connection in self.connections:
            connection.close()


async def greet(connection: FrameConnection) -> None:
    if await connection.call(HELLO) != b"welcome":
        raise ValueError("that is no welcome")


@pytest.fixture
def said(caplog):
    caplog.set_level(logging.DEBUG, "paychan.link")
    return lambda: [(record.levelname, record.getMessage()) for record in caplog.records]


def test_a_start_beside_the_other_process_and_an_orderly_stop_warn_of_nothing(tmp_path, said):
    async def scenario() -> None:
        listener = Listener(str(tmp_path / "socket"))
        link = Link("store", listener.address, 100, greet)
        link.start()
        await until(said)
        await listener.start()
        await until(lambda: link.is_up)
        await link.stop()
        await listener.end()

    asyncio.run(scenario())
    first, *rest = said()
    assert first[0] == "INFO" and "No such file" in first[1]
    assert rest == [("INFO", "store: connected")]


def test_a_loss_is_a_warning_and_the_return_is_none(tmp_path, said):
    lost = []

    async def scenario() -> None:
        listener = Listener(str(tmp_path / "socket"))
        await listener.start()
        link = Link("store", listener.address, 100, greet, on_lost=lambda: lost.append(True))
        link.start()
        await until(lambda: link.is_up)
        await listener.end()
        await until(lambda: not link.is_up)
        await until(lambda: "Connection refused" in link.trouble)
        await listener.start()
        await until(lambda: link.is_up)
        await link.stop()
        await listener.end()

    asyncio.run(scenario())
    assert lost == [True, True]
    levels = [level for level, _ in said()]
    assert said()[1] == ("WARNING", "store: the connection was lost")
    assert levels[0] == levels[-1] == "INFO" and set(levels[1:-1]) == {"WARNING"}


def test_nonsense_from_the_other_end_is_a_warning_and_not_the_end(tmp_path, said):
    async def scenario() -> None:
        listener = Listener(str(tmp_path / "socket"), b"nonsense")
        await listener.start()
        link = Link("store", listener.address, 100, greet)
        link.start()
        await until(said)
        assert said() == [("WARNING", "store: ValueError: that is no welcome")]
        listener.answer = b"welcome"
        await until(lambda: link.is_up)
        await link.stop()
        await listener.end()

    asyncio.run(scenario())
