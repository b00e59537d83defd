"""What one address may cost a worker: whom a request or connection is counted for, and what is refused because of it.

Counting is compiled (`_fast/limits.pyx`); what an address is left whose requests fail is `_fast/channel.pyx`'s. No label, no line
of the log and no answer holds an address.
"""

from collections import Counter
from typing import Any

from .._fast.limits import AddressLimits
from .._fast.tally import Tally
from ..core.addresses import NOBODY, hops_of, number_of, read_address, vouched
from ..core.errors import Rejection
from ..metrics import families
from ..settings.limits import LimitsConfig
from .protocol.replies import problem


class Limits:
    """One worker's, for all its doors."""

    too_many_opens = problem(Rejection("too_many_opens"))
    too_many_connections = problem(Rejection("too_many_connections"))

    def __init__(self, config: LimitsConfig | None = None, tally: Tally | None = None) -> None:
        self._config, self._tally = config or LimitsConfig(), tally or Tally()
        self.table = AddressLimits(self._config.opens_per_minute, self._config.failures_per_minute)
        self.header = self._config.header.encode()
        self._connections: Counter[int] = Counter()

    # --- whom ---

    def peer(self, host: str) -> tuple[int, bool]:
        """Return whom a connection is counted for, and whether it is a trusted proxy's. host: empty if it has no address."""
        address = read_address(host)
        is_counted = not self._config.exempt.has(address)
        return number_of(address) if is_counted else NOBODY, self._config.trusted_proxies.has(address)

    def behind(self, host: str, value: bytes) -> int:
        """Return whom a request is counted for that came by a trusted proxy. value: of the header that it writes."""
        hops = hops_of(value.decode("latin-1"), self._config.header)
        address = vouched(read_address(host), hops, self._config.trusted_proxies)
        return NOBODY if self._config.exempt.has(address) else number_of(address)

    def of_scope(self, scope: Any) -> int:
        """Return whom a request is counted for that came by granian's port."""
        address, is_proxied = self.peer(scope.client)
        if not is_proxied:
            return address
        return self.behind(scope.client, ",".join(scope.headers.get_all(self._config.header)).encode("latin-1", "replace"))

    # --- what ---

    def takes_open(self, address: int) -> bool:
        """Count an open that is tried; return whether it may be."""
        if self.table.takes_open(address):
            return True
        self._tally.add(families.LIMITED.cell("opens"))
        return False

    def takes_connection(self, address: int) -> bool:
        """Return whether an address may have one more connection to this worker's own port; if so, it must be given back."""
        if self._config.connections and self._connections[address] >= self._config.connections:
            self._tally.add(families.LIMITED.cell("connections"))
            return False
        self._connections[address] += 1
        return True

    def gives_back(self, address: int) -> None:
        """One of an address' connections has ended."""
        self._connections[address] -= 1
        if not self._connections[address]:
            del self._connections[address]

    def blame(self, address: int, status: int) -> None:
        """Count a request that is no payment for its address if it was at fault."""
        if status in (400, 404):
            self.table.fail(address)
