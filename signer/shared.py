"""The ledger that the signers of all machines share: a database's (store/engines/postgres/signer.sql), beside each one's own.

The stricter of the two counts. So a machine that is lost takes nothing with it, and a database that was set back makes no signer
forget what it signed itself. Before a signature leaves, its version is durable in both: first in the database, which decides
between two signers, then here. That call is a write of our own in any case, confirmed by a standby, so what was read before it is
there, too.

Whatever fails, is not answered in time, or comes with a warning, ends the process: the supervisor starts it anew, and until it has
begun again nobody is answered. The connection is made before the process gives up its sockets; its loop then runs in a thread.
"""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any, NoReturn, TypeVar

import asyncpg

from paychan.core.errors import ConfigError
from paychan.database import SETTINGS, on_warning, wait_for_primary
from paychan.settings.models import DatabaseConfig

from .ledger import DAY_SECONDS, Ledger, LedgerError
from .policy import Memory, Record

T = TypeVar("T")
ANSWER_SECONDS_MAX = 5.0
"""A call that the database has not answered by then is waited for no more: what became of it is unknown."""

BEAT_SECONDS = 2.0
"""Between two writes of nothing, which show that writes are confirmed: no payment is taken that could not be settled."""

ROWS = 2000
"""Of our own ledger in one call."""

_OURS = {**SETTINGS, "application_name": "paychan-signer"}
_REFUSED = "PC001"
_BEGIN = "SELECT ledger, number FROM paychan.signer_begin($1, $2, $3)"
_BEAT = "SELECT paychan.signer_beat($1)"
_MEMORY = "SELECT change_value, fee, versions, txid, noted, fees FROM paychan.signer_memory($1, $2, $3)"
_PUT = "SELECT number, done FROM paychan.signer_put($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)"
_NOTE = "SELECT paychan.signer_note($1, $2, $3, $4)"
_FORGET = "SELECT number, forgotten FROM paychan.signer_forget($1, $2)"
_LOAD = "SELECT paychan.signer_load($1, $2, $3, $4, $5, $6, $7)"
_LOAD_NOTES = "SELECT paychan.signer_load_notes($1, $2, $3, $4)"
_LOAD_FEES = "SELECT paychan.signer_load_fees($1, $2, $3, $4)"
_NO_SCHEMA = (
    asyncpg.UndefinedTableError,
    asyncpg.UndefinedFunctionError,
    asyncpg.InvalidSchemaNameError,
    asyncpg.InsufficientPrivilegeError,
)

End = Callable[[Exception], NoReturn]
"""Ends the process at once, from any thread."""


class Database:
    """One connection to the primary, asked call by call; each waits for its answer. end: called when there is none."""

    def __init__(self, config: DatabaseConfig, say: Callable[[str], object], end: End) -> None:
        """Wait for a primary. say: is told what is waited for."""
        self._end, self._is_served = end, False
        self._loop = asyncio.SelectorEventLoop()  # uvloop's could ask through an io_uring, which no filter sees
        self._turn = asyncio.Lock()
        self._connection = self._loop.run_until_complete(wait_for_primary(config, say, _OURS)).connection
        self._loop.run_until_complete(self._loop.shutdown_default_executor())  # names were looked up in its threads
        self._release = on_warning(self._connection, end)

    def serve(self, beat: tuple[Any, ...]) -> None:
        """Go on in a thread of its own, which notices when the connection is lost, and sends a beat now and then. For a process
        that has given up what it never needs: from now on there is a second thread."""
        self._is_served = True
        threading.Thread(target=self._run_for_ever, args=(beat,), daemon=True).start()

    def _run_for_ever(self, beat: tuple[Any, ...]) -> None:
        try:
            self._loop.run_until_complete(self._beat(beat))
        except Exception as error:
            self._end(error)

    async def _beat(self, beat: tuple[Any, ...]) -> None:
        while True:
            await asyncio.sleep(BEAT_SECONDS)
            await self._fetch(*beat)

    def ask(self, statement: str, *arguments: Any) -> tuple[Any, ...]:
        """Return the row that a statement gives. Raises LedgerError; asyncpg's errors of a schema that is not there."""
        asking = self._fetch(statement, *arguments)
        try:
            return self._wait(asking)
        except _NO_SCHEMA:
            raise
        except Exception as error:  # what asyncpg raises when a connection ends under a query is not of one kind
            raise LedgerError(f"the database: {type(error).__name__}: {error}") from error

    def _wait(self, asking: Coroutine[Any, Any, T]) -> T:
        if self._is_served:
            return asyncio.run_coroutine_threadsafe(asking, self._loop).result()
        return self._loop.run_until_complete(asking)

    async def _fetch(self, statement: str, *arguments: Any) -> tuple[Any, ...]:
        """Nothing is ever cancelled: the database would answer a cancelled commit with success."""
        why = TimeoutError(f"the database has not answered within {ANSWER_SECONDS_MAX:g} s: is a standby connected?")
        late = self._loop.call_later(ANSWER_SECONDS_MAX, self._end, why)
        try:
            async with self._turn:
                return tuple(await self._connection.fetchrow(statement, *arguments))
        finally:
            late.cancel()

    def close(self) -> None:
        """Hang up; only before `serve`."""
        self._release()
        self._connection.terminate()
        self._loop.close()


class TwoLedgers:
    """Our own ledger and the shared one. The caller has opened both, and closes them."""

    def __init__(self, own: Ledger, database: Database) -> None:
        self._own, self._database = own, database
        self._instance, self._ledger, self._writes = own.shared()
        self._there = Memory()  # what the shared one says of the channel that was asked for last

    def begin(self, network: str, pubkey: bytes, source: str, adopt: bool = False) -> str:
        """See whose the shared ledger is, and give it what is ours unless it has that. Return a line that says what was done, or
        nothing. adopt: whatever ledger ours belonged to so far. Raises ConfigError; LedgerError."""
        try:
            ledger, writes = self._database.ask(_BEGIN, self._instance, network, pubkey)
        except _NO_SCHEMA:
            raise ConfigError(
                f"{source}: postgres: the database has no ledger for this role; `paychan-store postgres init` makes it"
            ) from None
        except LedgerError as error:
            if getattr(error.__cause__, "sqlstate", "") == _REFUSED:
                raise ConfigError(f"{source}: postgres: {error.__cause__}") from error
            raise
        if self._ledger not in (None, ledger) and not adopt:
            raise ConfigError(
                f"{source}: postgres: this is another database than the one that this signer's ledger belongs to; "
                f"if it is the right one, `paychan-signer --load {source}` gives it what is in ours"
            )
        said = ""
        if adopt or self._ledger is None:
            said = f"the shared ledger was given ours: {self._load()} channels"
        elif writes < self._writes:
            said = (
                f"the database has lost what was confirmed: it knows {writes} writes of {self._writes}; it was given ours again: "
            )
            said += f"{self._load()} channels"
        self._ledger = ledger
        self._confirmed(self._database.ask(_BEAT, self._instance)[0])
        return said

    def _load(self) -> int:
        signed = self._own.all_signed()
        for statement, rows in ((_LOAD, signed), (_LOAD_NOTES, self._own.all_noted()), (_LOAD_FEES, self._own.all_fees())):
            for at in range(0, len(rows), ROWS):
                columns = [list(column) for column in zip(*rows[at : at + ROWS], strict=True)]
                self._database.ask(statement, self._instance, *columns)
        return len(signed)

    def serve(self) -> None:
        """Answer from now on, with the connection in a thread of its own."""
        self._database.serve((_BEAT, self._instance))

    def _confirmed(self, writes: int) -> None:
        """Remember how far the database must have come from now on."""
        assert self._ledger is not None
        self._own.note_shared(self._ledger, writes)

    def get(self, outpoint: bytes, now: int) -> Memory:
        """Return what a judgement depends on. now: unix seconds. Raises LedgerError."""
        row = self._database.ask(_MEMORY, outpoint, _since(now), now)
        signed = None if row[0] is None else Record(*row[:4])
        self._there = Memory(signed, row[4], row[5])
        return stricter(self._own.get(outpoint, now), self._there)

    def keep(self, outpoint: bytes, memory: Memory, record: Record, now: int) -> bool:
        """Make durable in both what was judged on what `get` gave last; return whether it is. Raises LedgerError."""
        there = self._there
        seen = there.signed.versions if there.signed else 0, there.fees_of_the_day
        row = outpoint, record.change_value, record.fee, record.versions, record.txid
        number, is_done = self._database.ask(_PUT, self._instance, *row, *seen, _since(now), now)
        self._confirmed(number)
        if is_done and self._own.get(outpoint, now).signed != record:
            self._own.put(outpoint, record, now, again=record == memory.signed)
        return bool(is_done)

    def note(self, outpoint: bytes, change_value: int, now: int) -> None:
        """Make it durable in both that a payment left the payer so much (satoshi). Raises LedgerError."""
        (number,) = self._database.ask(_NOTE, self._instance, outpoint, change_value, now)
        self._confirmed(number)
        self._own.note(outpoint, change_value, now)

    def forget_note(self, outpoint: bytes) -> bool:
        """Forget in both what was noted for an outpoint; return whether anything was. Raises LedgerError."""
        number, is_gone = self._database.ask(_FORGET, self._instance, outpoint)
        self._confirmed(number)
        return self._own.forget_note(outpoint) or bool(is_gone)


def _since(now: int) -> int:
    return max(0, now - DAY_SECONDS + 1)


def stricter(one: Memory, other: Memory) -> Memory:
    """Return what both allow."""
    noted = [memory.noted for memory in (one, other) if memory.noted is not None]
    fees = max(one.fees_of_the_day, other.fees_of_the_day)
    return Memory(_stricter_record(one.signed, other.signed), min(noted, default=None), fees)


def _stricter_record(one: Record | None, other: Record | None) -> Record | None:
    """Return the record that leaves the payer less, and pays more of it. If the other has had no fewer versions, one of the two
    memories was set back; so that both can keep it, it counts as a version more."""
    if one is None or other is None or one == other:
        return one or other
    counts, less = sorted((one, other), key=lambda record: (record.change_value, -record.fee, -record.versions))
    return replace(counts, versions=max(counts.versions, less.versions + 1))
