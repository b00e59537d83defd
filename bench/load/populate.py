"""`python -m bench.load.populate CONFIG_DIR --channels N`: makes N open channels in a store, through its own COMMIT frames.

Each channel has a key and an outpoint of its own, and an opening payment that is truly signed (some 50 µs a channel in all).
`Payer(seed, i, server key)` with `was_opened()` is channel i's payer. The command starts signer and store itself, so no server
may run on that configuration; PAYCHAN_STATE_DIR says where the state is, as always.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.load.failure import Failed, await_, last_line, positive
from bench.load.payers import Payer
from bench.load.processes import spawn, stop_politely
from bench.load.progress import Progress
from bench.load.store_feed import StoreFeed, listens
from paychan import printing
from paychan.core.channel import ABSENT
from paychan.core.errors import ConfigError
from paychan.rpc.connection import Address
from paychan.rpc.store_messages import ENTRIES_MAX
from paychan.settings.load import load_signer_config, load_store_config

NAME = "python -m bench.load.populate"
SEED = "many"
AHEAD = 2
"""Frames: the store writes one while the next is being signed."""


def populate(
    address: Address, server_pubkey: bytes, channels: int, seed: str = SEED, report: Callable[[int], None] = lambda _: None
) -> None:
    """Create channels 0 to `channels` - 1 of `seed`; `report` gets how many more were sent. Raises Failed."""
    feed = StoreFeed(address, server_pubkey)

    def frames() -> Iterator[bytes]:
        for first in range(0, channels, ENTRIES_MAX):
            numbers = range(first, min(channels, first + ENTRIES_MAX))
            yield feed.frame([_creation(feed, Payer(seed, number, server_pubkey)) for number in numbers])
            report(len(numbers))

    try:
        feed.commit(frames(), AHEAD)
    finally:
        feed.close()


def _creation(feed: StoreFeed, payer: Payer) -> bytes:
    terms, state = payer.records()
    return feed.entry(payer.terms.outpoint, ABSENT, payer.terms.funding_value, state, terms)


def opened_payer(number: int, server_pubkey: bytes, seed: str = SEED) -> Payer:
    """Return the payer of a channel that `populate` made."""
    payer = Payer(seed, number, server_pubkey)
    payer.was_opened()
    return payer


def run(config: Path, channels: int, seed: str) -> None:
    """Start signer and store of a configuration, populate, stop them. Raises Failed, ConfigError, OSError."""
    store = load_store_config(config / "store.toml")
    if not store.common.debug:
        raise Failed("debug mode only")
    key_file = load_signer_config(config / "signer.toml").public_key_file
    log = Path(tempfile.mkstemp(prefix="populate-", suffix=".log")[1])
    children = [spawn(name, (config / f"{name}.toml").absolute(), log=log) for name in ("signer", "store")]
    progress = Progress(channels)

    def is_up() -> bool:
        if any(child.poll() is not None for child in children):
            raise Failed(f"signer or store ended: {last_line(log)}")
        return key_file.exists() and listens(store.address)

    try:
        await_(is_up, 30, f"starting the store ({log})")
        key = bytes.fromhex(key_file.read_text().strip())
        populate(store.address, key, channels, seed, lambda count: progress.step("channels", count))
    finally:
        progress.end()
        stop_politely(reversed(children))
    log.unlink()


def main() -> int:
    """Parse the command line, populate; return the exit status."""
    parser = argparse.ArgumentParser(prog=NAME, description=__doc__.splitlines()[0])
    parser.add_argument("config", type=Path, metavar="CONFIG_DIR")
    parser.add_argument("--channels", type=positive, default=1_000_000)
    parser.add_argument("--seed", default=SEED)
    arguments = parser.parse_args()
    begun = time.monotonic()
    try:
        run(arguments.config, arguments.channels, arguments.seed)
    except (Failed, ConfigError, OSError) as error:
        printing.say(f"{NAME}: {error}")
        return 1
    printing.show(f"{arguments.channels} channels in {time.monotonic() - begun:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(printing.run(NAME, main))
