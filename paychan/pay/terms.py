"""What a server asks of those who pay it, and whether a purse may agree (pure). The wire form is docs/PAYMENT_SCHEME.md's."""

from dataclasses import dataclass

from coincurve import PublicKey

from ..client.record import CONFIRMATIONS_MAX, HOURS_MAX, Agreement
from ..client.wire import parse_url
from ..core.network import BY_NAME, LIVE, Network, p2pkh_address
from ..core.units import DUST_LIMIT, SECONDS_PER_HOUR
from ..mpp import CHANNEL_TYPE
from ..mpp.request import SessionRequest
from .errors import TermsRefused


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


def chain_id(network: Network) -> str:
    """Return the CAIP-2 name of a network's chain."""
    return f"bip122:{network.genesis[:32]}"


def read_terms(origin: str, request: SessionRequest, expected: Network | None = None) -> Terms:
    """Return what a challenge's request asks for. Raises TermsRefused for what this version cannot pay.

    expected: the network that the payer is on; it also tells a testnet from another that has the same first block.
    """
    details = request.details
    if details.channel_type != CHANNEL_TYPE:
        raise TermsRefused(f"the server wants a channel of another type than {CHANNEL_TYPE}", "other_channel_type")
    if details.dust_limit != DUST_LIMIT:
        raise TermsRefused(f"the server's dust limit is not {DUST_LIMIT} satoshi")
    if details.settlement_period > HOURS_MAX * SECONDS_PER_HOUR or details.funding_confirmations > CONFIRMATIONS_MAX:
        raise TermsRefused("the server's settlementPeriod or fundingConfirmations makes no sense")
    try:
        PublicKey(request.recipient)
    except ValueError as error:
        raise TermsRefused("the server's key is no public key") from error
    return Terms(
        origin=origin,
        network=_network(details.chain, expected),
        recipient=request.recipient,
        amount=request.amount,
        open_price=details.open_price,
        settlement_period=details.settlement_period,
        duration_min=details.min_duration,
        duration_max=details.max_duration,
        confirmations=details.funding_confirmations,
        delta_min=request.min_voucher_delta,
        prepay_max=request.max_prepay,
        funding_max=details.max_funding,
        suggested_deposit=request.suggested_deposit,
        api=details.api or "" if _is_url(details.api) else "",
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


def told_terms(agreed: Agreement) -> Terms:
    """Return what a channel's own record tells of its terms; for a turn that signs nothing."""
    period = agreed.settlement_period_hours * SECONDS_PER_HOUR
    shape = (period, 0, 0, agreed.confirmations, 1, 0)
    return Terms(parse_url(agreed.server_url).origin, agreed.network, agreed.server_pubkey, 1, agreed.open_price, *shape)


def _network(chain: str, expected: Network | None) -> Network:
    found = [network for network in BY_NAME.values() if chain_id(network) == chain]
    if expected is not None and expected in found:
        return expected
    if not found:
        raise TermsRefused("the server is on a chain that this version does not know", "wrong_network")
    if expected is not None:
        raise TermsRefused(f"the server is on network {found[0].name}, not on {expected.name}", "wrong_network")
    return found[0]


def _is_url(text: object) -> bool:
    try:
        return isinstance(text, str) and bool(parse_url(text))
    except ValueError:
        return False
