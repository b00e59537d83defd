"""A process for the kill test: pays 1 satoshi again and again on the channel in argv[1], until it is killed."""

import sys

from paychan.client import Channel

with Channel(sys.argv[1]) as channel:
    while True:
        channel.pay(1)
        print(channel.record.paid_value, flush=True)
