"""`purse.toml` in a purse's directory: what may be spent, on which network, where channels' money comes from. All is optional.

[budget]           # satoshi, or "none"
request = 1000     # for one request
host = 20000       # for one host in a day
hour = 10000
day = 50000
opening = 100000   # what servers keep for opening channels, in a day; not counted above
deposit = 1000000  # locked up in one channel; not spent

[channels]
network = "live"   # refuse all others
deposit = 300000   # lock up so much in each channel; else what the server suggests
days = 30          # how long a channel lives

[wallet]           # a Bitcoin node whose wallet funds channels by itself
bitcoind = "http://127.0.0.1:8332"
cookie = "/var/lib/bitcoind/.cookie"
name = "payer"     # of the wallet, if the node has several
# or, to look for what you paid by hand:
esplora = "https://blockstream.info/api"
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path

from ..client import Agreement, Funding
from ..client.sources import Esplora, FundingSource, NodeAddress, choose, parse_node_url
from ..client.wire import parse_url
from ..core.network import BY_NAME, Network
from ..core.units import MAX_MONEY, is_satoshi
from ..settings.sections import Section, read_sections
from .budget import Budget
from .node import NodeWallet
from .wallets import ByHand, Wallet

FILE = "purse.toml"
DAYS_DEFAULT = 30
DAYS_MAX = 3650


@dataclass(frozen=True)
class PurseSettings:
    """What purse.toml says. deposit: satoshi, None: what the server suggests."""

    budget: Budget = Budget()
    network: Network | None = None
    deposit: int | None = None
    days: int = DAYS_DEFAULT
    node: NodeAddress | None = None
    cookie: Path | None = None
    wallet_name: str = ""
    esplora: str = ""

    def wallet(self) -> Wallet | None:
        """Return what funds channels, None if nothing is named."""
        if self.node is not None:
            return NodeWallet(self.node, self.cookie, self.wallet_name)
        return looking(lambda _: Esplora(self.esplora)) if self.esplora else None


def looking(source_on: Callable[[Network], FundingSource]) -> ByHand:
    """Return the payer's own hands, with somebody who looks whether it has paid. source_on: who looks on a network."""

    def look(agreed: Agreement) -> Funding | None:
        found = choose(agreed, source_on(agreed.network).find(agreed))
        return found.funding if found is not None else None

    return ByHand(look)


def read_settings(directory: Path) -> PurseSettings:
    """Return what DIRECTORY/purse.toml says, the defaults if it is not there. Raises ConfigError with all that is wrong."""
    path = directory / FILE
    if not path.exists():
        return PurseSettings()
    top = read_sections(path)
    channels, wallet = top.table("channels"), top.table("wallet")
    settings = PurseSettings(
        budget=_budget(top.table("budget")),
        network=_network(channels),
        deposit=channels.integer("deposit", 1, MAX_MONEY) if channels.has("deposit") else None,
        days=channels.integer("days", 1, DAYS_MAX, DAYS_DEFAULT),
        node=_node(wallet),
        cookie=wallet.path("cookie"),
        wallet_name=wallet.text("name", ""),
        esplora=_url(wallet, "esplora"),
    )
    top.finish(settings)
    return settings


def _budget(section: Section) -> Budget:
    limits: dict[str, int | None] = {}
    for field in fields(Budget):
        if not section.has(field.name):
            continue
        if section.peek(field.name) == "none":
            section.text(field.name)
            limits[field.name] = None
        else:
            limits[field.name] = section.integer(field.name, 0, MAX_MONEY)
    return Budget(**{name: most for name, most in limits.items() if most is None or is_satoshi(most)})  # what is wrong was noted


def _network(section: Section) -> Network | None:
    name = section.text("network", "")
    if name and name not in BY_NAME:
        section.fail("network", f"must be one of {', '.join(sorted(BY_NAME))}")
    return BY_NAME.get(name)


def _node(section: Section) -> NodeAddress | None:
    text = section.text("bitcoind", "")
    try:
        return parse_node_url(text) if text else None
    except ValueError as error:
        section.fail("bitcoind", str(error))
        return None


def _url(section: Section, key: str) -> str:
    text = section.text(key, "")
    try:
        if text:
            parse_url(text)
    except ValueError as error:
        section.fail(key, str(error))
    return text
