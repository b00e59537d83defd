"""The two faces of the client: `Channel` blocks, `AsyncChannel` is for asyncio. Both drive the same operations (`protocol`)."""

import asyncio
import os
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from bitcoin.core import Hash160
from coincurve import PrivateKey

from ..core.network import Network, p2pkh_address
from .debug import debug_funding
from .errors import Refused, StateError
from .protocol import Outcome, Protocol
from .record import ChannelRecord, Funding, parse_record
from .refund import Refund, check_settlement, make_refund
from .steps import Chances, RetryPolicy, Save, Send, Step, Steps
from .storage import ChannelFile, is_there, read_key, write_key
from .terms import Proposal, ask_terms
from .transport import AsyncConnection, Connection
from .wire import NoReply, Reply, parse_url

T = TypeVar("T")
CHANCES = Chances(time.monotonic, random.random)
DEFAULT_POLICY = RetryPolicy()


class _Base:
    """What both faces share: the locked state file, the record in it, the key."""

    def __init__(self, path: str | os.PathLike[str], policy: RetryPolicy = DEFAULT_POLICY) -> None:
        """Lock and read the state file at `path`. Raises ChannelBusy, StateError."""
        self._file = ChannelFile(path)
        try:
            self.record = parse_record(self._file.read())
            self._key = read_key(self._file.path.parent / self.record.key_file)
            self._protocol = Protocol(self.record, self._key, policy, CHANCES)
            self._server = parse_url(self.record.agreement.server_url)
        except BaseException:
            self._file.close()
            raise

    def refund(self, fee_rate: float, funding: Funding | None = None) -> Refund:
        """Return the signed refund. fee_rate: satoshi per byte. It is valid only after the expiry.

        funding: another output at the channel's address, which its key reaches as well; its value must be certain: what the
        transaction does not pay out is a fee.
        """
        terms = self.record.terms if funding is None else self.record.terms_on(funding)
        return make_refund(terms, self._key, fee_rate)

    def check_settlement(self, raw: bytes) -> int:
        """Check the serialised settlement; return the change it pays, in satoshi. Raises ServerMisbehaved."""
        return check_settlement(self.record, raw)


def _save_nothing(_: bytes) -> None:
    """There is no state before there is an agreement."""


def _refuse_if_there(path: Path) -> None:
    if is_there(path):
        raise Refused(f"{path}: this channel exists already", "channel_exists")


def _relative(key_file: Path, path: Path) -> str:
    """Name the key file from the state file: alone if they are neighbours, so that they can move together."""
    key_file = Path(os.path.realpath(key_file))
    return key_file.name if key_file.parent == Path(os.path.realpath(path)).parent else str(key_file)


class Channel(_Base):
    """A channel, blocking. Use as a context manager; threads may share it."""

    def __init__(self, path: str | os.PathLike[str], policy: RetryPolicy = DEFAULT_POLICY) -> None:
        super().__init__(path, policy)
        self._connection = Connection(self._server)
        self._mutex = threading.Lock()

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        server_url: str,
        key_file: str | os.PathLike[str],
        network: Network,
        exp_time: int,
        change_address: str = "",
        policy: RetryPolicy = DEFAULT_POLICY,
        funding_value: int | None = None,
    ) -> "Channel":
        """Agree on a channel with a server, and write its state file. Its key is made if `key_file` is missing.

        exp_time: unix seconds. change_address: if empty, the key's own (P2PKH). funding_value: satoshi that will be paid to it;
        named, what the server would open no channel on is refused here (`funding_too_large`, `too_small`, `exp_time_too_soon`).
        Raises Refused, WrongNetwork, ServerMisbehaved, Unreachable, StateError: nothing was written then, and no address told.
        """
        path, key_file = Path(path), Path(key_file)
        _refuse_if_there(path)
        is_new_key = not is_there(key_file)
        key = PrivateKey() if is_new_key else read_key(key_file)
        pubkey = key.public_key.format()
        change_address = change_address or p2pkh_address(network, Hash160(pubkey))
        connection = Connection(parse_url(server_url))
        try:
            proposal = Proposal(server_url, network, pubkey, exp_time, change_address, funding_value)
            agreement = _drive(ask_terms(proposal, int(time.time()), policy, CHANCES), connection, _save_nothing)
        finally:
            connection.close()
        file = ChannelFile(path, is_new=True)
        try:
            _refuse_if_there(path)
            if is_new_key:
                write_key(key_file, key)
            file.save(ChannelRecord(agreement, _relative(key_file, path)).serialize())
        finally:
            file.close()
        return cls(path, policy)

    def _run(self, operation: Callable[[], Steps[T]]) -> T:
        with self._mutex:
            return _drive(operation(), self._connection, self._file.save)

    def set_funding(self, funding: Funding) -> None:
        """Note the funding output. Its value must be certain: a value too small signs too much away."""
        self._run(lambda: self._protocol.fund(funding))

    def fund_debug(self) -> None:
        """Note the output that a server in debug mode makes up: no money moves. Raises Refused but on network test."""
        self.set_funding(debug_funding(self.record.agreement))

    def open(self, amount: int | None = None) -> Outcome:
        """See Protocol.open."""
        return self._run(lambda: self._protocol.open(amount))

    def pay(self, amount: int) -> Outcome:
        """See Protocol.pay."""
        return self._run(lambda: self._protocol.pay(amount))

    def resend(self) -> Outcome:
        """See Protocol.resend."""
        return self._run(self._protocol.resend)

    def close_channel(self) -> Outcome:
        """Have the channel settled; see Protocol.close."""
        return self._run(self._protocol.close)

    def resume(self) -> None:
        """See Protocol.resume."""
        self._run(self._protocol.resume)

    def release(self) -> None:
        """Close the connection and unlock the file. The channel stays as it is."""
        self._connection.close()
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.release()


def _drive(steps: Steps[T], connection: Connection, save: Callable[[bytes], None]) -> T:
    """Run an operation's steps, blocking. save: makes the state durable, or raises StateError."""
    result: Reply | NoReply | None = None
    try:
        while True:
            step = steps.send(result)
            result = None
            if isinstance(step, Save):
                try:
                    save(step.content)
                except StateError as error:
                    steps.throw(error)
            elif isinstance(step, Send):
                result = connection.exchange(step.method, step.target, step.timeout)
            else:
                time.sleep(step.seconds)
    except StopIteration as stop:
        returned: T = stop.value
        return returned


class AsyncChannel(_Base):
    """A channel for asyncio. Operations queue up behind each other; a cancelled one leaves its payment pending."""

    def __init__(self, path: str | os.PathLike[str], policy: RetryPolicy = DEFAULT_POLICY) -> None:
        super().__init__(path, policy)
        self._connection = AsyncConnection(self._server)
        self._mutex = asyncio.Lock()
        self._saver = ThreadPoolExecutor(1)  # one thread: saves happen in the order in which they were asked for

    @classmethod
    async def create(
        cls,
        path: str | os.PathLike[str],
        server_url: str,
        key_file: str | os.PathLike[str],
        network: Network,
        exp_time: int,
        change_address: str = "",
        policy: RetryPolicy = DEFAULT_POLICY,
        funding_value: int | None = None,
    ) -> "AsyncChannel":
        """See Channel.create. It runs in a thread: it happens once, and has no payment to lose."""
        terms = (server_url, key_file, network, exp_time, change_address, policy, funding_value)
        made = await asyncio.to_thread(Channel.create, path, *terms)
        made.release()
        return cls(path, policy)

    async def _run(self, operation: Callable[[], Steps[T]]) -> T:
        async with self._mutex:
            steps = operation()
            result: Reply | NoReply | None = None
            try:
                while True:
                    step = steps.send(result)
                    try:
                        result = await self._do(step)
                    except StateError as error:
                        steps.throw(error)
            except StopIteration as stop:
                returned: T = stop.value
                return returned

    async def _do(self, step: Step) -> Reply | NoReply | None:
        if isinstance(step, Send):
            return await self._connection.exchange(step.method, step.target, step.timeout)
        if isinstance(step, Save):
            await asyncio.get_running_loop().run_in_executor(self._saver, self._file.save, step.content)
        else:
            await asyncio.sleep(step.seconds)
        return None

    async def set_funding(self, funding: Funding) -> None:
        """See Channel.set_funding."""
        await self._run(lambda: self._protocol.fund(funding))

    async def fund_debug(self) -> None:
        """See Channel.fund_debug."""
        await self.set_funding(debug_funding(self.record.agreement))

    async def open(self, amount: int | None = None) -> Outcome:
        """See Protocol.open."""
        return await self._run(lambda: self._protocol.open(amount))

    async def pay(self, amount: int) -> Outcome:
        """See Protocol.pay."""
        return await self._run(lambda: self._protocol.pay(amount))

    async def resend(self) -> Outcome:
        """See Protocol.resend."""
        return await self._run(self._protocol.resend)

    async def close_channel(self) -> Outcome:
        """Have the channel settled; see Protocol.close."""
        return await self._run(self._protocol.close)

    async def resume(self) -> None:
        """See Protocol.resume."""
        await self._run(self._protocol.resume)

    async def release(self) -> None:
        """Close the connection and unlock the file, after the last save has ended."""
        self._connection.close()
        await asyncio.to_thread(self._saver.shutdown)
        self._file.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.release()
