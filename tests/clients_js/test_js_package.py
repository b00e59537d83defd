"""Aim: the TypeScript package pays as the Python payer does. Method: its own tests, run by Node.js: on our vectors, against a shop
that lies, and over real servers in debug mode."""

import pytest

from tests.clients_js.package import run_tests
from tests.selling import Seller, make_token, sell_changes
from tests.system import free_port, running, wait_until


def test_the_packages_own_tests():
    run_tests("*.test.js")


@pytest.fixture(scope="module")
def sellers_door(tmp_path_factory):
    """A system with a sellers' door on a port; yields the variables that the package's tests read."""
    port = free_port()
    with running(tmp_path_factory.mktemp("js"), workers=2, changes=sell_changes(f"port = {port}")) as system:
        token = make_token(system, "js")
        seller = Seller(system, token, port)

        def is_open():
            try:
                return seller.request("GET", "/x402/supported").status == 200
            except ConnectionError:
                return False

        wait_until(is_open, 20, "opening the sellers' door")
        yield {"PAYCHAN_SELL_URL": f"http://127.0.0.1:{port}", "PAYCHAN_SELL_TOKEN": token}


def test_x402_on_both_sides(sellers_door):
    run_tests("live/x402.test.js", **sellers_door)
