"""Aim: whatever is killed, what a buyer was charged is what its payments bought, once each, and it gets each of its answers.
Method: real processes; the gateway, the server and the store are killed while buyers repeat what was not answered."""

import random
import threading
import time
from contextlib import suppress

import pytest

from tests.buyer import OPEN_PRICE
from tests.gateways import running_gateway, running_upstream, told
from tests.process.test_gateway_sells import PRICE, config, get, new_buyer
from tests.selling import Seller, make_token, with_door
from tests.system import wait_until

BUYERS, PURCHASES, PURCHASES_MAX = 3, 25, 3000


@pytest.fixture(scope="module")
def upstream():
    with running_upstream() as process:
        yield process


def persist(gateway, target, headers, seconds=60):
    """Repeat a request with the same payment until it is answered otherwise than by 503."""
    deadline = time.monotonic() + 5 * seconds
    while True:
        with suppress(OSError):
            answer = get(gateway, target, headers)
            if answer.status not in (502, 503):
                return answer
        assert time.monotonic() < deadline, target
        time.sleep(0.1)


def test_kills_charge_nobody_for_nothing_and_serve_nobody_for_nothing(upstream, tmp_path):
    with with_door(tmp_path, workers=2) as system:
        seller = Seller(system, make_token(system, "looker"))
        directory = tmp_path / "gateway"
        directory.mkdir()
        with running_gateway(directory, config(system, upstream).replace("port = PORT", "port = PORT\nworkers = 2")) as gateway:
            buyers = [new_buyer(system, gateway, f"kills {number}") for number in range(BUYERS)]
            got, is_over, kills, counts = {}, threading.Event(), [], [0] * BUYERS

            def are_enough():
                return "gateway" in kills and len(kills) > 3

            def buy(number):
                buyer = buyers[number]
                opened = persist(gateway, f"/goods/{number}/0", buyer.open(OPEN_PRICE + PRICE))
                assert opened.status == 200, opened
                one = 1
                while one < PURCHASES or (one < PURCHASES_MAX and not are_enough()):
                    target = f"/goods/{number}/{one}"
                    got[target] = persist(gateway, target, buyer.pay(PRICE))
                    one += 1
                counts[number] = one

            def kill():
                choice = random.Random(11)
                while not is_over.wait(0.7):
                    kills.append(choice.choice(("gateway", "gateway", "worker", "store")))
                    if kills[-1] != "gateway":
                        with suppress(OSError, IndexError, AssertionError):
                            system.kill(kills[-1])
                    else:  # as who runs it would start it again
                        gateway.process.kill()
                        gateway.process.wait()
                        gateway.start()

            threads = [threading.Thread(target=buy, args=(number,)) for number in range(BUYERS)]
            killer = threading.Thread(target=kill)
            for thread in (*threads, killer):
                thread.start()
            for thread in threads:
                thread.join()
            is_over.set()
            killer.join()
            assert len(got) == sum(counts) - BUYERS and {answer.status for answer in got.values()} == {200}
            assert all(told(answer)["line"][1] == target for target, answer in got.items())
            assert are_enough()
            for buyer, count in zip(buyers, counts, strict=True):
                wait_until(lambda: seller.look(buyer.channel).get("spent"), 20, "looking")  # noqa: B023
                seen = seller.look(buyer.channel)
                assert (seen["spent"], seen["credit"]) == (OPEN_PRICE + count * PRICE, 0)
