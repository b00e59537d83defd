"""Aim: the TypeScript package pays as the Python payer does. Method: its own tests, run by Node.js: on our vectors, against a shop
that lies, and over real servers in debug mode."""

import pytest

from tests.clients_js.package import run_tests
from tests.clients_js.shop_process import shop_of
from tests.ports import free_port
from tests.selling import SOCKET, Seller, make_token, sell_changes
from tests.system import running, wait_until


def test_the_packages_own_tests():
    run_tests("*.test.js")


@pytest.fixture(scope="module")
def sellers_door(tmp_path_factory):
    """A system with a sellers' door on a port, and the example shop at its socket; yields what the package's tests read."""
    port, directory = free_port(), tmp_path_factory.mktemp("js")
    with (
        running(directory, workers=2, changes=sell_changes(SOCKET, f"port = {port}")) as system,
        shop_of(system, output=directory / "shop.log") as shop,
    ):
        token = make_token(system, "js")
        seller = Seller(system, token, port)

        def is_open():
            try:
                return seller.request("GET", "/x402/supported").status == 200
            except ConnectionError:
                return False

        wait_until(is_open, 20, "opening the sellers' door")
        yield {
            "PAYCHAN_URL": f"http://127.0.0.1:{system.port}",
            "PAYCHAN_SELL_URL": f"http://127.0.0.1:{port}",
            "PAYCHAN_SELL_TOKEN": token,
            "PAYCHAN_SHOP_URL": shop,
        }


def test_x402_on_both_sides(sellers_door):
    run_tests("live/x402.test.js", **sellers_door)


def test_the_payer_over_the_real_middleware_and_mppx(sellers_door):
    run_tests("live/payer.test.js", **sellers_door)


def test_a_payer_that_is_killed_goes_on(sellers_door):
    run_tests("live/kill.test.js", **sellers_door)


def test_the_next_channel_is_made_ahead(sellers_door):
    run_tests("live/ahead.test.js", **sellers_door)
