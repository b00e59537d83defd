"""Aim: payer, shop, server, store and signer killed at random while two buy out of one purse: what was got was served, what was
served was charged, what was charged was paid, and the payer's records say the same. Method: real processes and SIGKILL; the goods
are counted by the handler, the charges at the sellers' door, the payments in the purse. PAYCHAN_KILLS says how many."""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress

from paychan.pay.budget import NO_LIMITS
from paychan.pay.plain import Payer
from paychan.pay.purse import Purse
from tests import paying_shop
from tests.paying_shop import PRICE, selling
from tests.system import ROOT, wait_until

KILLS = int(os.environ.get("PAYCHAN_KILLS", "9"))
OPEN_PRICE = 83_240


def test_nothing_is_lost_and_nothing_is_paid_twice_whoever_is_killed(tmp_path):
    seed = random.randrange(2**32)
    print("seed", seed)
    chances = random.Random(seed)
    kills = Counter()
    with selling(tmp_path) as shop:
        log, purse_directory = tmp_path / "got", tmp_path / "purse"
        started = 0

        def start_buyer():
            nonlocal started
            started += 1
            words = (str(purse_directory), shop.url, str(started * 1_000_000), str(log))
            return subprocess.Popen([sys.executable, "-m", "tests.paying_loop", *words], cwd=ROOT)

        def got():
            return len(log.read_text().splitlines()) if log.exists() else 0

        buyers = [start_buyer(), start_buyer()]
        try:
            for _ in range(KILLS):
                before = got()
                wait_until(lambda before=before: got() > before + 2, 60, "buying")
                time.sleep(chances.uniform(0, 0.15))
                victim = chances.choice(("buyer", "buyer", "shop", "server", "store", "signer", "worker"))
                kills[victim] += 1
                if victim == "buyer":
                    dead = buyers.pop(chances.randrange(2))
                    dead.kill()
                    dead.wait()
                    buyers.append(start_buyer())
                elif victim == "shop":
                    paying_shop.stop(shop.process, signal.SIGKILL)
                    shop.process = paying_shop.start(shop.system, shop.port, shop.served)
                else:
                    with suppress(ProcessLookupError):
                        shop.system.kill(victim)
            before = got()
            wait_until(lambda: got() > before + 2, 60, "buying")
        finally:
            for buyer in buyers:
                buyer.kill()
                buyer.wait()
        last = Payer(purse_directory, NO_LIMITS)
        with last.request("GET", f"{shop.url}/joke/1") as response:
            assert response.status == 200
        agree(shop, Purse(purse_directory, NO_LIMITS), log.read_text().splitlines(), kills)


def agree(shop, purse, got, kills):
    served = shop.served.read_text().splitlines()
    channels = shop.channels()
    received, spent = (sum(channel[name] for channel in channels) for name in ("received", "spent"))
    signed = sum(standing.paid for standing in purse.standings())
    print(dict(kills), "got", len(got), "served", len(served), "received", received, "spent", spent)
    assert len(set(got)) == len(got)
    assert not Counter(got) - Counter(served), "what was got was served"
    assert len(channels) == len(purse.names()) == 1
    assert signed == received == sum(purse.ledger.signed_away(name) for name in purse.names())
    charged = (spent - OPEN_PRICE) // PRICE
    assert spent == OPEN_PRICE + charged * PRICE <= received
    distinct = len(set(served))
    assert distinct <= charged, "what was served was charged; a route that repeats serves a purchase again"
    assert charged - distinct <= kills.total(), "what was charged and not served was cut off by a kill"
    payments = sum(row.payments for row in purse.ledger.rows())
    assert (received - OPEN_PRICE) == payments * PRICE
    assert payments <= len(got) + 1 + kills.total() + sum(row.unanswered for row in purse.ledger.rows()) // PRICE
