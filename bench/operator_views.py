"""`python -m bench.operator_views [--channels N]`: what the operator's views of N channels take to answer, and what keeping the
books near the store costs the store. A real database, read as the store reads it; no process is started."""

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from paychan import printing
from paychan.operator import following
from paychan.operator.answers import Request
from paychan.operator.books import Books
from paychan.operator.following import REST_FACTOR, Following
from paychan.operator.views import channels, money, settlements
from paychan.rpc.store_messages import Unsettled
from tests.operator_store import FilledStore

NAME = "python -m bench.operator_views"
TURNS = 9
VIEWS = (
    ("channels", channels.listed, "limit=100"),
    ("channels by value", channels.listed, "order=value&phase=unsettled&limit=500"),
    ("channels, a search", channels.listed, "search=abcd&limit=100"),
    ("channels, nothing found", channels.listed, "search=abcdef0123456789&limit=100"),
    ("money", money.money, ""),
    ("settlements", settlements.listed, "limit=100"),
)


async def measure(count: int, directory: Path) -> None:
    store = FilledStore(directory / "db", int(time.time()))
    store.fill(count, count // 5)
    printing.show(f"{count} channels and {count // 5} settled ones; seconds are the processor's: a busy machine changes nothing")
    rest, following.FIRST_REST_FACTOR, following.REST_FACTOR = REST_FACTOR, 0, 0
    follows = Following(store, Books(), time.time)
    for name in ("first sweep", "next sweep"):
        store.questions, store.seconds, began = 0, 0.0, time.thread_time()
        await follows.sweep()
        whole = time.thread_time() - began
        printing.show(
            f"{name}: {store.questions} questions, {store.seconds * 1000:.0f} ms of the store's processor, "
            f"{store.seconds / store.questions * 1000:.2f} ms each; {whole:.1f} s with the books' own work. "
            f"In use it is spread over {store.seconds * (rest + 1):.0f} s"
        )
    follows.hear(Unsettled(1, 1))
    config = SimpleNamespace(settlement_confirmations=6, settlement_period=6 * 3600)
    context: Any = SimpleNamespace(following=follows, config=config)
    for name, view, query in VIEWS:
        taken = []
        for _ in range(TURNS):
            began = time.thread_time()
            answer = await view(context, Request("GET", "", query))
            taken.append(time.thread_time() - began)
        printing.show(f"{name}: {min(taken) * 1000:.1f} to {max(taken) * 1000:.1f} ms, {len(answer.body)} bytes")
    store.engine.close()


def main() -> int:
    """Parse the command line, measure; return the exit status."""
    parser = argparse.ArgumentParser(prog=NAME, description=__doc__.splitlines()[0])
    parser.add_argument("--channels", type=int, default=100_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="operator-views-") as directory:
        asyncio.run(measure(arguments.channels, Path(directory)))
    return 0


if __name__ == "__main__":
    sys.exit(printing.run(NAME, main))
