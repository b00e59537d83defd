"""What a server offers, and whether a payer may lock money up on it (sans I/O). All of it is judged before an address is told."""

from dataclasses import dataclass

from coincurve import PublicKey

from ..core.errors import Rejection
from ..core.network import BY_NAME, Network, decode_address
from ..core.script import PUBKEY_SIZE, funding_address, redeem_script
from ..core.units import DUST_LIMIT, LOCKTIME_MAX, is_expiry, is_satoshi
from .answers import read_object, read_problem
from .errors import InvalidAmount, OutcomeUnknown, Refused, ServerMisbehaved, Unreachable, WrongNetwork
from .record import CONFIRMATIONS_MAX, HOURS_MAX, Agreement
from .steps import Chances, RetryPolicy, Steps, persist
from .wire import Reply

BLOCK_SECONDS = 600
"""How long a confirmation takes, on average."""

_KEYS_OF_2016 = ("server_pubkey", "funding_address_copy", "settlement_period_hours", "funding_tx_min_conf", "open_price")
_REFUSALS_OF_THE_AMOUNT = ("funding_too_large", "open_price_short")


@dataclass(frozen=True)
class Proposal:
    """The channel that a payer wants. exp_time: unix seconds. funding_value: satoshi that it means to lock up, None: unsaid."""

    server_url: str
    network: Network
    client_pubkey: bytes
    exp_time: int
    change_address: str
    funding_value: int | None = None


@dataclass(frozen=True)
class Offer:
    """A server's FundingInfo, each value of the right form. What is None, the server does not tell: older ones do not."""

    server_pubkey: bytes
    funding_address_copy: object
    settlement_period_hours: int
    funding_tx_min_conf: int
    open_price: int
    network: str | None = None
    funding_value_max: int | None = None
    confirmations_needed: int | None = None
    dust_limit: int | None = None
    exp_time_min: int | None = None
    exp_time_max: int | None = None


def ask_terms(proposal: Proposal, now: int, policy: RetryPolicy, chances: Chances) -> Steps[Agreement]:
    """Ask the server for its terms, and agree on a channel. now: unix seconds.

    Raises Refused, WrongNetwork, InvalidAmount, ServerMisbehaved, Unreachable. Then nobody has been told where to pay.
    """
    value = proposal.funding_value
    if value is not None and not (is_satoshi(value) and value > 0):
        raise InvalidAmount("the funding value must be a positive number of satoshi")
    if not is_expiry(proposal.exp_time):
        raise Refused("no channel can expire before 1985-11-05 or after 2106-02-07", "invalid_exp_time")
    target = f"/v1/fundingInfo?client_pubkey={proposal.client_pubkey.hex()}&exp_time={proposal.exp_time}"
    refusal = None
    try:
        reply = yield from _ask(f"{target}&funding_value={value}" if value else target, proposal, policy, chances)
    except Refused as error:
        if error.code not in _REFUSALS_OF_THE_AMOUNT:
            raise
        refusal = error  # the terms tell whether something else is wrong, too: the network goes first
        reply = yield from _ask(target, proposal, policy, chances)
    agreement = agree(proposal, read_offer(reply), now)
    if refusal is not None:
        raise refusal
    return agreement


def _ask(target: str, proposal: Proposal, policy: RetryPolicy, chances: Chances) -> Steps[Reply]:
    """Return the answer with status 200. Raises Refused, Unreachable."""
    url = proposal.server_url
    try:
        reply, _ = yield from persist("GET", target, url, policy, chances)
    except OutcomeUnknown as error:
        raise Unreachable(error.detail) from None
    try:
        code, detail = ("", "") if reply.status == 200 else read_problem(reply)
        is_v1 = bool(read_object(reply).keys() & {"code", *_KEYS_OF_2016})
    except ServerMisbehaved:
        code, detail, is_v1 = "", "", False
    if not is_v1 or code == "no_such_route":
        raise Refused(f"{url} is no payment channel server: it answers {reply.status}", "no_channel_server")
    if reply.status != 200:
        raise Refused(detail, code)
    return reply


def read_offer(reply: Reply) -> Offer:
    """Return what FundingInfo says. Raises ServerMisbehaved if one of its values has no sensible form."""
    content = read_object(reply)

    def number(name: str, low: int, high: int) -> int:
        found = content.get(name)
        if type(found) is not int or not low <= found <= high:
            raise ServerMisbehaved(f"the server's {name} makes no sense")
        return found

    def satoshi(name: str) -> int:
        found = content.get(name)
        if not is_satoshi(found):
            raise ServerMisbehaved(f"the server's {name} is no amount")
        return found

    network = content.get("network")
    if network is not None and not (isinstance(network, str) and network.isascii() and network.isalnum() and len(network) <= 20):
        raise ServerMisbehaved("the server's network makes no sense")
    return Offer(
        server_pubkey=_server_key(content.get("server_pubkey")),
        funding_address_copy=content.get("funding_address_copy"),
        settlement_period_hours=number("settlement_period_hours", 0, HOURS_MAX),
        funding_tx_min_conf=number("funding_tx_min_conf", 0, CONFIRMATIONS_MAX),
        open_price=satoshi("open_price"),
        network=network,
        funding_value_max=satoshi("funding_value_max") if "funding_value_max" in content else None,
        confirmations_needed=number("confirmations_needed", 0, CONFIRMATIONS_MAX) if "confirmations_needed" in content else None,
        dust_limit=satoshi("dust_limit") if "dust_limit" in content else None,
        exp_time_min=number("exp_time_min", 0, LOCKTIME_MAX) if "exp_time_min" in content else None,
        exp_time_max=number("exp_time_max", 0, LOCKTIME_MAX) if "exp_time_max" in content else None,
    )


def _server_key(text: object) -> bytes:
    try:
        key = bytes.fromhex(text) if isinstance(text, str) and len(text) == 2 * PUBKEY_SIZE else b""
        PublicKey(key)
    except ValueError as error:
        raise ServerMisbehaved("the server's key is no public key") from error
    return key


def agree(proposal: Proposal, offer: Offer, now: int) -> Agreement:
    """Return the agreement, its address derived here. Raises Refused, WrongNetwork, ServerMisbehaved.

    now: unix seconds of our clock; by it the agreement says until when the channel must be opened.
    """
    if offer.server_pubkey == proposal.client_pubkey:
        raise ServerMisbehaved("the server claims our own key")
    _check_network(proposal, offer)
    try:
        decode_address(proposal.network, proposal.change_address)
    except Rejection as error:
        detail = f"change_address is no address of network {proposal.network.name}"
        raise Refused(detail, error.code) from error
    _check_value(proposal, offer)
    _check_expiry(proposal, offer)
    return Agreement(
        server_url=proposal.server_url,
        network=proposal.network,
        server_pubkey=offer.server_pubkey,
        client_pubkey=proposal.client_pubkey,
        exp_time=proposal.exp_time,
        change_address=proposal.change_address,
        settlement_period_hours=offer.settlement_period_hours,
        funding_tx_min_conf=offer.funding_tx_min_conf,
        open_price=offer.open_price,
        planned_value=proposal.funding_value,
        confirmations_needed=offer.confirmations_needed,
        open_before=None if offer.exp_time_min is None else min(now + proposal.exp_time - offer.exp_time_min, proposal.exp_time),
    )


def _check_network(proposal: Proposal, offer: Offer) -> None:
    """Tell a server of another network from one that lies. One that does not name its network is told by its address."""
    redeem = redeem_script(offer.server_pubkey, proposal.client_pubkey, proposal.exp_time)
    possible = [network.name for network in BY_NAME.values() if funding_address(network, redeem) == offer.funding_address_copy]
    named = possible if offer.network is None else [offer.network]
    if named and proposal.network.name not in named:
        raise WrongNetwork(f"the server is on {' or '.join(named)}, not on {proposal.network.name}", tuple(named))
    if proposal.network.name not in possible:
        raise ServerMisbehaved("the server's funding_address_copy is not the channel's address")


def _check_value(proposal: Proposal, offer: Offer) -> None:
    value, price = proposal.funding_value, offer.open_price
    if value is None:
        return
    if offer.funding_value_max is not None and value > offer.funding_value_max:
        detail = f"the server opens channels of at most {offer.funding_value_max} satoshi, not of {value}"
        raise Refused(detail, "funding_too_large")
    least = price + (DUST_LIMIT if offer.dust_limit is None else offer.dust_limit)
    if value < least:
        raise Refused(f"the channel needs at least {least} satoshi: the open price is {price}", "too_small")


def _check_expiry(proposal: Proposal, offer: Offer) -> None:
    """The channel must still be accepted when its funding has been confirmed: until then the server's bound moves on."""
    if offer.exp_time_max is not None and proposal.exp_time > offer.exp_time_max:
        raise Refused("the server opens no channel that expires so late", "exp_time_too_far")
    if offer.exp_time_min is None:
        return
    waiting = BLOCK_SECONDS * (offer.confirmations_needed or 0)
    if proposal.exp_time < offer.exp_time_min + waiting:
        why = f", and {offer.confirmations_needed} confirmations take {waiting // 60} minutes or so" if waiting else ""
        raise Refused(f"the server opens no channel that expires so soon{why}", "exp_time_too_soon")
