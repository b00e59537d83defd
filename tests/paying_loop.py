"""A buyer that buys for ever, to be killed: `python -m tests.paying_loop PURSE URL FIRST LOG`. LOG has what it got, a line each."""

import os
import sys
import time

from paychan.client import ClientError
from paychan.pay.budget import NO_LIMITS
from paychan.pay.plain import Payer


def main(directory: str, url: str, first: str, log: str) -> None:
    payer = Payer(directory, NO_LIMITS, deadline=20)
    payer.timeout = 10
    got = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    number = int(first)
    while True:
        try:
            with payer.request("GET", f"{url}/joke/{number}") as response:
                if response.status == 200 and response.read() == b'{"joke":%d}' % number:
                    os.write(got, b"joke %d\n" % number)
        except ClientError:  # it asks for the next: a payment whose outcome is unknown buys that
            time.sleep(0.05)
        number += 1


if __name__ == "__main__":
    main(*sys.argv[1:])
