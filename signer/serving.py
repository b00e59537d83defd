"""The command `paychan-signer`: `paychan-signer FILE` runs, `paychan-signer --init KEYFILE` makes a key, after a restore of an
old backup `paychan-signer --forget-note FILE TXID/VOUT` has a channel settled by what is left of it, and
`paychan-signer --load FILE` gives another database than before what this signer remembers."""

import argparse
import asyncio
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import uvloop

from paychan import __version__, logs, printing
from paychan.clock import wall_clock
from paychan.core.errors import ConfigError, Rejection
from paychan.core.network import LIVE
from paychan.core.outpoint import format_outpoint, parse_outpoint
from paychan.exits import EXIT_FAILED, status_of
from paychan.hangup import HangUp
from paychan.notify import Manager
from paychan.parts import require_cluster
from paychan.rpc.connection import bind
from paychan.settings.load import load_signer_config
from paychan.settings.models import SignerConfig

from .hardening import forbid_dumps, harden_early, harden_late
from .keys import create_key, load_key, public_key, publish_public_key
from .ledger import Ledger, LedgerError, lock_directory
from .policy import Policy
from .server import SignerServer

if TYPE_CHECKING:
    from .shared import TwoLedgers

DESCRIPTION = """Run the signer with the configuration in FILE until SIGTERM or SIGINT; or make a key, and print its public key; or
forget the payment that was noted for a channel; or load what this signer remembers into the database that all share."""
EPILOG = """environment: PAYCHAN_STATE_DIR overrides state_dir
exit statuses: 0 stopped by a signal, or the key is made; 2 wrong usage, or a configuration that must not run;
  10 the key is made, but its public key could not be printed; 70 the disk failed, or the database: look at it, then start again"""

log = logging.getLogger("paychan.signer")
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
REPEAT_SECONDS = 10.0
"""Between two lines that say the same while the database is waited for."""
NOBODYS = bytes(36)
"""An outpoint that no channel has."""


def main() -> int:
    """Run the command; return its exit status: 0, 2 for a wrong command line or configuration, 70 for a disk that fails."""
    return printing.run("paychan-signer", command)


def command() -> int:
    """Do the same in a process that `printing.run` looks after."""
    given = _parser().parse_args()
    try:
        if given.init is not None:
            initialise(Path(given.init).absolute())
        elif given.forget_note is not None:
            forget_note(*given.forget_note)
        elif given.load is not None:
            load(given.load)
        else:
            run(given.file)
    except ConfigError as error:
        printing.say(f"paychan-signer: {error}")
        return status_of(error)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="paychan-signer",
        usage="%(prog)s FILE | %(prog)s --init KEYFILE | %(prog)s --forget-note FILE TXID/VOUT | %(prog)s --load FILE",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("file", nargs="?", metavar="FILE", help="signer.toml")
    what.add_argument("--init", metavar="KEYFILE", help="make a key in a new file, and print its public key")
    what.add_argument(
        "--forget-note",
        nargs=2,
        metavar=("FILE", "TXID/VOUT"),
        help="after a restore of an old backup: have this channel settled by what is left of it",
    )
    what.add_argument("--load", metavar="FILE", help="give the database that FILE names what is in this signer's own ledger")
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    return parser


def initialise(key_file: Path) -> None:
    """Make a key file and print its public key. Raises ConfigError if the file exists or cannot be made."""
    try:
        forbid_dumps()
        key = create_key(key_file)
    except OSError as error:
        raise ConfigError(f"{key_file}: the key file cannot be made: {error.strerror}") from error
    printing.show(public_key(key).hex())


def forget_note(config_file: str, text: str) -> None:
    """Forget which payment was noted for a channel, and say so: settlements that leave its payer more are signed again. That is for
    who restored a store from before the note, and knows that the payer does not come again. Raises ConfigError, also while a
    signer runs."""
    try:
        outpoint = parse_outpoint(*text.split("/")) if text.count("/") == 1 else None
    except Rejection:
        outpoint = None
    if outpoint is None:
        raise ConfigError(f"{text[:80]!r} is no outpoint: TXID/VOUT")
    with _ledgers(load_signer_config(config_file)) as (own, both, _):
        was_noted = (both or own).forget_note(outpoint)
    printing.show(f"{'forgotten' if was_noted else 'nothing was noted'}: {format_outpoint(outpoint)}")


def load(config_file: str) -> None:
    """Give the shared ledger what is in our own, which belongs to that one from now on. Again, it changes nothing. Raises
    ConfigError, also while a signer runs."""
    config = load_signer_config(config_file)
    if config.postgres is None:
        raise ConfigError(f"{config.common.source}: postgres: is missing: there is no ledger but this signer's own")
    with _ledgers(config, adopt=True) as (_, __, said):
        printing.show(said)


@contextmanager
def _ledgers(config: SignerConfig, adopt: bool = False) -> "Iterator[tuple[Ledger, TwoLedgers | None, str]]":
    """Give a command our ledger, both where there are two, and what beginning with those said. Raises ConfigError."""
    common = config.common
    forbid_dumps()
    lock_directory(common.state_dir / "signer", common.source)
    pubkey = public_key(load_key(config))
    own = Ledger(common.state_dir / "signer", common.network.name, pubkey, common.source)

    def refuse(why: str) -> NoReturn:
        raise ConfigError(f"{common.source}: postgres: {why}")

    try:
        both = _both(config, own, refuse)
        said = both.begin(common.network.name, pubkey, common.source, adopt) if both else ""
        yield own, both, said
    except LedgerError as error:
        where = "postgres" if config.postgres else "state_dir"
        raise ConfigError(f"{common.source}: {where}: the ledger cannot be written: {error}") from error
    finally:
        own.close()


def _both(config: SignerConfig, own: Ledger, say: Callable[[str], object]) -> "TwoLedgers | None":
    """Return our ledger beside the shared one, or None where there is none. say: is told what is waited for."""
    if config.postgres is None:
        return None
    require_cluster("paychan-signer")
    from .shared import Database, TwoLedgers

    return TwoLedgers(own, Database(config.postgres, say, _fatal_because))


def run(config_file: str) -> None:
    """Run the signer until SIGTERM or SIGINT. Raises ConfigError."""
    config = load_signer_config(config_file)
    if config.common.network is LIVE and not config.address.path:
        raise ConfigError(f"{config.common.source}: signer.address: must be a Unix socket on network live")
    manager = Manager()
    logs.set_up("signer", config.common.log)
    hang_up = HangUp()

    def leave(status: int) -> None:
        """A database may be waited for, and that wait is not worth a word."""
        if config.postgres is not None:
            os._exit(status)
        sys.exit(status)

    for number in STOP_SIGNALS:  # until the event loop takes them over: nothing is in flight yet
        signal.signal(number, lambda *_: leave(0))
    signal.signal(signal.SIGHUP, lambda *_: hang_up.heard(lambda: leave(0)))
    try:
        uvloop.run(_serve(config, hang_up, manager, *_open(config)))
        if config.postgres is not None:
            os._exit(0)  # the thread with the connection has nothing to end
    except OSError as error:
        raise ConfigError(f"{config.common.source}: {error.filename or config.address}: {error.strerror}") from error


def _open(config: SignerConfig) -> "tuple[Policy, Ledger | TwoLedgers, socket.socket]":
    """Return what signing needs, the key read by a process that has given up what it can.

    The lock comes first, so that two signers cannot both make a key. The socket is bound before the process loses the ability to
    make one, and so is the database asked, which may take long. The event loop comes after: uvloop's takes an io_uring if it may,
    and what is asked there no filter sees.
    """
    common = config.common
    directory = common.state_dir / "signer"
    os.umask(0o077)
    done, failed = harden_early()
    lock_directory(directory, common.source)
    key = load_key(config)
    pubkey = public_key(key)
    ledger = Ledger(directory, common.network.name, pubkey, common.source)
    publish_public_key(config.public_key_file, pubkey)
    sock = bind(config.address)
    both = _begin(config, ledger, pubkey)
    _tell(config, *harden_late(key.secret, done, failed))
    if both is not None:
        both.serve()
    return Policy.of(config, key), both or ledger, sock


def _begin(config: SignerConfig, own: Ledger, pubkey: bytes) -> "TwoLedgers | None":
    """Return our ledger beside the shared one, which has confirmed that we begin. Raises ConfigError."""
    both = _both(config, own, Repeated(log.warning))
    try:
        said = both.begin(config.common.network.name, pubkey, config.common.source) if both else ""
    except LedgerError as error:
        _fatal_because(error)
    if said:
        log.warning("%s", said)
    return both


class Repeated:
    """Hands a text on when it is another one than before, or that was long ago."""

    def __init__(self, say: Callable[[str], object]) -> None:
        self._say, self._last, self._said_at = say, "", 0.0

    def __call__(self, text: str) -> None:
        if text != self._last or time.monotonic() - self._said_at > REPEAT_SECONDS:
            self._last, self._said_at = text, time.monotonic()
            self._say(text)


def _tell(config: SignerConfig, done: list[str], failed: list[str], needed: list[str]) -> None:
    """Say in one line what the process gave up. Raises ConfigError if that is too little for this configuration."""
    log.info("hardened: %s%s", ", ".join(done), f"; not possible: {'; '.join(failed)}" if failed else "")
    if needed and config.hardening_required:
        raise ConfigError(f"{config.common.source}: signer.hardening_required: not possible: {'; '.join(needed)}")
    if needed:
        log.warning("the key is less safe than it could be: %s", "; ".join(needed))


async def _serve(
    config: SignerConfig, hang_up: HangUp, manager: Manager, policy: Policy, ledger: "Ledger | TwoLedgers", sock: socket.socket
) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in STOP_SIGNALS:
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, hang_up.heard, stop.set)
    clock = wall_clock(config.common.clock_start)
    signer = SignerServer(policy, ledger, clock, _fatal, on_tcp=not config.address.path, user=config.common.users.server)
    server = await signer.listen(config.address, sock)
    log.info("ready at %s, network %s, key %s", config.address, config.common.network.name, policy.pubkey.hex())
    if policy.waive_funding_proof:
        log.info("debug mode: funding transactions are not asked for")
    manager.ready(f"signs at {config.address}")
    proving = asyncio.create_task(_prove_life(manager, ledger, clock))
    await stop.wait()
    manager.stopping()
    proving.cancel()
    server.close()  # the ledger stays open: a request in flight may still come, and every row is on disk already


async def _prove_life(manager: Manager, ledger: "Ledger | TwoLedgers", clock: Callable[[], int]) -> None:
    """Feed the watchdog each time that the ledger, which every signature needs, has answered on the event loop."""
    while seconds := manager.beat_seconds:
        ledger.get(NOBODYS, clock())
        manager.alive()
        await asyncio.sleep(seconds)


def _fatal() -> NoReturn:
    """End at once. Whether the last row reached the disk is unknown, and a failed sync may be reported only once."""
    os._exit(EXIT_FAILED)


def _fatal_because(error: Exception) -> NoReturn:
    """Say why, and end."""
    try:
        log.critical("the shared ledger failed, the signer ends: %s: %s", type(error).__name__, error)
    finally:
        _fatal()
