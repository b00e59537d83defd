"""The source of the chain: the Bitcoin node or the explorers, asked as the server asks them, by the server's own rules."""

import asyncio
import time
from dataclasses import dataclass

from ..chain.base import Tip
from ..chain.bitcoind import BitcoindChain, NodeFacts
from ..chain.esplora import EsploraChain
from ..chain.make import make_chain
from ..core.errors import ConfigError, Unavailable
from ..settings.models import ServerConfig
from .machine import Machine
from .verdicts import NotAsked, Verdict, bad, not_asked, ok, warning

SECONDS_MAX = 15.0
SLOW_SECONDS = 1.0
PEERS_MIN = 4
"""Connections to other nodes, below which few could keep blocks from us."""


@dataclass(frozen=True)
class Answer:
    """trouble: why the server would not trust the source, or empty. seconds: of all questions together."""

    trouble: str
    seconds: float
    tip: Tip | None = None
    node: NodeFacts | None = None


def ask(config: ServerConfig) -> Answer:
    """Ask the configured source. Raises NotAsked where there is none to ask."""
    if not config.chain.has_network:
        raise NotAsked(f"chain.backend is {config.chain.backend}: there is no source to ask")
    began = time.monotonic()
    try:
        chain = make_chain(config.chain, config.common, config.fee_per_byte)
        tip, node = asyncio.run(_ask(chain))
    except TimeoutError:
        return Answer("it does not answer in time", time.monotonic() - began)
    except (Unavailable, ConfigError) as error:
        return Answer(str(error) if isinstance(error, ConfigError) else error.detail, time.monotonic() - began)
    return Answer("", time.monotonic() - began, tip, node)


async def _ask(chain: object) -> tuple[Tip, NodeFacts | None]:
    assert isinstance(chain, BitcoindChain | EsploraChain)
    async with asyncio.timeout(SECONDS_MAX):
        try:
            if isinstance(chain, EsploraChain):
                await chain.start()
                return await chain.tip(), None
            await chain.check()
            return await chain.tip(), await chain.describe()
        finally:
            await chain.stop()


def source(machine: Machine) -> list[Verdict]:
    """Say whether the source would be trusted, and what of it costs something."""
    config = machine.server
    return judge(ask(config), config.chain.tip_age_max, int(time.time()), is_regtest=config.common.network.name == "regtest")


def judge(answer: Answer, tip_age_max: int, now: int, is_regtest: bool = False) -> list[Verdict]:
    """tip_age_max: seconds. now: unix seconds."""
    if answer.trouble:
        return [
            bad("trusted", answer.trouble, "see that it runs, is synced and lets us in; docs/OPERATING.md, To real money, step 1")
        ]
    found = [ok("trusted", "it answers, is of our network, and synced")]
    if answer.seconds > SLOW_SECONDS:
        found.append(warning("speed", f"its answers took {answer.seconds:.1f} s", "see what else it does; opens wait for it"))
    if answer.tip is not None:
        found.append(_age(now - answer.tip.time, answer.tip.height, tip_age_max))
    return found + (_node(answer.node, is_regtest) if answer.node is not None else [])


def _age(age: int, height: int, most: int) -> Verdict:
    text = f"its best block, {height}, is {age} seconds old"
    if age > most:
        return bad("tip", f"{text}; from {most} on it is not trusted", "see the node's connections, and the clock here")
    if age > most // 2:
        return warning(
            "tip", f"{text}; from {most} on it is not trusted", "nothing, if a block comes soon; else see the node's connections"
        )
    return ok("tip", text)


def _node(node: NodeFacts, is_regtest: bool) -> list[Verdict]:
    found = [ok("version", f"Bitcoin Core {node.version // 10_000}.{node.version // 100 % 100}")]
    if is_regtest:
        return found
    if node.peers < PEERS_MIN:
        found.append(warning("peers", f"it has {node.peers} connections", "few can keep blocks from it: see its network"))
    else:
        found.append(ok("peers", f"it has {node.peers} connections"))
    if node.is_pruned:
        found.append(warning("pruned", "it is pruned: some funding transactions cannot be had", "set prune=0; it syncs anew"))
    for name, why in (
        ("txindex", "old transactions are found only as far as its wallets have seen them"),
        ("basic block filter index", "a new address is looked for slowly"),
    ):
        key = {"txindex": "txindex=1", "basic block filter index": "blockfilterindex=1"}[name]
        has = ok(name, "it has it") if name in node.indexes else warning(name, f"it has none: {why}", f"set {key}, and restart it")
        found.append(has)
    if node.has_wallets:
        found.append(ok("wallets", "it has wallets"))
    else:
        found.append(bad("wallets", "it has no wallets: an open that names no outpoint is refused", "remove disablewallet=1"))
    if node.estimates_fees:
        found.append(ok("fees", "it estimates fees"))
    else:
        found.append(not_asked("fees", "it has no estimate yet; settlement.fee_per_byte is taken for one"))
    return found
