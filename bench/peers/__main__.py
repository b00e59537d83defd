"""`python -m bench.peers`: CPU of what a payment adds to a call, here and with others, in turns, on this machine.

Behind FastAPI: our middleware and x402's; in Node.js: mppx's session server with its own method; and our gateway beside a plain
proxy. Each sells at a fixed price, one voucher a call, in one process; all requests are signed before, each answer is looked at.
Counted is the CPU of all processes on the seller's side: for us the whole channel server too, which has each payment on disk before
its call is answered. The same call without a price is taken from it. The unit is V, one raw signature verification in C, measured
in the same rounds. Only ratios of one run mean something. Nothing is installed but into SCRATCH.
"""

import argparse
import statistics
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from bench.load.measure import VerifyMeter
from bench.peers.chain import chain
from bench.peers.driving import cost
from bench.peers.install import Installed, install
from bench.peers.sellers import NGINX, Seller, mppx, nginx, our_gateway, our_middleware, plain_upstream, x402
from paychan.printing import say, show
from tests.system import running

OURS = "paychan, FastAPI"
WARM_CALLS = 30
CALLS, CALLS_MIN = 1600, 50
"""Of a round. It must not take five minutes on the slowest machine with the dearest seller: then mppx's challenge has ended."""



class Cost(NamedTuple):
    """CPU of a call in V, of one round. paid: None where nothing is sold."""

    paid: float | None
    free: float

    @property
    def added(self) -> float | None:
        """What the payment adds."""
        return None if self.paid is None else max(self.paid - self.free, 0.01)


Rounds = dict[str, list[Cost]]
"""By the names of the sellers; as many for each, in the order of the rounds."""


def measure(sellers: list[Seller], calls: int, rounds: int, connections: int) -> Rounds:
    """Measure all of them in turns: in each round another one begins. Before, each warms up, uncounted."""
    meter, found = VerifyMeter(), Rounds({seller.name: [] for seller in sellers})
    warm = min(calls, WARM_CALLS)
    for seller in sellers:
        _turn(seller, 0, warm, connections, 1.0)
    for number in range(rounds):
        for seller in sellers[number % len(sellers) :] + sellers[: number % len(sellers)]:
            verify = meter.seconds()
            row = _turn(seller, warm + number * calls, calls, connections, verify)
            told = "" if row.paid is None else f"paid {row.paid:.1f}, "
            say(f"round {number + 1}, {seller.name}: {told}unpaid {row.free:.1f} V; V is {verify * 1e6:.0f} microseconds")
            found[seller.name].append(row)
    return found


def _turn(seller: Seller, first: int, calls: int, connections: int, verify: float) -> Cost:
    """Return what so many calls of each connection cost. first: how many were paid on each before. verify: V, in seconds."""
    paid = None
    if seller.sign is not None:
        paid = cost(seller.url, seller.pids, seller.header, seller.sign(first, calls), "/paid") / verify
    return Cost(paid, cost(seller.url, seller.pids, "X-Free", [["x"] * calls] * connections, "/free") / verify)


def report(found: Rounds, durable: dict[str, str]) -> list[str]:
    """Return the lines of a table: medians of the rounds, and ratios, each formed within its round."""
    lines = [f"{'CPU of a call, in V':24} {'paid':>8} {'unpaid':>8} {'it adds':>8} {'over ours':>10}  on disk when answered"]
    ours = [row.added for row in found[OURS]]
    for name, rows in found.items():
        free, paid = statistics.median(row.free for row in rows), [row.paid for row in rows if row.paid is not None]
        if not paid:
            lines.append(f"{name:24} {'':8} {free:8.1f}")
            continue
        ratios = [row.added / own for row, own in zip(rows, ours, strict=True) if row.added is not None and own is not None]
        added = statistics.median(row.added for row in rows if row.added is not None)
        over = f"{statistics.median(ratios):8.1f} x"
        lines.append(f"{name:24} {statistics.median(paid):8.1f} {free:8.1f} {added:8.1f} {over}  {durable.get(name, '')}")
    return lines


def proxies(found: Rounds) -> str:
    """Return what the gateway's free route costs beside the plain proxy."""
    plain, free = found.get("nginx, a plain proxy"), found["paychan, gateway"]
    if plain is None:
        return f"a plain proxy: left out, there is no {NGINX}; the gateway's own free route, above, is one"
    ratio = statistics.median(ours.free / theirs.free for ours, theirs in zip(free, plain, strict=True))
    return f"the gateway's free route over nginx's, the upstream's part included: {ratio:.1f} x"


def run(arguments: argparse.Namespace, peers: Installed | None, directory: Path) -> list[str]:
    """Return the lines of a report. peers: None to measure only what is ours."""
    connections = arguments.connections
    with ExitStack() as stack:
        enter = stack.enter_context
        system = enter(running(directory / "system"))
        upstream = enter(plain_upstream())
        sellers = [enter(our_middleware(system, connections)), enter(our_gateway(system, connections, upstream, directory))]
        proxy = enter(nginx(upstream, directory))
        sellers += [proxy] if proxy is not None else []
        asked = None
        if peers is not None:
            sellers.append(enter(x402(peers.python, connections, arguments.storage)))
            if peers.mppx is not None:
                url, asked = enter(chain())
                sellers.append(enter(mppx(peers.mppx, connections, url)))
        found = measure(sellers, arguments.calls, arguments.rounds, connections)
        lines = [*report(found, {seller.name: seller.durable for seller in sellers}), proxies(found)]
        if asked is not None:
            told = ", ".join(f"{what} {count} times" for what, count in asked.items())
            lines.append(f"mppx's own method asks a chain, of which a stand-in on loopback answered here: {told}")
        elif peers is not None:
            lines.append("mppx: left out, there is no npm")
        return lines


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.peers", description=(__doc__ or "").splitlines()[0])
    scratch = Path(tempfile.gettempdir()) / "paychan-peers"
    parser.add_argument("--scratch", type=Path, default=scratch, help="where peers are installed")
    parser.add_argument("--calls", type=int, help=f"of each connection in a round; by default {CALLS_MIN} at least, {CALLS} of all")
    parser.add_argument("--connections", type=int, default=5, help="up to 32")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--storage", default="memory", help="x402's: memory, or a directory for its files")
    parser.add_argument("--only-ours", action="store_true", help="install nothing, and measure nobody else")
    arguments = parser.parse_args()
    arguments.calls = arguments.calls or max(CALLS // arguments.connections, CALLS_MIN)
    peers = None if arguments.only_ours else install(arguments.scratch)
    with tempfile.TemporaryDirectory(prefix="peers-") as directory:
        lines = run(arguments, peers, Path(directory))
    show("\n".join((f"{arguments.connections} connections, medians of {arguments.rounds} rounds", *lines)))


if __name__ == "__main__":
    main()
