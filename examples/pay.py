"""Open a channel, pay on it a few times, close it. Against a server in debug mode, which moves no money:

    ./runEverything.sh config/debug/
    .venv/bin/python examples/pay.py [URL [DIRECTORY]]

With real coins the network differs, and instead of `fund_debug` you pay to the channel's address, wait for the confirmations, and
name the transaction: see `paychan.client`.
"""

import sys
import tempfile
import time
from pathlib import Path

from paychan.client import TEST, Channel, ClientError, RetryPolicy

url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000"
directory = Path(sys.argv[2] if len(sys.argv) > 2 else tempfile.mkdtemp(prefix="paychan-"))  # keep it: key and state are the money
in_a_week = int(time.time()) + 7 * 86400
policy = RetryPolicy(deadline=5)  # so many seconds an answer is waited for; half a minute if this is left out

try:
    with Channel.create(directory / "shop.json", url, directory / "shop.key", TEST, in_a_week, policy=policy) as channel:
        channel.fund_debug()
        print("opened:", channel.open())
        for _ in range(3):
            print("paid:  ", channel.pay(5))  # satoshi; when this returns, the server has it on its disk

    with Channel(directory / "shop.json") as channel:  # later, maybe after a crash: the state file knows everything
        print("closed:", channel.close_channel())
except ClientError as error:  # no server, another network, too little money: all that can be expected to go wrong
    sys.exit(f"pay.py: {error}")
