"""Aim: purse.toml means what it says, and what is wrong in it is named. Method: good and bad files."""

import pytest

from paychan.core.errors import ConfigError
from paychan.core.network import REGTEST
from paychan.pay.budget import Budget
from paychan.pay.node import NodeWallet
from paychan.pay.settings import PurseSettings, read_settings
from paychan.pay.wallets import ByHand

WHOLE = """
[budget]
request = 50
host = "none"
hour = 60
day = 70
opening = 80
deposit = 90
[channels]
network = "regtest"
deposit = 300000
days = 7
[wallet]
bitcoind = "http://me:secret@127.0.0.1:8332"
cookie = "/x/.cookie"
name = "payer"
"""


def test_without_a_file_there_are_defaults(tmp_path):
    assert read_settings(tmp_path) == PurseSettings()
    assert read_settings(tmp_path).wallet() is None


def test_a_whole_file(tmp_path):
    (tmp_path / "purse.toml").write_text(WHOLE)
    found = read_settings(tmp_path)
    assert found.budget == Budget(50, None, 60, 70, 80, 90)
    assert (found.network, found.deposit, found.days, found.wallet_name) == (REGTEST, 300_000, 7, "payer")
    assert isinstance(found.wallet(), NodeWallet)


def test_an_explorer_looks_for_what_is_paid_by_hand(tmp_path):
    (tmp_path / "purse.toml").write_text('[wallet]\nesplora = "https://explorer.example/api"\n')
    assert isinstance(read_settings(tmp_path).wallet(), ByHand)


@pytest.mark.parametrize(
    "bad",
    [
        "[budget]\nrequest = -1",
        "[budget]\nrequest = 1.5",
        '[budget]\nrequest = "much"',
        "[budget]\nrequest = true",
        "[budget]\nweek = 5",
        '[channels]\nnetwork = "moon"',
        "[channels]\ndays = 0",
        "[channels]\ndeposit = 0",
        '[wallet]\nbitcoind = "ftp://x"',
        '[wallet]\nesplora = "x"',
        "[wallets]\n",
        "nonsense",
        '[budget]\nrequest = "none"\nday = "some"',
    ],
)
def test_what_is_wrong_is_named_and_no_password_with_it(tmp_path, bad):
    (tmp_path / "purse.toml").write_text(bad)
    with pytest.raises(ConfigError, match=r"purse\.toml"):
        read_settings(tmp_path)
