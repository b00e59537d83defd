"""The payer's side of a channel, without I/O: signs payments, and says which requests to send. Keys stay with the caller."""

from dataclasses import dataclass, field

from coincurve import PrivateKey

from .._fast.sighash import payment_sighash
from .channel import ChannelTerms
from .outpoint import format_outpoint
from .payment import SIGHASH_CHANGE, SIGHASH_NO_CHANGE, Payment
from .units import DUST_LIMIT


def sign_payment(terms: ChannelTerms, change_value: int, key: PrivateKey) -> Payment:
    """Return the payment that leaves the payer `change_value` satoshi; below the dust limit it gives up everything."""
    sighash_type = SIGHASH_CHANGE if change_value >= DUST_LIMIT else SIGHASH_NO_CHANGE
    change_value = change_value if sighash_type == SIGHASH_CHANGE else 0
    digest = payment_sighash(terms.outpoint, terms.redeem_script, terms.change_script, change_value, sighash_type)
    return Payment(change_value, key.sign(digest, hasher=None), sighash_type)


@dataclass
class Sender:
    """One payer's view of one channel: `change_value` is what it would get back now, in satoshi."""

    terms: ChannelTerms
    key: PrivateKey
    change_address: str
    change_value: int = field(default=-1)

    def __post_init__(self) -> None:
        if self.change_value < 0:
            self.change_value = self.terms.funding_value

    def pay(self, amount: int) -> Payment:
        """Sign a payment of `amount` satoshi more, and remember it as the newest."""
        if type(amount) is not int or not 0 <= amount <= self.change_value:
            raise ValueError("the amount exceeds what is left in the channel")
        payment = sign_payment(self.terms, self.change_value - amount, self.key)
        self.change_value = payment.change_value
        return payment

    def open_target(self, payment: Payment) -> str:
        """Return path and query of the request that opens the channel with `payment`."""
        return (
            f"/v1/channels/new?client_pubkey={self.terms.client_pubkey.hex()}&exp_time={self.terms.exp_time}"
            f"&change_address={self.change_address}&payment={payment.encode()}"
        )

    def channel_target(self, payment: Payment) -> str:
        """Return path and query of the request that pays (PUT) or closes (DELETE) with `payment`."""
        return f"/v1/channels/{format_outpoint(self.terms.outpoint)}?payment={payment.encode()}"
