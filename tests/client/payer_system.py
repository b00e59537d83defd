"""Helpers of these tests: channels of the client library in a directory, against a real system or a scripted server."""

import time
from pathlib import Path

from paychan.chain.debug import DEBUG_FUNDING_VALUE, debug_outpoint
from paychan.client import Channel, Funding, RetryPolicy, create_key
from paychan.core.network import TEST
from tests.system import CHANGE_ADDRESS, WEEK

QUICK = RetryPolicy(timeout=0.3, deadline=0.6, wait_first=0.01, wait_max=0.05)
"""For tests in which the client shall give up. Others are patient, so that a busy machine does not fail them."""

PATIENT = RetryPolicy(wait_first=0.01)


def debug_funding(channel) -> Funding:
    agreed = channel.record.agreement
    return Funding(debug_outpoint(agreed.client_pubkey, agreed.exp_time), DEBUG_FUNDING_VALUE)


def new_channel(directory: Path, port: int, name: str = "c", policy: RetryPolicy = PATIENT, is_open: bool = True) -> Channel:
    """Return a channel funded as debug mode does, opened unless told otherwise; `policy` is for what follows."""
    key, path = directory / f"{name}.key", directory / f"{name}.json"
    create_key(key)
    exp_time = int(time.time()) + WEEK
    with Channel.create(path, f"http://127.0.0.1:{port}", key, TEST, exp_time, CHANGE_ADDRESS, PATIENT) as channel:
        channel.set_funding(debug_funding(channel))
        if is_open:
            channel.open()
    return Channel(path, policy)
