"""Aim: change and settlements go to segwit addresses as to the older ones. Method: real processes, and their settlement judged by
code that shares nothing with them; tests/consensus has such settlements before Bitcoin Core's."""

import time

import pytest

from paychan.client import Channel
from paychan.core.network import TEST, decode_address
from tests.client.payer_system import PATIENT
from tests.settled import settled_change
from tests.system import WEEK, running
from tests.unit.core.test_bech32 import P2TR, P2WPKH, VECTORS

P2WSH, DESTINATION = (VECTORS["valid"][row][0] for row in (1, 5))
ADDRESSES = {"P2WPKH": P2WPKH, "P2WSH": P2WSH, "P2TR": P2TR, "capitals": P2WPKH.upper()}


@pytest.fixture(scope="module")
def system(tmp_path_factory):
    changes = {"signer.toml": {"funds_destination_address = ": f'funds_destination_address = "{DESTINATION}"'}}
    with running(tmp_path_factory.mktemp("system"), changes=changes) as found:
        yield found


@pytest.mark.parametrize("kind", ADDRESSES)
def test_change_and_settlement_go_to_segwit_addresses(system, tmp_path, kind):
    address = ADDRESSES[kind]
    terms = (f"http://127.0.0.1:{system.port}", tmp_path / "key", TEST, int(time.time()) + WEEK, address, PATIENT)
    with Channel.create(tmp_path / "channel", *terms) as channel:
        channel.fund_debug()
        price = channel.open().paid_value
        assert channel.pay(1000).paid_value == price + 1000
        closed = channel.close_channel()
        raw = system.broadcast()[closed.settlement_txid]
        assert bytes(channel.record.terms.change_script) == decode_address(TEST, address)
        left = settled_change(raw, closed.settlement_txid, channel.record.terms, decode_address(TEST, DESTINATION))
        assert left == channel.record.change_value == channel.check_settlement(raw)
