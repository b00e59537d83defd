"""One channel on its way to the chain: its terms, state and newest settlement transaction, as they are on disk."""

from dataclasses import dataclass, field
from functools import cached_property

from ...core.channel import ChannelState, ChannelTerms
from ...core.fees import Stake
from ...core.settlement import LONGEST_DESTINATION, Paid, inflated_size_max, read_settlement, settlement_size_max


@dataclass
class Case:
    """transaction: the newest version, empty while none was signed."""

    terms: ChannelTerms
    state: ChannelState
    transaction: bytes
    _read: tuple[bytes, Paid | None] = field(default=(b"", None), repr=False)

    @property
    def newest(self) -> Paid | None:
        """What the newest settlement transaction pays, None if there is none."""
        if self._read[0] != self.transaction:
            self._read = self.transaction, read_settlement(self.transaction, self.terms)
        return self._read[1]

    @property
    def fee(self) -> int:
        """Of the newest settlement transaction, satoshi; 0 if there is none."""
        newest = self.newest
        return newest.fee if newest is not None else 0

    @property
    def received(self) -> int:
        """Satoshi that the newest payment gives us, before any fee."""
        return self.terms.funding_value - self.state.payment.change_value

    @cached_property
    def stake(self) -> Stake:
        """What is at stake, and how many bytes it takes."""
        terms, payment = self.terms, self.state.payment
        return Stake(
            self.received,
            settlement_size_max(terms, payment, LONGEST_DESTINATION),
            inflated_size_max(terms, payment, LONGEST_DESTINATION),
        )
