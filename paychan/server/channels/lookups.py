"""Look-ups of funding outputs, in moderation: an open costs the chain source more than anything else a stranger can ask for.

A negative answer is remembered briefly; the rate is bounded for each address, for each payer's key, and in total: for named
outpoints apart from addresses, which cost the source more. Only requests whose other parameters have been judged come here, and
those that name an outpoint only with a payment that is signed for it.
"""

from collections import OrderedDict
from collections.abc import Callable

from ..._fast.tally import Tally
from ...chain.base import ChainBackend, FundingOutput, FundingRequest
from ...core.errors import Unavailable
from ...metrics import families

NEGATIVE_SECONDS = 2.0
"""How long "no such output" is believed: a payer that opens too early asks again every second or so."""

ADDRESS_LOOKUPS_MAX = 5
"""Look-ups of one address within ADDRESS_SECONDS; a payer that waits for confirmations needs fewer."""

ADDRESS_SECONDS = 2.0

KEY_LOOKUPS_MAX = 20
"""Look-ups for one payer's key within ADDRESS_SECONDS: with other expiries it has other addresses."""

REMEMBERED_MAX = 10_000
"""Addresses and keys whose last look-up is remembered; some 2 MB."""

BURST_SECONDS = 2
"""The bucket holds so many seconds' worth of look-ups."""


class Lookups:
    """Asks the chain backend for funding outputs. `clock`: monotonic seconds; `negative_seconds`: 0 for a source that costs
    nothing to ask."""

    def __init__(
        self,
        chain: ChainBackend,
        per_second: int,
        clock: Callable[[], float],
        negative_seconds: float = NEGATIVE_SECONDS,
        tally: Tally | None = None,
    ) -> None:
        self._tally = tally or Tally()
        self._chain, self._per_second, self._clock, self._negative_seconds = chain, per_second, clock, negative_seconds
        self._named, self._by_address = _Bucket(per_second, clock()), _Bucket(per_second, clock())
        self._looked_at: OrderedDict[bytes, tuple[float, int]] = OrderedDict()
        self._nothing_at: OrderedDict[tuple[bytes, bytes | None], float] = OrderedDict()

    async def find(self, request: FundingRequest) -> list[FundingOutput]:
        """Return the outputs that the backend finds, or none without asking it if it found none a moment ago.

        Raises Unavailable("overloaded") above the rate, Unavailable("chain_unavailable").
        """
        outcome = "failed"
        try:
            found = await self._find(request)
            outcome = "remembered" if found is None else "found" if found else "nothing"
        except Unavailable as error:
            outcome = "refused" if error.code == "overloaded" else "failed"
            raise
        finally:
            self._tally.add(families.LOOKUPS.cell(outcome))
        return found or []

    async def _find(self, request: FundingRequest) -> list[FundingOutput] | None:
        """Do so; None: it found none a moment ago."""
        key, now = (request.script_pubkey, request.outpoint), self._clock()
        if now - self._nothing_at.get(key, float("-inf")) < self._negative_seconds:
            return None
        self._count(request.client_pubkey, KEY_LOOKUPS_MAX, now)
        self._count(request.script_pubkey, ADDRESS_LOOKUPS_MAX, now)
        (self._by_address if request.outpoint is None else self._named).take(now)
        found = await self._chain.find_funding(request)
        if not found:
            self._nothing_at[key] = now
            self._nothing_at.move_to_end(key)
            if len(self._nothing_at) > REMEMBERED_MAX:
                self._nothing_at.popitem(last=False)
        return found

    def _count(self, who: bytes, most: int, now: float) -> None:
        """Count a look-up of an address, or for a key: they differ in length."""
        since, count = self._looked_at.get(who, (now, 0))
        if now - since >= ADDRESS_SECONDS:
            since, count = now, 0
        if count >= most and self._negative_seconds:
            raise Unavailable("overloaded", "This address or key is looked up too often; send the same request again")
        self._looked_at[who] = since, count + 1
        self._looked_at.move_to_end(who)
        if len(self._looked_at) > REMEMBERED_MAX:
            self._looked_at.popitem(last=False)


class _Bucket:
    """So many look-ups a second, and BURST_SECONDS' worth at once."""

    def __init__(self, per_second: int, now: float) -> None:
        self._per_second, self._tokens, self._refilled_at = per_second, float(per_second * BURST_SECONDS), now

    def take(self, now: float) -> None:
        """Raises Unavailable("overloaded") above the rate."""
        full = float(self._per_second * BURST_SECONDS)
        self._tokens = min(full, self._tokens + (now - self._refilled_at) * self._per_second)
        self._refilled_at = now
        if self._tokens < 1:
            raise Unavailable("overloaded", "Too many funding outputs are being looked up; send the same request again")
        self._tokens -= 1
