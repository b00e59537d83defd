"""A buyer for tests: one channel, and credentials of the Payment scheme made of its payments. The test has the HTTP client."""

import dataclasses
from dataclasses import dataclass

from paychan.core.outpoint import format_outpoint
from paychan.core.payment import Payment, decode_payment
from paychan.core.sender import Sender, sign_payment
from paychan.core.settlement import verify_payment
from paychan.mpp.challenge import Challenge, parse_challenges
from paychan.mpp.credential import Credential, close_channel, open_channel, voucher
from paychan.mpp.problems import Problem, parse_problem
from paychan.mpp.receipt import Receipt, parse_receipt
from paychan.mpp.snapshot import Snapshot, parse_snapshot

OPEN_PRICE = 83_240


def challenge_of(answer) -> Challenge:
    """Return the one challenge of a 402."""
    (found,) = parse_challenges([answer.headers["www-authenticate"]])
    return found


def problem_of(answer) -> Problem:
    assert answer.headers.get("content-type") == "application/problem+json", answer.headers
    return parse_problem(answer.content, answer.status_code)


def receipt_of(answer) -> Receipt:
    return parse_receipt(answer.headers["payment-receipt"])


def snapshot_of(answer) -> Snapshot:
    return parse_snapshot(answer.headers["payment-session-snapshot"])


@dataclass
class Buyer:
    """One channel's payer. `newest`: what it signed last."""

    sender: Sender
    challenge: Challenge | None = None
    newest: Payment | None = None

    @property
    def channel(self) -> str:
        return format_outpoint(self.sender.terms.outpoint)

    @property
    def cumulative(self) -> int:
        return self.sender.terms.funding_value - self.sender.change_value

    def sign(self, amount: int) -> Payment:
        self.newest = self.sender.pay(amount)
        return self.newest

    def sign_cumulative(self, cumulative: int) -> Payment:
        """Sign, and do not remember it."""
        terms = self.sender.terms
        return sign_payment(terms, terms.funding_value - cumulative, self.sender.key)

    def headers(self, credential: Credential) -> dict[str, str]:
        return {"Authorization": credential.render()}

    def open(self, amount: int, challenge: Challenge | None = None) -> dict[str, str]:
        """Return the headers of a request that opens the channel."""
        payment = self.sign(amount)
        return self.headers(open_channel(challenge or self.challenge, self.sender.terms, self.sender.change_address, payment))

    def pay(self, amount: int, challenge: Challenge | None = None) -> dict[str, str]:
        """Return the headers of a request that pays so much more."""
        self.sign(amount)
        return self.again(challenge)

    def again(self, challenge: Challenge | None = None) -> dict[str, str]:
        """Return those of one that shows the newest payment again."""
        return self.show(self.newest, challenge)

    def show(self, payment: Payment, challenge: Challenge | None = None) -> dict[str, str]:
        return self.headers(voucher(challenge or self.challenge, self.sender.terms.outpoint, payment))

    def close(self) -> dict[str, str]:
        return self.headers(close_channel(self.challenge, self.sender.terms.outpoint, self.newest))

    def adopt(self, snapshot: Snapshot) -> None:
        """Go on from a snapshot, if its payment is ours."""
        assert verify_payment(self.sender.terms, snapshot.payment)
        self.newest = snapshot.payment
        self.sender.change_value = snapshot.payment.change_value


def forged(payment: Payment) -> Payment:
    """Return a payment of one satoshi more under the signature of this one."""
    return dataclasses.replace(payment, change_value=payment.change_value - 1)


__all__ = ["OPEN_PRICE", "Buyer", "challenge_of", "decode_payment", "forged", "problem_of", "receipt_of", "snapshot_of"]
