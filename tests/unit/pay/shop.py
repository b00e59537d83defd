"""A shop for tests of payers: the rules of docs/PAYMENT_SCHEME.md on one page, in memory, and as dishonest as a test wants it.

The real middleware is honest and cannot be told to lie, so it is in tests/process; here is what no real part will do.
"""

from coincurve import PrivateKey

from paychan.chain.debug import DEBUG_FUNDING_VALUE, debug_outpoint
from paychan.core.channel import ChannelTerms
from paychan.core.errors import Rejection
from paychan.core.network import TEST, decode_address
from paychan.core.payment import parse_payment
from paychan.core.settlement import verify_payment
from paychan.mpp.challenge import format_time, make_challenge
from paychan.mpp.credential import parse_credential
from paychan.mpp.problems import document, kind_of, render
from paychan.mpp.receipt import Receipt
from paychan.mpp.request import MethodDetails, SessionRequest
from paychan.mpp.snapshot import Snapshot
from paychan.pay.steps import Answer, Try, drive
from paychan.pay.terms import chain_id

NOW = 1_900_000_000
OPEN_PRICE = 5_000
PRICE = 300


class Channel:
    def __init__(self, terms):
        self.terms, self.newest, self.spent = terms, None, 0
        self.bought = set()

    @property
    def accepted(self):
        return self.terms.funding_value - self.newest.change_value


class Shop:
    """answer(step) is one request. `prices`: by path. `trouble`: called with (shop, step) before a request is judged; what it
    returns is answered instead, if it is anything; "lost" judges the request and loses the answer."""

    def __init__(self, origin="http://127.0.0.1:9", key=None, **details):
        self.origin, self.key = origin, key or PrivateKey()
        self.recipient = self.key.public_key.format()
        self.details = {
            "chain": chain_id(TEST), "funding_confirmations": 0, "settlement_period": 3600, "min_duration": 3600,
            "max_duration": 10**8, "open_price": OPEN_PRICE, **details,
        }  # fmt: skip
        self.prices, self.channels, self.trouble = {}, {}, None
        self.served, self.requests, self.seen = 0, 0, []
        self.funding_value = DEBUG_FUNDING_VALUE
        self.status, self.prepay_max = 200, 10**12

    def challenge(self, path):
        request = SessionRequest(self.prices.get(path, PRICE), self.recipient, MethodDetails(**self.details))
        return make_challenge(b"secret", "shop", request.encode(), format_time(NOW + 10_000))

    def refuse(self, path, code, facts=None, headers=()):
        kind = kind_of(code)
        fields = [("content-type", "application/problem+json"), *headers]
        if kind.has_challenge:
            fields.append(("www-authenticate", self.challenge(path).render()))
        return Answer(kind.status, tuple(fields), render(document(Rejection(code), facts)))

    def answer(self, path, step):
        self.requests += 1
        instead = self.trouble(self, step) if self.trouble else None
        if instead is not None and instead != "lost":
            return instead
        answer = self.judge(path, step)
        return None if instead == "lost" else answer

    def judge(self, path, step):
        value = step.headers.get("Authorization", "")
        if not value.startswith("Payment "):
            return self.refuse(path, "payment_required")
        credential = parse_credential(value.removeprefix("Payment "))
        if credential.challenge != self.challenge(path):
            return self.refuse(path, "invalid_challenge")
        payment = parse_payment(credential.payment)
        self.seen.append((credential.outpoint, payment))
        channel = self.channels.get(credential.outpoint)
        if channel is None:
            if credential.action != "open":
                return self.refuse(path, "no_such_channel")
            opening = credential.opening
            assert credential.outpoint == debug_outpoint(opening.client_pubkey, opening.exp_time)
            script = decode_address(TEST, opening.change_address)
            channel = Channel(
                ChannelTerms(
                    credential.outpoint, self.recipient, opening.client_pubkey, opening.exp_time, self.funding_value, script
                )
            )
            if self.funding_value - payment.change_value < self.details["open_price"]:
                return self.refuse(path, "open_price_short")
            channel.spent = self.details["open_price"]
        if not verify_payment(channel.terms, payment):
            return self.refuse(path, "bad_signature")
        self.channels[credential.outpoint] = channel
        facts = {"channelId": credential.channel_id}
        if channel.newest is not None and payment.change_value > channel.newest.change_value:
            return self.refuse(path, "out_of_order", facts, [("payment-session-snapshot", self.snapshot(channel).encode())])
        cost = 0 if step.method == "HEAD" else self.prices.get(path, PRICE)
        cumulative = self.funding_value - payment.change_value
        if channel.newest is not None and cumulative > max(channel.accepted, channel.spent + cost + self.prepay_max):
            told = {"acceptedCumulative": channel.accepted, "spent": channel.spent, "requiredCumulative": channel.spent + cost}
            return self.refuse(path, "prepay_too_large", {**facts, **told})
        bought = payment, path, credential.purchase
        is_repeated = channel.newest == payment and bought in channel.bought
        channel.newest = payment
        if not is_repeated and channel.accepted - channel.spent < cost:
            told = {"acceptedCumulative": channel.accepted, "spent": channel.spent, "requiredCumulative": channel.spent + cost}
            return self.refuse(path, "insufficient_credit", {**facts, **told})
        if not is_repeated:
            channel.spent += cost
            channel.bought.add(bought)
            self.served += 1
        receipt = Receipt(credential.outpoint, "", NOW, channel.accepted, channel.spent, self.funding_value, 1)
        return Answer(self.status, (("payment-receipt", receipt.encode()),) if self.status < 300 else ())

    def snapshot(self, channel):
        terms = channel.terms
        figures = (self.funding_value, channel.accepted, channel.spent, channel.accepted)
        return Snapshot(terms.outpoint, chain_id(TEST), terms.client_pubkey, terms.exp_time, "x", *figures, channel.newest)

    def signed_most(self):
        """Satoshi of the highest payment that was ever presented, over all channels."""
        most = {}
        for outpoint, payment in self.seen:
            most[outpoint] = max(most.get(outpoint, 0), self.funding_value - payment.change_value)
        return sum(most.values())


def buy(payer, shop, path="/a", method="GET", **options):
    """Buy a request; return the last answer."""
    from paychan.pay.payer import Asked

    return drive(payer.purchase(Asked(method, shop.origin + path, **options)), lambda step: shop.answer(path, step))


__all__ = ["NOW", "OPEN_PRICE", "PRICE", "Shop", "Try", "buy"]
