"""fundingInfo and open (spec section 7): the rules for a new channel."""

from dataclasses import dataclass

from ...chain.base import FundingOutput, FundingRequest
from ...core.channel import ChannelTerms
from ...core.errors import Rejection
from ...core.network import caip2, decode_address
from ...core.payment import Payment, decode_payment
from ...core.script import funding_address, p2sh_script_pubkey, redeem_script
from ...core.settlement import verify_payment
from ...core.units import DUST_LIMIT, LOCKTIME_MAX, LOCKTIME_THRESHOLD, SECONDS_PER_HOUR
from ...mpp import CHANNEL_TYPE
from ...settings.models import ServerConfig
from ..protocol.parameters import Query, decode_exp_time, decode_funding_outpoint, decode_funding_value, decode_pubkey
from ..protocol.replies import Reply, json_reply
from .lookups import Lookups
from .prices import Prices

COINBASE_MATURITY = 100
"""Blocks after which a coinbase output may be spent (Bitcoin consensus)."""


@dataclass(frozen=True)
class OpenRequest:
    """A checked open request; the funding output is not known yet."""

    client_pubkey: bytes
    exp_time: int
    change_script: bytes
    payment: Payment
    outpoint: bytes | None


class Opening:
    """Judges requests for new channels. The caller gives the server's key and the time (unix seconds)."""

    def __init__(self, config: ServerConfig, lookups: Lookups, prices: Prices) -> None:
        self._config, self._lookups, self._prices = config, lookups, prices

    def limit(self, config: ServerConfig) -> None:
        """Judge by other limits from now on."""
        self._config = config

    def funding_info(self, query_text: str, server_pubkey: bytes, now: int) -> Reply:
        """Return the answer to GET /v1/fundingInfo. Raises Rejection.

        Beside v1's five keys it has what this server opens channels on, so that nobody locks money up that it will refuse.
        """
        query, config = Query(query_text), self._config
        client_pubkey, exp_time = self._keys(query, server_pubkey, now)
        funding_value = query.optional("funding_value", decode_funding_value)
        redeem = redeem_script(server_pubkey, client_pubkey, exp_time)
        soonest, latest = self._expiries(now)
        price = self._prices.ask()
        content = {
            "server_pubkey": server_pubkey.hex(),
            "funding_address_copy": funding_address(config.common.network, redeem),
            "settlement_period_hours": config.settlement_period_hours,
            "funding_tx_min_conf": config.funding_tx_min_conf,
            "open_price": price,
            "network": config.common.network.name,
            "funding_value_max": config.funding_value_max,
            "dust_limit": DUST_LIMIT,
            "exp_time_min": soonest,
            "exp_time_max": latest,
        }
        if funding_value is not None:
            self._check_funding_value(funding_value, price)
            content["confirmations_needed"] = config.confirmations_needed(funding_value)
        location = f"/v1/channels/new?client_pubkey={client_pubkey.hex()}&exp_time={exp_time}"
        return json_reply(200, content, location)

    def terms_of_all(self, server_pubkey: bytes) -> Reply:
        """Return what holds for every channel that would be opened now: what sellers tell their payers."""
        config = self._config
        content: dict[str, object] = {
            "server_pubkey": server_pubkey.hex(),
            "network": config.common.network.name,
            "chain": caip2(config.common.network),
            "channel_type": CHANNEL_TYPE,
            "debug": config.common.debug,
            "funding_tx_min_conf": config.funding_tx_min_conf,
            "funding_value_max": config.funding_value_max,
            "dust_limit": DUST_LIMIT,
            "open_price": self._prices.ask(),
            "settlement_period": config.settlement_period,
            "duration_min": config.duration_min,
            "duration_max": max(config.duration_max - config.settlement_period, config.duration_min),
            "api": f"{config.public_url.rstrip('/')}/v1" if config.public_url else None,
        }
        return json_reply(200, content)

    def parse(self, query_text: str, server_pubkey: bytes, now: int) -> OpenRequest:
        """Return the checked parameters of POST /v1/channels/new, in v1's order. Raises Rejection."""
        query = Query(query_text)
        client_pubkey, exp_time = self._keys(query, server_pubkey, now)
        network = self._config.common.network
        change_script = query.required("change_address", lambda text: decode_address(network, text))
        payment = query.required("payment", decode_payment)
        return OpenRequest(client_pubkey, exp_time, change_script, payment, decode_funding_outpoint(query))

    def _keys(self, query: Query, server_pubkey: bytes, now: int) -> tuple[bytes, int]:
        client_pubkey = query.required("client_pubkey", decode_pubkey)
        if client_pubkey == server_pubkey:
            raise Rejection("pubkey_is_servers", parameter="client_pubkey")
        return client_pubkey, self._check_exp_time(query.required("exp_time", decode_exp_time), now)

    def _expiries(self, now: int) -> tuple[int, int]:
        """Return the soonest and the latest expiry (unix seconds) of a channel that is opened now."""
        soonest = now + self._config.settlement_period + self._config.duration_min
        return max(soonest, LOCKTIME_THRESHOLD), min(now + self._config.duration_max, LOCKTIME_MAX)

    def _check_exp_time(self, exp_time: int, now: int) -> int:
        soonest, latest = self._expiries(now)
        if exp_time < soonest:
            hours = -(-(soonest - now) // SECONDS_PER_HOUR)
            raise Rejection("exp_time_too_soon", f"exp_time must be at least {hours} hours ahead", "exp_time")
        if exp_time > latest:
            hours = self._config.duration_max // SECONDS_PER_HOUR
            raise Rejection("exp_time_too_far", f"exp_time must be at most {hours} hours ahead", "exp_time")
        return exp_time

    async def find_funding(self, request: OpenRequest, server_pubkey: bytes) -> FundingOutput:
        """Look the funding output up. Of several at one address, take the one that the payment signs for.

        Raises Rejection("funding_not_found") or ("bad_signature"), Unavailable("chain_unavailable"). The payment's signature covers
        the outpoint and no value, so where that is named, nothing is looked up for who has not signed.
        """
        if request.outpoint is not None:
            named = FundingOutput(request.outpoint, 0, 0)
            if not verify_payment(self.terms(request, named, server_pubkey, 0), request.payment):
                raise Rejection("bad_signature", parameter="payment")
        script_pubkey = p2sh_script_pubkey(redeem_script(server_pubkey, request.client_pubkey, request.exp_time))
        found = await self._lookups.find(
            FundingRequest(request.client_pubkey, request.exp_time, script_pubkey, request.outpoint)
        )
        if not found:
            raise Rejection("funding_not_found")
        for output in found[1:]:
            if verify_payment(self.terms(request, output, server_pubkey, 0), request.payment):
                return output
        return found[0]

    def terms(self, request: OpenRequest, funding: FundingOutput, server_pubkey: bytes, now: int) -> ChannelTerms:
        """Return the terms of the channel that would be opened."""
        return ChannelTerms(
            outpoint=funding.outpoint,
            server_pubkey=server_pubkey,
            client_pubkey=request.client_pubkey,
            exp_time=request.exp_time,
            funding_value=funding.value,
            change_script=request.change_script,
            opened_at=now,
        )

    def _check_funding_value(self, value: int, price: int) -> None:
        """Refuse an amount that no channel can be opened with. value, price: satoshi. Raises Rejection."""
        if value > self._config.funding_value_max:
            raise Rejection("funding_too_large", self._too_large(), "funding_value")
        if value < price:
            detail = f"The open price is {price} satoshi, more than {value} satoshi can pay"
            raise Rejection("open_price_short", detail, "funding_value")

    def _too_large(self) -> str:
        return f"The funding output exceeds {self._config.funding_value_max} satoshi"

    def check(self, terms: ChannelTerms, payment: Payment, funding: FundingOutput) -> int:
        """Judge the funding output and the opening payment; return the payment's value in satoshi. Raises Rejection."""
        need = self._config.confirmations_needed(funding.value)
        if funding.confirmations < need:
            have = funding.confirmations
            detail = f"The funding output has {have} confirmations, needs {need}"
            raise Rejection("funding_unconfirmed", detail, figures={"confirmations": have, "required": need})
        if funding.is_coinbase and funding.confirmations < COINBASE_MATURITY:
            raise Rejection("funding_immature")
        if funding.value > self._config.funding_value_max:
            raise Rejection("funding_too_large", self._too_large())
        if payment.change_value > terms.funding_value:
            raise Rejection("change_value_range", parameter="payment")
        if not verify_payment(terms, payment):
            raise Rejection("bad_signature", parameter="payment")
        received = terms.funding_value - payment.change_value
        if received < self._prices.least:
            price = self._prices.ask()
            detail = f"Initial payment short: open price is {price} satoshi, received {received} satoshi"
            raise Rejection("open_price_short", detail, "payment")
        return received
