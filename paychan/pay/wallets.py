"""Where a new channel's money comes from. A wallet is asked again until it has paid, so it looks first for what it paid before."""

from collections.abc import Callable
from decimal import Decimal
from typing import Protocol
from urllib.parse import quote

from ..chain.debug import DEBUG_FUNDING_VALUE
from ..client import Agreement, Funding
from ..client.debug import debug_funding
from ..core.network import TEST, Network
from ..core.units import COIN, DUST_LIMIT
from .errors import FundingNeeded, TermsRefused
from .terms import Terms

REQUESTS_MEANT = 500
"""How many requests a channel is made for, where neither side says how much to lock up."""


class Wallet(Protocol):
    """Pays channels' funding outputs. `is_free`: no money moves, so no budget bounds what is locked up."""

    is_free: bool

    def fund(self, name: str, agreed: Agreement) -> Funding:
        """Return the output that funds a channel, made now if it was not before. Raises FundingNeeded, Refused, Unreachable."""


def payment_uri(name: str, agreed: Agreement) -> str:
    """Return the BIP 21 line that a wallet reads, to pay what was agreed to the channel `name`."""
    amount = f"amount={Decimal(agreed.planned_value) / COIN:.8f}&" if agreed.planned_value else ""
    return f"bitcoin:{agreed.funding_address}?{amount}label={quote('paychan ' + name)}"


def deposit(terms: Terms, wallet: Wallet, wanted: int | None) -> int:
    """Return how much to lock up, in satoshi: what the payer wants, else what the server suggests. Raises TermsRefused."""
    least = terms.open_price + terms.amount + DUST_LIMIT
    meant = wanted or terms.suggested_deposit or terms.open_price + REQUESTS_MEANT * terms.amount + DUST_LIMIT
    value = DEBUG_FUNDING_VALUE if isinstance(wallet, DebugWallet) else max(meant, least)
    if terms.funding_max is not None and not wallet.is_free:
        value = min(value, terms.funding_max)
    if value < least:
        raise TermsRefused(f"a channel of at most {value} satoshi does not pay for its opening", "too_small")
    return value


class DebugWallet:
    """For servers in debug mode: the output that nobody ever made. On network test only."""

    is_free = True

    def fund(self, name: str, agreed: Agreement) -> Funding:
        return debug_funding(agreed)


class ByHand:
    """The payer pays by a wallet of its own. look: finds the payment on the chain, None where nobody can look."""

    is_free = False

    def __init__(self, look: Callable[[Agreement], Funding | None] | None = None) -> None:
        self._look = look

    def fund(self, name: str, agreed: Agreement) -> Funding:
        found = self._look(agreed) if self._look else None
        if found is not None:
            return found
        value = agreed.planned_value or 0
        detail = f"pay {value} satoshi to {agreed.funding_address}, for channel {name}"
        raise FundingNeeded(detail, name, agreed.funding_address, value, payment_uri(name, agreed))


def wallet_for(network: Network, wallet: Wallet | None) -> Wallet:
    """Return the wallet that funds channels on a network. Without one, channels on network test are tried as a server in debug mode
    has them: no money can be lost by it."""
    if wallet is not None:
        return wallet
    return DebugWallet() if network is TEST else ByHand()
