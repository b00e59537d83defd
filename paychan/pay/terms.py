"""What a server asks of those who pay it, and whether a purse may agree (pure). The wire form is docs/PAYMENT_SCHEME.md's."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from coincurve import PublicKey

from ..client.record import CONFIRMATIONS_MAX, HOURS_MAX, Agreement
from ..client.wire import parse_url
from ..core.errors import Rejection
from ..core.network import BY_NAME, LIVE, Network, p2pkh_address
from ..core.outpoint import format_outpoint, parse_outpoint
from ..core.script import PUBKEY_SIZE
from ..core.units import DUST_LIMIT, LOCKTIME_MAX, MAX_MONEY, SECONDS_PER_HOUR, is_satoshi
from .errors import TermsRefused

CHANNEL_TYPE = "p2sh-cltv-1"
"""Redeem script, sighash and payment form of protocol v1: the one kind of channel that this version knows."""

PREPAY_FACTOR = 20
"""maxPrepay, in units of the amount, where the server does not say."""


@dataclass(frozen=True)
class Terms:
    """What a server asks. origin: whom it is asked of, scheme://host[:port]. Money in satoshi, durations in seconds.

    recipient: the server's public key. duration_min, duration_max: from now to the expiry, beyond the settlement period. delta_min:
    the least that a payment must add. prepay_max: how far it may run ahead of what is required. api: where the channel's own API
    is, empty if that was not said.
    """

    origin: str
    network: Network
    recipient: bytes
    amount: int
    open_price: int
    settlement_period: int
    duration_min: int
    duration_max: int
    confirmations: int
    delta_min: int
    prepay_max: int
    funding_max: int | None = None
    suggested_deposit: int | None = None
    api: str = ""

    @property
    def cost(self) -> int:
        """What one request adds to what was spent, if it adds to the payment at all."""
        return self.amount


def chain_id(network: Network) -> str:
    """Return the CAIP-2 name of a network's chain."""
    return f"bip122:{network.genesis[:32]}"


def channel_id(outpoint: bytes) -> str:
    """Return a channel's name on the wire: TXID:VOUT."""
    return format_outpoint(outpoint).replace("/", ":")


def parse_channel_id(text: object) -> bytes:
    """Return the outpoint that a channelId spells. Raises ValueError."""
    txid, _, vout = text.partition(":") if isinstance(text, str) else ("", "", "")
    try:
        return parse_outpoint(txid, vout)
    except Rejection as error:
        raise ValueError("no channelId") from error


def read_terms(origin: str, request: Mapping[str, Any], network: Network | None = None) -> Terms:
    """Return what the decoded `request` of a challenge asks for. Raises TermsRefused for what this version cannot pay.

    network: the one that is expected; it also tells a testnet from another where both have the same first block.
    """
    details = request.get("methodDetails")
    if not isinstance(details, Mapping):
        raise TermsRefused("the server's methodDetails are missing")
    if request.get("currency") != "sat":
        raise TermsRefused("the server asks for another currency than sat")
    if details.get("channelType") != CHANNEL_TYPE:
        raise TermsRefused(f"the server wants a channel of another type than {CHANNEL_TYPE}")
    if details.get("version", 1) != 1:
        raise TermsRefused("the server speaks a later version of the payment method")
    amount = _satoshi(request, "amount")
    if not amount or _satoshi(details, "dustLimit", DUST_LIMIT) != DUST_LIMIT:
        raise TermsRefused("the server's amount or dustLimit makes no sense")
    api = details.get("api", "")
    return Terms(
        origin=origin,
        network=_network(details.get("chain"), network),
        recipient=_key(request.get("recipient")),
        amount=amount,
        open_price=_satoshi(details, "openPrice"),
        settlement_period=_number(details, "settlementPeriod", 0, HOURS_MAX * SECONDS_PER_HOUR),
        duration_min=_number(details, "minDuration", 0, LOCKTIME_MAX),
        duration_max=_number(details, "maxDuration", 0, LOCKTIME_MAX),
        confirmations=_number(details, "fundingConfirmations", 0, CONFIRMATIONS_MAX),
        delta_min=_satoshi(details, "minVoucherDelta", amount),
        prepay_max=_satoshi(details, "maxPrepay", min(PREPAY_FACTOR * amount, MAX_MONEY)),
        funding_max=_satoshi(details, "maxFunding") if "maxFunding" in details else None,
        suggested_deposit=_satoshi(request, "suggestedDeposit") if "suggestedDeposit" in request else None,
        api=api if _is_url(api) else "",
    )


def check_way(terms: Terms) -> None:
    """Over plain http a stranger on the way could pose as the server. Raises TermsRefused."""
    server = parse_url(terms.origin)
    if terms.network is LIVE and not server.is_tls and not server.is_loopback:
        raise TermsRefused("the server asks for real bitcoins over plain http", "insecure_way")


def new_agreement(terms: Terms, client_pubkey: bytes, key_hash: bytes, exp_time: int, value: int) -> Agreement:
    """Return the agreement of a new channel, its change at the payer's own key."""
    return Agreement(
        server_url=terms.api or terms.origin,
        network=terms.network,
        server_pubkey=terms.recipient,
        client_pubkey=client_pubkey,
        exp_time=exp_time,
        change_address=p2pkh_address(terms.network, key_hash),
        settlement_period_hours=-(-terms.settlement_period // SECONDS_PER_HOUR),
        funding_tx_min_conf=terms.confirmations,
        open_price=terms.open_price,
        planned_value=value,
        confirmations_needed=terms.confirmations,
        open_before=exp_time - terms.settlement_period - terms.duration_min,
    )


def _network(chain: object, expected: Network | None) -> Network:
    found = [network for network in BY_NAME.values() if chain_id(network) == chain]
    if expected is not None and expected in found:
        return expected
    if not found:
        raise TermsRefused("the server is on a chain that this version does not know", "wrong_network")
    if expected is not None:
        raise TermsRefused(f"the server is on network {found[0].name}, not on {expected.name}", "wrong_network")
    return found[0]


def _key(text: object) -> bytes:
    try:
        key = bytes.fromhex(text) if isinstance(text, str) and len(text) == 2 * PUBKEY_SIZE else b""
        PublicKey(key)
    except ValueError as error:
        raise TermsRefused("the server's key is no public key") from error
    return key


def _satoshi(part: Mapping[str, Any], name: str, default: int | None = None) -> int:
    """Return an amount, which the wire has as a plain decimal string."""
    text = part.get(name, default)
    if isinstance(text, str) and text.isascii() and text.isdigit() and len(text) <= 16:
        text = int(text) if text == "0" or text[0] != "0" else None
    if not is_satoshi(text):
        raise TermsRefused(f"the server's {name} is no amount")
    return text


def _number(part: Mapping[str, Any], name: str, low: int, high: int) -> int:
    found = part.get(name)
    if type(found) is not int or not low <= found <= high:
        raise TermsRefused(f"the server's {name} makes no sense")
    return found


def _is_url(text: object) -> bool:
    try:
        return isinstance(text, str) and bool(parse_url(text))
    except ValueError:
        return False
