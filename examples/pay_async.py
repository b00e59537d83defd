"""Pay on several channels at once with asyncio: each has a state file and a key of its own. Against a server in debug mode, which
moves no money:

    ./runEverything.sh config/debug/
    .venv/bin/python examples/pay_async.py [URL [DIRECTORY]]
"""

import asyncio
import sys
import tempfile
import time
from pathlib import Path

from paychan.client import TEST, AsyncChannel, ClientError, RetryPolicy


async def live(url: str, directory: Path, name: str) -> int:
    """Open a channel, pay on it a few times, close it; return what was paid, in satoshi."""
    in_a_week = int(time.time()) + 7 * 86400
    files = directory / f"{name}.json", directory / f"{name}.key"
    policy = RetryPolicy(deadline=5)  # so many seconds an answer is waited for; half a minute if this is left out
    async with await AsyncChannel.create(files[0], url, files[1], TEST, in_a_week, policy=policy) as channel:
        await channel.fund_debug()
        await channel.open()
        await asyncio.gather(*(channel.pay(5) for _ in range(10)))  # they queue up: each waits for the answer to the one before
        return (await channel.close_channel()).paid_value


async def main() -> None:
    url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000"
    directory = Path(sys.argv[2] if len(sys.argv) > 2 else tempfile.mkdtemp(prefix="paychan-"))  # keep it: it is the money
    print("paid:", await asyncio.gather(*(live(url, directory, name) for name in ("news", "music", "maps"))))


try:
    asyncio.run(main())
except ClientError as error:  # no server, another network, too little money: all that can be expected to go wrong
    sys.exit(f"pay_async.py: {error}")
