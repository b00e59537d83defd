"""Challenges: made once for each price, and held against what comes back (docs/PAYMENT_SCHEME.md sections 2.1 and 2.3)."""

import dataclasses
import hashlib
import hmac
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from ..core.errors import Rejection
from ..core.units import MAX_MONEY
from ..mpp.challenge import Challenge, format_time, is_made_by, make_challenge
from ..mpp.request import MethodDetails, SessionRequest, parse_request
from .facts import Price

GOOD_SECONDS = 3 * 3600
"""A challenge is good for so long when it is made."""

RENEW_SECONDS = 1800
"""And is made anew after so long."""

CACHED_MAX = 4096
"""Prices whose challenge is remembered; those of a callable may be many."""


def make_request(terms: dict[str, Any], price: Price) -> SessionRequest:
    """Return what a challenge asks for. terms: what the sellers' door tells."""
    api = terms.get("api")
    return SessionRequest(
        amount=price.amount,
        recipient=bytes.fromhex(terms["server_pubkey"]),
        unit_type=price.unit,
        description=price.description or None,
        suggested_deposit=min(int(terms["open_price"]) + 1000 * price.cost, int(terms["funding_value_max"])),
        details=MethodDetails(
            chain=str(terms["chain"]),
            channel_type=str(terms["channel_type"]),
            funding_confirmations=int(terms["funding_tx_min_conf"]),
            settlement_period=int(terms["settlement_period"]),
            min_duration=int(terms["duration_min"]),
            max_duration=min(int(terms["duration_max"]), 2**32 - 1),
            dust_limit=int(terms["dust_limit"]),
            open_price=int(terms["open_price"]),
            max_funding=int(terms["funding_value_max"]),
            max_prepay=min(20 * price.cost, MAX_MONEY) if price.units > 1 else None,
            api=str(api) if api else None,
        ),
    )


def _but_for_open_price(request: SessionRequest) -> SessionRequest:
    """The open price follows the chain's fees: a challenge with another is as good. What it suggests to put in follows it."""
    return dataclasses.replace(request, suggested_deposit=None, details=dataclasses.replace(request.details, open_price=0))


@dataclasses.dataclass(frozen=True, slots=True)
class Offered:
    """A challenge that was made: when, in unix seconds, and the header's value."""

    challenge: Challenge
    header: str
    made_at: int


class Challenges:
    """Of one seller. secret: tells what its processes share, once terms were told. realm: what it calls itself."""

    def __init__(self, secret: Callable[[], bytes], realm: str) -> None:
        self._tell_secret, self.realm = secret, realm
        self._offered: OrderedDict[tuple[Any, ...], Offered] = OrderedDict()
        self._ours: OrderedDict[Challenge, SessionRequest] = OrderedDict()  # challenges whose id was found to be ours
        self._terms: dict[str, Any] = {}
        self._shop: tuple[bytes | None, bytes] = None, b""

    @property
    def _secret(self) -> bytes:
        return self._tell_secret()

    @property
    def shop(self) -> bytes:
        """What tells this shop from another at the same door: one payment buys in one of them."""
        secret, (made_of, shop) = self._tell_secret(), self._shop
        if secret is not made_of:
            shop = hmac.digest(secret, b"shop\n" + self.realm.encode(), hashlib.sha256)
            self._shop = secret, shop  # in one, for threads share it
        return shop

    def follow(self, terms: dict[str, Any]) -> None:
        """Take terms that may differ from those before."""
        if terms != self._terms:
            self._terms = terms
            self._offered.clear()

    def offer(self, price: Price, now: int) -> Offered:
        """Return the challenge for a price, rendered. now: unix seconds. Terms must have been told."""
        key = (price.amount, price.units, price.unit, price.description)
        found = self._offered.get(key)
        if found is None or not 0 <= now - found.made_at < RENEW_SECONDS:
            text = make_request(self._terms, price).encode()
            challenge = make_challenge(self._secret, self.realm, text, format_time(now + GOOD_SECONDS))
            found = self._offered[key] = Offered(challenge, challenge.render(), now)
            while len(self._offered) > CACHED_MAX:
                self._offered.popitem(last=False)
        return found

    def check(self, echoed: Challenge, price: Price | None, now: int) -> SessionRequest:
        """Return what an echoed challenge asks for, if it is ours, for this price, and has not expired. price: None: any.

        Raises Rejection: invalid_challenge, payment_expired.
        """
        request = self._ours.get(echoed)
        if request is None:
            if echoed.realm != self.realm or not is_made_by(self._secret, echoed.params()):
                raise Rejection("invalid_challenge")
            request = self._ours[echoed] = parse_request(echoed.request)
            while len(self._ours) > CACHED_MAX:
                self._ours.popitem(last=False)
        if price is not None:
            ours = self.offer(price, now).challenge.request
            if echoed.request != ours and _but_for_open_price(request) != _but_for_open_price(parse_request(ours)):
                raise Rejection("invalid_challenge", "The challenge is for another price")
        if (until := echoed.expires_at) is not None and until <= now:
            raise Rejection("payment_expired")
        return request
